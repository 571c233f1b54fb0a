//! Which tokens of which sequences the next iteration computes. Pure: it owns no thread, reads no clock and knows no
//! model.
//!
//! Sequences are served in one order, higher priority first and then earlier arrival. Each that runs gets the token it
//! generates next, or a chunk of its context as far as `max_num_tokens` goes; where blocks run out, the last in the
//! order are paused (`max_utilization`) or none was started that could need them (`guaranteed_no_evict`). So the first
//! in the order always proceeds, and everything ends.
//!
//! `sequence` is what is known of one sequence, `demand` how many blocks it can come to need, `budget` how much context an
//! iteration takes, `sharing` who waits for whose prompt, `plan` the choice of an iteration; this file keeps the sequences
//! between choices. Its own operations cost a look-up each, and a fork of a beam a copy of its tokens.

mod budget;
mod demand;
mod plan;
mod sequence;
mod sequences;
mod sharing;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::kv_cache::{BlockManager, BlockTable};
use super::prefix::Salt;
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::model::BlockId;

use sequence::{Beam, QueueOrder, Sequence};

use sequences::Sequences;
use sharing::{Computing, Follower};

pub(super) use budget::IterationTime;
pub(super) use demand::{Demand, Size};
pub(super) use sequence::BlockUsage;
pub(super) use sequences::SequenceId;

/// The limits of an iteration, and how they are used.
#[derive(Debug, Clone)]
pub(super) struct SchedulerConfig {
    pub max_batch_size: usize,
    pub max_num_tokens: usize,
    pub policy: CapacitySchedulerPolicy,
    pub enable_chunked_context: bool,
    /// Tokens that a token sees, itself included; all where there is none.
    pub sliding_window: Option<usize>,
}

/// A sequence to run.
#[derive(Debug)]
pub(super) struct NewSequence {
    pub prompt: Vec<TokenId>,
    pub max_tokens: usize,
    pub beam_width: usize,
    /// From 0 to 1.
    pub priority: f32,
    pub salt: Salt,
    /// Whether every token of the prompt must be computed, though some may be cached.
    pub computes_whole_prompt: bool,
    /// Waits until this sequence's prompt is computed, to share its blocks.
    pub follows: Option<SequenceId>,
}

/// Tokens of one sequence (or beam) in an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepPart {
    pub sequence: SequenceId,
    pub beam: usize,
    /// Position of the first token.
    pub start: usize,
    /// How many.
    pub tokens: usize,
    /// Whether tokens of the prompt, or of a paused output, are among them.
    pub is_context: bool,
    /// Whether the sequence's next token can be chosen afterwards.
    pub completes: bool,
}

/// What an iteration computes.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub parts: Vec<StepPart>,
    /// Sequences that became active.
    pub started: Vec<SequenceId>,
    /// Sequences that were paused to make room.
    pub paused: usize,
}

/// The scheduler, with the block book-keeping of what it schedules.
#[derive(Debug)]
pub(super) struct Scheduler {
    config: SchedulerConfig,
    blocks: BlockManager,
    demand: Demand,
    sequences: Sequences,
    waiting: BTreeMap<QueueOrder, SequenceId>,
    active: BTreeMap<QueueOrder, SequenceId>,
    computing: Computing,
    /// Blocks that are kept for the active sequences, see [`plan`]; the sum of [`Sequence::charge`].
    charged: usize,
}

impl Scheduler {
    pub(super) fn new(config: SchedulerConfig, blocks: BlockManager) -> Self {
        let demand = Demand {
            tokens_per_block: blocks.tokens_per_block(),
            max_num_tokens: config.max_num_tokens,
            sliding_window: config.sliding_window,
        };
        let (sequences, waiting, active, computing) = Default::default();
        Self { config, blocks, demand, sequences, waiting, active, computing, charged: 0 }
    }

    /// How many blocks sequences need.
    pub(super) fn demand(&self) -> Demand {
        self.demand
    }

    /// The block book-keeping.
    pub(super) fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// How often a sequence or a prefix was looked for.
    #[cfg(test)]
    pub(super) fn look_ups(&self) -> (u64, u64) {
        (self.sequences.look_ups.load(std::sync::atomic::Ordering::Relaxed), self.blocks.look_ups())
    }

    /// The block book-keeping, to tell it of memory.
    pub(super) fn blocks_mut(&mut self) -> &mut BlockManager {
        &mut self.blocks
    }

    /// The first in the order of those that wait.
    pub(super) fn first_waiting(&self) -> Option<SequenceId> {
        self.waiting.first_key_value().map(|(_, &id)| id)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Adds a sequence, behind those of its priority. Its worst case must fit into the cache
    /// ([`Demand::most`]) and, without chunked context, its prompt into an iteration.
    pub(super) fn add(&mut self, new: NewSequence) -> SequenceId {
        // Floats from 0 compare like their bits, so the bits serve as a sort key. `+ 0.0` makes -0.0 into 0.0.
        let rank = (Reverse((new.priority + 0.0).to_bits()), self.sequences.next_number());
        let prompt_len = new.prompt.len();
        let max_cached = prompt_len + new.max_tokens - 1;
        let id = self.sequences.insert(Sequence {
            rank,
            size: Size { prompt_len, max_cached, beam_width: new.beam_width },
            salt: new.salt,
            computes_whole_prompt: new.computes_whole_prompt,
            usage: BlockUsage::default(),
            charge: 0,
            announced: None,
            followers: Vec::new(),
            beams: vec![Beam { tokens: new.prompt, computed: 0, table: BlockTable::new(new.salt) }],
        });
        let leader = new.follows.and_then(|leader| self.sequences.get_mut(leader)).filter(|leader| leader.leads());
        match leader {
            Some(leader) => leader.followers.push(Follower { id, until: prompt_len, is_sibling: true }),
            None => _ = self.waiting.insert(rank, id),
        }
        id
    }

    /// The blocks that a sequence has been given in all.
    pub(super) fn usage(&self, id: SequenceId) -> BlockUsage {
        self.sequences.get(id).map(|sequence| sequence.usage).unwrap_or_default()
    }

    /// Removes a sequence, wherever it is, and gives its blocks back.
    pub(super) fn remove(&mut self, id: SequenceId) {
        self.withdraw(id);
        let Some(mut sequence) = self.sequences.remove(id) else { return };
        self.charged -= sequence.charge;
        self.waiting.remove(&sequence.rank);
        self.active.remove(&sequence.rank);
        sequence.beams.iter_mut().for_each(|beam| self.blocks.release(&mut beam.table));
        self.hand_followers_on(sequence);
    }

    /// Tokens of a sequence, or of its first beam, that are in the cache.
    pub(super) fn cached_tokens(&self, id: SequenceId) -> usize {
        self.sequences.get(id).map_or(0, |sequence| sequence.beams[0].computed)
    }

    /// Tokens of a sequence's prompt.
    pub(super) fn prompt_len(&self, id: SequenceId) -> usize {
        self.sequences.get(id).map_or(0, |sequence| sequence.size.prompt_len)
    }

    /// Prompt and output of a sequence, or of one of its beams, so far.
    pub(super) fn tokens(&self, id: SequenceId, beam: usize) -> &[TokenId] {
        self.sequences.get(id).and_then(|sequence| sequence.beams.get(beam)).map_or(&[], |beam| &beam.tokens)
    }

    /// The blocks that the tokens of `part` are stored in and see.
    pub(super) fn part_blocks(&self, part: &StepPart) -> &[BlockId] {
        let beam = self.sequences.get(part.sequence).and_then(|sequence| sequence.beams.get(part.beam));
        beam.map_or(&[], |beam| beam.table.blocks())
    }

    /// Appends the token that was chosen for a sequence without beams.
    pub(super) fn append(&mut self, id: SequenceId, token: TokenId) {
        if let Some(beam) = self.sequences.get_mut(id).and_then(|sequence| sequence.beams.first_mut()) {
            beam.tokens.push(token);
        }
    }

    /// Replaces the beams of a search: each new one goes on from a present one (by number) with a token. The content of
    /// the first block of each pair is to be copied into the second before the next iteration.
    pub(super) fn branch(&mut self, id: SequenceId, next: &[(usize, TokenId)]) -> Vec<(BlockId, BlockId)> {
        let Some(sequence) = self.sequences.get_mut(id) else { return Vec::new() };
        let mut copies = Vec::new();
        let mut present: Vec<_> = std::mem::take(&mut sequence.beams).into_iter().map(Some).collect();
        for (index, beam) in present.iter_mut().enumerate() {
            if let Some(beam) = beam.as_mut().filter(|_| !next.iter().any(|&(parent, _)| parent == index)) {
                self.blocks.release(&mut beam.table);
            }
        }
        for (index, &(parent, token)) in next.iter().enumerate() {
            let goes_on_later = next[index + 1..].iter().any(|&(other, _)| other == parent);
            let beam = if goes_on_later {
                present.get(parent).and_then(Option::as_ref).and_then(|beam| {
                    let (table, copy) = self.blocks.fork(&beam.table, beam.computed)?;
                    copies.extend(copy);
                    Some(Beam { tokens: beam.tokens.clone(), computed: beam.computed, table })
                })
            } else {
                present.get_mut(parent).and_then(Option::take)
            };
            let Some(mut beam) = beam else {
                unreachable!("the blocks of a beam search are kept for it from its start")
            };
            beam.tokens.push(token);
            sequence.beams.push(beam);
        }
        sequence.usage.new += copies.len();
        self.recharge(id);
        copies
    }

    /// Notes that the tokens of `step` are in the cache.
    pub(super) fn computed(&mut self, step: &Step) {
        for part in &step.parts {
            if part.is_context {
                self.withdraw(part.sequence);
            }
            let Some(sequence) = self.sequences.get_mut(part.sequence) else { continue };
            let Some(beam) = sequence.beams.get_mut(part.beam) else { continue };
            beam.computed += part.tokens;
            self.blocks.register(&mut beam.table, &beam.tokens[..beam.computed]);
            let passed = self.demand.passed(beam.computed);
            let has_passed = passed > beam.table.passed();
            if has_passed {
                self.blocks.pass(&mut beam.table, passed);
            }
            if part.is_context {
                self.release_followers(part.sequence);
                self.announce(part.sequence);
            }
            if has_passed || part.is_context {
                self.recharge(part.sequence);
            }
        }
    }
}
