// A sequence, and its next token, which follows from the request alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensorrt_llm/executor/executor.h"

namespace tensorrt_llm::executor {

struct Sequence {
    VecTokens tokens;
    std::size_t delivered = 0;
    VecLogProbs logProbs;
    FinishReason finish = FinishReason::kNOT_FINISHED;
    bool ended = false;
    RandomSeedType seed = 0;
    // Of prompt, seed and output so far.
    std::uint64_t hash = 0;
};

std::uint64_t mix(std::uint64_t hash, std::uint64_t value);

// Adds a token to `sequence`: the first allowed one of a list that follows from prompt, output and seed. Says whether it ends.
FinishReason extend(Request const& request, Sequence& sequence, TokenIdType vocab);

}  // namespace tensorrt_llm::executor
