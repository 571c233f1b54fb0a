#include "plugins.h"

#include <stdexcept>

// Declared here: the plugin library's own header needs TensorRT's.
extern "C" bool initTrtLlmPlugins(void* logger, char const* libNamespace);

namespace shim {

void register_plugins() {
    // Without a logger of ours: the library would keep it for as long as the process runs.
    static bool const registered = initTrtLlmPlugins(nullptr, "tensorrt_llm");
    if (!registered) {
        throw std::runtime_error("TensorRT-LLM's plugins cannot be registered");
    }
}

}  // namespace shim
