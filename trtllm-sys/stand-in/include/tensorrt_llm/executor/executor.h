// A stand-in for TensorRT-LLM's header of this name: the classes and members that the shim uses. See types.h.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tensorrt_llm/executor/tensor.h"
#include "tensorrt_llm/executor/types.h"

namespace tensorrt_llm::executor {

// The version, which says that this is the stand-in.
char const* version() noexcept;

// A setting, its setter and its getter. The real classes have them spelled out.
#define STAND_IN_SETTING(type, name)                                   \
public:                                                                \
    void set##name(type const& value) { m##name = value; }             \
    [[nodiscard]] type const& get##name() const { return m##name; }    \
                                                                       \
private:                                                               \
    type m##name

class SamplingConfig {
public:
    explicit SamplingConfig(SizeType32 beamWidth = 1) : mBeamWidth(beamWidth) {}

    STAND_IN_SETTING(SizeType32, BeamWidth) = 1;
    STAND_IN_SETTING(std::optional<SizeType32>, TopK);
    STAND_IN_SETTING(std::optional<FloatType>, TopP);
    STAND_IN_SETTING(std::optional<FloatType>, MinP);
    STAND_IN_SETTING(std::optional<RandomSeedType>, Seed);
    STAND_IN_SETTING(std::optional<FloatType>, Temperature);
    STAND_IN_SETTING(std::optional<SizeType32>, MinTokens);
    STAND_IN_SETTING(std::optional<FloatType>, BeamSearchDiversityRate);
    STAND_IN_SETTING(std::optional<FloatType>, RepetitionPenalty);
    STAND_IN_SETTING(std::optional<FloatType>, PresencePenalty);
    STAND_IN_SETTING(std::optional<FloatType>, FrequencyPenalty);
    STAND_IN_SETTING(std::optional<SizeType32>, PromptIgnoreLength);
    STAND_IN_SETTING(std::optional<FloatType>, LengthPenalty);
    STAND_IN_SETTING(std::optional<SizeType32>, EarlyStopping);
    STAND_IN_SETTING(std::optional<SizeType32>, NoRepeatNgramSize);
    STAND_IN_SETTING(std::optional<SizeType32>, NumReturnSequences);
};

class OutputConfig {
public:
    bool returnLogProbs = false;
    bool returnContextLogits = false;
    bool returnGenerationLogits = false;
    bool excludeInputFromOutput = false;
    bool returnEncoderOutput = false;
    bool returnPerfMetrics = false;
};

class GuidedDecodingParams {
public:
    enum class GuideType { kJSON = 0, kJSON_SCHEMA = 1, kREGEX = 2, kEBNF_GRAMMAR = 3, kSTRUCTURAL_TAG = 4 };

    explicit GuidedDecodingParams(GuideType guideType, std::optional<std::string> guide = std::nullopt);

    [[nodiscard]] GuideType getGuideType() const { return mGuideType; }
    [[nodiscard]] std::optional<std::string> getGuide() const { return mGuide; }

private:
    GuideType mGuideType;
    std::optional<std::string> mGuide;
};

class LoraConfig {
public:
    explicit LoraConfig(IdType taskId, std::optional<Tensor> weights = std::nullopt, std::optional<Tensor> config = std::nullopt);

    [[nodiscard]] IdType getTaskId() const { return mTaskId; }
    [[nodiscard]] std::optional<Tensor> getWeights() const { return mWeights; }
    [[nodiscard]] std::optional<Tensor> getConfig() const { return mConfig; }

private:
    IdType mTaskId;
    std::optional<Tensor> mWeights;
    std::optional<Tensor> mConfig;
};

class KvCacheRetentionConfig {
public:
    struct TokenRangeRetentionConfig {
        explicit TokenRangeRetentionConfig(SizeType32 tokenStart, std::optional<SizeType32> tokenEnd = std::nullopt,
                                           SizeType32 priority = 35,
                                           std::optional<MillisecondsType> durationMs = std::nullopt);

        SizeType32 tokenStart;
        std::optional<SizeType32> tokenEnd;
        SizeType32 priority;
        std::optional<MillisecondsType> durationMs;
    };

    explicit KvCacheRetentionConfig(std::vector<TokenRangeRetentionConfig> const& ranges, SizeType32 decodePriority = 35,
                                    std::optional<MillisecondsType> decodeDurationMs = std::nullopt);

private:
    std::vector<TokenRangeRetentionConfig> mRanges;
    SizeType32 mDecodePriority;
    std::optional<MillisecondsType> mDecodeDurationMs;
};

class Request {
public:
    Request(VecTokens inputTokenIds, SizeType32 maxTokens, bool streaming = false);

    [[nodiscard]] VecTokens getInputTokenIds() const { return mInputTokenIds; }
    [[nodiscard]] SizeType32 getMaxTokens() const { return mMaxTokens; }

    STAND_IN_SETTING(bool, Streaming) = false;
    STAND_IN_SETTING(executor::SamplingConfig, SamplingConfig);
    STAND_IN_SETTING(executor::OutputConfig, OutputConfig);
    STAND_IN_SETTING(std::optional<SizeType32>, EndId);
    STAND_IN_SETTING(std::optional<SizeType32>, PadId);
    STAND_IN_SETTING(std::list<VecTokens>, BadWords);
    STAND_IN_SETTING(std::list<VecTokens>, StopWords);
    STAND_IN_SETTING(std::optional<Tensor>, EmbeddingBias);
    STAND_IN_SETTING(std::optional<IdType>, ClientId);
    STAND_IN_SETTING(PriorityType, Priority) = 0.5f;
    STAND_IN_SETTING(std::optional<executor::GuidedDecodingParams>, GuidedDecodingParams);
    STAND_IN_SETTING(std::optional<MillisecondsType>, AllottedTimeMs);
    STAND_IN_SETTING(std::optional<CacheSaltIDType>, CacheSaltID);
    STAND_IN_SETTING(std::optional<executor::LoraConfig>, LoraConfig);
    STAND_IN_SETTING(std::optional<executor::KvCacheRetentionConfig>, KvCacheRetentionConfig);

private:
    VecTokens mInputTokenIds;
    SizeType32 mMaxTokens;
};

struct Result {
    bool isFinal = false;
    BeamTokens outputTokenIds;
    std::optional<VecLogProbs> cumLogProbs;
    std::optional<std::vector<VecLogProbs>> logProbs;
    std::optional<Tensor> contextLogits;
    std::optional<Tensor> generationLogits;
    std::vector<FinishReason> finishReasons;
    SizeType32 decodingIter = 0;
    SizeType32 sequenceIndex = 0;
    bool isSequenceFinal = false;
    std::optional<RequestPerfMetrics> requestPerfMetrics;
};

class Response {
public:
    Response(IdType requestId, std::string errorMsg, std::optional<IdType> clientId = std::nullopt);
    Response(IdType requestId, Result result, std::optional<IdType> clientId = std::nullopt);

    [[nodiscard]] IdType getRequestId() const { return mRequestId; }
    [[nodiscard]] std::optional<IdType> getClientId() const { return mClientId; }
    [[nodiscard]] bool hasError() const { return mErrorMsg.has_value(); }
    // Throws where there is no error.
    [[nodiscard]] std::string const& getErrorMsg() const;
    // Throws where there is one.
    [[nodiscard]] Result const& getResult() const;

private:
    IdType mRequestId;
    std::optional<IdType> mClientId;
    std::optional<std::string> mErrorMsg;
    Result mResult;
};

class DynamicBatchConfig {
public:
    explicit DynamicBatchConfig(bool enableBatchSizeTuning = false, bool enableMaxNumTokensTuning = false,
                                SizeType32 dynamicBatchMovingAverageWindow = 128);

    [[nodiscard]] SizeType32 getDynamicBatchMovingAverageWindow() const { return mWindow; }

private:
    SizeType32 mWindow;
};

class SchedulerConfig {
public:
    explicit SchedulerConfig(CapacitySchedulerPolicy policy = CapacitySchedulerPolicy::kGUARANTEED_NO_EVICT,
                             std::optional<ContextChunkingPolicy> chunking = std::nullopt,
                             std::optional<DynamicBatchConfig> dynamicBatch = std::nullopt)
        : mPolicy(policy), mChunking(chunking), mDynamicBatch(dynamicBatch) {}

    [[nodiscard]] CapacitySchedulerPolicy getCapacitySchedulerPolicy() const { return mPolicy; }
    [[nodiscard]] std::optional<ContextChunkingPolicy> getContextChunkingPolicy() const { return mChunking; }

private:
    CapacitySchedulerPolicy mPolicy;
    std::optional<ContextChunkingPolicy> mChunking;
    std::optional<DynamicBatchConfig> mDynamicBatch;
};

class KvCacheConfig {
public:
    // Above 0 and below 1, as TensorRT-LLM wants it.
    void setFreeGpuMemoryFraction(FloatType fraction);
    [[nodiscard]] std::optional<FloatType> getFreeGpuMemoryFraction() const { return mFreeGpuMemoryFraction; }

private:
    std::optional<FloatType> mFreeGpuMemoryFraction;
    STAND_IN_SETTING(bool, EnableBlockReuse) = true;
    STAND_IN_SETTING(bool, EnablePartialReuse) = true;
    STAND_IN_SETTING(bool, CopyOnPartialReuse) = true;
    STAND_IN_SETTING(bool, OnboardBlocks) = true;
    STAND_IN_SETTING(bool, UseUvm) = false;
    STAND_IN_SETTING(std::optional<SizeType32>, MaxTokens);
    STAND_IN_SETTING(std::optional<std::vector<SizeType32>>, MaxAttentionWindowVec);
    STAND_IN_SETTING(std::optional<SizeType32>, SinkTokenLength);
    STAND_IN_SETTING(std::optional<std::size_t>, HostCacheSize);
    STAND_IN_SETTING(std::optional<SizeType32>, SecondaryOffloadMinPriority);
    STAND_IN_SETTING(std::size_t, EventBufferMaxSize) = 0;
    STAND_IN_SETTING(std::uint64_t, MaxGpuTotalBytes) = 0;
};

class ExtendedRuntimePerfKnobConfig {
    STAND_IN_SETTING(bool, MultiBlockMode) = true;
    STAND_IN_SETTING(bool, EnableContextFMHAFP32Acc) = false;
    STAND_IN_SETTING(bool, CudaGraphMode) = false;
    STAND_IN_SETTING(SizeType32, CudaGraphCacheSize) = 0;
};

class PeftCacheConfig {
public:
    explicit PeftCacheConfig(SizeType32 numHostModuleLayer = 0, SizeType32 numDeviceModuleLayer = 0,
                             SizeType32 optimalAdapterSize = 8, SizeType32 maxAdapterSize = 64,
                             SizeType32 numPutWorkers = 1, SizeType32 numEnsureWorkers = 1, SizeType32 numCopyStreams = 1,
                             SizeType32 maxPagesPerBlockHost = 24, SizeType32 maxPagesPerBlockDevice = 8,
                             std::optional<float> const& deviceCachePercent = std::nullopt,
                             std::optional<std::size_t> const& hostCacheSize = std::nullopt);

    [[nodiscard]] SizeType32 getNumHostModuleLayer() const { return mNumbers[0]; }
    [[nodiscard]] SizeType32 getNumDeviceModuleLayer() const { return mNumbers[1]; }
    [[nodiscard]] SizeType32 getOptimalAdapterSize() const { return mNumbers[2]; }
    [[nodiscard]] SizeType32 getMaxAdapterSize() const { return mNumbers[3]; }
    [[nodiscard]] SizeType32 getNumPutWorkers() const { return mNumbers[4]; }
    [[nodiscard]] SizeType32 getNumEnsureWorkers() const { return mNumbers[5]; }
    [[nodiscard]] SizeType32 getNumCopyStreams() const { return mNumbers[6]; }
    [[nodiscard]] SizeType32 getMaxPagesPerBlockHost() const { return mNumbers[7]; }
    [[nodiscard]] SizeType32 getMaxPagesPerBlockDevice() const { return mNumbers[8]; }
    [[nodiscard]] std::optional<float> getDeviceCachePercent() const { return mDeviceCachePercent; }
    [[nodiscard]] std::optional<std::size_t> getHostCacheSize() const { return mHostCacheSize; }

private:
    std::vector<SizeType32> mNumbers;
    std::optional<float> mDeviceCachePercent;
    std::optional<std::size_t> mHostCacheSize;
};

class DecodingMode {
public:
    static DecodingMode Auto() { return DecodingMode("auto"); }
    static DecodingMode TopK() { return DecodingMode("top_k"); }
    static DecodingMode TopP() { return DecodingMode("top_p"); }
    static DecodingMode TopKTopP() { return DecodingMode("top_k_top_p"); }
    static DecodingMode BeamSearch() { return DecodingMode("beam_search"); }
    static DecodingMode Medusa() { return DecodingMode("medusa"); }
    static DecodingMode Lookahead() { return DecodingMode("lookahead"); }
    static DecodingMode ExplicitDraftTokens() { return DecodingMode("explicit_draft_tokens"); }
    static DecodingMode ExternalDraftTokens() { return DecodingMode("external_draft_tokens"); }
    static DecodingMode Eagle() { return DecodingMode("eagle"); }

    [[nodiscard]] char const* getName() const { return mName; }

private:
    explicit DecodingMode(char const* name) : mName(name) {}

    char const* mName;
};

class LookaheadDecodingConfig {
public:
    // Throws for numbers that no lookahead can have.
    LookaheadDecodingConfig(SizeType32 windowSize, SizeType32 ngramSize, SizeType32 verificationSetSize);
    LookaheadDecodingConfig() : LookaheadDecodingConfig(4, 3, 4) {}

    [[nodiscard]] SizeType32 getWindowSize() const { return mWindowSize; }
    [[nodiscard]] SizeType32 getNgramSize() const { return mNgramSize; }
    [[nodiscard]] SizeType32 getVerificationSetSize() const { return mVerificationSetSize; }

private:
    SizeType32 mWindowSize;
    SizeType32 mNgramSize;
    SizeType32 mVerificationSetSize;
};

class EagleConfig {
public:
    explicit EagleConfig(std::optional<EagleChoices> eagleChoices = std::nullopt, bool greedySampling = true,
                         std::optional<float> posteriorThreshold = std::nullopt, bool useDynamicTree = false,
                         std::optional<SizeType32> dynamicTreeMaxTopK = std::nullopt);

    [[nodiscard]] std::optional<EagleChoices> getEagleChoices() const { return mChoices; }

private:
    std::optional<EagleChoices> mChoices;
};

class DecodingConfig {
    STAND_IN_SETTING(executor::DecodingMode, DecodingMode) = executor::DecodingMode::Auto();
    STAND_IN_SETTING(std::optional<executor::LookaheadDecodingConfig>, LookaheadDecodingConfig);
    STAND_IN_SETTING(std::optional<executor::MedusaChoices>, MedusaChoices);
    STAND_IN_SETTING(std::optional<executor::EagleConfig>, EagleConfig);
};

class OrchestratorConfig {
    STAND_IN_SETTING(bool, IsOrchestrator) = true;
    STAND_IN_SETTING(std::string, WorkerExecutablePath);
    STAND_IN_SETTING(bool, SpawnProcesses) = true;
};

class ParallelConfig {
    STAND_IN_SETTING(executor::CommunicationType, CommunicationType) = executor::CommunicationType::kMPI;
    STAND_IN_SETTING(executor::CommunicationMode, CommunicationMode) = executor::CommunicationMode::kLEADER;
    STAND_IN_SETTING(std::optional<std::vector<SizeType32>>, DeviceIds);
    STAND_IN_SETTING(std::optional<std::vector<SizeType32>>, ParticipantIds);
    STAND_IN_SETTING(std::optional<executor::OrchestratorConfig>, OrchestratorConfig);
};

class GuidedDecodingConfig {
public:
    enum class GuidedDecodingBackend { kXGRAMMAR = 0 };

    explicit GuidedDecodingConfig(GuidedDecodingBackend backend) : mBackend(backend) {}

    [[nodiscard]] GuidedDecodingBackend getBackend() const { return mBackend; }

private:
    GuidedDecodingBackend mBackend;
    STAND_IN_SETTING(std::optional<std::vector<std::string>>, EncodedVocab);
    STAND_IN_SETTING(std::optional<std::string>, TokenizerStr);
    STAND_IN_SETTING(std::optional<std::vector<TokenIdType>>, StopTokenIds);
};

class ExecutorConfig {
    STAND_IN_SETTING(SizeType32, MaxBeamWidth) = 1;
    STAND_IN_SETTING(executor::SchedulerConfig, SchedulerConfig);
    STAND_IN_SETTING(executor::KvCacheConfig, KvCacheConfig);
    STAND_IN_SETTING(bool, EnableChunkedContext) = true;
    STAND_IN_SETTING(bool, NormalizeLogProbs) = true;
    STAND_IN_SETTING(SizeType32, IterStatsMaxIterations) = 1000;
    STAND_IN_SETTING(SizeType32, RequestStatsMaxIterations) = 0;
    STAND_IN_SETTING(executor::BatchingType, BatchingType) = executor::BatchingType::kINFLIGHT;
    STAND_IN_SETTING(SizeType32, MaxBatchSize) = 0;
    STAND_IN_SETTING(SizeType32, MaxNumTokens) = 0;
    STAND_IN_SETTING(std::optional<executor::ParallelConfig>, ParallelConfig);
    STAND_IN_SETTING(std::optional<SizeType32>, MaxQueueSize);
    STAND_IN_SETTING(std::optional<executor::GuidedDecodingConfig>, GuidedDecodingConfig);
    STAND_IN_SETTING(bool, GatherGenerationLogits) = false;
    STAND_IN_SETTING(executor::ExtendedRuntimePerfKnobConfig, ExtendedRuntimePerfKnobConfig);
    STAND_IN_SETTING(std::optional<executor::PeftCacheConfig>, PeftCacheConfig);
    STAND_IN_SETTING(std::optional<executor::DecodingConfig>, DecodingConfig);
    STAND_IN_SETTING(FloatType, GpuWeightsPercent) = 1;
    STAND_IN_SETTING(SizeType32, RecvPollPeriodMs) = 0;
    STAND_IN_SETTING(std::uint64_t, MaxSeqIdleMicroseconds) = 180'000'000;
    STAND_IN_SETTING(bool, EnableTrtOverlap) = false;
    STAND_IN_SETTING(bool, UseGpuDirectStorage) = false;
    STAND_IN_SETTING(bool, FailFastOnAttentionWindowTooLarge) = false;
};

class KVCacheEventManager {
public:
    explicit KVCacheEventManager(std::size_t capacity) : mCapacity(capacity) {}

    std::deque<KVCacheEvent> getLatestEvents(std::optional<std::chrono::milliseconds> timeout = std::nullopt);
    // The stand-in's own.
    void add(KVCacheEventData data);

private:
    std::size_t mCapacity;
    std::size_t mNext = 0;
    std::mutex mMutex;
    std::condition_variable mArrived;
    std::deque<KVCacheEvent> mEvents;
};

class Executor {
public:
    Executor(std::filesystem::path const& modelPath, ModelType modelType, ExecutorConfig const& executorConfig);
    ~Executor();
    Executor(Executor const&) = delete;
    Executor& operator=(Executor const&) = delete;

    [[nodiscard]] IdType enqueueRequest(Request const& request);
    [[nodiscard]] std::vector<Response> awaitResponses(std::optional<std::chrono::milliseconds> const& timeout = {});
    void cancelRequest(IdType requestId);
    // Lets all that was enqueued end, and returns then.
    void shutdown();
    std::deque<IterationStats> getLatestIterationStats();
    std::deque<RequestStatsPerIteration> getLatestRequestStats();
    [[nodiscard]] bool canEnqueueRequests() const;
    [[nodiscard]] std::optional<std::shared_ptr<KVCacheEventManager>> getKVCacheEventManager() const;

private:
    class Impl;
    std::unique_ptr<Impl> mImpl;
};

class JsonSerialization {
public:
    [[nodiscard]] static std::string toJsonStr(IterationStats const& iterationStats);
    [[nodiscard]] static std::string toJsonStr(RequestStatsPerIteration const& requestStats);
};

#undef STAND_IN_SETTING

}  // namespace tensorrt_llm::executor
