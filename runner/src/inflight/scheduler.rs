//! Which tokens of which sequences the next iteration computes. Pure: it owns no thread, reads no clock and knows no
//! model.
//!
//! Sequences are served in one order, higher priority first and then earlier arrival. Each that runs gets the token it
//! generates next, or a chunk of its context as far as `max_num_tokens` goes; where blocks run out, the last in the
//! order are paused (`max_utilization`) or none was started that could need them (`guaranteed_no_evict`). So the first
//! in the order always proceeds, and everything ends.
//!
//! `sequence` is what is known of one sequence, `plan` the choice of an iteration; this file keeps the sequences between
//! choices. Its own operations cost a look-up each, and a fork of a beam a copy of its tokens.

mod plan;
mod sequence;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::kv_cache::{BlockManager, BlockTable};
use super::prefix::Salt;
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::model::BlockId;

use sequence::{Beam, QueueOrder, Sequence};

pub(super) use sequence::{BlockUsage, worst_case_blocks};

/// A sequence's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SequenceId(pub u64);

/// The limits of an iteration, and how they are used.
#[derive(Debug, Clone)]
pub(super) struct SchedulerConfig {
    pub max_batch_size: usize,
    pub max_num_tokens: usize,
    pub policy: CapacitySchedulerPolicy,
    pub enable_chunked_context: bool,
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
    sequences: HashMap<SequenceId, Sequence>,
    waiting: BTreeMap<QueueOrder, SequenceId>,
    active: BTreeMap<QueueOrder, SequenceId>,
    /// Sequences that wait for the prompt of another.
    followers: HashMap<SequenceId, Vec<SequenceId>>,
    next_id: u64,
}

impl Scheduler {
    pub(super) fn new(config: SchedulerConfig, blocks: BlockManager) -> Self {
        let (sequences, waiting, active, followers) = Default::default();
        Self { config, blocks, sequences, waiting, active, followers, next_id: 0 }
    }

    /// The block book-keeping.
    pub(super) fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Adds a sequence, behind those of its priority. Its worst case must fit into the cache
    /// ([`worst_case_blocks`]) and, without chunked context, its prompt into an iteration.
    pub(super) fn add(&mut self, new: NewSequence) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        // Floats from 0 compare like their bits, so the bits serve as a sort key. `+ 0.0` makes -0.0 into 0.0.
        let rank = (Reverse((new.priority + 0.0).to_bits()), id.0);
        let follows = new.follows.filter(|leader| self.sequences.get(leader).is_some_and(Sequence::leads));
        match follows {
            Some(leader) => self.followers.entry(leader).or_default().push(id),
            None => _ = self.waiting.insert(rank, id),
        }
        let prompt_len = new.prompt.len();
        self.sequences.insert(
            id,
            Sequence {
                rank,
                prompt_len,
                max_cached: prompt_len + new.max_tokens - 1,
                beam_width: new.beam_width,
                salt: new.salt,
                computes_whole_prompt: new.computes_whole_prompt,
                usage: BlockUsage::default(),
                beams: vec![Beam { tokens: new.prompt, computed: 0, table: BlockTable::new(new.salt) }],
            },
        );
        id
    }

    /// The blocks that a sequence has been given in all.
    pub(super) fn usage(&self, id: SequenceId) -> BlockUsage {
        self.sequences.get(&id).map(|sequence| sequence.usage).unwrap_or_default()
    }

    /// Removes a sequence, wherever it is, and gives its blocks back.
    pub(super) fn remove(&mut self, id: SequenceId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.waiting.remove(&sequence.rank);
        self.active.remove(&sequence.rank);
        sequence.beams.iter_mut().for_each(|beam| self.blocks.release(&mut beam.table));
        self.hand_followers_on(id, sequence.computes_whole_prompt);
    }

    /// Makes the first of those that wait for the prompt of `leader`, which is gone, the one that the others wait for.
    fn hand_followers_on(&mut self, leader: SequenceId, computes_whole_prompt: bool) {
        let mut followers = self.followers.remove(&leader).unwrap_or_default();
        followers.retain(|id| self.sequences.contains_key(id));
        let Some(&heir) = followers.first() else { return };
        if let Some(sequence) = self.sequences.get_mut(&heir) {
            sequence.computes_whole_prompt |= computes_whole_prompt;
            self.waiting.insert(sequence.rank, heir);
        }
        if followers.len() > 1 {
            self.followers.insert(heir, followers.split_off(1));
        }
    }

    /// Tokens of a sequence, or of its first beam, that are in the cache.
    pub(super) fn cached_tokens(&self, id: SequenceId) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.beams[0].computed)
    }

    /// Tokens of a sequence's prompt.
    pub(super) fn prompt_len(&self, id: SequenceId) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.prompt_len)
    }

    /// Prompt and output of a sequence, or of one of its beams, so far.
    pub(super) fn tokens(&self, id: SequenceId, beam: usize) -> &[TokenId] {
        self.sequences.get(&id).and_then(|sequence| sequence.beams.get(beam)).map_or(&[], |beam| &beam.tokens)
    }

    /// The blocks that the tokens of `part` are stored in and see.
    pub(super) fn part_blocks(&self, part: &StepPart) -> &[BlockId] {
        let beam = self.sequences.get(&part.sequence).and_then(|sequence| sequence.beams.get(part.beam));
        beam.map_or(&[], |beam| beam.table.blocks())
    }

    /// Appends the token that was chosen for a sequence without beams.
    pub(super) fn append(&mut self, id: SequenceId, token: TokenId) {
        if let Some(beam) = self.sequences.get_mut(&id).and_then(|sequence| sequence.beams.first_mut()) {
            beam.tokens.push(token);
        }
    }

    /// Replaces the beams of a search: each new one goes on from a present one (by number) with a token. The content of
    /// the first block of each pair is to be copied into the second before the next iteration.
    pub(super) fn branch(&mut self, id: SequenceId, next: &[(usize, TokenId)]) -> Vec<(BlockId, BlockId)> {
        let Some(sequence) = self.sequences.get_mut(&id) else { return Vec::new() };
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
        copies
    }

    /// Notes that the tokens of `step` are in the cache.
    pub(super) fn computed(&mut self, step: &Step) {
        for part in &step.parts {
            let Some(sequence) = self.sequences.get_mut(&part.sequence) else { continue };
            let had_followers_waiting = sequence.leads();
            if let Some(beam) = sequence.beams.get_mut(part.beam) {
                beam.computed += part.tokens;
                self.blocks.register(&mut beam.table, &beam.tokens[..beam.computed]);
            }
            if had_followers_waiting && !sequence.leads() {
                self.release_followers(part.sequence);
            }
        }
    }

    fn release_followers(&mut self, leader: SequenceId) {
        for id in self.followers.remove(&leader).unwrap_or_default() {
            if let Some(sequence) = self.sequences.get(&id) {
                self.waiting.insert(sequence.rank, id);
            }
        }
    }
}
