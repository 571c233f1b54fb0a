// A referee build: the shim over a builder that has none of TensorRT-LLM's plugins, as TensorRT for RTX, to hear what it says of the rest
// of a network. scripts/check-real-builder compiles it in place of plugins.cc, with TRTLLM_GPU_REFEREE=80 for compute capability 8.0.
#if TRTLLM_GPU_REFEREE

#include <cstring>
#include <stdexcept>

#include "plugins.h"
#include "table.h"

extern "C" trtllm_gpu_table const* trtllm_gpu_shim_table();

extern "C" __attribute__((visibility("default"))) trtllm_gpu_table const* trtllm_gpu() { return trtllm_gpu_shim_table(); }

// What trtllm-sys looks for in a library of the stand-in: TensorRT-LLM is, and the builder is another on purpose.
#define OF_THE_STAND_IN extern "C" __attribute__((visibility("default")))
OF_THE_STAND_IN int const trtllm_stand_in_nvinfer;
OF_THE_STAND_IN int const trtllm_stand_in_nvinfer_plugin_tensorrt_llm;
int const trtllm_stand_in_nvinfer = 1;
int const trtllm_stand_in_nvinfer_plugin_tensorrt_llm = 1;

namespace shim {

void register_plugins() {}

// Cuts a plugin out: what it reads become outputs of the network, what it makes becomes an input, with as many rows as the first input of
// the network has.
nvinfer1::ILayer* add_plugin(trtllm_gpu_network& network, trtllm_gpu_network_node const& node,
                             std::vector<nvinfer1::ITensor*> const& inputs) {
    auto& to = *network.network;
    std::string const name = std::string("cut.") + node.name;
    for (std::size_t i = 0; i < inputs.size(); i++) {
        // An input of the network cannot be its output.
        auto* const copy = to.addIdentity(*inputs[i]);
        auto const called = name + ".in" + std::to_string(i);
        copy->setName(called.c_str());
        copy->getOutput(0)->setName(called.c_str());
        to.markOutput(*copy->getOutput(0));
    }
    std::int64_t rows = 1;
    for (std::size_t i = 0; std::strcmp(node.plugin, "AllGather") == 0 && i < node.num_fields; i++) {
        rows = std::strcmp(node.fields[i].name, "group") == 0 ? node.fields[i].len : rows;
    }
    auto const dims = to_dims(node.shape, node.rank, node.name);
    ProfiledInput made{name, true, {}};
    for (auto shapes : network.inputs.at(0).profiles) {
        for (nvinfer1::Dims& shape : shapes) {
            auto const count = shape.d[0] * rows;
            shape = dims;
            shape.d[0] = count;
        }
        made.profiles.push_back(shapes);
    }
    auto* const added = to.addInput(name.c_str(), static_cast<nvinfer1::DataType>(node.dtype), dims);
    if (added == nullptr) {
        network.log->fail("input " + quoted(name.c_str()) + " is refused");
    }
    if (rows == 1) {
        // It is the same size at run time, so TensorRT may take it for the same.
        added->setDimensionName(0, network.tensors.at(0)->getDimensionName(0));
    }
    network.inputs.push_back(made);
    return to.addIdentity(*added);
}

void set_target([[maybe_unused]] trtllm_gpu_network& network, [[maybe_unused]] nvinfer1::IBuilderConfig& config) {
#ifdef TRT_MAJOR_RTX
    auto const target = static_cast<nvinfer1::ComputeCapability>(TRTLLM_GPU_REFEREE);
    if (!config.setNbComputeCapabilities(1) || !config.setComputeCapability(target, 0)) {
        network.log->fail("the compute capability is refused");
    }
#endif
}

}  // namespace shim

#endif  // TRTLLM_GPU_REFEREE
