//! What is made of the logits that generated tokens were chosen from: log-probabilities of the raw logits, the most probable tokens, or
//! the logits themselves.
//!
//! A row costs a pass over the vocabulary, and its copy 4 bytes for each token of it. [`scoring`] calls it.
//!
//! [`scoring`]: super::scoring

use cpu_kernels::Kernels;
use trtllm_sys::gpu::GpuOutput;

use super::logits::Rows;
use crate::executor::{Logits, RequestSpec, TokenLogProb};
use crate::inflight::top_log_probs;
use crate::logits::check_finite;

/// What is asked of the logits.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenScorer {
    vocab_size: usize,
    logits: bool,
    log_probs: bool,
    top: usize,
}

/// Of each token of a response, what was asked for.
#[derive(Debug, Default)]
pub(super) struct TokenScores {
    pub(super) log_probs: Option<Vec<f32>>,
    pub(super) top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    pub(super) logits: Option<Logits>,
}

impl TokenScorer {
    /// `None` where nothing is asked for that needs the logits: the log-probabilities of chosen tokens alone are TensorRT-LLM's.
    pub(super) fn new(spec: &RequestSpec, vocab_size: usize) -> Option<Self> {
        let output = &spec.output;
        output.needs_generation_logits().then_some(Self {
            vocab_size,
            logits: output.return_generation_logits,
            log_probs: output.return_log_probs && output.top_log_probs > 0,
            top: output.top_log_probs,
        })
    }

    /// Of no token.
    pub(super) fn nothing(self) -> TokenScores {
        TokenScores {
            log_probs: self.log_probs.then(Vec::new),
            top_log_probs: (self.top > 0).then(Vec::new),
            logits: self.logits.then(Logits::default),
        }
    }

    /// Of the new tokens of an output.
    ///
    /// # Errors
    /// The logits are not theirs, are not numbers, or cannot be kept, as a sentence.
    pub(super) fn score(self, output: &GpuOutput<'_>) -> Result<TokenScores, String> {
        // Where fewer tokens than positions came, the rest is filled up with negative ids.
        let tokens: Vec<usize> = output.token_ids.iter().map_while(|&id| usize::try_from(id).ok()).collect();
        let mut scores = self.nothing();
        if tokens.is_empty() {
            return Ok(scores);
        }
        let rows = Rows::new(output.generation_logits, tokens.len()..=usize::MAX, self.vocab_size, "an output")?;
        let kernels = Kernels::detect().map_err(|error| error.to_string())?;
        let mut buffer = Vec::new();
        for (place, &token) in tokens.iter().enumerate() {
            let row = rows.piece(place, 1, &mut buffer);
            check_finite(kernels, row, self.vocab_size)?;
            if self.top > 0 {
                let log_sum_exp = kernels.log_sum_exp(row);
                let logit =
                    row.get(token).ok_or_else(|| format!("TensorRT-LLM chose token {token}, which has no logit"))?;
                scores.log_probs.iter_mut().for_each(|log_probs| log_probs.push(logit - log_sum_exp));
                let best = || top_log_probs(kernels, row, log_sum_exp, self.top);
                scores.top_log_probs.iter_mut().for_each(|top| top.push(best()));
            }
            if let Some(logits) = &mut scores.logits {
                logits.push(row, self.vocab_size, tokens.len() - 1 - place)?;
            }
        }
        Ok(scores)
    }
}
