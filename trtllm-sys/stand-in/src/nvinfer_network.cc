// Layers: what comes out of each, and what TensorRT refuses in a strongly typed network.
#include "nvinfer_network.h"

#include <algorithm>
#include <numeric>

#include "nvinfer_json.h"

namespace stand_in {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ITensor;

namespace {

[[noreturn]] void refuse(std::string const& what) { throw std::runtime_error("stand-in: API Usage Error: " + what); }

Shape const& shape_of(ITensor const& tensor) { return static_cast<Tensor const&>(tensor).mShape; }

std::int64_t volume(Sizes const& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

// Product of the sizes that are known.
std::int64_t known(Sizes const& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1},
                           [](auto product, auto size) { return size < 0 ? product : product * size; });
}

bool is_dynamic(Sizes const& sizes) { return std::count(sizes.begin(), sizes.end(), -1) > 0; }

std::string text_of(Shape const& shape) { return std::string(name_of(shape.type)) + stand_in::text_of(shape.dims); }

void same_type(char const* layer, Shape const& a, Shape const& b) {
    if (a.type != b.type) {
        refuse(std::string(layer) + ": inputs must have one type in a strongly typed network: " + text_of(a) + " and " +
               text_of(b));
    }
}

void must_be_float(char const* layer, Shape const& shape) {
    if (!is_float(shape.type)) {
        refuse(std::string(layer) + " takes floating point, and not " + text_of(shape));
    }
}

std::int64_t broadcast(char const* layer, Shape const& a, Shape const& b, std::size_t axis) {
    auto const x = a.dims[axis];
    auto const y = b.dims[axis];
    if (x != y && x != 1 && y != 1 && x >= 0 && y >= 0) {
        refuse(std::string(layer) + ": dimensions must be equal or 1: " + text_of(a) + " and " + text_of(b));
    }
    if (x == 1) {
        return y;
    }
    // A size that is not known is the other one, or 1.
    return y == 1 || x >= 0 ? x : y;
}

void same_rank(char const* layer, Shape const& a, Shape const& b) {
    if (a.dims.size() != b.dims.size()) {
        refuse(std::string(layer) + ": inputs must have one rank: " + text_of(a) + " and " + text_of(b));
    }
}

// What a shuffle makes of `input`.
Sizes shuffled(Shape const& input, Node const& node) {
    Sizes sizes = input.dims;
    if (node.reshape) {
        sizes = *node.reshape;
        auto const wildcards = std::count(sizes.begin(), sizes.end(), -1);
        auto const wanted = known(sizes);
        auto const there = known(input.dims);
        bool const open = is_dynamic(input.dims);
        bool fits = wildcards <= 1 && std::all_of(sizes.begin(), sizes.end(), [](auto size) { return size >= -1; });
        if (wildcards == 0) {
            fits = fits && (open ? there != 0 && wanted % there == 0 : wanted == there);
        } else if (!open) {
            fits = fits && wanted != 0 && there % wanted == 0;
        }
        if (!fits) {
            refuse("Shuffle: " + text_of(input) + " cannot become " + stand_in::text_of(sizes));
        }
        if (!open) {
            std::replace(sizes.begin(), sizes.end(), std::int64_t{-1}, wanted == 0 ? 0 : there / wanted);
        }
    }
    if (node.permutation) {
        auto const& order = *node.permutation;
        Sizes permuted;
        std::vector<bool> taken(sizes.size());
        for (std::size_t i = 0; i < sizes.size(); i++) {
            auto const from = static_cast<std::size_t>(order[i]);
            if (from >= sizes.size() || taken[from]) {
                refuse("Shuffle: " + integers(order) + " is no permutation of " + std::to_string(sizes.size()) + " axes");
            }
            taken[from] = true;
            permuted.push_back(sizes[from]);
        }
        return permuted;
    }
    return sizes;
}

template <typename Interface>
class LayerOf : public Interface {
public:
    LayerOf(Network& network, Node& node) : mNetwork(network), mNode(node) {}
    void setName(char const* name) noexcept override { mNode.name = name; }
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
        infer();
    }
    void setSecondTranspose(nvinfer1::Permutation permutation) noexcept override {
        auto const rank = mNode.reshape ? mNode.reshape->size() : mNode.inputs[0]->mShape.dims.size();
        mNode.permutation = std::vector<std::int32_t>(permutation.order, permutation.order + rank);
        infer();
    }
    void setZeroIsPlaceholder(bool) noexcept override {}

private:
    void infer() noexcept {
        mNode.output->mProblem.clear();
        try {
            mNode.output->mShape.dims = shuffled(mNode.inputs[0]->mShape, mNode);
        } catch (std::exception const& exception) {
            mNode.output->mProblem = exception.what();
            say(mNetwork.mLogger, nvinfer1::ILogger::Severity::kERROR, exception.what());
        }
        mNode.more = "\"reshape\":" + (mNode.reshape ? integers(*mNode.reshape) : "null") +
                     ",\"permutation\":" + (mNode.permutation ? integers(*mNode.permutation) : "null");
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

std::string element_wise_name(nvinfer1::ElementWiseOperation op) {
    char const* const names[] = {"SUM", "PROD", "MAX", "MIN", "SUB", "DIV", "POW"};
    auto const number = static_cast<std::size_t>(op);
    if (number >= std::size(names)) {
        refuse("ElementWise: no operation " + std::to_string(number));
    }
    return names[number];
}

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

bool is_float(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16; }

void say(nvinfer1::ILogger& logger, nvinfer1::ILogger::Severity severity, std::string const& line) noexcept {
    logger.log(severity, line.c_str());
}

Dims Tensor::getDimensions() const noexcept { return mProblem.empty() ? to_dims(mShape.dims) : Dims{-1, {}}; }

template <typename Interface>
Interface* Network::add(char const* kind, std::vector<ITensor*> const& inputs, Shape shape, std::string more) {
    auto& node = mNodes.emplace_back();
    node.kind = kind;
    for (ITensor* const input : inputs) {
        node.inputs.push_back(static_cast<Tensor*>(input));
    }
    auto const id = "%" + std::to_string(mNodes.size() - 1);
    mTensors.push_back(std::make_unique<Tensor>(id, std::move(shape)));
    node.output = mTensors.back().get();
    node.more = std::move(more);
    auto layer = std::make_unique<typename Class<Interface>::Type>(*this, node);
    auto* const added = layer.get();
    mLayers.push_back(std::move(layer));
    return added;
}

ITensor* Network::addInput(char const* name, DataType type, Dims const& dims) noexcept {
    return guarded(mLogger, static_cast<ITensor*>(nullptr), [&]() -> ITensor* {
        for (Tensor const* const input : mInputs) {
            if (input->mName == name) {
                refuse(std::string("addInput: there is an input ") + name + " already");
            }
        }
        if (dims.nbDims < 0 || dims.nbDims > Dims::MAX_DIMS || std::any_of(dims.d, dims.d + dims.nbDims, [](auto size) { return size < -1; })) {
            refuse(std::string("addInput: ") + name + " has no such shape");
        }
        mTensors.push_back(std::make_unique<Tensor>(name, Shape{type, to_sizes(dims)}));
        mTensors.back()->mInput = true;
        mInputs.push_back(mTensors.back().get());
        return mInputs.back();
    });
}

void Network::markOutput(ITensor& tensor) noexcept {
    auto& output = static_cast<Tensor&>(tensor);
    output.mOutput = true;
    mOutputs.push_back(&output);
}

nvinfer1::IActivationLayer* Network::addActivation(ITensor& input, nvinfer1::ActivationType type) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IActivationLayer*>(nullptr), [&] {
        must_be_float("Activation", shape_of(input));
        if (type != nvinfer1::ActivationType::kSIGMOID) {
            refuse("Activation: only SIGMOID is played");
        }
        return add<nvinfer1::IActivationLayer>("Activation", {&input}, shape_of(input), "\"op\":\"SIGMOID\"");
    });
}

nvinfer1::ICastLayer* Network::addCast(ITensor& input, DataType toType) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::ICastLayer*>(nullptr), [&] {
        auto const more = std::string("\"to\":\"") + name_of(toType) + "\"";
        return add<nvinfer1::ICastLayer>("Cast", {&input}, Shape{toType, shape_of(input).dims}, more);
    });
}

nvinfer1::IConstantLayer* Network::addConstant(Dims const& dims, nvinfer1::Weights weights) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IConstantLayer*>(nullptr), [&] {
        auto const sizes = to_sizes(dims);
        if (is_dynamic(sizes) || volume(sizes) != weights.count || (weights.count > 0 && weights.values == nullptr)) {
            refuse("Constant: " + std::to_string(weights.count) + " weights do not fill " + stand_in::text_of(sizes));
        }
        auto* const layer = add<nvinfer1::IConstantLayer>("Constant", {}, Shape{weights.type, sizes}, "");
        mNodes.back().weights = weights;
        return layer;
    });
}

nvinfer1::IElementWiseLayer* Network::addElementWise(ITensor& input1, ITensor& input2,
                                                     nvinfer1::ElementWiseOperation op) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IElementWiseLayer*>(nullptr), [&] {
        auto const& a = shape_of(input1);
        auto const& b = shape_of(input2);
        same_type("ElementWise", a, b);
        same_rank("ElementWise", a, b);
        if (op == nvinfer1::ElementWiseOperation::kPOW) {
            must_be_float("ElementWise POW", a);
        }
        Shape made{a.type, {}};
        for (std::size_t i = 0; i < a.dims.size(); i++) {
            made.dims.push_back(broadcast("ElementWise", a, b, i));
        }
        return add<nvinfer1::IElementWiseLayer>("ElementWise", {&input1, &input2}, made,
                                                "\"op\":\"" + element_wise_name(op) + "\"");
    });
}

nvinfer1::IGatherLayer* Network::addGather(ITensor& data, ITensor& indices, std::int32_t axis) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IGatherLayer*>(nullptr), [&] {
        auto const& from = shape_of(data);
        auto const& by = shape_of(indices);
        if (by.type != DataType::kINT32 && by.type != DataType::kINT64) {
            refuse("Gather: indices must be INT32 or INT64, and not " + text_of(by));
        }
        if (axis < 0 || static_cast<std::size_t>(axis) >= from.dims.size()) {
            refuse("Gather: " + text_of(from) + " has no axis " + std::to_string(axis));
        }
        Shape made{from.type, {from.dims.begin(), from.dims.begin() + axis}};
        made.dims.insert(made.dims.end(), by.dims.begin(), by.dims.end());
        made.dims.insert(made.dims.end(), from.dims.begin() + axis + 1, from.dims.end());
        return add<nvinfer1::IGatherLayer>("Gather", {&data, &indices}, made,
                                           "\"axis\":" + std::to_string(axis) + ",\"mode\":\"DEFAULT\"");
    });
}

nvinfer1::IMatrixMultiplyLayer* Network::addMatrixMultiply(ITensor& input0, nvinfer1::MatrixOperation op0,
                                                           ITensor& input1, nvinfer1::MatrixOperation op1) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IMatrixMultiplyLayer*>(nullptr), [&] {
        using nvinfer1::MatrixOperation;
        auto a = shape_of(input0);
        auto b = shape_of(input1);
        same_type("MatrixMultiply", a, b);
        same_rank("MatrixMultiply", a, b);
        must_be_float("MatrixMultiply", a);
        auto const rank = a.dims.size();
        if (rank < 2) {
            refuse("MatrixMultiply: " + text_of(a) + " is no matrix");
        }
        for (auto const& [shape, op] : {std::pair{&a, op0}, std::pair{&b, op1}}) {
            if (op == MatrixOperation::kTRANSPOSE) {
                std::swap(shape->dims[rank - 1], shape->dims[rank - 2]);
            }
        }
        auto const inner = std::pair{a.dims[rank - 1], b.dims[rank - 2]};
        if (inner.first >= 0 && inner.second >= 0 && inner.first != inner.second) {
            refuse("MatrixMultiply: " + text_of(a) + " does not go with " + text_of(b));
        }
        Shape made{a.type, {}};
        for (std::size_t i = 0; i + 2 < rank; i++) {
            made.dims.push_back(broadcast("MatrixMultiply", a, b, i));
        }
        made.dims.push_back(a.dims[rank - 2]);
        made.dims.push_back(b.dims[rank - 1]);
        auto const name = [](MatrixOperation op) { return op == MatrixOperation::kNONE ? "\"NONE\"" : "\"TRANSPOSE\""; };
        auto const more = std::string("\"opA\":") + name(op0) + ",\"opB\":" + name(op1);
        return add<nvinfer1::IMatrixMultiplyLayer>("MatrixMultiply", {&input0, &input1}, made, more);
    });
}

nvinfer1::IPluginV2Layer* Network::addPluginV2(ITensor* const* inputs, std::int32_t nbInputs,
                                               nvinfer1::IPluginV2& plugin) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IPluginV2Layer*>(nullptr), [&] {
        auto* const clone = dynamic_cast<Plugin*>(plugin.clone());
        if (clone == nullptr) {
            refuse("addPluginV2: a plugin that is not the stand-in's");
        }
        mPlugins.emplace_back(clone);
        std::vector<ITensor*> const tensors(inputs, inputs + nbInputs);
        std::vector<Shape> shapes;
        for (ITensor const* const input : tensors) {
            shapes.push_back(shape_of(*input));
        }
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
        auto* const layer = add<nvinfer1::IPluginV2Layer>(kind.c_str(), tensors, clone->output(shapes), more);
        mNodes.back().plugin = clone;
        return layer;
    });
}

nvinfer1::IReduceLayer* Network::addReduce(ITensor& input, nvinfer1::ReduceOperation operation, std::uint32_t axes,
                                           bool keepDimensions) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IReduceLayer*>(nullptr), [&] {
        auto made = shape_of(input);
        must_be_float("Reduce", made);
        if (axes == 0 || axes >> made.dims.size() != 0) {
            refuse("Reduce: " + text_of(made) + " has no axes " + std::to_string(axes));
        }
        if (!keepDimensions || operation != nvinfer1::ReduceOperation::kAVG) {
            refuse("Reduce: only AVG that keeps dimensions is played");
        }
        for (std::size_t i = 0; i < made.dims.size(); i++) {
            made.dims[i] = (axes >> i & 1) != 0 ? 1 : made.dims[i];
        }
        return add<nvinfer1::IReduceLayer>("Reduce", {&input}, made,
                                           "\"op\":\"AVG\",\"axes\":" + std::to_string(axes) + ",\"keep\":true");
    });
}

nvinfer1::IShuffleLayer* Network::addShuffle(ITensor& input) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IShuffleLayer*>(nullptr), [&] {
        return add<nvinfer1::IShuffleLayer>("Shuffle", {&input}, shape_of(input), "\"reshape\":null,\"permutation\":null");
    });
}

nvinfer1::IUnaryLayer* Network::addUnary(ITensor& input, nvinfer1::UnaryOperation operation) noexcept {
    return guarded(mLogger, static_cast<nvinfer1::IUnaryLayer*>(nullptr), [&] {
        must_be_float("Unary", shape_of(input));
        if (operation != nvinfer1::UnaryOperation::kSQRT) {
            refuse("Unary: only SQRT is played");
        }
        return add<nvinfer1::IUnaryLayer>("Unary", {&input}, shape_of(input), "\"op\":\"SQRT\"");
    });
}

bool Network::setWeightsName(nvinfer1::Weights weights, char const* name) noexcept {
    return guarded(mLogger, false, [&] {
        mWeights[weights.values] = name;
        return true;
    });
}

}  // namespace stand_in
