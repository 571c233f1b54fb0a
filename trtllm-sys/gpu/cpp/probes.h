// Whether the TensorRT-LLM that this is compiled against has a member, found out from its headers and not from its version.
#pragma once

#include <type_traits>
#include <utility>

#define TRTLLM_GPU_PROBE(name, expression)                                                          \
    template <typename T, typename = void>                                                          \
    struct has_##name : std::false_type {};                                                         \
    template <typename T>                                                                           \
    struct has_##name<T, std::void_t<decltype(expression)>> : std::true_type {}

namespace shim {

// Request
TRTLLM_GPU_PROBE(cache_salt_id, std::declval<T&>().setCacheSaltID(0));
// SamplingConfig
TRTLLM_GPU_PROBE(prompt_ignore_length, std::declval<T&>().setPromptIgnoreLength(0));
// KvCacheConfig
TRTLLM_GPU_PROBE(onboard_blocks, std::declval<T&>().setOnboardBlocks(true));
TRTLLM_GPU_PROBE(use_uvm, std::declval<T&>().setUseUvm(true));
TRTLLM_GPU_PROBE(max_gpu_total_bytes, std::declval<T&>().setMaxGpuTotalBytes(0));
// ExecutorConfig
TRTLLM_GPU_PROBE(fail_fast, std::declval<T&>().setFailFastOnAttentionWindowTooLarge(true));
TRTLLM_GPU_PROBE(use_gpu_direct_storage, std::declval<T&>().setUseGpuDirectStorage(true));

}  // namespace shim
