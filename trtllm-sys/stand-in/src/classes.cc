// Values: tensors, requests, responses, as TensorRT-LLM checks them.
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "tensorrt_llm/executor/executor.h"

namespace tensorrt_llm::executor {

char const* version() noexcept { return "1.2.0-trtllm-stand-in"; }

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
    Tensor copy = cpu(mImpl->type, getShape());
    std::memcpy(copy.getData(), mImpl->data, getSizeInBytes());
    return copy;
}

void* Tensor::getData() { return mImpl->data; }
void const* Tensor::getData() const { return mImpl->data; }
DataType Tensor::getDataType() const { return mImpl->type; }
Shape Tensor::getShape() const { return {mImpl->dims.data(), mImpl->dims.size()}; }
std::size_t Tensor::getSize() const { return mImpl->size(); }
std::size_t Tensor::getSizeInBytes() const { return mImpl->size() * bytes_of(mImpl->type); }

GuidedDecodingParams::GuidedDecodingParams(GuideType guideType, std::optional<std::string> guide)
    : mGuideType(guideType), mGuide(std::move(guide)) {
    if (mGuideType != GuideType::kJSON && !mGuide) {
        throw std::runtime_error("The guide string must be provided if the guide type is not JSON");
    }
}

GuidedDecodingConfig::GuidedDecodingConfig(GuidedDecodingBackend, std::optional<std::vector<std::string>>,
                                           std::optional<std::string>, std::optional<std::vector<TokenIdType>>) {}

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

}  // namespace tensorrt_llm::executor
