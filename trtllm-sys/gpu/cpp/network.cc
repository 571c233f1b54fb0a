// The table's functions that make a network. TRTLLM_GPU_TENSORRT: TensorRT's headers and library are there.
#include "guard.h"
#include "table.h"

#if TRTLLM_GPU_TENSORRT

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "network.h"
#include "plugins.h"

// kSTRONGLY_TYPED, which TensorRT 11 has marked as going away: it makes no other networks.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ITensor;
using shim::guarded;
using shim::quoted;

#define TEXT_OF(value) #value
#define DOTTED(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)
constexpr char const* kBuiltAgainst = DOTTED(NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH);

char const* loaded_version() {
    static std::string const version = [] {
        auto const number = getInferLibVersion();
        return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
               std::to_string(number % 100);
    }();
    return version.c_str();
}

std::string text_of(Dims const& dims) {
    std::string text = "[";
    for (std::int32_t i = 0; i < dims.nbDims; i++) {
        text += (i == 0 ? "" : ", ") + std::to_string(dims.d[i]);
    }
    return text + "]";
}

// Of a name that was set: TensorRT only says in its log that it does not take one, which is in use or too long, and keeps the old one.
void check_name(trtllm_gpu_network& network, std::string const& what, char const* now, char const* wanted) {
    if (now == nullptr || std::strcmp(now, wanted) != 0) {
        network.log->fail(what + ": its name is not taken");
    }
}

ITensor& tensor(trtllm_gpu_network& network, std::uint32_t number, std::string const& user) {
    if (number >= network.tensors.size()) {
        throw std::runtime_error(user + " reads tensor " + std::to_string(number) + ", which does not exist");
    }
    return *network.tensors[number];
}

nvinfer1::ILayer* add_constant(trtllm_gpu_network& network, trtllm_gpu_network_node const& node) {
    nvinfer1::Weights const weights{static_cast<DataType>(node.dtype), node.data, node.count};
    auto* const layer = network.network->addConstant(shim::to_dims(node.shape, node.rank, node.name), weights);
    if (layer != nullptr && node.weight != nullptr && !network.network->setWeightsName(weights, node.weight)) {
        network.log->fail("node " + quoted(node.name) + ": its weights cannot be called " + quoted(node.weight));
    }
    return layer;
}

nvinfer1::ILayer* add_shuffle(trtllm_gpu_network& network, trtllm_gpu_network_node const& node, ITensor& input) {
    auto* const layer = network.network->addShuffle(input);
    if (layer != nullptr) {
        layer->setZeroIsPlaceholder(false);
        layer->setReshapeDimensions(shim::to_dims(node.reshape, node.reshape_rank, node.name));
        if (node.permutation != nullptr) {
            nvinfer1::Permutation order{};
            std::copy_n(node.permutation, node.reshape_rank, order.order);
            layer->setSecondTranspose(order);
        }
    }
    return layer;
}

nvinfer1::ILayer* add_concatenation(trtllm_gpu_network& network, trtllm_gpu_network_node const& node,
                                    std::vector<ITensor*> const& inputs) {
    auto* const layer = network.network->addConcatenation(inputs.data(), static_cast<std::int32_t>(inputs.size()));
    if (layer != nullptr) {
        layer->setAxis(node.axis);
    }
    return layer;
}

nvinfer1::ILayer* add_layer(trtllm_gpu_network& network, trtllm_gpu_network_node const& node,
                            std::vector<ITensor*> const& inputs) {
    auto& to = *network.network;
    auto const expect = [&](std::size_t count) {
        if (inputs.size() != count) {
            throw std::runtime_error("node " + quoted(node.name) + " reads " + std::to_string(inputs.size()) +
                                     " tensors, and not " + std::to_string(count));
        }
    };
    switch (node.op) {
    case TRTLLM_GPU_CONSTANT: expect(0); return add_constant(network, node);
    case TRTLLM_GPU_GATHER: expect(2); return to.addGather(*inputs[0], *inputs[1], node.axis);
    case TRTLLM_GPU_MATRIX_MULTIPLY: {
        expect(2);
        using nvinfer1::MatrixOperation;
        auto const second = node.transpose ? MatrixOperation::kTRANSPOSE : MatrixOperation::kNONE;
        return to.addMatrixMultiply(*inputs[0], MatrixOperation::kNONE, *inputs[1], second);
    }
    case TRTLLM_GPU_ELEMENT_WISE:
        expect(2);
        return to.addElementWise(*inputs[0], *inputs[1], static_cast<nvinfer1::ElementWiseOperation>(node.kind));
    case TRTLLM_GPU_UNARY:
        expect(1);
        return to.addUnary(*inputs[0], static_cast<nvinfer1::UnaryOperation>(node.kind));
    case TRTLLM_GPU_REDUCE:
        expect(1);
        return to.addReduce(*inputs[0], static_cast<nvinfer1::ReduceOperation>(node.kind),
                            static_cast<std::uint32_t>(node.axis), true);
    case TRTLLM_GPU_ACTIVATION:
        expect(1);
        return to.addActivation(*inputs[0], static_cast<nvinfer1::ActivationType>(node.kind));
    case TRTLLM_GPU_CAST: expect(1); return to.addCast(*inputs[0], static_cast<DataType>(node.dtype));
    case TRTLLM_GPU_SHUFFLE: expect(1); return add_shuffle(network, node, *inputs[0]);
    case TRTLLM_GPU_CONCATENATION: return add_concatenation(network, node, inputs);
    case TRTLLM_GPU_PLUGIN: return shim::add_plugin(network, node, inputs);
    default: throw shim::Unsupported("operation " + std::to_string(node.op));
    }
}

// Compares what comes out of a layer with what the node says.
void check_output(trtllm_gpu_network& network, trtllm_gpu_network_node const& node, ITensor& output) {
    auto const wanted = shim::to_dims(node.shape, node.rank, node.name);
    auto const dims = output.getDimensions();
    if (dims.nbDims < 0) {
        network.log->fail("node " + quoted(node.name) + " is refused");
    }
    bool fits = dims.nbDims == wanted.nbDims;
    for (std::int32_t i = 0; fits && i < dims.nbDims; i++) {
        fits = dims.d[i] < 0 || wanted.d[i] < 0 || dims.d[i] == wanted.d[i];
    }
    if (!fits) {
        network.log->fail("node " + quoted(node.name) + " makes " + text_of(dims) + ", and not " + text_of(wanted));
    }
    if (output.getType() != static_cast<DataType>(node.dtype)) {
        network.log->fail("node " + quoted(node.name) + " makes type " +
                          std::to_string(static_cast<std::int32_t>(output.getType())) + " of nvinfer1::DataType, and not " +
                          std::to_string(node.dtype));
    }
}

std::int32_t network_create(char const* name, std::int32_t device, trtllm_gpu_log log, void* userData,
                            trtllm_gpu_network** network, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto const number = getInferLibVersion();
        if (number / 10000 != NV_TENSORRT_MAJOR || number < NV_TENSORRT_VERSION) {
            throw std::runtime_error(std::string("libtrtllm_gpu.so was compiled against TensorRT ") + kBuiltAgainst +
                                     ", but " + loaded_version() + " was loaded");
        }
        auto made = std::make_unique<trtllm_gpu_network>();
        shim::register_plugins();
        // A builder belongs to the GPU that is chosen when it is made.
        shim::choose_device(device);
        made->device = device;
        made->log.reset(&shim::NetworkLog::open(log, userData));
        made->builder.reset(nvinfer1::createInferBuilder(*made->log));
        if (!made->builder) {
            made->log->fail("TensorRT makes no builder");
        }
        auto const typed = static_cast<std::uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
        made->network.reset(made->builder->createNetworkV2(1U << typed));
        if (!made->network) {
            made->log->fail("TensorRT makes no network");
        }
        made->network->setName(name);
        check_name(*made, "the network", made->network->getName(), name);
        *network = made.release();
    });
}

std::int32_t network_add_input(trtllm_gpu_network* network, trtllm_gpu_network_input const* input,
                               trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto const dims = shim::to_dims(input->shape, input->rank, input->name);
        shim::ProfiledInput profiled{input->name, std::count(dims.d, dims.d + dims.nbDims, -1) > 0, {}};
        for (std::size_t i = 0; i < input->num_profiles; i++) {
            auto const at = [&](std::size_t which) {
                return shim::to_dims(input->profiles + (i * 3 + which) * input->rank, input->rank, input->name);
            };
            profiled.profiles.push_back({at(0), at(1), at(2)});
        }
        auto* const added = network->network->addInput(input->name, static_cast<DataType>(input->dtype), dims);
        if (added == nullptr) {
            network->log->fail("input " + quoted(input->name) + " is refused");
        }
        check_name(*network, "input " + quoted(input->name), added->getName(), input->name);
        for (std::size_t i = 0; i < input->rank; i++) {
            if (auto const* const name = input->dimension_names[i]; name != nullptr) {
                auto const axis = static_cast<std::int32_t>(i);
                added->setDimensionName(axis, name);
                auto const what = "dimension " + std::to_string(i) + " of input " + quoted(input->name);
                check_name(*network, what, added->getDimensionName(axis), name);
            }
        }
        network->tensors.push_back(added);
        network->inputs.push_back(std::move(profiled));
    });
}

std::int32_t network_add_node(trtllm_gpu_network* network, trtllm_gpu_network_node const* node, trtllm_gpu_error* error) {
    return guarded(error, [&] {
        std::vector<ITensor*> inputs;
        for (std::size_t i = 0; i < node->num_inputs; i++) {
            inputs.push_back(&tensor(*network, node->inputs[i], "node " + quoted(node->name)));
        }
        auto* const layer = add_layer(*network, *node, inputs);
        if (layer == nullptr) {
            network->log->fail("node " + quoted(node->name) + " is refused");
        }
        layer->setName(node->name);
        check_name(*network, "node " + quoted(node->name), layer->getName(), node->name);
        auto* const output = layer->getNbOutputs() == 1 ? layer->getOutput(0) : nullptr;
        if (output == nullptr) {
            network->log->fail("node " + quoted(node->name) + " does not make one tensor");
        }
        check_output(*network, *node, *output);
        network->tensors.push_back(output);
    });
}

std::int32_t network_mark_output(trtllm_gpu_network* network, std::uint32_t number, char const* name,
                                 trtllm_gpu_error* error) {
    return guarded(error, [&] {
        auto& output = tensor(*network, number, "output " + quoted(name));
        if (output.isNetworkInput() || output.isNetworkOutput()) {
            throw std::runtime_error("output " + quoted(name) + " is already called " + quoted(output.getName()));
        }
        output.setName(name);
        check_name(*network, "output " + quoted(name), output.getName(), name);
        network->network->markOutput(output);
        if (!output.isNetworkOutput()) {
            network->log->fail("output " + quoted(name) + " is refused");
        }
    });
}

std::int32_t network_build(trtllm_gpu_network* network, trtllm_gpu_build const* build, trtllm_gpu_error* error) {
    return guarded(error, [&] { shim::build_network(*network, *build); });
}

void free_network(trtllm_gpu_network* network) { delete network; }

}  // namespace

namespace shim {

std::string quoted(char const* name) {
    constexpr std::size_t kShown = 200;
    std::string text = name;
    if (text.size() > kShown) {
        auto end = kShown;
        while ((text[end] & 0xc0) == 0x80) {
            end--;
        }
        text = text.substr(0, end) + "...";
    }
    return "`" + text + "`";
}

Dims to_dims(std::int64_t const* sizes, std::size_t rank, std::string const& name) {
    Dims dims{};
    if (rank > static_cast<std::size_t>(Dims::MAX_DIMS)) {
        throw std::runtime_error("`" + name + "` has " + std::to_string(rank) + " dimensions, and TensorRT takes " +
                                 std::to_string(Dims::MAX_DIMS));
    }
    dims.nbDims = static_cast<std::int32_t>(rank);
    std::copy_n(sizes, rank, dims.d);
    return dims;
}

}  // namespace shim

#else

namespace {

using shim::guarded;

[[noreturn]] void refuse() {
    throw shim::Unsupported("a network: libtrtllm_gpu.so was built without TensorRT's headers and library");
}

char const* loaded_version() { return ""; }
constexpr char const* kBuiltAgainst = "";

std::int32_t network_create(char const*, std::int32_t, trtllm_gpu_log, void*, trtllm_gpu_network**, trtllm_gpu_error* error) {
    return guarded(error, refuse);
}
std::int32_t network_add_input(trtllm_gpu_network*, trtllm_gpu_network_input const*, trtllm_gpu_error* error) {
    return guarded(error, refuse);
}
std::int32_t network_add_node(trtllm_gpu_network*, trtllm_gpu_network_node const*, trtllm_gpu_error* error) {
    return guarded(error, refuse);
}
std::int32_t network_mark_output(trtllm_gpu_network*, std::uint32_t, char const*, trtllm_gpu_error* error) {
    return guarded(error, refuse);
}
std::int32_t network_build(trtllm_gpu_network*, trtllm_gpu_build const*, trtllm_gpu_error* error) {
    return guarded(error, refuse);
}
void free_network(trtllm_gpu_network*) {}

}  // namespace

#endif  // TRTLLM_GPU_TENSORRT

namespace shim {

void add_network(trtllm_gpu_table& table) {
    table.tensorrt_version = loaded_version;
    table.tensorrt_built_against = kBuiltAgainst;
    table.network_create = network_create;
    table.network_add_input = network_add_input;
    table.network_add_node = network_add_node;
    table.network_mark_output = network_mark_output;
    table.network_build = network_build;
    table.free_network = free_network;
}

}  // namespace shim
