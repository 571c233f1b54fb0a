//! What an output must look like, as a request says it.

/// What the output must look like, in the terms of TensorRT-LLM's `GuidedDecodingParams`. Not every executor knows
/// every kind; one that does not refuses the request by the kind's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuidedDecodingParams {
    /// Any JSON value.
    Json,
    /// JSON that a JSON schema, given as text, admits.
    JsonSchema(String),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// Text of an EBNF grammar, as XGrammar reads it (TensorRT-LLM).
    EbnfGrammar(String),
    /// Text of a Lark grammar, as llguidance reads it (the CPU executor).
    LarkGrammar(String),
}

impl GuidedDecodingParams {
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
