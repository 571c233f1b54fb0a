// A stand-in for TensorRT-LLM's header of this name: the classes and members that the shim uses. See types.h.
#pragma once

#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
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

class SchedulerConfig {
public:
    explicit SchedulerConfig(CapacitySchedulerPolicy policy = CapacitySchedulerPolicy::kGUARANTEED_NO_EVICT,
                             std::optional<ContextChunkingPolicy> chunking = std::nullopt)
        : mPolicy(policy), mChunking(chunking) {}

    [[nodiscard]] CapacitySchedulerPolicy getCapacitySchedulerPolicy() const { return mPolicy; }
    [[nodiscard]] std::optional<ContextChunkingPolicy> getContextChunkingPolicy() const { return mChunking; }

private:
    CapacitySchedulerPolicy mPolicy;
    std::optional<ContextChunkingPolicy> mChunking;
};

class KvCacheConfig {
    STAND_IN_SETTING(bool, EnableBlockReuse) = true;
    STAND_IN_SETTING(std::optional<SizeType32>, MaxTokens);
    STAND_IN_SETTING(std::optional<FloatType>, FreeGpuMemoryFraction);
    STAND_IN_SETTING(std::optional<std::size_t>, HostCacheSize);
    STAND_IN_SETTING(std::size_t, EventBufferMaxSize) = 0;
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

    explicit GuidedDecodingConfig(GuidedDecodingBackend backend,
                                  std::optional<std::vector<std::string>> encodedVocab = std::nullopt,
                                  std::optional<std::string> tokenizerStr = std::nullopt,
                                  std::optional<std::vector<TokenIdType>> stopTokenIds = std::nullopt);
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
    [[nodiscard]] bool canEnqueueRequests() const;

private:
    class Impl;
    std::unique_ptr<Impl> mImpl;
};

class JsonSerialization {
public:
    [[nodiscard]] static std::string toJsonStr(IterationStats const& iterationStats);
};

#undef STAND_IN_SETTING

}  // namespace tensorrt_llm::executor
