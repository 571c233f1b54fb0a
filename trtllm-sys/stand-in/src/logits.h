// Logits, as TensorRT-LLM returns them.
#pragma once

#include <cstdint>
#include <vector>

#include "settings.h"
#include "tensorrt_llm/executor/executor.h"

namespace tensorrt_llm::executor {

// Of what follows each of `rows` tokens of a prompt.
Tensor context_logits(Settings const& settings, std::int64_t rows, TokenIdType vocab);

// Of each of `tokens`: the token's own is 10, the one of an id i else i % 7.
Tensor generation_logits(Settings const& settings, VecTokens const& tokens, bool streams, TokenIdType vocab);

}  // namespace tensorrt_llm::executor
