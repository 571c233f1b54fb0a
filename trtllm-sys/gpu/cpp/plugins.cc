#if TRTLLM_GPU_TENSORRT

#include "plugins.h"

#include <cstring>
#include <stdexcept>

#include "log.h"

// TensorRT-LLM's plugins are IPluginV2, which TensorRT 10 has marked as going away.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

// Declared here: the plugin library's own header needs TensorRT's.
extern "C" bool initTrtLlmPlugins(void* logger, char const* libNamespace);

namespace shim {

namespace {

struct DestroyPlugin {
    void operator()(nvinfer1::IPluginV2* plugin) const { plugin->destroy(); }
};

}  // namespace

void register_plugins() {
    // Without a logger of ours: the library would keep it for as long as the process runs.
    static bool const registered = initTrtLlmPlugins(nullptr, "tensorrt_llm");
    if (!registered) {
        throw std::runtime_error("TensorRT-LLM's plugins cannot be registered");
    }
}

nvinfer1::ILayer* add_plugin(trtllm_gpu_network& network, trtllm_gpu_network_node const& node,
                             std::vector<nvinfer1::ITensor*> const& inputs) {
    std::string const what = "node " + quoted(node.name) + ": plugin " + quoted(node.plugin);
    auto* const registry = getPluginRegistry();
    auto* const found =
        registry == nullptr ? nullptr : registry->getCreator(node.plugin, node.plugin_version, node.plugin_namespace);
    if (found == nullptr) {
        network.log->fail(what + " version " + node.plugin_version + " of namespace " + quoted(node.plugin_namespace) +
                          " is not registered");
    }
    if (std::strcmp(found->getInterfaceInfo().kind, "PLUGIN CREATOR_V1") != 0) {
        throw std::runtime_error(what + " is created in another way: " + found->getInterfaceInfo().kind);
    }
    std::vector<nvinfer1::PluginField> fields;
    for (std::size_t i = 0; i < node.num_fields; i++) {
        auto const& field = node.fields[i];
        fields.emplace_back(field.name, field.data, static_cast<nvinfer1::PluginFieldType>(field.type), field.len);
    }
    nvinfer1::PluginFieldCollection const collection{static_cast<std::int32_t>(fields.size()), fields.data()};
    shim::take_error();
    // TensorRT clones it.
    std::unique_ptr<nvinfer1::IPluginV2, DestroyPlugin> const plugin(
        static_cast<nvinfer1::IPluginCreator*>(found)->createPlugin(node.name, &collection));
    if (!plugin) {
        // Which one, TensorRT-LLM says in its own log.
        std::string const why = shim::take_error();
        network.log->fail(what + " does not take these fields" + (why.empty() ? "" : ": " + why));
    }
    return network.network->addPluginV2(inputs.data(), static_cast<std::int32_t>(inputs.size()), *plugin);
}

}  // namespace shim

#endif  // TRTLLM_GPU_TENSORRT
