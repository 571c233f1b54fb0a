#include "stats.h"

#include <sstream>
#include <type_traits>
#include <variant>

namespace shim {

namespace tle = tensorrt_llm::executor;

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

std::string to_lines(std::deque<tle::RequestStatsPerIteration> const& iterations) {
    std::string lines;
    for (auto const& iteration : iterations) {
        lines += tle::JsonSerialization::toJsonStr(iteration);
        lines += '\n';
    }
    return lines;
}

namespace {

template <typename List, typename Write>
void write_list(std::ostream& out, List const& list, Write write) {
    out << '[';
    bool first = true;
    for (auto const& element : list) {
        out << (first ? "" : ",");
        first = false;
        write(element);
    }
    out << ']';
}

void write_block(std::ostream& out, tle::KVCacheStoredBlockData const& block) {
    out << "{\"block_hash\":" << block.blockHash << ",\"tokens\":";
    write_list(out, block.tokens, [&](auto const& token) { out << token.tokenId; });
    if (block.loraId) {
        out << ",\"lora_id\":" << *block.loraId;
    }
    out << ",\"cache_level\":" << block.cacheLevel << ",\"priority\":" << block.priority << '}';
}

void write_data(std::ostream& out, tle::KVCacheCreatedData const& data) {
    out << "\"created\",\"num_blocks_per_cache_level\":";
    write_list(out, data.numBlocksPerCacheLevel, [&](auto const& count) { out << count; });
}

void write_data(std::ostream& out, tle::KVCacheStoredData const& data) {
    out << "\"stored\",\"parent_hash\":";
    if (data.parentHash) {
        out << *data.parentHash;
    } else {
        out << "null";
    }
    out << ",\"blocks\":";
    write_list(out, data.blocks, [&](auto const& block) { write_block(out, block); });
}

void write_data(std::ostream& out, tle::KVCacheRemovedData const& data) {
    out << "\"removed\",\"block_hashes\":";
    write_list(out, data.blockHashes, [&](auto const& hash) { out << hash; });
}

void write_data(std::ostream& out, tle::KVCacheUpdatedData const& data) {
    out << "\"updated\",\"block_hash\":" << data.blockHash;
    if (data.cacheLevel) {
        out << ",\"cache_level\":" << data.cacheLevel->newValue;
    }
    if (data.priority) {
        out << ",\"priority\":" << data.priority->newValue;
    }
}

}  // namespace

std::string to_lines(std::deque<tle::KVCacheEvent> const& events) {
    std::ostringstream lines;
    for (auto const& event : events) {
        lines << "{\"event_id\":" << event.eventId << ",\"type\":";
        std::visit([&](auto const& data) { write_data(lines, data); }, event.data);
        lines << "}\n";
    }
    return lines.str();
}

}  // namespace shim
