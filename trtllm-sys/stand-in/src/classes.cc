// Values: tensors, requests, responses, as TensorRT-LLM checks them, and statistics as JSON.
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "tensorrt_llm/executor/executor.h"
#include "tensorrt_llm/executor/version.h"

namespace tensorrt_llm::executor {

// TRTLLM_STAND_IN_VERSION makes a library of it that is not its headers' [their version].
char const* version() noexcept {
    char const* const told = std::getenv("TRTLLM_STAND_IN_VERSION");
    return told == nullptr ? kTensorRtLlmVersion : told;
}

namespace {

std::size_t bytes_of(DataType type) {
    switch (type) {
    case DataType::kBOOL:
    case DataType::kUINT8:
    case DataType::kINT8:
    case DataType::kFP8: return 1;
    case DataType::kBF16:
    case DataType::kFP16: return 2;
    case DataType::kINT32:
    case DataType::kFP32: return 4;
    case DataType::kINT64: return 8;
    case DataType::kUNKNOWN: break;
    }
    throw std::runtime_error("unknown data type");
}

}  // namespace

struct Tensor::Impl {
    DataType type;
    std::vector<std::int64_t> dims;
    std::vector<unsigned char> owned;
    void* data;
    MemoryType memory = MemoryType::kCPU;
    // Of memory that only a copy shows.
    std::vector<unsigned char> hidden = {};

    [[nodiscard]] std::size_t size() const {
        return std::accumulate(dims.begin(), dims.end(), std::size_t{1},
                               [](std::size_t product, std::int64_t dim) { return product * static_cast<std::size_t>(dim); });
    }
};

Tensor Tensor::cpu(DataType dataType, Shape shape) {
    Tensor tensor = of(dataType, nullptr, shape);
    tensor.mImpl->owned.resize(tensor.getSizeInBytes());
    tensor.mImpl->data = tensor.mImpl->owned.data();
    return tensor;
}

Tensor Tensor::of(DataType dataType, void* data, Shape shape) {
    Tensor tensor;
    tensor.mImpl = std::make_shared<Impl>(Impl{dataType, {shape.begin(), shape.end()}, {}, data});
    return tensor;
}

Tensor Tensor::copyToCpu(StreamPtr) const {
    if (mImpl->memory == MemoryType::kCPU_PINNED) {
        throw std::runtime_error("the stand-in's logits are in host memory: a copy is needless");
    }
    Tensor copy = cpu(mImpl->type, getShape());
    void const* const source = mImpl->hidden.empty() ? mImpl->data : mImpl->hidden.data();
    std::memcpy(copy.getData(), source, getSizeInBytes());
    return copy;
}

void Tensor::pretend(MemoryType memory) {
    mImpl->memory = memory;
    if (memory == MemoryType::kGPU) {
        auto* const bytes = static_cast<unsigned char*>(mImpl->data);
        mImpl->hidden.assign(bytes, bytes + getSizeInBytes());
        std::memset(mImpl->data, 0xff, getSizeInBytes());
    }
}

void* Tensor::getData() { return mImpl->data; }
void const* Tensor::getData() const { return mImpl->data; }
DataType Tensor::getDataType() const { return mImpl->type; }
MemoryType Tensor::getMemoryType() const { return mImpl->memory; }
Shape Tensor::getShape() const { return {mImpl->dims.data(), mImpl->dims.size()}; }
std::size_t Tensor::getSize() const { return mImpl->size(); }
std::size_t Tensor::getSizeInBytes() const { return mImpl->size() * bytes_of(mImpl->type); }

GuidedDecodingParams::GuidedDecodingParams(GuideType guideType, std::optional<std::string> guide)
    : mGuideType(guideType), mGuide(std::move(guide)) {
    if (mGuideType != GuideType::kJSON && !mGuide) {
        throw std::runtime_error("The guide string must be provided if the guide type is not JSON");
    }
}

LoraConfig::LoraConfig(IdType taskId, std::optional<Tensor> weights, std::optional<Tensor> config)
    : mTaskId(taskId), mWeights(std::move(weights)), mConfig(std::move(config)) {
    if (mWeights.has_value() != mConfig.has_value()) {
        throw std::runtime_error("LoRA weights and config come together");
    }
    if (mConfig && (mConfig->getDataType() != DataType::kINT32 || mConfig->getShape().size() != 2 ||
                    mConfig->getShape()[0] != mWeights->getShape()[0])) {
        throw std::runtime_error("the LoRA config is not int32 with a row for each row of the weights");
    }
}

KvCacheRetentionConfig::TokenRangeRetentionConfig::TokenRangeRetentionConfig(SizeType32 start, std::optional<SizeType32> end,
                                                                             SizeType32 rangePriority,
                                                                             std::optional<MillisecondsType> duration)
    : tokenStart(start), tokenEnd(end), priority(rangePriority), durationMs(duration) {
    if (priority < 0 || priority > 100) {
        throw std::runtime_error("the retention priority is from 0 to 100");
    }
}

KvCacheRetentionConfig::KvCacheRetentionConfig(std::vector<TokenRangeRetentionConfig> const& ranges,
                                               SizeType32 decodePriority, std::optional<MillisecondsType> decodeDurationMs)
    : mRanges(ranges), mDecodePriority(decodePriority), mDecodeDurationMs(decodeDurationMs) {}

DynamicBatchConfig::DynamicBatchConfig(bool, bool, SizeType32 window) : mWindow(window) {
    if (mWindow <= 0) {
        throw std::runtime_error("the moving average needs a window");
    }
}

void KvCacheConfig::setFreeGpuMemoryFraction(FloatType fraction) {
    if (!(fraction > 0.0f && fraction < 1.0f)) {
        throw std::runtime_error("freeGpuMemoryFraction must be above 0 and below 1");
    }
    mFreeGpuMemoryFraction = fraction;
}

PeftCacheConfig::PeftCacheConfig(SizeType32 numHostModuleLayer, SizeType32 numDeviceModuleLayer,
                                 SizeType32 optimalAdapterSize, SizeType32 maxAdapterSize, SizeType32 numPutWorkers,
                                 SizeType32 numEnsureWorkers, SizeType32 numCopyStreams, SizeType32 maxPagesPerBlockHost,
                                 SizeType32 maxPagesPerBlockDevice, std::optional<float> const& deviceCachePercent,
                                 std::optional<std::size_t> const& hostCacheSize)
    : mNumbers{numHostModuleLayer, numDeviceModuleLayer, optimalAdapterSize,   maxAdapterSize,        numPutWorkers,
               numEnsureWorkers,   numCopyStreams,       maxPagesPerBlockHost, maxPagesPerBlockDevice},
      mDeviceCachePercent(deviceCachePercent),
      mHostCacheSize(hostCacheSize) {}

LookaheadDecodingConfig::LookaheadDecodingConfig(SizeType32 windowSize, SizeType32 ngramSize, SizeType32 verificationSetSize)
    : mWindowSize(windowSize), mNgramSize(ngramSize), mVerificationSetSize(verificationSetSize) {
    if (windowSize < 1 || ngramSize < 1 || verificationSetSize < 0) {
        throw std::runtime_error("no lookahead has these sizes");
    }
}

EagleConfig::EagleConfig(std::optional<EagleChoices> eagleChoices, bool, std::optional<float> posteriorThreshold, bool,
                         std::optional<SizeType32>)
    : mChoices(std::move(eagleChoices)) {
    if (posteriorThreshold && !(*posteriorThreshold >= 0.0f && *posteriorThreshold < 1.0f)) {
        throw std::runtime_error("posteriorThreshold must be from 0 to 1");
    }
}

std::deque<KVCacheEvent> KVCacheEventManager::getLatestEvents(std::optional<std::chrono::milliseconds> timeout) {
    std::unique_lock<std::mutex> lock(mMutex);
    auto const arrived = [this] { return !mEvents.empty(); };
    if (timeout) {
        mArrived.wait_for(lock, *timeout, arrived);
    } else {
        mArrived.wait(lock, arrived);
    }
    return std::exchange(mEvents, {});
}

void KVCacheEventManager::add(KVCacheEventData data) {
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        mEvents.push_back({mNext++, std::move(data), 0});
        if (mEvents.size() > mCapacity) {
            mEvents.pop_front();
        }
    }
    mArrived.notify_all();
}

Request::Request(VecTokens inputTokenIds, SizeType32 maxTokens, bool streaming)
    : mStreaming(streaming), mInputTokenIds(std::move(inputTokenIds)), mMaxTokens(maxTokens) {
    if (mInputTokenIds.empty() || mMaxTokens <= 0) {
        throw std::runtime_error("a request needs a prompt and maxTokens above 0");
    }
}

Response::Response(IdType requestId, std::string errorMsg, std::optional<IdType> clientId)
    : mRequestId(requestId), mClientId(clientId), mErrorMsg(std::move(errorMsg)) {}

Response::Response(IdType requestId, Result result, std::optional<IdType> clientId)
    : mRequestId(requestId), mClientId(clientId), mResult(std::move(result)) {}

std::string const& Response::getErrorMsg() const {
    if (!mErrorMsg) {
        throw std::runtime_error("the response has no error");
    }
    return *mErrorMsg;
}

Result const& Response::getResult() const {
    if (mErrorMsg) {
        throw std::runtime_error("the response is an error: " + *mErrorMsg);
    }
    return mResult;
}

std::string JsonSerialization::toJsonStr(IterationStats const& stats) {
    std::ostringstream json;
    json << "{\"iter\":" << stats.iter << ",\"iterLatencyMS\":" << stats.iterLatencyMS << '}';
    return json.str();
}

std::string JsonSerialization::toJsonStr(RequestStatsPerIteration const& stats) {
    std::ostringstream json;
    json << "{\"iter\":" << stats.iter << ",\"requestStats\":[";
    char const* separator = "";
    for (RequestStats const& one : stats.requestStats) {
        json << separator << "{\"id\":" << one.id << ",\"numGeneratedTokens\":" << one.numGeneratedTokens << '}';
        separator = ",";
    }
    json << "]}";
    return json.str();
}

}  // namespace tensorrt_llm::executor
