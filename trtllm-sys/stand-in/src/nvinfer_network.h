// The network that the stand-in's TensorRT records.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "nvinfer_plugin.h"

namespace stand_in {

using Sizes = std::vector<std::int64_t>;

Sizes to_sizes(nvinfer1::Dims const& dims);
nvinfer1::Dims to_dims(Sizes const& sizes);
std::string text_of(Sizes const& sizes);
char const* name_of(nvinfer1::DataType type);
std::size_t bytes_of(nvinfer1::DataType type);
bool is_float(nvinfer1::DataType type);
void say(nvinfer1::ILogger& logger, nvinfer1::ILogger::Severity severity, std::string const& line) noexcept;

// Runs `body`; what it throws is an error in the log, and `otherwise` is given.
template <typename Body, typename Result>
Result guarded(nvinfer1::ILogger& logger, Result otherwise, Body body) noexcept {
    try {
        return body();
    } catch (std::exception const& exception) {
        say(logger, nvinfer1::ILogger::Severity::kERROR, exception.what());
        return otherwise;
    }
}

class Tensor : public nvinfer1::ITensor {
public:
    Tensor(std::string id, Shape shape) : mId(std::move(id)), mName(mId), mShape(std::move(shape)) {}

    void setName(char const* name) noexcept override { mName = name; }
    char const* getName() const noexcept override { return mName.c_str(); }
    nvinfer1::Dims getDimensions() const noexcept override;
    nvinfer1::DataType getType() const noexcept override { return mShape.type; }
    bool isNetworkInput() const noexcept override { return mInput; }
    bool isNetworkOutput() const noexcept override { return mOutput; }
    void setDimensionName(std::int32_t index, char const* name) noexcept override { mDimensions[index] = name; }

    // `%0` of a layer, the name of an input.
    std::string mId;
    std::string mName;
    Shape mShape;
    bool mInput = false;
    bool mOutput = false;
    // What is wrong with the layer that makes it.
    std::string mProblem;
    std::map<std::int32_t, std::string> mDimensions;
};

// A layer, with what is particular to its kind as the JSON of a plan has it.
struct Node {
    std::string name;
    std::string kind;
    std::vector<Tensor*> inputs;
    Tensor* output = nullptr;
    std::string more;
    nvinfer1::Weights weights{};
    Plugin* plugin = nullptr;
    // Of a shuffle.
    std::optional<Sizes> reshape;
    std::optional<std::vector<std::int32_t>> permutation;
};

struct DestroyPlugin {
    void operator()(Plugin* plugin) const { plugin->destroy(); }
};

class Network : public nvinfer1::INetworkDefinition {
public:
    explicit Network(nvinfer1::ILogger& logger) : mLogger(logger) {}

    void setName(char const* name) noexcept override { mName = name; }
    nvinfer1::ITensor* addInput(char const* name, nvinfer1::DataType type, nvinfer1::Dims const& dims) noexcept override;
    void markOutput(nvinfer1::ITensor& tensor) noexcept override;
    nvinfer1::IActivationLayer* addActivation(nvinfer1::ITensor& input, nvinfer1::ActivationType type) noexcept override;
    nvinfer1::ICastLayer* addCast(nvinfer1::ITensor& input, nvinfer1::DataType toType) noexcept override;
    nvinfer1::IConstantLayer* addConstant(nvinfer1::Dims const& dims, nvinfer1::Weights weights) noexcept override;
    nvinfer1::IElementWiseLayer* addElementWise(nvinfer1::ITensor& input1, nvinfer1::ITensor& input2,
                                                nvinfer1::ElementWiseOperation op) noexcept override;
    nvinfer1::IGatherLayer* addGather(nvinfer1::ITensor& data, nvinfer1::ITensor& indices,
                                      std::int32_t axis) noexcept override;
    nvinfer1::IMatrixMultiplyLayer* addMatrixMultiply(nvinfer1::ITensor& input0, nvinfer1::MatrixOperation op0,
                                                      nvinfer1::ITensor& input1,
                                                      nvinfer1::MatrixOperation op1) noexcept override;
    nvinfer1::IPluginV2Layer* addPluginV2(nvinfer1::ITensor* const* inputs, std::int32_t nbInputs,
                                          nvinfer1::IPluginV2& plugin) noexcept override;
    nvinfer1::IReduceLayer* addReduce(nvinfer1::ITensor& input, nvinfer1::ReduceOperation operation, std::uint32_t axes,
                                      bool keepDimensions) noexcept override;
    nvinfer1::IShuffleLayer* addShuffle(nvinfer1::ITensor& input) noexcept override;
    nvinfer1::IUnaryLayer* addUnary(nvinfer1::ITensor& input, nvinfer1::UnaryOperation operation) noexcept override;
    bool setWeightsName(nvinfer1::Weights weights, char const* name) noexcept override;

    // Adds a layer; `Interface` is what TensorRT calls it.
    template <typename Interface>
    Interface* add(char const* kind, std::vector<nvinfer1::ITensor*> const& inputs, Shape shape, std::string more);

    nvinfer1::ILogger& mLogger;
    std::string mName;
    std::deque<std::unique_ptr<Tensor>> mTensors;
    std::vector<Tensor*> mInputs;
    std::vector<Tensor*> mOutputs;
    std::deque<Node> mNodes;
    std::deque<std::unique_ptr<nvinfer1::ILayer>> mLayers;
    std::deque<std::unique_ptr<Plugin, DestroyPlugin>> mPlugins;
    std::map<void const*, std::string> mWeights;
};

}  // namespace stand_in
