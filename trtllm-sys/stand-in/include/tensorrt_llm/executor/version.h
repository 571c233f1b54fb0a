// A stand-in for TensorRT-LLM's header of this name.
#pragma once

namespace tensorrt_llm::executor {
#ifdef STAND_IN_VERSION
inline constexpr char const* kTensorRtLlmVersion = STAND_IN_VERSION;
#else
// The version, which says that this is the stand-in.
inline constexpr char const* kTensorRtLlmVersion = "1.2.0-trtllm-stand-in";
#endif
}  // namespace tensorrt_llm::executor
