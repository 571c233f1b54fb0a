// The parts of the table.
#pragma once

#include "trtllm_gpu.h"

namespace shim {

void add_executor(trtllm_gpu_table& table);

// Functions that say what is missing where the shim is built without TensorRT.
void add_network(trtllm_gpu_table& table);

}  // namespace shim
