// The table: TensorRT-LLM's executor, with every exception caught and everything copied out.
#include <chrono>
#include <cstdio>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "config.h"
#include "log.h"
#include "request.h"
#include "responses.h"
#include "stats.h"
#include "trtllm_gpu.h"

// Declared here: the plugin library's own header needs TensorRT's.
extern "C" bool initTrtLlmPlugins(void* logger, char const* libNamespace);

#if __has_include("tensorrt_llm/executor/version.h")
#include "tensorrt_llm/executor/version.h"
namespace shim {
static char const* built_against() { return tensorrt_llm::executor::kTensorRtLlmVersion; }
}  // namespace shim
#else
namespace shim {
static char const* built_against() { return ""; }
}  // namespace shim
#endif

namespace tle = tensorrt_llm::executor;

struct trtllm_gpu_text {
    std::string text;
};

struct trtllm_gpu_executor {
    std::unique_ptr<tle::Executor> executor;
    std::mutex enqueuing;
    std::mutex taking_stats;
    std::deque<tle::IterationStats> stats;
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

std::int32_t open(char const* engine_dir, trtllm_gpu_setting const* settings, std::size_t num_settings,
                  trtllm_gpu_tokenizer const* tokenizer, trtllm_gpu_executor** executor, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        shim::Settings taken(settings, num_settings);
        auto const config = shim::to_config(taken, tokenizer);
        static bool const plugins = initTrtLlmPlugins(nullptr, "tensorrt_llm");
        if (!plugins) {
            throw std::runtime_error("TensorRT-LLM's plugins cannot be registered");
        }
        auto opened = std::make_unique<trtllm_gpu_executor>();
        opened->executor = std::make_unique<tle::Executor>(engine_dir, tle::ModelType::kDECODER_ONLY, config);
        *executor = opened.release();
    });
}

bool can_enqueue(trtllm_gpu_executor const* executor) {
    bool can = false;
    guarded(nullptr, [&] { can = executor->executor->canEnqueueRequests(); });
    return can;
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
            shim::add_response(*batch, one);
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

std::int32_t iteration_stats(trtllm_gpu_executor* executor, trtllm_gpu_iteration_stats* stats, std::size_t capacity,
                             std::size_t* count, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        std::lock_guard<std::mutex> const lock(executor->taking_stats);
        for (tle::IterationStats& taken : executor->executor->getLatestIterationStats()) {
            executor->stats.push_back(std::move(taken));
        }
        std::size_t written = 0;
        for (; written < capacity && !executor->stats.empty(); written++) {
            stats[written] = shim::to_stats(executor->stats.front());
            executor->stats.pop_front();
        }
        *count = written;
    });
}

std::int32_t request_stats(trtllm_gpu_executor* executor, trtllm_gpu_text** lines, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto const taken = executor->executor->getLatestRequestStats();
        *lines = new trtllm_gpu_text{shim::to_lines(taken)};
    });
}

std::int32_t kv_cache_events(trtllm_gpu_executor* executor, std::uint64_t timeout_ms, trtllm_gpu_text** lines,
                             trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto const manager = executor->executor->getKVCacheEventManager();
        if (!manager) {
            throw shim::Unsupported("KV-cache events with kv_cache.event_buffer_max_size 0");
        }
        auto const taken = (*manager)->getLatestEvents(std::chrono::milliseconds(timeout_ms));
        *lines = new trtllm_gpu_text{shim::to_lines(taken)};
    });
}

char const* text_data(trtllm_gpu_text const* text) { return text->text.c_str(); }

void free_text(trtllm_gpu_text* text) { delete text; }

}  // namespace

// Named by the crate's own library, which exports it as TRTLLM_GPU_ENTRY.
extern "C" trtllm_gpu_table const* trtllm_gpu_shim_table() {
    static trtllm_gpu_table const table{
        TRTLLM_GPU_ABI, nullptr,        shim::built_against(), version, shim::capture_log, open,
        can_enqueue,    close,          enqueue,               await,   responses_data,    free_responses,
        cancel,         iteration_stats, request_stats,        kv_cache_events, text_data, free_text,
    };
    return &table;
}
