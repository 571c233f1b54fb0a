//! Sequences by number. A look-up is an index and a comparison.

#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};

use super::sequence::Sequence;

/// A sequence's number: it rises, and no other sequence ever has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::inflight) struct SequenceId {
    pub(super) number: u64,
    slot: usize,
}

#[derive(Debug, Default)]
pub(super) struct Sequences {
    slots: Vec<Option<(SequenceId, Sequence)>>,
    free: Vec<usize>,
    next: u64,
    #[cfg(test)]
    pub(super) look_ups: AtomicU64,
}

impl Sequences {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// The number of the next sequence.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    pub(super) fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let id = SequenceId { number: self.next, slot };
        self.next += 1;
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some((id, sequence));
        id
    }

    pub(super) fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.count();
        let slot = self.slots.get(id.slot)?.as_ref();
        slot.filter(|(found, _)| *found == id).map(|(_, sequence)| sequence)
    }

    pub(super) fn get_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.count();
        let slot = self.slots.get_mut(id.slot)?.as_mut();
        slot.filter(|(found, _)| *found == id).map(|(_, sequence)| sequence)
    }

    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        self.get(id)?;
        let (_, sequence) = self.slots.get_mut(id.slot)?.take()?;
        self.free.push(id.slot);
        Some(sequence)
    }

    /// Tests count look-ups.
    #[inline]
    fn count(&self) {
        #[cfg(test)]
        self.look_ups.fetch_add(1, Ordering::Relaxed);
    }
}
