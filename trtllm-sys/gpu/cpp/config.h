// From the table's settings to TensorRT-LLM's ExecutorConfig.
#pragma once

#include "settings.h"
#include "tensorrt_llm/executor/executor.h"

namespace shim {

// What is not set has TensorRT-LLM's default. Throws Unsupported with the name of a setting that this release does not have.
// `tokenizer` may be null.
tensorrt_llm::executor::ExecutorConfig to_config(Settings& settings, trtllm_gpu_tokenizer const* tokenizer);

}  // namespace shim
