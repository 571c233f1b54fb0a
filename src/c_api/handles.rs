//! Handles: ids in the shape of pointers. Nothing is ever read through one, so a stale, foreign or invented handle is an
//! error and not a crash.
//!
//! A handle is `kind (8 bits), generation (32 bits), slot + 1 (24 bits)`. A slot's generation goes up when its handle is
//! freed, and a slot whose generations are used up is never used again, so no handle ever comes back.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::status::{Failure, TRTLLM_STATUS_INVALID_HANDLE, TRTLLM_STATUS_SYSTEM};

const SLOT_BITS: u32 = 24;
const KIND_SHIFT: u32 = 56;
const MAX_SLOTS: usize = (1 << SLOT_BITS) - 1;

/// The kinds of handles. Not zero, and with the highest bit clear: on x86-64 no such address can be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    String = 0x11,
    TokenIds,
    Engine,
    Responses,
    IterationStats,
    Detokenizer,
    Queue,
}

const NAMES: [(Kind, &str); 7] = [
    (Kind::String, "trtllm_string"),
    (Kind::TokenIds, "trtllm_token_ids"),
    (Kind::Engine, "trtllm_engine"),
    (Kind::Responses, "trtllm_responses"),
    (Kind::IterationStats, "trtllm_iteration_stats_list"),
    (Kind::Detokenizer, "trtllm_detokenizer"),
    (Kind::Queue, "trtllm_queue"),
];

fn name_of(kind: u8) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known as u8 == kind).map(|&(_, name)| name)
}

/// All handles of one kind: `T` is what they stand for, `C` the opaque type that the header shows.
pub(crate) struct Table<T, C> {
    kind: Kind,
    slots: Mutex<Slots<T>>,
    opaque: PhantomData<fn() -> C>,
}

struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<Arc<T>>,
    /// Whether somebody is freeing it; see [`Table::retire`].
    retired: bool,
}

impl<T, C> Table<T, C> {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind, slots: Mutex::new(Slots { slots: Vec::new(), free: Vec::new() }), opaque: PhantomData }
    }

    /// The slots. A panic elsewhere cannot leave them half-changed: each critical section only moves values.
    fn lock(&self) -> MutexGuard<'_, Slots<T>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new handle.
    ///
    /// # Errors
    /// There are 16 million already.
    pub(crate) fn insert(&self, value: T) -> Result<*mut C, Failure> {
        let value = Some(Arc::new(value));
        let mut slots = self.lock();
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.slots[slot as usize].value = value;
                slot
            }
            None if slots.slots.len() < MAX_SLOTS => {
                slots.slots.push(Slot { generation: 0, value, retired: false });
                (slots.slots.len() - 1) as u32
            }
            None => {
                let message = format!("there are {MAX_SLOTS} handles of this kind: free some");
                return Err(Failure::new(TRTLLM_STATUS_SYSTEM, message));
            }
        };
        let generation = slots.slots[slot as usize].generation;
        let id = (self.kind as u64) << KIND_SHIFT | u64::from(generation) << SLOT_BITS | u64::from(slot + 1);
        Ok(id as usize as *mut C)
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// `TRTLLM_STATUS_INVALID_HANDLE`.
    pub(crate) fn get(&self, handle: *const C) -> Result<Arc<T>, Failure> {
        let (generation, slot) = self.parse(handle)?;
        let slots = self.lock();
        let found = slots.slots.get(slot).filter(|slot| slot.generation == generation);
        found.and_then(|slot| slot.value.clone()).ok_or_else(|| self.stale())
    }

    /// Begins to free a handle that others may still use meanwhile: to `get` nothing changes, but whoever retires it again is
    /// told that it was freed. [`Table::remove`] ends it.
    ///
    /// # Errors
    /// `TRTLLM_STATUS_INVALID_HANDLE`, `TRTLLM_STATUS_SHUT_DOWN` in a fork.
    pub(crate) fn retire(&self, handle: *const C) -> Result<Arc<T>, Failure> {
        let (generation, index) = self.parse(handle)?;
        let mut slots = self.lock();
        let found = slots.slots.get_mut(index).filter(|slot| slot.generation == generation && !slot.retired);
        let slot = found.ok_or_else(|| self.stale())?;
        let value = slot.value.clone().ok_or_else(|| self.stale())?;
        slot.retired = true;
        Ok(value)
    }

    /// Frees a handle; what it stood for is the caller's.
    ///
    /// # Errors
    /// As [`Table::retire`].
    pub(crate) fn remove(&self, handle: *const C) -> Result<Arc<T>, Failure> {
        let (generation, index) = self.parse(handle)?;
        let mut slots = self.lock();
        let found = slots.slots.get_mut(index).filter(|slot| slot.generation == generation);
        let slot = found.ok_or_else(|| self.stale())?;
        let value = slot.value.take().ok_or_else(|| self.stale())?;
        slot.retired = false;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            slots.free.push(index as u32);
        }
        Ok(value)
    }

    fn parse(&self, handle: *const C) -> Result<(u32, usize), Failure> {
        let id = handle as usize as u64;
        let (kind, generation, slot) = ((id >> KIND_SHIFT) as u8, (id >> SLOT_BITS) as u32, id as usize & MAX_SLOTS);
        let expected = name_of(self.kind as u8).unwrap_or_default();
        if id == 0 {
            return Err(invalid(format!("the {expected} handle is NULL")));
        }
        if kind != self.kind as u8 {
            let found = name_of(kind).map_or_else(|| "no handle".to_owned(), |name| format!("a {name}"));
            return Err(invalid(format!("this is {found}, not a {expected}")));
        }
        let slot = slot.checked_sub(1).ok_or_else(|| self.stale())?;
        Ok((generation, slot))
    }

    fn stale(&self) -> Failure {
        let name = name_of(self.kind as u8).unwrap_or_default();
        invalid(format!("this {name} handle was freed, or never given out"))
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(TRTLLM_STATUS_INVALID_HANDLE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Opaque;

    #[test]
    fn a_freed_handle_never_comes_back() {
        let table: Table<u32, Opaque> = Table::new(Kind::String);
        let first = table.insert(1).unwrap();
        assert_eq!(*table.get(first).unwrap(), 1);
        assert_eq!(*table.remove(first).unwrap(), 1);
        let second = table.insert(2).unwrap();
        assert_ne!(first, second);
        assert_eq!(*table.get(second).unwrap(), 2);
        for stale in [table.get(first), table.remove(first)] {
            let failure = stale.unwrap_err();
            assert_eq!(failure.status, TRTLLM_STATUS_INVALID_HANDLE);
            assert!(failure.message.contains("freed"), "{}", failure.message);
        }
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let table: Table<u32, Opaque> = Table::new(Kind::Engine);
        table.remove(table.insert(0).unwrap()).unwrap();
        table.lock().slots[0].generation = u32::MAX;
        let last = table.insert(1).unwrap();
        assert_eq!(*table.get(last).unwrap(), 1);
        table.remove(last).unwrap();
        let next = table.insert(2).unwrap();
        assert_eq!(table.lock().slots.len(), 2);
        assert!(table.get(last).is_err());
        assert_eq!(*table.get(next).unwrap(), 2);
    }

    #[test]
    fn what_is_no_handle_is_said() {
        let strings: Table<u32, Opaque> = Table::new(Kind::String);
        let engines: Table<u32, Opaque> = Table::new(Kind::Engine);
        let string = strings.insert(1).unwrap();
        let local = 7_u64;
        let message = |handle: *const Opaque| engines.get(handle).unwrap_err().message;
        assert!(message(std::ptr::null()).contains("NULL"));
        assert!(message(string).contains("a trtllm_string, not a trtllm_engine"));
        assert!(message(std::ptr::from_ref(&local).cast()).contains("no handle"));
        assert!(message(usize::MAX as *const Opaque).contains("no handle"));
        assert!(message(((Kind::Engine as usize) << KIND_SHIFT) as *const Opaque).contains("never given out"));
        assert!(message(((Kind::Engine as usize) << KIND_SHIFT | 9) as *const Opaque).contains("never given out"));
    }
}
