// Guides, as TensorRT-LLM's XGrammar takes them: what it refuses throws in the middle of a batch.
#pragma once

#include "settings.h"
#include "tensorrt_llm/executor/executor.h"

namespace tensorrt_llm::executor {

// Throws for a guide that cannot be compiled. It looks at much less than XGrammar does: at parentheses and quotes of a schema, at
// `root` of a grammar, and at a regex as ECMAScript's.
void compile_guide(Settings const& settings, GuidedDecodingParams const& params);

// Throws where XGrammar would not understand the tokenizer.
void check_tokenizer(Settings const& settings, std::optional<GuidedDecodingConfig> const& config);

}  // namespace tensorrt_llm::executor
