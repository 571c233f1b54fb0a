// From the table's request and configuration to TensorRT-LLM's.
#pragma once

#include <stdexcept>
#include <string>

#include "tensorrt_llm/executor/executor.h"
#include "trtllm_gpu.h"

namespace shim {

// The library does not have what was asked for.
class Unsupported : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

tensorrt_llm::executor::Request to_request(trtllm_gpu_request const& asked);

tensorrt_llm::executor::ExecutorConfig to_config(trtllm_gpu_config const& asked);

}  // namespace shim
