#include "responses.h"

#include <chrono>
#include <cstring>
#include <stdexcept>

namespace shim {

namespace tle = tensorrt_llm::executor;

namespace {

// Logits as fp32, whatever the engine has.
std::vector<float> to_floats(tle::Tensor const& tensor) {
    auto const host = tensor.copyToCpu();
    std::size_t const size = host.getSize();
    std::vector<float> floats(size);
    if (host.getDataType() == tle::DataType::kFP32) {
        std::memcpy(floats.data(), host.getData(), size * sizeof(float));
        return floats;
    }
    if (host.getDataType() == tle::DataType::kBF16) {
        auto const* const halves = static_cast<std::uint16_t const*>(host.getData());
        for (std::size_t i = 0; i < size; i++) {
            std::uint32_t const bits = std::uint32_t{halves[i]} << 16;
            std::memcpy(&floats[i], &bits, sizeof bits);
        }
        return floats;
    }
    throw std::runtime_error("the logits are neither fp32 nor bf16");
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
        auto const shape = result.generationLogits->getShape();
        auto const columns = static_cast<std::size_t>(shape[2]);
        auto const& logits = batch.logits.emplace_back(to_floats(*result.generationLogits));
        outputs[0].generation_logits = logits.data();
        outputs[0].generation_logits_rows = columns == 0 ? 0 : logits.size() / columns;
        outputs[0].generation_logits_columns = columns;
    }
    response.outputs = outputs.data();
    response.num_outputs = outputs.size();
    if (result.contextLogits) {
        auto const& logits = batch.logits.emplace_back(to_floats(*result.contextLogits));
        auto const shape = result.contextLogits->getShape();
        response.context_logits = logits.data();
        response.context_logits_rows = static_cast<std::size_t>(shape[0]);
        response.context_logits_columns = static_cast<std::size_t>(shape[1]);
    }
    if (result.requestPerfMetrics) {
        response.perf_metrics = &batch.perf_metrics.emplace_back(to_metrics(*result.requestPerfMetrics));
    }
}

}  // namespace

void add_response(trtllm_gpu_responses& batch, tle::Response const& response) {
    trtllm_gpu_response added{};
    added.request_id = response.getRequestId();
    if (response.hasError()) {
        added.error = batch.errors.emplace_back(response.getErrorMsg()).c_str();
    } else {
        add_result(batch, added, response.getResult());
    }
    batch.responses.push_back(added);
}

}  // namespace shim
