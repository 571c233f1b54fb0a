//! The choice of an iteration: who goes on, who is paused, who starts.
//!
//! For `n` active and `w` started sequences it visits each in rank order, and adds up the blocks promised to the active ones
//! once for each that grows or is looked at for a start: `O(n * (n + w))` steps of a few additions, and a look-up of each
//! block of the prompt for one that starts. No step depends on the length of an output or on the vocabulary.

use super::sequence::{Beam, Sequence};
use super::{Scheduler, SequenceId, Step, StepPart, worst_case_blocks};
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::inflight::kv_cache::BlockTable;

impl Scheduler {
    /// Chooses the next iteration. No part means that there is no sequence.
    pub(in crate::inflight) fn schedule(&mut self) -> Step {
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
            // The victim is the active sequence of the lowest rank. It cannot be in this step already: sequences are
            // visited in rank order, so the victim is this one or one that would be visited later. A beam search was
            // promised its blocks and is never paused.
            let can_pause = |id: &&SequenceId| self.sequences[*id].beam_width == 1;
            let victim = self.active.values().rev().find(can_pause).copied().unwrap_or(id);
            self.pause(victim);
            step.paused += 1;
            if victim == id {
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
            // Room for one token more, so that a sequence that starts now is not paused by its own first growth.
            self.blocks.blocks_for((tokens.len() + 1).min(sequence.max_cached))
        };
        // A cached block that another sequence holds is shared at no cost. One that nobody holds counts as taken.
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
        let promised_to_it = self.promised(sequence);
        let missing_of =
            |beam: &Beam| self.blocks.blocks_for(beam.computed + tokens).saturating_sub(beam.table.blocks().len());
        let missing: usize = sequence.beams.iter().map(missing_of).sum();
        if missing > self.spare() + promised_to_it {
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
}
