//! The choice of an iteration: who goes on, who is paused, who starts.
//!
//! Blocks are kept for the active sequences that must not be paused: under `guaranteed_no_evict` all, otherwise beam searches.
//! Each is charged with what it may still ask for, and `spare` is what is available beyond the sum of that. Under a sliding
//! window, blocks that sequences share pass from those that are done with them to those that are not, so there each is charged
//! with all that it may hold, and `spare` is what the whole cache has beyond that.
//!
//! Each active sequence is visited once, in rank order, with a few look-ups; one that starts costs a look-up of each block of
//! its prompt, twice. Those that wait cost nothing, but for the first of them. No step depends on the length of an output or on
//! the vocabulary.

use super::budget::{ContextBudget, IterationTime};
use super::sequence::{Beam, Sequence};
use super::{Scheduler, SequenceId, Step, StepPart};
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::inflight::kv_cache::{BlockTable, Found};
use crate::inflight::prefix::Parent;

impl Scheduler {
    /// Chooses the next iteration, which contexts do not make longer than `time` while somebody generates. No part means that
    /// there is no sequence.
    pub(in crate::inflight) fn schedule(&mut self, time: Option<IterationTime>) -> Step {
        let mut step = Step::default();
        let (mut generating, mut rows) = (0, 0);
        let mut active = Vec::with_capacity(self.active.len());
        for (&rank, &id) in &self.active {
            let Some(sequence) = self.sequences.get(id) else { continue };
            generating += sequence.generation_rows();
            rows += sequence.size.beam_width;
            active.push((rank, id));
        }
        let mut budget = ContextBudget::new(&self.config, generating, time);
        for (rank, id) in active {
            // It may have been paused for one before it.
            if step.paused == 0 || self.active.contains_key(&rank) {
                self.schedule_active(id, &mut budget, &mut step);
            }
        }
        if step.paused == 0 {
            self.admit(rows, &mut budget, &mut step);
        }
        step
    }

    fn schedule_active(&mut self, id: SequenceId, budget: &mut ContextBudget, step: &mut Step) {
        let Some(sequence) = self.sequences.get(id) else { return };
        let generates = sequence.generation_rows() > 0;
        let start = sequence.beams[0].computed;
        let chunk = if generates { 1 } else { self.context_chunk(sequence, start, budget) };
        if chunk == 0 {
            return;
        }
        while !self.grow(id, chunk) {
            // The victim is the active sequence of the lowest rank. It cannot be in this step already: sequences are
            // visited in rank order, so the victim is this one or one that would be visited later. A beam search was
            // promised its blocks and is never paused.
            let can_pause = |id: &&SequenceId| self.sequences.get(**id).is_some_and(|found| found.size.beam_width == 1);
            let victim = self.active.values().rev().find(can_pause).copied().unwrap_or(id);
            self.pause(victim);
            step.paused += 1;
            if victim == id {
                return;
            }
        }
        self.push_parts(id, chunk, step);
        if !generates {
            budget.take(start, chunk);
        }
    }

    /// How many tokens of a sequence's context, from `start` on, this iteration takes.
    fn context_chunk(&self, sequence: &Sequence, start: usize, budget: &ContextBudget) -> usize {
        let remaining = sequence.beams[0].tokens.len() - start;
        match sequence.is_unchunked(&self.config) {
            true if budget.has_room_for(remaining) => remaining,
            true => 0,
            false => remaining.min(budget.chunk(start)),
        }
    }

    /// Starts waiting sequences, in order, as long as the next one fits. `rows` are those of the active ones.
    fn admit(&mut self, mut rows: usize, budget: &mut ContextBudget, step: &mut Step) {
        let rows_limit = self.config.max_batch_size.min(self.config.max_num_tokens);
        while let Some((&rank, &id)) = self.waiting.first_key_value() {
            let Some(sequence) = self.sequences.get(id) else { return };
            rows += sequence.size.beam_width;
            let reusable = sequence.reusable().unwrap_or_default();
            // Where it does not fit with all that could be found, nothing need be looked for.
            if budget.is_spent() || rows > rows_limit || !self.fits(sequence, self.most_found(reusable)) {
                return;
            }
            let found = self.blocks.find_prefix(sequence.salt, reusable);
            let cached = found.blocks * self.demand.tokens_per_block;
            if self.follow(id, found.last, cached) {
                rows -= self.sequences.get(id).map_or(0, |sequence| sequence.size.beam_width);
                continue;
            }
            let Some(sequence) = self.sequences.get(id) else { return };
            if !self.fits(sequence, found) || self.context_chunk(sequence, cached, budget) == 0 {
                return;
            }
            self.waiting.remove(&rank);
            self.active.insert(rank, id);
            self.start(id);
            step.started.push(id);
            self.schedule_active(id, budget, step);
            // After a pause all but the last token can be cached still: it goes on generating at once.
            budget.take_generation(self.sequences.get(id).map_or(0, Sequence::generation_rows));
        }
    }

    /// Gives a sequence that becomes active the blocks of its prompt that are cached.
    fn start(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        let reusable = sequence.reusable().map(<[TokenId]>::len);
        let Beam { tokens, computed, table } = &mut sequence.beams[0];
        if let Some(reusable) = reusable {
            let demand = self.demand;
            *computed = self.blocks.take_prefix(table, &tokens[..reusable], |computed| demand.passed(computed));
            sequence.usage.reused += table.blocks().len();
            sequence.usage.missed += reusable / self.blocks.tokens_per_block() - table.blocks().len();
        }
        self.recharge(id);
        self.announce(id);
    }

    fn most_found(&self, reusable: &[TokenId]) -> Found {
        let last = Parent::Root(Default::default());
        Found { blocks: reusable.len() / self.demand.tokens_per_block, idle: 0, last }
    }

    /// Whether a waiting sequence, of which `found` is in the cache, can be started without taking what others are to get.
    fn fits(&self, sequence: &Sequence, found: Found) -> bool {
        let wanted = if self.is_guaranteed(sequence) {
            sequence.worst_case(&self.demand)
        } else {
            // Room for one token more, so that a sequence that starts now is not paused by its own first growth.
            let tokens = (sequence.beams[0].tokens.len() + 1).min(sequence.size.max_cached);
            self.blocks.blocks_for(tokens).min(self.demand.in_context(sequence.size))
        };
        match self.config.sliding_window {
            // A cached block that another sequence holds is shared at no cost. One that nobody holds counts as taken.
            None => wanted - found.blocks + found.idle <= self.spare(),
            Some(_) => wanted <= self.spare(),
        }
    }

    fn is_guaranteed(&self, sequence: &Sequence) -> bool {
        self.config.policy == CapacitySchedulerPolicy::GuaranteedNoEvict || sequence.size.beam_width > 1
    }

    /// Blocks that are kept for nobody.
    fn spare(&self) -> usize {
        let blocks = match self.config.sliding_window {
            None => self.blocks.available(),
            Some(_) => self.blocks.capacity(),
        };
        blocks.saturating_sub(self.charged)
    }

    /// Brings what a sequence is charged with up to date, after what it holds has changed.
    pub(super) fn recharge(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get(id) else { return };
        let held = sequence.held(self.demand.tokens_per_block);
        let worst = if self.is_guaranteed(sequence) { sequence.worst_case(&self.demand) } else { 0 };
        let charge = match self.config.sliding_window {
            None => worst.saturating_sub(held),
            Some(_) => worst.max(held),
        };
        let charge = if self.active.contains_key(&sequence.rank) { charge } else { 0 };
        if let Some(sequence) = self.sequences.get_mut(id) {
            self.charged = self.charged - sequence.charge + charge;
            sequence.charge = charge;
        }
    }

    /// Makes room for the next `tokens` tokens of each beam.
    fn grow(&mut self, id: SequenceId, tokens: usize) -> bool {
        let Some(sequence) = self.sequences.get_mut(id) else { return false };
        let blocks = &self.blocks;
        let missing_of =
            |beam: &Beam| blocks.blocks_for(beam.computed + tokens).saturating_sub(beam.table.blocks().len());
        let missing: usize = sequence.beams.iter().map(missing_of).sum();
        if missing == 0 {
            return true;
        }
        let kept_for_it = match self.config.sliding_window {
            None => sequence.charge,
            Some(_) => sequence.charge.saturating_sub(sequence.held(self.demand.tokens_per_block)),
        };
        if missing > self.spare() + kept_for_it {
            return false;
        }
        let Some(sequence) = self.sequences.get_mut(id) else { return false };
        let grown = sequence.beams.iter_mut().all(|beam| self.blocks.grow(&mut beam.table, beam.computed + tokens));
        sequence.usage.new += missing;
        self.recharge(id);
        grown
    }

    fn push_parts(&mut self, id: SequenceId, tokens: usize, step: &mut Step) {
        let Some(sequence) = self.sequences.get(id) else { return };
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
        self.withdraw(id);
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        for beam in &mut sequence.beams {
            self.blocks.release(&mut beam.table);
            beam.table = BlockTable::new(sequence.salt);
            beam.computed = 0;
        }
        self.active.remove(&sequence.rank);
        self.waiting.insert(sequence.rank, id);
        self.recharge(id);
        self.release_others(id);
    }
}
