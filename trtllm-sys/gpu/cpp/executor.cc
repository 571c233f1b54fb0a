// TensorRT-LLM's executor, with every exception caught and everything copied out.
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "config.h"
#include "guard.h"
#include "mpi.h"
#include "plugins.h"
#include "request.h"
#include "responses.h"
#include "stats.h"
#include "table.h"
#include "trtllm_gpu.h"
#include "use.h"

namespace tle = tensorrt_llm::executor;

struct trtllm_gpu_text {
    std::string text;
};

struct trtllm_gpu_executor {
    // Ends last.
    shim::Use use{shim::Purpose::kRun};
    std::unique_ptr<tle::Executor> executor;
    std::mutex enqueuing;
    std::mutex taking_stats;
    std::deque<tle::IterationStats> stats;
};

namespace {

char const* version() { return tle::version(); }

std::int32_t open(char const* engine_dir, trtllm_gpu_setting const* settings, std::size_t num_settings,
                  trtllm_gpu_tokenizer const* tokenizer, trtllm_gpu_executor** executor, trtllm_gpu_error* error) {
    return shim::guarded(error, [&] {
        shim::Settings taken(settings, num_settings);
        auto const config = shim::to_config(taken, tokenizer);
        auto opened = std::make_unique<trtllm_gpu_executor>();
        shim::initialize_mpi();
        shim::register_plugins();
        opened->executor = std::make_unique<tle::Executor>(engine_dir, tle::ModelType::kDECODER_ONLY, config);
        *executor = opened.release();
    });
}

bool can_enqueue(trtllm_gpu_executor const* executor) {
    bool can = false;
    shim::guarded(nullptr, [&] { can = executor->executor->canEnqueueRequests(); });
    return can;
}

std::int32_t close(trtllm_gpu_executor* executor, trtllm_gpu_error* error) {
    std::unique_ptr<trtllm_gpu_executor> const owner(executor);
    return shim::guarded(error, [&] { owner->executor->shutdown(); });
}

std::int32_t enqueue(trtllm_gpu_executor* executor, trtllm_gpu_request const* request, std::uint64_t* id,
                     trtllm_gpu_error* error) {
    return shim::guarded(error, [&] {
        auto const converted = shim::to_request(*request);
        std::lock_guard<std::mutex> const lock(executor->enqueuing);
        *id = executor->executor->enqueueRequest(converted);
    });
}

std::int32_t await(trtllm_gpu_executor* executor, std::uint64_t timeout_ms, trtllm_gpu_responses** responses,
                   trtllm_gpu_error* error) {
    return shim::guarded(error, [&] {
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
    return shim::guarded(error, [&] { executor->executor->cancelRequest(id); });
}

std::int32_t iteration_stats(trtllm_gpu_executor* executor, trtllm_gpu_iteration_stats* stats, std::size_t capacity,
                             std::size_t* count, trtllm_gpu_error* error) {
    return shim::guarded(error, [&] {
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
    return shim::guarded(error, [&] {
        auto const taken = executor->executor->getLatestRequestStats();
        *lines = new trtllm_gpu_text{shim::to_lines(taken)};
    });
}

std::int32_t kv_cache_events(trtllm_gpu_executor* executor, std::uint64_t timeout_ms, trtllm_gpu_text** lines,
                             trtllm_gpu_error* error) {
    return shim::guarded(error, [&] {
        auto const manager = executor->executor->getKVCacheEventManager();
        if (!manager) {
            throw shim::Unsupported("KV-cache events in an orchestrator");
        }
        auto const taken = (*manager)->getLatestEvents(std::chrono::milliseconds(timeout_ms));
        *lines = new trtllm_gpu_text{shim::to_lines(taken)};
    });
}

char const* text_data(trtllm_gpu_text const* text) { return text->text.c_str(); }

void free_text(trtllm_gpu_text* text) { delete text; }

std::int32_t begin_build(trtllm_gpu_error* error) {
    return shim::guarded(error, [] { shim::begin_use(shim::Purpose::kBuild); });
}

void end_build() { shim::end_use(shim::Purpose::kBuild); }

}  // namespace

namespace shim {

void add_executor(trtllm_gpu_table& table) {
    table.version = version;
    table.open = open;
    table.can_enqueue = can_enqueue;
    table.close = close;
    table.enqueue = enqueue;
    table.await = await;
    table.responses_data = responses_data;
    table.free_responses = free_responses;
    table.cancel = cancel;
    table.iteration_stats = iteration_stats;
    table.request_stats = request_stats;
    table.kv_cache_events = kv_cache_events;
    table.text_data = text_data;
    table.free_text = free_text;
    table.begin_build = begin_build;
    table.end_build = end_build;
}

}  // namespace shim
