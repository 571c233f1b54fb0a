//! The JSON of TGI's answers.

use runner::executor::TokenId;
use serde::Serialize;

/// A generated token.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Token {
    pub(super) id: TokenId,
    pub(super) text: String,
    pub(super) logprob: f32,
    pub(super) special: bool,
}

/// A token of the prompt. The first has no log-probability.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PrefillToken {
    pub(super) id: TokenId,
    pub(super) text: String,
    pub(super) logprob: Option<f32>,
}

/// An answer that does not stream.
#[derive(Debug, Serialize)]
pub(super) struct Generation {
    pub(super) generated_text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// How a sequence came to be.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    #[serde(flatten)]
    pub(super) of: SequenceDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) best_of_sequences: Option<Vec<BestOfSequence>>,
}

/// A sequence that was not the best.
#[derive(Debug, Serialize)]
pub(super) struct BestOfSequence {
    pub(super) generated_text: String,
    #[serde(flatten)]
    pub(super) of: SequenceDetails,
}

/// What is said of every sequence.
#[derive(Debug, Serialize)]
pub(super) struct SequenceDetails {
    pub(super) finish_reason: &'static str,
    pub(super) generated_tokens: usize,
    pub(super) seed: Option<u64>,
    pub(super) prefill: Vec<PrefillToken>,
    pub(super) tokens: Vec<Token>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Vec<Token>>,
}

/// A frame of a stream.
#[derive(Debug, Serialize)]
pub(super) struct Frame {
    /// From 1.
    pub(super) index: usize,
    pub(super) token: Token,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Token>,
    /// All of it, in the last frame.
    pub(super) generated_text: Option<String>,
    pub(super) details: Option<StreamDetails>,
}

/// How a stream went, in its last frame.
#[derive(Debug, Serialize)]
pub(super) struct StreamDetails {
    pub(super) finish_reason: &'static str,
    pub(super) generated_tokens: usize,
    pub(super) seed: Option<u64>,
    pub(super) input_length: usize,
}
