//! What the scheduler knows of one sequence.

use std::cmp::Reverse;

use super::SchedulerConfig;
use crate::executor::TokenId;
use crate::inflight::kv_cache::BlockTable;
use crate::inflight::prefix::Salt;

/// The place in the order: least is first.
pub(super) type QueueOrder = (Reverse<u32>, u64);

/// A sequence that waits or runs, or all beams of a search.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) rank: QueueOrder,
    pub(super) prompt_len: usize,
    /// Tokens that may get into the cache: all but the last generated one.
    pub(super) max_cached: usize,
    pub(super) beam_width: usize,
    pub(super) salt: Salt,
    pub(super) computes_whole_prompt: bool,
    pub(super) usage: BlockUsage,
    /// One, but for a beam search that generates.
    pub(super) beams: Vec<Beam>,
}

/// Blocks that a sequence has been given, those before a pause included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::inflight) struct BlockUsage {
    /// To be filled.
    pub new: usize,
    /// Filled already.
    pub reused: usize,
    /// Full blocks that were looked for and not found.
    pub missed: usize,
}

/// The tokens of a sequence, or of one beam, and the blocks that they are cached in.
#[derive(Debug)]
pub(super) struct Beam {
    /// Prompt and output.
    pub(super) tokens: Vec<TokenId>,
    /// How many of them are in the cache.
    pub(super) computed: usize,
    pub(super) table: BlockTable,
}

impl Sequence {
    /// Rows of an iteration that generate: none in the context phase.
    pub(super) fn generation_rows(&self) -> usize {
        let beam = &self.beams[0];
        if beam.computed + 1 == beam.tokens.len() && beam.computed >= self.prompt_len { self.beams.len() } else { 0 }
    }

    /// Whether its prompt must be computed in one iteration. What was generated before a pause need not.
    pub(super) fn is_unchunked(&self, config: &SchedulerConfig) -> bool {
        !config.enable_chunked_context && self.beams[0].tokens.len() == self.prompt_len
    }

    /// Whether others may still wait for its prompt.
    pub(super) fn leads(&self) -> bool {
        self.beams[0].computed < self.prompt_len
    }

    /// The tokens whose keys and values may come from the cache: all but the last, whose logits are needed.
    pub(super) fn reusable(&self) -> Option<&[TokenId]> {
        let tokens = &self.beams[0].tokens;
        (!self.computes_whole_prompt || tokens.len() > self.prompt_len).then(|| &tokens[..tokens.len() - 1])
    }
}

/// Blocks that a sequence of `prompt_len` tokens can come to hold, when at most `max_cached` tokens of each beam are
/// cached. Beams share the full blocks of the prompt.
pub(in crate::inflight) fn worst_case_blocks(
    tokens_per_block: usize,
    prompt_len: usize,
    max_cached: usize,
    beam_width: usize,
) -> usize {
    let total = max_cached.div_ceil(tokens_per_block);
    let shared = if beam_width > 1 { prompt_len / tokens_per_block } else { 0 };
    shared + beam_width * (total - shared)
}
