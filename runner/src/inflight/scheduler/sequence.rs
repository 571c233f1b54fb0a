//! What the scheduler knows of one sequence.

use std::cmp::Reverse;

use super::demand::Size;
use super::sharing::Follower;
use super::{Demand, SchedulerConfig};
use crate::executor::TokenId;
use crate::inflight::kv_cache::BlockTable;
use crate::inflight::prefix::{Parent, Salt};

/// The place in the order: least is first.
pub(super) type QueueOrder = (Reverse<u32>, u64);

/// A sequence that waits or runs, or all beams of a search.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) rank: QueueOrder,
    pub(super) size: Size,
    pub(super) salt: Salt,
    pub(super) computes_whole_prompt: bool,
    pub(super) usage: BlockUsage,
    /// What it counts for in [`Scheduler::charged`](super::Scheduler); nothing unless it is active.
    pub(super) charge: usize,
    /// The block that it is known to compute next: what is before it, and its first token.
    pub(super) announced: Option<(Parent, usize)>,
    pub(super) followers: Vec<Follower>,
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
        if beam.computed + 1 == beam.tokens.len() && beam.computed >= self.size.prompt_len {
            self.beams.len()
        } else {
            0
        }
    }

    /// Whether its context is computed; again, after a pause.
    pub(super) fn has_context(&self) -> bool {
        let Beam { tokens, computed, .. } = &self.beams[0];
        *computed >= self.size.prompt_len && computed + 1 >= tokens.len()
    }

    /// Blocks that it holds, those that its beams share counted as often as they may come to part.
    pub(super) fn held(&self, tokens_per_block: usize) -> usize {
        match self.beams.as_slice() {
            [beam] => beam.table.held(),
            // The full blocks of the prompt are one set for all beams.
            beams => {
                let shared = self.size.prompt_len / tokens_per_block;
                let own = |beam: &Beam| beam.table.blocks().len() - shared.max(beam.table.passed());
                shared.saturating_sub(beams[0].table.passed()) + beams.iter().map(own).sum::<usize>()
            }
        }
    }

    /// The most blocks that it holds from now on.
    pub(super) fn worst_case(&self, demand: &Demand) -> usize {
        if self.has_context() { demand.generating(self.size) } else { demand.most(self.size) }
    }

    /// Whether its prompt must be computed in one iteration. What was generated before a pause need not.
    pub(super) fn is_unchunked(&self, config: &SchedulerConfig) -> bool {
        !config.enable_chunked_context && self.beams[0].tokens.len() == self.size.prompt_len
    }

    /// Whether others may still wait for its prompt.
    pub(super) fn leads(&self) -> bool {
        self.beams[0].computed < self.size.prompt_len
    }

    /// The tokens whose keys and values may come from the cache: all but the last, whose logits are needed.
    pub(super) fn reusable(&self) -> Option<&[TokenId]> {
        let tokens = &self.beams[0].tokens;
        (!self.computes_whole_prompt || tokens.len() > self.size.prompt_len).then(|| &tokens[..tokens.len() - 1])
    }
}
