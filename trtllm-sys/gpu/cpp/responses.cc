#include "responses.h"

#include <chrono>
#include <stdexcept>

namespace shim {

namespace tle = tensorrt_llm::executor;

namespace {

std::int32_t to_dtype(tle::DataType type) {
    switch (type) {
    case tle::DataType::kFP32: return TRTLLM_GPU_LOGITS_F32;
    case tle::DataType::kFP16: return TRTLLM_GPU_LOGITS_F16;
    case tle::DataType::kBF16: return TRTLLM_GPU_LOGITS_BF16;
    default: throw std::runtime_error("the logits are neither fp32 nor fp16 nor bf16");
    }
}

// Logits where they are, which is in host memory; only what is not there is copied.
trtllm_gpu_logits to_logits(trtllm_gpu_responses& batch, tle::Tensor const& tensor, std::size_t columns) {
    trtllm_gpu_logits logits{};
    logits.dtype = to_dtype(tensor.getDataType());
    auto const memory = tensor.getMemoryType();
    bool const isElsewhere = memory == tle::MemoryType::kGPU || memory == tle::MemoryType::kUNKNOWN;
    auto const& held = batch.logits.emplace_back(isElsewhere ? tensor.copyToCpu() : tensor);
    logits.data = held.getData();
    logits.rows = columns == 0 ? 0 : held.getSize() / columns;
    logits.columns = columns;
    return logits;
}

// 0 where one of the times was not taken.
template <typename Time>
std::uint64_t since(Time const& start, Time const& time) {
    if (time <= start) {
        return 0;
    }
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time - start).count());
}

trtllm_gpu_perf_metrics to_metrics(tle::RequestPerfMetrics const& metrics) {
    trtllm_gpu_perf_metrics flat{};
    auto const& times = metrics.timingMetrics;
    flat.first_scheduled_ns = since(times.arrivalTime, times.firstScheduledTime);
    flat.first_token_ns = since(times.arrivalTime, times.firstTokenTime);
    flat.last_token_ns = since(times.arrivalTime, times.lastTokenTime);
    flat.first_iter = metrics.firstIter.value_or(0);
    flat.last_iter = metrics.lastIter.value_or(0);
    flat.num_total_allocated_blocks = metrics.kvCacheMetrics.numTotalAllocatedBlocks;
    flat.num_new_allocated_blocks = metrics.kvCacheMetrics.numNewAllocatedBlocks;
    flat.num_reused_blocks = metrics.kvCacheMetrics.numReusedBlocks;
    flat.num_missed_blocks = metrics.kvCacheMetrics.numMissedBlocks;
    flat.num_draft_tokens = metrics.speculativeDecoding.totalDraftTokens;
    flat.num_accepted_draft_tokens = metrics.speculativeDecoding.totalAcceptedDraftTokens;
    return flat;
}

void add_result(trtllm_gpu_responses& batch, trtllm_gpu_response& response, tle::Result const& result) {
    response.sequence_index = result.sequenceIndex;
    response.is_sequence_final = result.isSequenceFinal;
    response.is_final = result.isFinal;
    auto& outputs = batch.outputs.emplace_back();
    for (std::size_t beam = 0; beam < result.outputTokenIds.size(); beam++) {
        auto const& tokens = batch.tokens.emplace_back(result.outputTokenIds[beam]);
        trtllm_gpu_output output{};
        output.token_ids = {tokens.data(), tokens.size()};
        if (result.logProbs && beam < result.logProbs->size()) {
            auto const& log_probs = batch.log_probs.emplace_back((*result.logProbs)[beam]);
            output.log_probs = log_probs.data();
            output.num_log_probs = log_probs.size();
        }
        output.has_cum_log_prob = result.cumLogProbs && beam < result.cumLogProbs->size();
        if (output.has_cum_log_prob) {
            output.cum_log_prob = (*result.cumLogProbs)[beam];
        }
        if (beam < result.finishReasons.size()) {
            output.finish_reason = static_cast<std::int32_t>(result.finishReasons[beam]);
        }
        outputs.push_back(output);
    }
    // `[1, tokens, vocabulary]`, or where the request streams `[tokens, 1, vocabulary]`: of one beam, rows of the vocabulary.
    if (result.generationLogits && outputs.size() == 1) {
        auto const columns = static_cast<std::size_t>(result.generationLogits->getShape()[2]);
        outputs[0].generation_logits = to_logits(batch, *result.generationLogits, columns);
    }
    response.outputs = outputs.data();
    response.num_outputs = outputs.size();
    if (result.contextLogits) {
        auto const columns = static_cast<std::size_t>(result.contextLogits->getShape()[1]);
        response.context_logits = to_logits(batch, *result.contextLogits, columns);
    }
    if (result.requestPerfMetrics) {
        response.perf_metrics = &batch.perf_metrics.emplace_back(to_metrics(*result.requestPerfMetrics));
    }
}

}  // namespace

void add_response(trtllm_gpu_responses& batch, tle::Response const& response) noexcept {
    trtllm_gpu_response added{};
    try {
        added.request_id = response.getRequestId();
        if (response.hasError()) {
            added.is_final = true;
            added.error = batch.errors.emplace_back(response.getErrorMsg()).c_str();
        } else {
            added.is_final = response.getResult().isFinal;
            add_result(batch, added, response.getResult());
        }
    } catch (std::exception const& exception) {
        added.error = "a response could not be taken over, and neither could the reason";
        try {
            added.error = batch.errors.emplace_back(exception.what()).c_str();
        } catch (std::exception const&) {
            // There is no memory for it.
        }
    } catch (...) {
        added.error = "a response could not be taken over: something was thrown that is no exception";
    }
    batch.responses.push_back(added);
}

}  // namespace shim
