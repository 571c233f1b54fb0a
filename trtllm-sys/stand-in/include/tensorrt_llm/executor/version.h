// A stand-in for TensorRT-LLM's header of this name.
#pragma once

namespace tensorrt_llm::executor {
// The version, which says that this is the stand-in.
inline constexpr char const* kTensorRtLlmVersion = "1.2.0-trtllm-stand-in";
}  // namespace tensorrt_llm::executor
