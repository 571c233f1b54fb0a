// A stand-in for TensorRT-LLM's header of this name: what the shim uses of it, with the names and values that TensorRT-LLM 1.2
// has. For machines without TensorRT-LLM, in tests and benchmarks only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

namespace tensorrt_llm::runtime {
class CudaStream;
}

namespace tensorrt_llm::executor {

class Tensor;

using SizeType32 = std::int32_t;
using SizeType64 = std::int64_t;
using FloatType = float;
using TokenIdType = std::int32_t;
using VecTokens = std::vector<TokenIdType>;
using BeamTokens = std::vector<VecTokens>;
using IdType = std::uint64_t;
using IterationType = std::uint64_t;
using RandomSeedType = std::uint64_t;
using VecLogProbs = std::vector<FloatType>;
using StreamPtr = std::shared_ptr<tensorrt_llm::runtime::CudaStream>;
using MillisecondsType = std::chrono::milliseconds;
using CacheSaltIDType = std::uint64_t;
using PriorityType = float;
using MedusaChoices = std::vector<std::vector<SizeType32>>;
using EagleChoices = std::vector<std::vector<SizeType32>>;
using LogitsPostProcessor =
    std::function<void(IdType, Tensor&, BeamTokens const&, StreamPtr const&, std::optional<IdType>)>;

enum class DataType { kBOOL, kUINT8, kINT8, kINT32, kINT64, kBF16, kFP8, kFP16, kFP32, kUNKNOWN };

enum class MemoryType { kCPU, kCPU_PINNED, kCPU_PINNEDPOOL, kGPU, kUVM, kUNKNOWN };

enum class ModelType { kDECODER_ONLY = 0, kENCODER_ONLY = 1, kENCODER_DECODER = 2 };

enum class BatchingType { kSTATIC = 0, kINFLIGHT = 1 };

enum class CapacitySchedulerPolicy { kMAX_UTILIZATION = 0, kGUARANTEED_NO_EVICT = 1, kSTATIC_BATCH = 2 };

enum class ContextChunkingPolicy { kFIRST_COME_FIRST_SERVED = 0, kEQUAL_PROGRESS = 1 };

enum class CommunicationType { kMPI = 0 };

enum class CommunicationMode { kLEADER, kORCHESTRATOR };

enum class FinishReason {
    kNOT_FINISHED = 0,
    kEND_ID = 1,
    kSTOP_WORDS = 2,
    kLENGTH = 3,
    kTIMED_OUT = 4,
    kCANCELLED = 5,
};

struct KvCacheStats {
    SizeType32 maxNumBlocks;
    SizeType32 freeNumBlocks;
    SizeType32 usedNumBlocks;
    SizeType32 tokensPerBlock;
    SizeType32 allocTotalBlocks;
    SizeType32 allocNewBlocks;
    SizeType32 reusedBlocks;
    SizeType32 missedBlocks;
    float cacheHitRate;
};

struct InflightBatchingStats {
    SizeType32 numScheduledRequests;
    SizeType32 numContextRequests;
    SizeType32 numGenRequests;
    SizeType32 numPausedRequests;
    SizeType32 numCtxTokens;
    SizeType32 microBatchId;
    float avgNumDecodedTokensPerIter;
};

struct IterationStats {
    std::string timestamp;
    IterationType iter;
    double iterLatencyMS;
    double newActiveRequestsQueueLatencyMS;
    SizeType32 numNewActiveRequests;
    SizeType32 numActiveRequests;
    SizeType32 numQueuedRequests;
    SizeType32 numCompletedRequests;
    SizeType32 maxNumActiveRequests;
    std::optional<KvCacheStats> kvCacheStats;
    std::optional<InflightBatchingStats> inflightBatchingStats;
};

enum class RequestStage { kQUEUED, kENCODER_IN_PROGRESS, kCONTEXT_IN_PROGRESS, kGENERATION_IN_PROGRESS, kGENERATION_COMPLETE };

struct RequestStats {
    IdType id;
    RequestStage stage;
    SizeType32 contextPrefillPosition;
    SizeType32 numGeneratedTokens;
};

struct RequestStatsPerIteration {
    IterationType iter;
    std::vector<RequestStats> requestStats;
};

struct RequestPerfMetrics {
    using TimePoint = std::chrono::time_point<std::chrono::steady_clock>;

    struct TimingMetrics {
        TimePoint arrivalTime;
        TimePoint firstScheduledTime;
        TimePoint firstTokenTime;
        TimePoint lastTokenTime;
    };

    struct KvCacheMetrics {
        SizeType32 numTotalAllocatedBlocks = 0;
        SizeType32 numNewAllocatedBlocks = 0;
        SizeType32 numReusedBlocks = 0;
        SizeType32 numMissedBlocks = 0;
        FloatType kvCacheHitRate = 0;
    };

    struct SpeculativeDecodingMetrics {
        FloatType acceptanceRate = 0;
        SizeType32 totalAcceptedDraftTokens = 0;
        SizeType32 totalDraftTokens = 0;
    };

    TimingMetrics timingMetrics;
    KvCacheMetrics kvCacheMetrics;
    SpeculativeDecodingMetrics speculativeDecoding;
    std::optional<IterationType> firstIter;
    std::optional<IterationType> lastIter;
    std::optional<IterationType> iter;
};

}  // namespace tensorrt_llm::executor

namespace tensorrt_llm::runtime {
struct UniqueToken {
    std::int32_t tokenId;
    std::uint64_t tokenExtraId;
};
}  // namespace tensorrt_llm::runtime

namespace tensorrt_llm::executor {

template <typename T>
struct KVCacheEventDiff {
    T oldValue;
    T newValue;
};

struct KVCacheCreatedData {
    std::vector<SizeType32> numBlocksPerCacheLevel;
};

struct KVCacheStoredBlockData {
    IdType blockHash;
    std::vector<runtime::UniqueToken> tokens;
    std::optional<std::uint64_t> loraId;
    SizeType32 cacheLevel;
    SizeType32 priority;
};

struct KVCacheStoredData {
    std::optional<IdType> parentHash;
    std::vector<KVCacheStoredBlockData> blocks;
};

struct KVCacheRemovedData {
    std::vector<IdType> blockHashes;
};

struct KVCacheUpdatedData {
    IdType blockHash;
    std::optional<KVCacheEventDiff<SizeType32>> cacheLevel;
    std::optional<KVCacheEventDiff<SizeType32>> priority;
};

using KVCacheEventData = std::variant<KVCacheCreatedData, KVCacheStoredData, KVCacheRemovedData, KVCacheUpdatedData>;

struct KVCacheEvent {
    IdType eventId;
    KVCacheEventData data;
    SizeType32 windowSize;
};

}  // namespace tensorrt_llm::executor
