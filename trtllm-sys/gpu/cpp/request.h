// From the table's request to TensorRT-LLM's.
#pragma once

#include "tensorrt_llm/executor/executor.h"
#include "trtllm_gpu.h"

namespace shim {

// Throws Unsupported with the name of what this release does not have.
tensorrt_llm::executor::Request to_request(trtllm_gpu_request const& asked);

}  // namespace shim
