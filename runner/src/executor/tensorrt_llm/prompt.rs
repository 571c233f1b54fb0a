//! A prompt's logits, as TensorRT-LLM gives them, made into what the request asks for.
//!
//! A row costs a pass over the vocabulary. That of a long prompt takes seconds on one thread, so it is done on all; [`scoring`] calls
//! it, and nobody else waits.
//!
//! [`scoring`]: super::scoring

use std::sync::OnceLock;

use cpu_kernels::Kernels;
use rayon::ThreadPool;
use trtllm_sys::gpu::GpuLogits;

use super::logits::Rows;
use crate::executor::{RequestSpec, TokenId};
use crate::inflight::PromptScores;

/// Rows that are scored at a time, and copied where they have to be cut to the vocabulary or converted.
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

    /// Scores the prompt by its logits.
    ///
    /// # Errors
    /// They are not those of the prompt, or cannot be kept, as a sentence.
    pub(super) fn score(mut self, logits: GpuLogits<'_>) -> Result<PromptScores, String> {
        let prompt = self.prompt.len();
        let logits = Rows::new(Some(logits), prompt..=prompt, self.vocab_size, "a prompt")?;
        let kernels = Kernels::detect().map_err(|error| error.to_string())?;
        let (mut first, wanted) = (0, self.scores.wanted());
        let mut buffer = Vec::new();
        while first < wanted {
            let rows = ROWS.min(wanted - first);
            let piece = logits.piece(first, rows, &mut buffer);
            let next = &self.prompt[first + 1..];
            pool()?.install(|| self.scores.add(kernels, piece, rows, next))?;
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
