// TensorRT-LLM's plugins.
#pragma once

namespace shim {

// Registers them with TensorRT, once in a process.
void register_plugins();

}  // namespace shim
