#include "guides.h"

#include <regex>
#include <stdexcept>

namespace tensorrt_llm::executor {
namespace {

// Whether brackets of a text in JSON close in order.
bool closes(std::string const& text) {
    std::string open;
    bool inString = false;
    for (std::size_t i = 0; i < text.size(); i++) {
        char const one = text[i];
        if (inString) {
            i += one == '\\' ? 1 : 0;
            inString = one != '"';
        } else if (one == '"') {
            inString = true;
        } else if (one == '{' || one == '[') {
            open.push_back(one == '{' ? '}' : ']');
        } else if (one == '}' || one == ']') {
            if (open.empty() || open.back() != one) {
                return false;
            }
            open.pop_back();
        }
    }
    return open.empty() && !inString && !text.empty();
}

}  // namespace

void compile_guide(Settings const& settings, GuidedDecodingParams const& params) {
    using Type = GuidedDecodingParams::GuideType;
    std::string const guide = params.getGuide().value_or("");
    std::string const refused = settings.text("xgrammar_refuses", "");
    if (!refused.empty() && guide.find(refused) != std::string::npos) {
        throw std::runtime_error("XGrammar: the stand-in was told to refuse " + refused);
    }
    switch (params.getGuideType()) {
    case Type::kREGEX: std::regex(guide, std::regex::ECMAScript); break;
    case Type::kJSON_SCHEMA:
        if (!closes(guide)) {
            throw std::runtime_error("XGrammar: failed to parse JSON");
        }
        break;
    case Type::kEBNF_GRAMMAR:
        if (("\n" + guide).find("\nroot ::=") == std::string::npos) {
            throw std::runtime_error("XGrammar: EBNF parser error: The root rule with name \"root\" is not found");
        }
        break;
    default: break;
    }
}

void check_tokenizer(Settings const& settings, std::optional<GuidedDecodingConfig> const& config) {
    if (config && settings.text("xgrammar_tokenizer", "known") == "unknown") {
        throw std::runtime_error("XGrammar: cannot determine the type of the tokenizer");
    }
}

}  // namespace tensorrt_llm::executor
