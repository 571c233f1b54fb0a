//! Penalties for tokens that the sequence already has.

use std::collections::HashMap;

use crate::executor::{SamplingConfig, TokenId};

/// The tokens of a sequence, counted, and what they cost.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    /// Each token of prompt and output, with how often presence and frequency penalties count it.
    seen: HashMap<TokenId, u32>,
}

impl Penalties {
    /// For a sequence that begins with `prompt`; `None` where nothing is penalized.
    pub(super) fn new(config: &SamplingConfig, prompt: &[TokenId]) -> Option<Self> {
        let SamplingConfig { repetition_penalty: repetition, presence_penalty: presence, .. } = *config;
        let frequency = config.frequency_penalty;
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return None;
        }
        let mut penalties = Self { repetition, presence, frequency, seen: HashMap::new() };
        let (overlooked, counted) = prompt.split_at(config.prompt_ignore_length.min(prompt.len()));
        for &token in overlooked {
            penalties.seen.entry(token).or_insert(0);
        }
        counted.iter().for_each(|&token| penalties.accept(token));
        Some(penalties)
    }

    /// Counts a token that was appended.
    pub(super) fn accept(&mut self, token: TokenId) {
        *self.seen.entry(token).or_insert(0) += 1;
    }

    /// Changes the logits of the tokens seen, which are to be divided by `temperature` later. TensorRT-LLM's
    /// `batchApplyPenalty`: with z = logit / temperature, z = z r where negative, else z / r; then z minus presence
    /// minus frequency times count, for the tokens that have a count.
    pub(super) fn apply(&self, logits: &mut [f32], temperature: f32) {
        for (&token, &count) in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit < 0.0 { *logit * self.repetition } else { *logit / self.repetition };
            if count > 0 {
                *logit -= temperature * (self.presence + self.frequency * count as f32);
            }
        }
    }
}
