//! A stand-in for a model: its tokens come from a function, its speed from two durations. No weights are read and nothing is
//! learned from it about any model's quality or speed; it is for tests and load tests of what stands above a model.
//!
//! Its KV cache holds the tokens themselves. The function sees what the blocks of a sequence hold, so a block that was
//! shared, copied or reused wrongly changes the output.
//!
//! A pass costs the configured latency, and each row of logits a copy of its sequence and a write to the whole vocabulary.

use std::fmt;
use std::time::Duration;

use cpu_kernels::Kernels;
use rayon::ThreadPool;
use system::Pool;

use crate::cpu_model::CpuModelError;
use crate::executor::TokenId;
use crate::model::{BlockId, ForwardError, Interrupted, Model, StepSequence};

/// Which token follows a sequence, prompt and output, of at least one token.
pub type NextToken = dyn Fn(&[TokenId]) -> TokenId + Send;

/// What a [`ScriptedModel`] does.
pub struct Script {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Blocks of the KV cache.
    pub num_blocks: usize,
    /// Tokens of one block.
    pub tokens_per_block: usize,
    /// Where there is one, `next_token` is given the last tokens only, so many.
    pub sliding_window: Option<usize>,
    /// Must answer with a token of the vocabulary.
    pub next_token: Box<NextToken>,
    /// How long a pass takes.
    pub latency_per_step: Duration,
    /// How much longer for each of its tokens.
    pub latency_per_token: Duration,
    /// Layers of equal latency: before each, a pass can be interrupted.
    pub num_layers: u32,
    /// The pass, counted from 0, that panics, as one of a model with a fault would.
    pub panics_at_step: Option<u64>,
}

impl Default for Script {
    /// A vocabulary of 256, a cache of 1024 tokens, no latency; the next token depends on every token before it.
    fn default() -> Self {
        let next_token = |tokens: &[TokenId]| tokens.iter().fold(7, |sum, &token| (sum * 31 + token + 1) % 256);
        Self {
            vocab_size: 256,
            num_blocks: 64,
            tokens_per_block: 16,
            sliding_window: None,
            next_token: Box::new(next_token),
            latency_per_step: Duration::ZERO,
            latency_per_token: Duration::ZERO,
            num_layers: 1,
            panics_at_step: None,
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

/// The logit of the token that the script names; all others are 0, so that it is drawn at usual temperatures too.
const CHOSEN_LOGIT: f32 = 50.0;

/// The stand-in.
#[derive(Debug)]
pub struct ScriptedModel {
    script: Script,
    kernels: Kernels,
    pool: Pool,
    /// The token stored in each slot of each block.
    slots: Vec<TokenId>,
    /// The sequences of the last pass.
    last: Vec<Scheduled>,
    steps: u64,
}

/// A sequence of a pass.
#[derive(Debug)]
struct Scheduled {
    /// The row of its first token.
    first_row: usize,
    /// The position of that token.
    start: usize,
    blocks: Vec<BlockId>,
}

impl ScriptedModel {
    /// A model that follows `script`, with one thread that samples.
    ///
    /// # Errors
    /// [`CpuModelError`]: the kernels or the thread are not to be had.
    pub fn new(script: Script) -> Result<Self, CpuModelError> {
        let pool = Pool::new("script", 1)?;
        let slots = vec![0; script.num_blocks * script.tokens_per_block];
        Ok(Self { script, kernels: Kernels::detect()?, pool, slots, last: Vec::new(), steps: 0 })
    }

    fn slot(&self, blocks: &[BlockId], position: usize) -> usize {
        let tokens_per_block = self.script.tokens_per_block;
        blocks[position / tokens_per_block] as usize * tokens_per_block + position % tokens_per_block
    }
}

impl Model for ScriptedModel {
    fn vocab_size(&self) -> usize {
        self.script.vocab_size
    }

    fn num_blocks(&self) -> usize {
        self.script.num_blocks
    }

    fn tokens_per_block(&self) -> usize {
        self.script.tokens_per_block
    }

    fn bytes_per_block(&self) -> usize {
        self.script.tokens_per_block * size_of::<TokenId>()
    }

    fn sliding_window(&self) -> Option<usize> {
        self.script.sliding_window
    }

    fn kernels(&self) -> Kernels {
        self.kernels
    }

    fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// # Panics
    /// At [`Script::panics_at_step`], too.
    fn forward(
        &mut self,
        sequences: &[StepSequence<'_>],
        interrupted: &mut Interrupted<'_>,
    ) -> Result<(), ForwardError> {
        let step = self.steps;
        self.steps += 1;
        assert!(self.script.panics_at_step != Some(step), "the script says that pass {step} fails");
        self.last.clear();
        let mut rows = 0;
        for sequence in sequences {
            for (position, &token) in (sequence.start..).zip(sequence.tokens) {
                assert!((token as usize) < self.script.vocab_size, "token {token} is outside the vocabulary");
                let slot = self.slot(sequence.blocks, position);
                self.slots[slot] = token;
            }
            self.last.push(Scheduled { first_row: rows, start: sequence.start, blocks: sequence.blocks.to_vec() });
            rows += sequence.tokens.len();
        }
        let latency = self.script.latency_per_token * rows.try_into().unwrap_or(u32::MAX);
        let latency = latency.saturating_add(self.script.latency_per_step);
        let layers = self.script.num_layers.max(1);
        for _ in 0..layers {
            if interrupted() {
                return Err(ForwardError::Interrupted);
            }
            if !latency.is_zero() {
                std::thread::sleep(latency / layers);
            }
        }
        Ok(())
    }

    fn logits<'a>(&mut self, rows: &[usize], out: &'a mut Vec<f32>) -> &'a mut [f32] {
        let vocab_size = self.script.vocab_size;
        out.clear();
        out.resize(rows.len() * vocab_size, 0.0);
        for (&row, logits) in rows.iter().zip(out.chunks_exact_mut(vocab_size)) {
            let sequence = &self.last[self.last.partition_point(|sequence| sequence.first_row <= row) - 1];
            let end = sequence.start + (row - sequence.first_row);
            let first = self.script.sliding_window.map_or(0, |window| (end + 1).saturating_sub(window));
            let tokens: Vec<_> =
                (first..=end).map(|position| self.slots[self.slot(&sequence.blocks, position)]).collect();
            logits[(self.script.next_token)(&tokens) as usize] = CHOSEN_LOGIT;
        }
        out
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let length = self.script.tokens_per_block;
        let from = from as usize * length;
        self.slots.copy_within(from..from + length, to as usize * length);
    }
}
