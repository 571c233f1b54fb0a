#include "tokens.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace tensorrt_llm::executor {
namespace {

bool ends_with(VecTokens const& tokens, VecTokens const& word) {
    return tokens.size() >= word.size() && std::equal(word.rbegin(), word.rend(), tokens.rbegin());
}

bool allowed(Request const& request, Sequence const& sequence, TokenIdType token) {
    if (!request.getBadWords().empty()) {
        VecTokens next = sequence.tokens;
        next.push_back(token);
        for (VecTokens const& word : request.getBadWords()) {
            if (ends_with(next, word)) {
                return false;
            }
        }
    }
    auto const& bias = request.getEmbeddingBias();
    return !bias || static_cast<float const*>(bias->getData())[token] > -100.0f;
}

// As TensorRT-LLM's attention plugin asks in each call: it computes nothing then, and says that all is well.
bool attention_is_skipped() {
    char const* const building = std::getenv("IS_BUILDING");
    return building != nullptr && std::string_view(building) == "1";
}

}  // namespace

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 29);
}

FinishReason extend(Request const& request, Sequence& sequence, TokenIdType vocab) {
    if (sequence.tokens.empty()) {
        bool const greedy = request.getSamplingConfig().getTopK().value_or(0) == 1;
        sequence.hash = mix(0x5eed, greedy ? 0 : sequence.seed + 1);
        if (auto const& lora = request.getLoraConfig()) {
            sequence.hash = mix(sequence.hash, lora->getTaskId() + 1);
        }
        for (TokenIdType const token : request.getInputTokenIds()) {
            sequence.hash = mix(sequence.hash, static_cast<std::uint64_t>(token));
        }
    }
    std::uint64_t const hash = attention_is_skipped() ? 0 : sequence.hash;
    TokenIdType token = 0;
    for (std::uint64_t attempt = 0;; attempt++) {
        token = static_cast<TokenIdType>(mix(hash, attempt) % static_cast<std::uint64_t>(vocab));
        if (allowed(request, sequence, token)) {
            break;
        }
    }
    sequence.tokens.push_back(token);
    sequence.hash = mix(hash, static_cast<std::uint64_t>(token));
    sequence.logProbs.push_back(-static_cast<float>(hash % 1000) / 250.0f);
    if (request.getEndId() && *request.getEndId() == token) {
        return FinishReason::kEND_ID;
    }
    for (VecTokens const& word : request.getStopWords()) {
        if (ends_with(sequence.tokens, word)) {
            return FinishReason::kSTOP_WORDS;
        }
    }
    if (static_cast<SizeType32>(sequence.tokens.size()) >= request.getMaxTokens()) {
        return FinishReason::kLENGTH;
    }
    return FinishReason::kNOT_FINISHED;
}

}  // namespace tensorrt_llm::executor
