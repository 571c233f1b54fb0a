// TensorRT-LLM's plugins. In a referee build, network_referee.cc stands in for them.
#pragma once

#include <vector>

#include "network.h"

namespace shim {

// Registers them with TensorRT, once in a process.
void register_plugins();

// Adds the plugin that `node` names; throws why it cannot be made.
nvinfer1::ILayer* add_plugin(trtllm_gpu_network& network, trtllm_gpu_network_node const& node,
                             std::vector<nvinfer1::ITensor*> const& inputs);

#if TRTLLM_GPU_REFEREE
// Says which GPU is built for, where none is there.
void set_target(trtllm_gpu_network& network, nvinfer1::IBuilderConfig& config);
#endif

}  // namespace shim
