// Names, inputs, outputs and layers, as the stand-in's TensorRT takes them. As TensorRT, it gives a layer for whatever it is asked: what is
// wrong with it is said when its output is asked for its dimensions, which are then none (nbDims is -1), and when an engine is built.
#include "nvinfer_network.h"

#include <algorithm>

#include "nvinfer_json.h"

namespace stand_in {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ITensor;
using Severity = nvinfer1::ILogger::Severity;

namespace {

// Numbers of the kinds of errors.
constexpr int kCheck = 3;
constexpr int kUsage = 4;
// Of a layer that reads a faulty one.
std::string const kBehind = "Output shape can not be computed for node ";
constexpr std::size_t kLongestName = 4096;

Tensor* own(ITensor& tensor) { return static_cast<Tensor*>(&tensor); }

// Finds what comes out of a layer, or what is wrong with it.
void infer_output(Node& node) {
    node.output->mProblem.clear();
    std::vector<Shape> inputs;
    for (Tensor const* const input : node.inputs) {
        if (!input->mProblem.empty()) {
            bool const far = input->mProblem.rfind(kBehind, 0) == 0;
            node.output->mProblem = (far ? "" : kBehind) + input->mProblem;
            return;
        }
        inputs.push_back(input->mShape);
    }
    node.output->mShape.dims = infer(node, inputs, false, [&](std::string const& problem) {
        if (node.output->mProblem.empty()) {
            node.output->mProblem = node.name + ": " + problem;
        }
    });
}

template <typename Interface>
class LayerOf : public Interface {
public:
    LayerOf(Network& network, Node& node) : mNetwork(network), mNode(node) {}
    void setName(char const* name) noexcept override {
        mNetwork.mLayerNames.rename("ILayer::setName", "layer", mNode.name, name);
        infer_output(mNode);
    }
    char const* getName() const noexcept override { return mNode.name.c_str(); }
    std::int32_t getNbOutputs() const noexcept override { return 1; }
    ITensor* getOutput(std::int32_t index) const noexcept override { return index == 0 ? mNode.output : nullptr; }

protected:
    Network& mNetwork;
    Node& mNode;
};

class Shuffle : public LayerOf<nvinfer1::IShuffleLayer> {
public:
    using LayerOf::LayerOf;
    void setReshapeDimensions(Dims const& dims) noexcept override {
        mNode.reshape = to_sizes(dims);
        changed();
    }
    void setSecondTranspose(nvinfer1::Permutation permutation) noexcept override {
        auto const rank = mNode.reshape ? mNode.reshape->size() : mNode.inputs[0]->mShape.dims.size();
        mNode.permutation = std::vector<std::int32_t>(permutation.order, permutation.order + rank);
        changed();
    }
    void setZeroIsPlaceholder(bool) noexcept override {}

private:
    void changed() {
        mNode.more = "\"reshape\":" + (mNode.reshape ? integers(*mNode.reshape) : "null") +
                     ",\"permutation\":" + (mNode.permutation ? integers(*mNode.permutation) : "null");
        infer_output(mNode);
    }
};

class Concatenation : public LayerOf<nvinfer1::IConcatenationLayer> {
public:
    using LayerOf::LayerOf;
    void setAxis(std::int32_t axis) noexcept override {
        mNode.axis = axis;
        mNode.more = "\"axis\":" + std::to_string(axis);
        infer_output(mNode);
    }
};

template <typename Interface>
struct Class {
    using Type = LayerOf<Interface>;
};
template <>
struct Class<nvinfer1::IShuffleLayer> {
    using Type = Shuffle;
};

template <>
struct Class<nvinfer1::IConcatenationLayer> {
    using Type = Concatenation;
};

Node node_of(char const* kind, std::vector<ITensor*> const& inputs, std::string more) {
    Node node;
    node.kind = kind;
    for (ITensor* const input : inputs) {
        node.inputs.push_back(own(*input));
    }
    node.more = std::move(more);
    return node;
}

std::string const kParameter = "API Usage Error (Parameter check failed, condition: ";

}  // namespace

Sizes to_sizes(Dims const& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

Dims to_dims(Sizes const& sizes) {
    Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(std::min<std::size_t>(sizes.size(), Dims::MAX_DIMS));
    std::copy_n(sizes.begin(), dims.nbDims, dims.d);
    return dims;
}

std::string text_of(Sizes const& sizes) { return integers(sizes); }

char const* name_of(DataType type) {
    char const* const names[] = {"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64"};
    auto const number = static_cast<std::size_t>(type);
    return number < std::size(names) ? names[number] : "OTHER";
}

std::size_t bytes_of(DataType type) {
    switch (type) {
    case DataType::kINT64: return 8;
    case DataType::kFLOAT:
    case DataType::kINT32: return 4;
    case DataType::kHALF:
    case DataType::kBF16: return 2;
    default: return 1;
    }
}

void say(nvinfer1::ILogger& logger, Severity severity, std::string const& line) noexcept {
    logger.log(severity, line.c_str());
}

void say_error(nvinfer1::ILogger& logger, std::string const& function, int code, std::string const& what) noexcept {
    say(logger, Severity::kERROR, "stand-in: " + function + ": Error Code " + std::to_string(code) + ": " + what);
}

bool Names::fits(char const* function, char const* name) const {
    if (std::char_traits<char>::length(name) < kLongestName) {
        return true;
    }
    say_error(mLogger, function, kCheck, "API Usage Error (The given name exceeds the limit (4096 characters)!)");
    return false;
}

void Names::rename(char const* function, char const* what, std::string& name, char const* wanted) {
    if (!fits(function, wanted) || name == wanted) {
        return;
    }
    if (!mTaken.insert(wanted).second) {
        say_error(mLogger, function, kCheck,
                  std::string("API Usage Error (Failed attempt to rename a ") + what + " from " + name + " to " + wanted +
                      " as the new name is already in use.)");
        return;
    }
    mTaken.erase(name);
    name = wanted;
}

Dims Tensor::getDimensions() const noexcept {
    if (mProblem.empty()) {
        return to_dims(mShape.dims);
    }
    say_error(mLogger, "ITensor::getDimensions", kUsage, "API Usage Error (" + mProblem + ")");
    return Dims{-1, {}};
}

void Tensor::setDimensionName(std::int32_t index, char const* name) noexcept {
    if (mNames.fits("ITensor::setDimensionName", name)) {
        mDimensions[index] = name;
    }
}

char const* Tensor::getDimensionName(std::int32_t index) const noexcept {
    auto const found = mDimensions.find(index);
    return found == mDimensions.end() ? nullptr : found->second.c_str();
}

template <typename Interface>
Interface* Network::add(Node made, DataType type) {
    auto const number = mNodes.size();
    auto& node = mNodes.emplace_back(std::move(made));
    node.name = "(Unnamed Layer* " + std::to_string(number) + ") [" + node.kind + "]";
    auto const tensor = node.name + "_output";
    mLayerNames.add(node.name);
    mTensorNames.add(tensor);
    mTensors.push_back(
        std::make_unique<Tensor>(mLogger, mTensorNames, "%" + std::to_string(number), tensor, Shape{type, {}}));
    node.output = mTensors.back().get();
    infer_output(node);
    auto layer = std::make_unique<typename Class<Interface>::Type>(*this, node);
    auto* const added = layer.get();
    mLayers.push_back(std::move(layer));
    return added;
}

void Network::setName(char const* name) noexcept {
    if (mLayerNames.fits("INetworkDefinition::setName", name)) {
        mName = name;
    }
}

ITensor* Network::addInput(char const* name, DataType type, Dims const& dims) noexcept {
    char const* const function = "INetworkDefinition::addInput";
    if (!mTensorNames.fits(function, name)) {
        return nullptr;
    }
    bool const taken = std::any_of(mInputs.begin(), mInputs.end(), [&](auto const* input) { return input->mName == name; });
    bool const valid = dims.nbDims >= 0 && dims.nbDims <= Dims::MAX_DIMS &&
                       std::all_of(dims.d, dims.d + dims.nbDims, [](auto size) { return size >= -1; });
    if (taken || !valid) {
        say_error(mLogger, function, kCheck,
                  kParameter + (taken ? "inName != knownInput->getName()" : "isValidDims(dims, false)") + ".)");
        return nullptr;
    }
    mTensorNames.add(name);
    mTensors.push_back(std::make_unique<Tensor>(mLogger, mTensorNames, name, name, Shape{type, to_sizes(dims)}));
    mTensors.back()->mInput = true;
    mInputs.push_back(mTensors.back().get());
    return mInputs.back();
}

void Network::markOutput(ITensor& tensor) noexcept {
    auto& output = *own(tensor);
    if (output.mInput || output.mOutput) {
        say_error(mLogger, "INetworkDefinition::markOutput", kUsage,
                  "API Usage Error (Failed attempt to set a tensor " + output.mName + " as network-level output" +
                      (output.mInput ? ". It was previously set as a network-level input. Tensor can't be both input and output at "
                                       "network level.)"
                                     : " as it was already set as network-level output.)"));
        return;
    }
    output.mOutput = true;
    mOutputs.push_back(&output);
}

nvinfer1::IActivationLayer* Network::addActivation(ITensor& input, nvinfer1::ActivationType type) noexcept {
    auto node = node_of("Activation", {&input}, "\"op\":\"SIGMOID\"");
    node.problem = type == nvinfer1::ActivationType::kSIGMOID ? "" : "only SIGMOID is played";
    return add<nvinfer1::IActivationLayer>(std::move(node), input.getType());
}

nvinfer1::ICastLayer* Network::addCast(ITensor& input, DataType toType) noexcept {
    return add<nvinfer1::ICastLayer>(node_of("Cast", {&input}, std::string("\"to\":\"") + name_of(toType) + "\""), toType);
}

nvinfer1::IConcatenationLayer* Network::addConcatenation(ITensor* const* inputs, std::int32_t nbInputs) noexcept {
    auto node = node_of("Concatenation", {inputs, inputs + nbInputs}, "\"axis\":0");
    return add<nvinfer1::IConcatenationLayer>(std::move(node), inputs[0]->getType());
}

nvinfer1::IConstantLayer* Network::addConstant(Dims const& dims, nvinfer1::Weights weights) noexcept {
    auto node = node_of("Constant", {}, "");
    node.weights = weights;
    node.constant = to_sizes(dims);
    return add<nvinfer1::IConstantLayer>(std::move(node), weights.type);
}

nvinfer1::IElementWiseLayer* Network::addElementWise(ITensor& input1, ITensor& input2,
                                                     nvinfer1::ElementWiseOperation op) noexcept {
    char const* const names[] = {"SUM", "PROD", "MAX", "MIN", "SUB", "DIV", "POW"};
    auto const number = static_cast<std::size_t>(op);
    bool const plays = number < std::size(names);
    auto node = node_of("ElementWise", {&input1, &input2}, std::string("\"op\":\"") + (plays ? names[number] : "?") + "\"");
    node.problem = plays ? "" : "no operation " + std::to_string(number) + " is played";
    return add<nvinfer1::IElementWiseLayer>(std::move(node), input1.getType());
}

nvinfer1::IGatherLayer* Network::addGather(ITensor& data, ITensor& indices, std::int32_t axis) noexcept {
    auto node = node_of("Gather", {&data, &indices}, "\"axis\":" + std::to_string(axis) + ",\"mode\":\"DEFAULT\"");
    node.axis = axis;
    return add<nvinfer1::IGatherLayer>(std::move(node), data.getType());
}

nvinfer1::IIdentityLayer* Network::addIdentity(ITensor& input) noexcept {
    return add<nvinfer1::IIdentityLayer>(node_of("Identity", {&input}, "\"op\":\"IDENTITY\""), input.getType());
}

nvinfer1::IMatrixMultiplyLayer* Network::addMatrixMultiply(ITensor& input0, nvinfer1::MatrixOperation op0,
                                                           ITensor& input1, nvinfer1::MatrixOperation op1) noexcept {
    using nvinfer1::MatrixOperation;
    auto const name = [](MatrixOperation op) { return op == MatrixOperation::kNONE ? "\"NONE\"" : "\"TRANSPOSE\""; };
    auto const more = std::string("\"opA\":") + name(op0) + ",\"opB\":" + name(op1);
    auto node = node_of("MatrixMultiply", {&input0, &input1}, more);
    node.transposed = {op0 == MatrixOperation::kTRANSPOSE, op1 == MatrixOperation::kTRANSPOSE};
    return add<nvinfer1::IMatrixMultiplyLayer>(std::move(node), input0.getType());
}

nvinfer1::IPluginV2Layer* Network::addPluginV2(ITensor* const* inputs, std::int32_t nbInputs,
                                               nvinfer1::IPluginV2& plugin) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IPluginV2Layer*>(nullptr), [&] {
        auto* const clone = dynamic_cast<Plugin*>(plugin.clone());
        if (clone == nullptr) {
            throw std::runtime_error("stand-in: addPluginV2: a plugin that is not the stand-in's");
        }
        mPlugins.emplace_back(clone);
        std::vector<ITensor*> const tensors(inputs, inputs + nbInputs);
        std::string const kind = std::string("Plugin:") + clone->getPluginType();
        auto const types = std::map<nvinfer1::PluginFieldType, char const*>{
            {nvinfer1::PluginFieldType::kINT8, "INT8"},
            {nvinfer1::PluginFieldType::kINT32, "INT32"},
            {nvinfer1::PluginFieldType::kFLOAT32, "FLOAT32"},
        };
        auto const fields = list(clone->fields(), [&](Field const& field) {
            auto const values = list(field.values, [&](double value) {
                char text[40];
                bool const whole = field.type != nvinfer1::PluginFieldType::kFLOAT32;
                std::snprintf(text, sizeof text, whole ? "%.0f" : "%.17g", value);
                std::string const number = text;
                return whole || number.find_first_of(".e") != std::string::npos ? number : number + ".0";
            });
            return "[" + quote(field.name) + "," + quote(types.at(field.type)) + "," + values + "]";
        });
        auto const more = "\"version\":" + quote(clone->getPluginVersion()) +
                          ",\"namespace\":" + quote(clone->getPluginNamespace()) + ",\"fields\":" + fields;
        auto node = node_of(kind.c_str(), tensors, more);
        node.plugin = clone;
        if (tensors.empty()) {
            throw std::runtime_error("stand-in: plugin " + kind + " reads nothing");
        }
        return add<nvinfer1::IPluginV2Layer>(std::move(node), tensors[0]->getType());
    });
}

nvinfer1::IReduceLayer* Network::addReduce(ITensor& input, nvinfer1::ReduceOperation operation, std::uint32_t axes,
                                           bool keepDimensions) noexcept {
    auto node = node_of("Reduce", {&input}, "\"op\":\"AVG\",\"axes\":" + std::to_string(axes) + ",\"keep\":true");
    bool const plays = keepDimensions && operation == nvinfer1::ReduceOperation::kAVG;
    node.problem = plays ? "" : "only AVG that keeps dimensions is played";
    node.axis = axes;
    return add<nvinfer1::IReduceLayer>(std::move(node), input.getType());
}

nvinfer1::IShuffleLayer* Network::addShuffle(ITensor& input) noexcept {
    return add<nvinfer1::IShuffleLayer>(node_of("Shuffle", {&input}, "\"reshape\":null,\"permutation\":null"), input.getType());
}

nvinfer1::IUnaryLayer* Network::addUnary(ITensor& input, nvinfer1::UnaryOperation operation) noexcept {
    auto node = node_of("Unary", {&input}, "\"op\":\"SQRT\"");
    node.problem = operation == nvinfer1::UnaryOperation::kSQRT ? "" : "only SQRT is played";
    return add<nvinfer1::IUnaryLayer>(std::move(node), input.getType());
}

bool Network::setWeightsName(nvinfer1::Weights weights, char const* name) noexcept {
    char const* const function = "INetworkDefinition::setWeightsName";
    if (!mLayerNames.fits(function, name)) {
        return false;
    }
    auto const same = [&](nvinfer1::Weights const& other) {
        return other.values == weights.values && other.count == weights.count && other.type == weights.type;
    };
    bool const used = std::any_of(mNodes.begin(), mNodes.end(),
                                  [&](Node const& node) { return node.kind == "Constant" && same(node.weights); });
    auto const taken = mWeights.find(name);
    if (!used || (taken != mWeights.end() && !same(taken->second))) {
        say_error(mLogger, function, kCheck,
                  kParameter + (used ? std::string("iter->second.values == w.values. The same name ") + name +
                                           " has been used for different sets of weights.)"
                                     : "weightsSetName. The given weights is not used in the network.)"));
        return false;
    }
    mWeights[name] = weights;
    return true;
}

}  // namespace stand_in
