// The table: TensorRT-LLM's executor, with every exception caught and everything copied out.
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "request.h"
#include "trtllm_gpu.h"

// Declared here: the plugin library's own header needs TensorRT's.
extern "C" bool initTrtLlmPlugins(void* logger, char const* libNamespace);

namespace tle = tensorrt_llm::executor;

struct trtllm_gpu_executor {
    std::unique_ptr<tle::Executor> executor;
    std::mutex enqueuing;
    std::mutex taking_stats;
    std::deque<tle::IterationStats> stats;
};

// Responses, and what they point to. Deques do not move what they hold.
struct trtllm_gpu_responses {
    std::vector<trtllm_gpu_response> responses;
    std::deque<std::vector<trtllm_gpu_output>> outputs;
    std::deque<tle::VecTokens> tokens;
    std::deque<tle::VecLogProbs> log_probs;
    std::deque<std::vector<float>> logits;
    std::deque<std::string> errors;
};

namespace {

void say(trtllm_gpu_error* error, char const* message) {
    if (error != nullptr) {
        std::snprintf(error->message, sizeof error->message, "%s", message);
    }
}

// Runs `body`; what it throws becomes a number and a message.
template <typename Body>
std::int32_t guarded(trtllm_gpu_error* error, Body body) noexcept {
    try {
        body();
        return TRTLLM_GPU_OK;
    } catch (shim::Unsupported const& unsupported) {
        say(error, unsupported.what());
        return TRTLLM_GPU_UNSUPPORTED;
    } catch (std::exception const& exception) {
        say(error, exception.what());
        return TRTLLM_GPU_EXCEPTION;
    } catch (...) {
        say(error, "TensorRT-LLM threw something that is no exception");
        return TRTLLM_GPU_UNKNOWN_EXCEPTION;
    }
}

char const* version() { return tle::version(); }

std::int32_t open(char const* engine_dir, trtllm_gpu_config const* config, trtllm_gpu_executor** executor,
                  trtllm_gpu_error* error) {
    return guarded(error, [&] {
        static bool const plugins = initTrtLlmPlugins(nullptr, "tensorrt_llm");
        if (!plugins) {
            throw std::runtime_error("TensorRT-LLM's plugins cannot be registered");
        }
        auto opened = std::make_unique<trtllm_gpu_executor>();
        opened->executor =
            std::make_unique<tle::Executor>(engine_dir, tle::ModelType::kDECODER_ONLY, shim::to_config(*config));
        *executor = opened.release();
    });
}

std::int32_t close(trtllm_gpu_executor* executor, trtllm_gpu_error* error) {
    std::unique_ptr<trtllm_gpu_executor> const owner(executor);
    return guarded(error, [&] { owner->executor->shutdown(); });
}

std::int32_t enqueue(trtllm_gpu_executor* executor, trtllm_gpu_request const* request, std::uint64_t* id,
                     trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto const converted = shim::to_request(*request);
        std::lock_guard<std::mutex> const lock(executor->enqueuing);
        *id = executor->executor->enqueueRequest(converted);
    });
}

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
    response.outputs = outputs.data();
    response.num_outputs = outputs.size();
    if (result.contextLogits) {
        auto const& logits = batch.logits.emplace_back(to_floats(*result.contextLogits));
        auto const shape = result.contextLogits->getShape();
        response.context_logits = logits.data();
        response.context_logits_rows = static_cast<std::size_t>(shape[0]);
        response.context_logits_columns = static_cast<std::size_t>(shape[1]);
    }
}

std::int32_t await(trtllm_gpu_executor* executor, std::uint64_t timeout_ms, trtllm_gpu_responses** responses,
                   trtllm_gpu_error* error) {
    return guarded(error, [&] {
        *responses = nullptr;
        auto const taken = executor->executor->awaitResponses(std::chrono::milliseconds(timeout_ms));
        if (taken.empty()) {
            return;
        }
        auto batch = std::make_unique<trtllm_gpu_responses>();
        batch->responses.reserve(taken.size());
        for (tle::Response const& one : taken) {
            trtllm_gpu_response response{};
            response.request_id = one.getRequestId();
            if (one.hasError()) {
                response.error = batch->errors.emplace_back(one.getErrorMsg()).c_str();
            } else {
                add_result(*batch, response, one.getResult());
            }
            batch->responses.push_back(response);
        }
        *responses = batch.release();
    });
}

trtllm_gpu_response const* responses_data(trtllm_gpu_responses const* responses, std::size_t* count) {
    *count = responses->responses.size();
    return responses->responses.data();
}

void free_responses(trtllm_gpu_responses* responses) { delete responses; }

std::int32_t cancel(trtllm_gpu_executor* executor, std::uint64_t id, trtllm_gpu_error* error) {
    return guarded(error, [&] { executor->executor->cancelRequest(id); });
}

trtllm_gpu_iteration_stats to_stats(tle::IterationStats const& stats) {
    trtllm_gpu_iteration_stats flat{};
    flat.iter = stats.iter;
    flat.iter_latency_ms = stats.iterLatencyMS;
    flat.new_active_requests_queue_latency_ms = stats.newActiveRequestsQueueLatencyMS;
    flat.num_new_active_requests = stats.numNewActiveRequests;
    flat.num_active_requests = stats.numActiveRequests;
    flat.num_queued_requests = stats.numQueuedRequests;
    flat.num_completed_requests = stats.numCompletedRequests;
    if (auto const& batch = stats.inflightBatchingStats) {
        flat.num_scheduled_requests = batch->numScheduledRequests;
        flat.num_context_requests = batch->numContextRequests;
        flat.num_gen_requests = batch->numGenRequests;
        flat.num_paused_requests = batch->numPausedRequests;
        flat.num_ctx_tokens = batch->numCtxTokens;
    }
    if (auto const& cache = stats.kvCacheStats) {
        flat.kv_max_num_blocks = cache->maxNumBlocks;
        flat.kv_free_num_blocks = cache->freeNumBlocks;
        flat.kv_used_num_blocks = cache->usedNumBlocks;
        flat.kv_tokens_per_block = cache->tokensPerBlock;
        flat.kv_alloc_total_blocks = cache->allocTotalBlocks;
        flat.kv_alloc_new_blocks = cache->allocNewBlocks;
        flat.kv_reused_blocks = cache->reusedBlocks;
        flat.kv_missed_blocks = cache->missedBlocks;
    }
    return flat;
}

std::int32_t iteration_stats(trtllm_gpu_executor* executor, trtllm_gpu_iteration_stats* stats, std::size_t capacity,
                             std::size_t* count, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        std::lock_guard<std::mutex> const lock(executor->taking_stats);
        for (tle::IterationStats& taken : executor->executor->getLatestIterationStats()) {
            executor->stats.push_back(std::move(taken));
        }
        std::size_t written = 0;
        for (; written < capacity && !executor->stats.empty(); written++) {
            stats[written] = to_stats(executor->stats.front());
            executor->stats.pop_front();
        }
        *count = written;
    });
}

}  // namespace

extern "C" trtllm_gpu_table const* trtllm_gpu(void) {
    static trtllm_gpu_table const table{
        TRTLLM_GPU_ABI, version,        open,   close,           enqueue,
        await,          responses_data, free_responses, cancel, iteration_stats,
    };
    return &table;
}
