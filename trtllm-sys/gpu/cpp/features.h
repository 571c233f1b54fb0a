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

TRTLLM_GPU_PROBE(cache_salt_id, std::declval<T&>().setCacheSaltID(0));
TRTLLM_GPU_PROBE(prompt_ignore_length, std::declval<T&>().setPromptIgnoreLength(0));

}  // namespace shim
