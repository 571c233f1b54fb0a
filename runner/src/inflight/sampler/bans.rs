//! Tokens that must not come next.

use crate::executor::{RequestSpec, TokenId};

/// What a sequence must not contain.
#[derive(Debug)]
pub(super) struct Bans {
    /// Tokens before the sequence may end.
    min_len: usize,
    end_ids: Vec<TokenId>,
    bad_words: Vec<Vec<TokenId>>,
    /// 0 for any repetition.
    no_repeat_ngram_size: usize,
}

impl Bans {
    pub(super) fn new(spec: &RequestSpec) -> Self {
        Self {
            min_len: spec.input_token_ids.len().saturating_add(spec.sampling.min_tokens),
            end_ids: spec.end_ids.clone(),
            bad_words: spec.bad_words.clone(),
            no_repeat_ngram_size: spec.sampling.no_repeat_ngram_size,
        }
    }

    /// Sets the logits of the tokens to minus infinity that must not follow `tokens`: end ids before the minimum length
    /// (end ids only, as in TensorRT-LLM: a stop word may still end the sequence); the last token of a bad word whose
    /// others end `tokens`; each token that would end an n-gram that `tokens` has already.
    pub(super) fn apply(&self, logits: &mut [f32], tokens: &[TokenId]) -> Banned {
        let mut banned = Banned(Vec::new());
        if tokens.len() < self.min_len {
            self.end_ids.iter().for_each(|&token| banned.ban(logits, token));
        }
        for word in &self.bad_words {
            if let Some((&last, others)) = word.split_last()
                && tokens.ends_with(others)
            {
                banned.ban(logits, last);
            }
        }
        if (1..=tokens.len()).contains(&self.no_repeat_ngram_size) {
            let tail = &tokens[tokens.len() + 1 - self.no_repeat_ngram_size..];
            for ngram in tokens.windows(self.no_repeat_ngram_size) {
                if let Some((&last, others)) = ngram.split_last()
                    && others == tail
                {
                    banned.ban(logits, last);
                }
            }
        }
        banned
    }
}

/// The tokens that were banned, with their logits.
#[must_use]
pub(super) struct Banned(Vec<(TokenId, f32)>);

impl Banned {
    fn ban(&mut self, logits: &mut [f32], token: TokenId) {
        let logit = &mut logits[token as usize];
        // A token that is banned already is not saved again: the first value is the one to give back.
        if *logit != f32::NEG_INFINITY {
            self.0.push((token, std::mem::replace(logit, f32::NEG_INFINITY)));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the logits back; whether there were any.
    pub(super) fn lift(&self, logits: &mut [f32]) -> bool {
        for &(token, logit) in &self.0 {
            logits[token as usize] = logit;
        }
        !self.is_empty()
    }
}
