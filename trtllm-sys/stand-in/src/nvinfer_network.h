// The network that the stand-in's TensorRT records.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
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
void say(nvinfer1::ILogger& logger, nvinfer1::ILogger::Severity severity, std::string const& line) noexcept;

// Says that `function` failed, as TensorRT does: with its number of the kind of error.
void say_error(nvinfer1::ILogger& logger, std::string const& function, int code, std::string const& what) noexcept;

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

// Names of layers, or of tensors: each is there once.
class Names {
public:
    explicit Names(nvinfer1::ILogger& logger) : mLogger(logger) {}
    // Takes `wanted` in place of `name`; or says for `function` why not, and `name` stays.
    void rename(char const* function, char const* what, std::string& name, char const* wanted);
    void add(std::string const& name) { mTaken.insert(name); }
    // Whether `name` is short enough; or says for `function` that it is not.
    bool fits(char const* function, char const* name) const;

private:
    nvinfer1::ILogger& mLogger;
    std::set<std::string> mTaken;
};


class Tensor : public nvinfer1::ITensor {
public:
    Tensor(nvinfer1::ILogger& logger, Names& names, std::string id, std::string name, Shape shape)
        : mLogger(logger), mNames(names), mId(std::move(id)), mName(std::move(name)), mShape(std::move(shape)) {}

    void setName(char const* name) noexcept override { mNames.rename("ITensor::setName", "tensor", mName, name); }
    char const* getName() const noexcept override { return mName.c_str(); }
    nvinfer1::Dims getDimensions() const noexcept override;
    nvinfer1::DataType getType() const noexcept override { return mShape.type; }
    bool isNetworkInput() const noexcept override { return mInput; }
    bool isNetworkOutput() const noexcept override { return mOutput; }
    void setDimensionName(std::int32_t index, char const* name) noexcept override;
    char const* getDimensionName(std::int32_t index) const noexcept override;

    nvinfer1::ILogger& mLogger;
    Names& mNames;
    // `%0` of a layer, the name of an input.
    std::string mId;
    std::string mName;
    Shape mShape;
    bool mInput = false;
    bool mOutput = false;
    // What is wrong with the layer that makes it, or with one before.
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
    // What is wrong with it, whatever its inputs are.
    std::string problem;
    // The axis of a gather or a concatenation, the axes of a reduction.
    std::int64_t axis = 0;
    // Of a matrix product: whether an input is transposed.
    std::array<bool, 2> transposed{};
    nvinfer1::Weights weights{};
    // Of a constant: its shape.
    Sizes constant;
    Plugin* plugin = nullptr;
    // Of a shuffle.
    std::optional<Sizes> reshape;
    std::optional<std::vector<std::int32_t>> permutation;
};

// What comes out of a layer that reads `inputs`. Sizes are open (-1), as the network has them, or `known`, as a profile has them. What
// does not fit goes to `complain`, in TensorRT's words; the sizes are then a guess.
Sizes infer(Node const& node, std::vector<Shape> const& inputs, bool known,
            std::function<void(std::string const&)> const& complain);

struct DestroyPlugin {
    void operator()(Plugin* plugin) const { plugin->destroy(); }
};

class Network : public nvinfer1::INetworkDefinition {
public:
    explicit Network(nvinfer1::ILogger& logger) : mLogger(logger), mLayerNames(logger), mTensorNames(logger) {}

    void setName(char const* name) noexcept override;
    char const* getName() const noexcept override { return mName.c_str(); }
    nvinfer1::ITensor* addInput(char const* name, nvinfer1::DataType type, nvinfer1::Dims const& dims) noexcept override;
    void markOutput(nvinfer1::ITensor& tensor) noexcept override;
    nvinfer1::IActivationLayer* addActivation(nvinfer1::ITensor& input, nvinfer1::ActivationType type) noexcept override;
    nvinfer1::ICastLayer* addCast(nvinfer1::ITensor& input, nvinfer1::DataType toType) noexcept override;
    nvinfer1::IConcatenationLayer* addConcatenation(nvinfer1::ITensor* const* inputs,
                                                    std::int32_t nbInputs) noexcept override;
    nvinfer1::IConstantLayer* addConstant(nvinfer1::Dims const& dims, nvinfer1::Weights weights) noexcept override;
    nvinfer1::IElementWiseLayer* addElementWise(nvinfer1::ITensor& input1, nvinfer1::ITensor& input2,
                                                nvinfer1::ElementWiseOperation op) noexcept override;
    nvinfer1::IGatherLayer* addGather(nvinfer1::ITensor& data, nvinfer1::ITensor& indices,
                                      std::int32_t axis) noexcept override;
    nvinfer1::IIdentityLayer* addIdentity(nvinfer1::ITensor& input) noexcept override;
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

    // Adds a layer, whatever is wrong with it: its output says so when it is asked for its dimensions. `Interface` is what TensorRT calls
    // it, `node` what it is.
    template <typename Interface>
    Interface* add(Node node, nvinfer1::DataType type);

    nvinfer1::ILogger& mLogger;
    std::string mName;
    Names mLayerNames;
    Names mTensorNames;
    std::deque<std::unique_ptr<Tensor>> mTensors;
    std::vector<Tensor*> mInputs;
    std::vector<Tensor*> mOutputs;
    std::deque<Node> mNodes;
    std::deque<std::unique_ptr<nvinfer1::ILayer>> mLayers;
    std::deque<std::unique_ptr<Plugin, DestroyPlugin>> mPlugins;
    // Weights that have a name.
    std::map<std::string, nvinfer1::Weights> mWeights;
};

}  // namespace stand_in
