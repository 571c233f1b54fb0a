//! A prompt's logits, as TensorRT-LLM gives them, made into what the request asks for.
//!
//! A row costs a pass over the vocabulary. That of a long prompt takes seconds on one thread, so it is done on all; [`scoring`] calls
//! it, and nobody else waits.
//!
//! [`scoring`]: super::scoring

use std::sync::OnceLock;

use cpu_kernels::Kernels;
use rayon::ThreadPool;

use crate::executor::{RequestSpec, TokenId};
use crate::inflight::PromptScores;

/// Rows that are copied at a time where they have to be cut to the vocabulary.
const ROWS: usize = 64;

/// A prompt whose logits have not come yet.
#[derive(Debug)]
pub(super) struct UnscoredPrompt {
    prompt: Vec<TokenId>,
    vocab_size: usize,
    scores: PromptScores,
}

impl UnscoredPrompt {
    /// `None` where nothing is asked of the prompt.
    pub(super) fn new(spec: &RequestSpec, vocab_size: usize) -> Option<Self> {
        let scores = PromptScores::new(spec.output, spec.input_token_ids.len())?;
        Some(Self { prompt: spec.input_token_ids.clone(), vocab_size, scores })
    }

    /// Scores the prompt by its logits, `[rows, columns]`.
    ///
    /// # Errors
    /// They are not those of the prompt, or cannot be kept, as a sentence.
    pub(super) fn score(mut self, logits: &[f32], columns: usize) -> Result<PromptScores, String> {
        let (prompt, vocab_size) = (self.prompt.len(), self.vocab_size);
        let rows = logits.len().checked_div(columns).unwrap_or(0);
        if rows != prompt || columns < vocab_size {
            return Err(format!(
                "TensorRT-LLM gave logits of {rows} tokens and {columns} columns for a prompt of {prompt} tokens and a vocabulary of {vocab_size}"
            ));
        }
        let kernels = Kernels::detect().map_err(|error| error.to_string())?;
        let mut first = 0;
        let mut cut = Vec::new();
        let wanted = &logits[..self.scores.wanted() * columns];
        for chunk in wanted.chunks(ROWS * columns) {
            let rows = chunk.len() / columns;
            let whole = if columns == vocab_size {
                chunk
            } else {
                cut.clear();
                chunk.chunks_exact(columns).for_each(|row| cut.extend_from_slice(&row[..vocab_size]));
                &cut
            };
            let next = &self.prompt[first + 1..];
            pool()?.install(|| self.scores.add(kernels, whole, rows, next))?;
            first += rows;
        }
        Ok(self.scores)
    }
}

/// The threads that score prompts; started for the first one.
fn pool() -> Result<&'static ThreadPool, String> {
    static POOL: OnceLock<Result<ThreadPool, String>> = OnceLock::new();
    let start = || {
        let builder = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("trtllm-prompt-{index}"));
        builder.build().map_err(|error| format!("cannot start threads that score prompts: {error}"))
    };
    POOL.get_or_init(start).as_ref().map_err(Clone::clone)
}
