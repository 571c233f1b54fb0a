//! What an output must look like, as a request says it.

/// What the output must look like, in the terms of TensorRT-LLM's `GuidedDecodingParams`. TensorRT-LLM takes no Lark grammars, and
/// refuses the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuidedDecodingParams {
    /// Any JSON value.
    Json,
    /// JSON that a JSON schema, given as text, admits.
    JsonSchema(String),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// Text of an EBNF grammar, as XGrammar reads it.
    EbnfGrammar(String),
    /// Text of a Lark grammar, as llguidance reads it; on the CPU only.
    LarkGrammar(String),
}

impl GuidedDecodingParams {
    /// A grammar in either language: that of EBNF has rules `name ::= …`.
    pub fn grammar(text: String) -> Self {
        let is_head = |line: &str| {
            line.split_once("::=").is_some_and(|(name, _)| {
                let name = name.trim();
                !name.is_empty()
                    && name.chars().all(|character| character.is_ascii_alphanumeric() || "_-.".contains(character))
            })
        };
        if text.lines().any(is_head) { Self::EbnfGrammar(text) } else { Self::LarkGrammar(text) }
    }

    /// The kind, as messages name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regex",
            Self::EbnfGrammar(_) => "EBNF grammar",
            Self::LarkGrammar(_) => "Lark grammar",
        }
    }
}
