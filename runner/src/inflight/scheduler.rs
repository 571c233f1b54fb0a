//! Which tokens of which sequences the next iteration computes. Pure: it owns no thread, reads no clock and knows no
//! model.
//!
//! Sequences are served in one order, higher priority first and then earlier arrival. Each that runs gets the token it
//! generates next, or a chunk of its context as far as `max_num_tokens` goes; where blocks run out, the last in the
//! order are paused (`max_utilization`) or none was started that could need them (`guaranteed_no_evict`). So the first
//! in the order always proceeds, and everything ends.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::kv_cache::{BlockManager, BlockTable};
use super::prefix::Salt;
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::model::BlockId;

/// A sequence's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SequenceId(pub u64);

/// The place in the order: least is first.
type Rank = (Reverse<u32>, u64);

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

#[derive(Debug)]
struct Sequence {
    rank: Rank,
    prompt_len: usize,
    /// Tokens that may get into the cache: all but the last generated one.
    max_cached: usize,
    beam_width: usize,
    salt: Salt,
    computes_whole_prompt: bool,
    usage: BlockUsage,
    /// One, but for a beam search that generates.
    beams: Vec<Beam>,
}

/// Blocks that a sequence has been given, those before a pause included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BlockUsage {
    /// To be filled.
    pub new: usize,
    /// Filled already.
    pub reused: usize,
    /// Full blocks that were looked for and not found.
    pub missed: usize,
}

#[derive(Debug)]
struct Beam {
    /// Prompt and output.
    tokens: Vec<TokenId>,
    /// How many of them are in the cache.
    computed: usize,
    table: BlockTable,
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
    waiting: BTreeMap<Rank, SequenceId>,
    active: BTreeMap<Rank, SequenceId>,
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
        // The bits of a float that is not negative are in its order.
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

    /// Removes a sequence, wherever it is, and gives its blocks back; the blocks that it was given in all.
    pub(super) fn remove(&mut self, id: SequenceId) -> BlockUsage {
        let Some(mut sequence) = self.sequences.remove(&id) else { return BlockUsage::default() };
        self.waiting.remove(&sequence.rank);
        self.active.remove(&sequence.rank);
        sequence.beams.iter_mut().for_each(|beam| self.blocks.release(&mut beam.table));
        self.hand_followers_on(id, sequence.computes_whole_prompt);
        sequence.usage
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

    /// Chooses the next iteration. No part means that there is no sequence.
    pub(super) fn schedule(&mut self) -> Step {
        let mut step = Step::default();
        let generating: usize = self.active.values().map(|id| self.sequences[id].generation_rows()).sum();
        let mut context_budget = self.config.max_num_tokens.saturating_sub(generating);
        let ranks: Vec<_> = self.active.keys().copied().collect();
        for rank in ranks {
            // It may have been paused for one before it.
            if let Some(&id) = self.active.get(&rank) {
                self.schedule_active(id, &mut context_budget, &mut step);
            }
        }
        if step.paused == 0 {
            self.admit(&mut context_budget, &mut step);
        }
        step
    }

    fn schedule_active(&mut self, id: SequenceId, context_budget: &mut usize, step: &mut Step) {
        let sequence = &self.sequences[&id];
        let generates = sequence.generation_rows() > 0;
        let remaining = sequence.beams[0].tokens.len() - sequence.beams[0].computed;
        let chunk = if generates { 1 } else { remaining.min(*context_budget) };
        if chunk == 0 || (chunk < remaining && sequence.is_unchunked(&self.config)) {
            return;
        }
        while !self.grow(id, chunk) {
            // The last, which is not in the step yet: those before this one are, so it is this one at the earliest. A
            // beam search was promised its blocks and is never paused.
            let can_pause = |id: &&SequenceId| self.sequences[*id].beam_width == 1;
            let last = self.active.values().rev().find(can_pause).copied().unwrap_or(id);
            self.pause(last);
            step.paused += 1;
            if last == id {
                return;
            }
        }
        self.push_parts(id, chunk, step);
        if !generates {
            *context_budget -= chunk;
        }
    }

    /// Starts waiting sequences, in order, as long as the next one fits.
    fn admit(&mut self, context_budget: &mut usize, step: &mut Step) {
        let rows_limit = self.config.max_batch_size.min(self.config.max_num_tokens);
        let mut rows: usize = self.active.values().map(|id| self.sequences[id].beam_width).sum();
        while let Some((&rank, &id)) = self.waiting.first_key_value() {
            let sequence = &self.sequences[&id];
            if *context_budget == 0 || rows + sequence.beam_width > rows_limit || !self.fits(sequence) {
                return;
            }
            let cached = match sequence.reusable() {
                Some(tokens) => self.blocks.count_prefix(sequence.salt, tokens).0 * self.blocks.tokens_per_block(),
                None => 0,
            };
            let remaining = sequence.beams[0].tokens.len() - cached;
            if remaining > *context_budget && sequence.is_unchunked(&self.config) {
                return;
            }
            self.waiting.remove(&rank);
            self.active.insert(rank, id);
            rows += sequence.beam_width;
            if let Some(sequence) = self.sequences.get_mut(&id) {
                let reusable = sequence.reusable().map(<[TokenId]>::len);
                let Beam { tokens, computed, table } = &mut sequence.beams[0];
                if let Some(reusable) = reusable {
                    *computed = self.blocks.take_prefix(table, &tokens[..reusable]);
                    sequence.usage.reused += table.blocks().len();
                    sequence.usage.missed += reusable / self.blocks.tokens_per_block() - table.blocks().len();
                }
            }
            step.started.push(id);
            // After a pause all but the last token can be cached still: it goes on generating at once.
            *context_budget -= self.sequences[&id].generation_rows();
            self.schedule_active(id, context_budget, step);
        }
    }

    /// Whether a waiting sequence can be started without taking what others are to get.
    fn fits(&self, sequence: &Sequence) -> bool {
        let tokens = &sequence.beams[0].tokens;
        let (found, idle) =
            sequence.reusable().map_or((0, 0), |tokens| self.blocks.count_prefix(sequence.salt, tokens));
        let guaranteed = self.config.policy == CapacitySchedulerPolicy::GuaranteedNoEvict || sequence.beam_width > 1;
        let wanted = if guaranteed {
            self.worst_case(sequence)
        } else {
            // One more than the tokens there are: what is started should not be paused at once.
            self.blocks.blocks_for((tokens.len() + 1).min(sequence.max_cached))
        };
        wanted - found + idle <= self.spare()
    }

    /// Available blocks that no active sequence has been promised.
    fn spare(&self) -> usize {
        let promised: usize = self.active.values().map(|id| self.promised(&self.sequences[id])).sum();
        self.blocks.available().saturating_sub(promised)
    }

    /// Blocks that an active sequence may still ask for and must get.
    fn promised(&self, sequence: &Sequence) -> usize {
        if self.config.policy == CapacitySchedulerPolicy::MaxUtilization && sequence.beam_width == 1 {
            return 0;
        }
        let shared = sequence.prompt_len / self.blocks.tokens_per_block();
        let held = match sequence.beams.as_slice() {
            [beam] => beam.table.blocks().len(),
            // The full blocks of the prompt are one set for all beams.
            beams => shared + beams.iter().map(|beam| beam.table.blocks().len() - shared).sum::<usize>(),
        };
        self.worst_case(sequence).saturating_sub(held)
    }

    fn worst_case(&self, sequence: &Sequence) -> usize {
        let Sequence { prompt_len, max_cached, beam_width, .. } = *sequence;
        worst_case_blocks(self.blocks.tokens_per_block(), prompt_len, max_cached, beam_width)
    }

    /// Makes room for the next `tokens` tokens of each beam.
    fn grow(&mut self, id: SequenceId, tokens: usize) -> bool {
        let sequence = &self.sequences[&id];
        let own = self.promised(sequence);
        let missing =
            |beam: &Beam| self.blocks.blocks_for(beam.computed + tokens).saturating_sub(beam.table.blocks().len());
        let missing: usize = sequence.beams.iter().map(missing).sum();
        if missing > self.spare() + own {
            return false;
        }
        let Some(sequence) = self.sequences.get_mut(&id) else { return false };
        sequence.usage.new += missing;
        sequence.beams.iter_mut().all(|beam| self.blocks.grow(&mut beam.table, beam.computed + tokens))
    }

    fn push_parts(&mut self, id: SequenceId, tokens: usize, step: &mut Step) {
        let sequence = &self.sequences[&id];
        for (index, beam) in sequence.beams.iter().enumerate() {
            step.parts.push(StepPart {
                sequence: id,
                beam: index,
                start: beam.computed,
                tokens,
                is_context: sequence.generation_rows() == 0,
                completes: beam.computed + tokens == beam.tokens.len(),
            });
        }
    }

    fn pause(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        for beam in &mut sequence.beams {
            self.blocks.release(&mut beam.table);
            beam.table = BlockTable::new(sequence.salt);
            beam.computed = 0;
        }
        self.active.remove(&sequence.rank);
        self.waiting.insert(sequence.rank, id);
    }

    /// Notes that the tokens of `step` are in the cache.
    pub(super) fn computed(&mut self, step: &Step) {
        for part in &step.parts {
            let Some(sequence) = self.sequences.get_mut(&part.sequence) else { continue };
            let led = sequence.leads();
            if let Some(beam) = sequence.beams.get_mut(part.beam) {
                beam.computed += part.tokens;
                self.blocks.register(&mut beam.table, &beam.tokens[..beam.computed]);
            }
            if led && !sequence.leads() {
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

impl Sequence {
    /// Rows of an iteration that generate: none in the context phase.
    fn generation_rows(&self) -> usize {
        let beam = &self.beams[0];
        if beam.computed + 1 == beam.tokens.len() && beam.computed >= self.prompt_len { self.beams.len() } else { 0 }
    }

    /// Whether its prompt must be computed in one iteration. What was generated before a pause need not.
    fn is_unchunked(&self, config: &SchedulerConfig) -> bool {
        !config.enable_chunked_context && self.beams[0].tokens.len() == self.prompt_len
    }

    /// Whether others may still wait for its prompt.
    fn leads(&self) -> bool {
        self.beams[0].computed < self.prompt_len
    }

    /// The tokens whose keys and values may come from the cache: all but the last, whose logits are needed.
    fn reusable(&self) -> Option<&[TokenId]> {
        let tokens = &self.beams[0].tokens;
        (!self.computes_whole_prompt || tokens.len() > self.prompt_len).then(|| &tokens[..tokens.len() - 1])
    }
}

/// Blocks that a sequence of `prompt_len` tokens can come to hold, when at most `max_cached` tokens of each beam are
/// cached. Beams share the full blocks of the prompt.
pub(super) fn worst_case_blocks(
    tokens_per_block: usize,
    prompt_len: usize,
    max_cached: usize,
    beam_width: usize,
) -> usize {
    let total = max_cached.div_ceil(tokens_per_block);
    let shared = if beam_width > 1 { prompt_len / tokens_per_block } else { 0 };
    shared + beam_width * (total - shared)
}
