// What TensorRT-LLM logs.
#pragma once

#include <string>

#include "trtllm_gpu.h"

namespace shim {

// TensorRT-LLM's logger writes to std::cout and std::cerr and to nothing else, so those are what is captured. Later calls
// change where the lines go; two at a time may not be made.
void capture_log(trtllm_gpu_take_line take, bool everything, void* userData);

// The last error that TensorRT-LLM wrote in this thread since the last call, where its log is captured; else empty.
std::string take_error();

}  // namespace shim
