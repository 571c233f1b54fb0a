//! Who computes which block, so that prompts which begin alike compute what they share once.
//!
//! A sequence whose next block is being computed by one before it in the order follows that one: it waits until the tokens
//! that both have are computed, and then finds them in the cache. Following costs a look-up, and a comparison of the tokens.

use std::collections::HashMap;

use super::sequence::Sequence;
use super::{Scheduler, SequenceId};
use crate::executor::TokenId;
use crate::inflight::prefix::Parent;

/// The block that each sequence in its context phase computes next, by what is before it and what is in it.
#[derive(Debug, Default)]
pub(super) struct Computing(HashMap<Parent, HashMap<Box<[TokenId]>, SequenceId>>);

/// One that waits for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Follower {
    pub(super) id: SequenceId,
    /// Tokens that the other has to have computed.
    pub(super) until: usize,
    /// Whether both are of one request: then whoever is left computes the prompt.
    pub(super) is_sibling: bool,
}

impl Computing {
    fn remove(&mut self, parent: Parent, tokens: &[TokenId], id: SequenceId) {
        let Some(blocks) = self.0.get_mut(&parent) else { return };
        if blocks.get(tokens) == Some(&id) {
            blocks.remove(tokens);
            if blocks.is_empty() {
                self.0.remove(&parent);
            }
        }
    }
}

impl Scheduler {
    /// Makes known which block an active sequence computes next, if it fills one. Where another is known to compute it, that
    /// one stays.
    pub(super) fn announce(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        let beam = &sequence.beams[0];
        let next = beam.table.registered() * self.demand.tokens_per_block;
        if let Some(tokens) = beam.tokens.get(next..next + self.demand.tokens_per_block)
            && beam.computed < beam.tokens.len()
        {
            let parent = beam.table.last();
            self.computing.0.entry(parent).or_default().entry(tokens.into()).or_insert(id);
            sequence.announced = Some((parent, next));
        }
    }

    pub(super) fn withdraw(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        if let Some((parent, next)) = sequence.announced.take() {
            let tokens = &sequence.beams[0].tokens[next..next + self.demand.tokens_per_block];
            self.computing.remove(parent, tokens, id);
        }
    }

    /// Lets a waiting sequence, which would go on after `parent` with the token at `next`, follow the one that computes its next
    /// block. Whether there is such a one.
    pub(super) fn follow(&mut self, id: SequenceId, parent: Parent, next: usize) -> bool {
        let Some(sequence) = self.sequences.get(id) else { return false };
        let Some(reusable) = sequence.reusable() else { return false };
        let Some(block) = reusable.get(next..next + self.demand.tokens_per_block) else { return false };
        let Some(&leader) = self.computing.0.get(&parent).and_then(|blocks| blocks.get(block)) else { return false };
        // One before it in the order gets on without it; one after it might have to wait for it.
        let Some(leading) = self.sequences.get(leader).filter(|leading| leading.rank < sequence.rank) else {
            return false;
        };
        let alike = reusable.iter().zip(&leading.beams[0].tokens).take_while(|(own, other)| own == other).count();
        let until = alike / self.demand.tokens_per_block * self.demand.tokens_per_block;
        let rank = sequence.rank;
        if let Some(leading) = self.sequences.get_mut(leader) {
            self.waiting.remove(&rank);
            leading.followers.push(Follower { id, until, is_sibling: false });
        }
        true
    }

    /// Lets those go that waited for what `id` has computed.
    pub(super) fn release_followers(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id).filter(|sequence| !sequence.followers.is_empty()) else {
            return;
        };
        let computed = sequence.beams[0].computed;
        let released: Vec<_> = sequence.followers.extract_if(.., |follower| follower.until <= computed).collect();
        released.into_iter().for_each(|follower| self.wait(follower.id));
    }

    /// Lets those go that follow a sequence of another request, which is paused.
    pub(super) fn release_others(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        let released: Vec<_> = sequence.followers.extract_if(.., |follower| !follower.is_sibling).collect();
        released.into_iter().for_each(|follower| self.wait(follower.id));
    }

    /// Makes the first sibling of those that waited for a sequence that is gone the one that its siblings wait for. The others
    /// find whom to follow when it is their turn.
    pub(super) fn hand_followers_on(&mut self, gone: Sequence) {
        let mut heir = None;
        for follower in gone.followers {
            match heir {
                Some(heir) if follower.is_sibling => {
                    if let Some(sequence) = self.sequences.get_mut(heir) {
                        sequence.followers.push(follower);
                    }
                }
                _ => {
                    if follower.is_sibling
                        && let Some(sequence) = self.sequences.get_mut(follower.id)
                    {
                        sequence.computes_whole_prompt |= gone.computes_whole_prompt;
                        heir = Some(follower.id);
                    }
                    self.wait(follower.id);
                }
            }
        }
    }

    /// Puts a sequence that followed another among those that wait, unless it is gone.
    fn wait(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get(id) {
            self.waiting.insert(sequence.rank, id);
        }
    }
}
