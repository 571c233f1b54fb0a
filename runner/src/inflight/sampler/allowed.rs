//! The only tokens that may come, where a request names them.

use crate::executor::TokenId;

/// A set of tokens. To keep to it costs one pass over the vocabulary.
#[derive(Debug)]
pub(super) struct Allowed(Vec<TokenId>);

impl Allowed {
    pub(super) fn new(tokens: &[TokenId]) -> Self {
        let mut tokens = tokens.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        Self(tokens)
    }

    /// Sets the logits of all other tokens to minus infinity.
    pub(super) fn keep(&self, logits: &mut [f32]) {
        let mut next = 0;
        for &token in &self.0 {
            logits[next..token as usize].fill(f32::NEG_INFINITY);
            next = token as usize + 1;
        }
        logits[next..].fill(f32::NEG_INFINITY);
    }
}
