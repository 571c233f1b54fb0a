//! What the model makes of a prompt, where a request asks for it: collected row by row as the prompt is computed, in chunks.
//!
//! A row costs a pass over the vocabulary, on all threads of the model; rows that are returned stay in memory, vocabulary x 4 bytes
//! each.

use cpu_kernels::Kernels;
use rayon::prelude::*;

use super::sampler::top_log_probs;
use crate::executor::{Logits, OutputConfig, TokenId, TokenLogProb, TokenResult};
use crate::logits::check_finite;

/// Scores of the tokens of one prompt.
#[derive(Debug)]
pub(crate) struct PromptScores {
    output: OutputConfig,
    /// Tokens of the prompt.
    prompt_len: usize,
    /// Rows of logits that were seen: each is of what follows a prompt token.
    rows: usize,
    log_probs: Vec<f32>,
    top_log_probs: Vec<Vec<TokenLogProb>>,
    ranks: Vec<usize>,
    logits: Logits,
}

impl PromptScores {
    /// Nothing yet of a prompt; `None` where nothing is asked for.
    pub(crate) fn new(output: OutputConfig, prompt_len: usize) -> Option<Self> {
        output.needs_context_logits().then(|| Self {
            output,
            prompt_len,
            rows: 0,
            log_probs: Vec::new(),
            top_log_probs: Vec::new(),
            ranks: Vec::new(),
            logits: Logits::default(),
        })
    }

    /// Begins again.
    pub(crate) fn clear(&mut self) {
        self.rows = 0;
        self.log_probs.clear();
        self.top_log_probs.clear();
        self.ranks.clear();
        self.logits.truncate(0);
    }

    /// How many rows are wanted. The last token of the prompt is followed by output, not by prompt.
    pub(crate) fn wanted(&self) -> usize {
        if self.output.return_context_logits { self.prompt_len } else { self.prompt_len - 1 }
    }

    /// Whether all that is wanted is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.rows >= self.wanted()
    }

    /// Takes the next rows in, `[rows, vocab_size]`; `next` is the prompt after the token of the first of them.
    ///
    /// # Errors
    /// There is no memory for the logits, or they are not numbers, as a sentence.
    pub(crate) fn add(
        &mut self,
        kernels: Kernels,
        logits: &[f32],
        rows: usize,
        next: &[TokenId],
    ) -> Result<(), String> {
        let vocab_size = logits.len() / rows;
        logits.par_chunks_exact(vocab_size).try_for_each(|row| check_finite(kernels, row, vocab_size))?;
        if self.output.return_context_logits {
            self.logits.push(logits, vocab_size, self.wanted() - self.rows - rows)?;
        }
        let (top, ranks) = (self.output.prompt_top_log_probs, self.output.return_prompt_ranks);
        if self.output.return_prompt_log_probs || top > 0 {
            let score = |(logits, &next): (&[f32], &TokenId)| {
                let log_sum_exp = kernels.log_sum_exp(logits);
                let best = if top > 0 { top_log_probs(kernels, logits, log_sum_exp, top) } else { Vec::new() };
                let rank = if ranks { rank(logits, next) } else { 0 };
                (logits[next as usize] - log_sum_exp, best, rank)
            };
            let scores: Vec<_> = logits.par_chunks_exact(vocab_size).zip(next).map(score).collect();
            for (log_prob, best, rank) in scores {
                self.log_probs.push(log_prob);
                if ranks {
                    self.ranks.push(rank);
                }
                if top > 0 {
                    self.top_log_probs.push(best);
                }
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// Adds to a sequence's first result what is wanted; logits to the first one only. A prompt that was not computed to its end has
    /// nothing.
    pub(crate) fn deliver(&mut self, result: &mut TokenResult) {
        if !self.is_complete() {
            return;
        }
        result.prompt_log_probs = self.output.return_prompt_log_probs.then(|| self.log_probs.clone());
        result.prompt_top_log_probs = (self.output.prompt_top_log_probs > 0).then(|| self.top_log_probs.clone());
        result.prompt_ranks = self.output.return_prompt_ranks.then(|| self.ranks.clone());
        result.context_logits = (self.logits.rows() > 0).then(|| std::mem::take(&mut self.logits));
    }
}

/// The place of a token among all, from 1 for the most probable; of equals the lowest id is first.
fn rank(logits: &[f32], token: TokenId) -> usize {
    let own = logits[token as usize];
    let (before, after) = logits.split_at(token as usize);
    1 + before.iter().filter(|&&other| other >= own).count() + after.iter().filter(|&&other| other > own).count()
}
