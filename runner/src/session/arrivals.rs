//! Submitted requests on their way to the router. An executor may answer before its `enqueue` has returned, so the router
//! waits for submissions that are under way, and for nothing else.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::executor::{EnqueueError, RequestId};

use super::entry::Entry;

#[derive(Default)]
pub(super) struct Arrivals {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<(RequestId, Entry)>,
    /// Calls of `enqueue` that have not returned.
    submitting: usize,
    /// Why nothing is routed any more.
    closed: Option<EnqueueError>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a request and leaves its entry for the router.
    pub(super) fn submit(
        &self,
        entry: Entry,
        enqueue: impl FnOnce() -> Result<RequestId, EnqueueError>,
    ) -> Result<RequestId, EnqueueError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        state.submitting += 1;
        drop(state);
        // Also if `enqueue` panics: the router must not wait for it.
        let _submitting = Submitting(self);
        let id = enqueue()?;
        let mut state = self.lock();
        match &state.closed {
            Some(reason) => Err(reason.clone()),
            None => {
                state.entries.push((id, entry));
                Ok(id)
            }
        }
    }

    /// Moves what has arrived into `entries`, waiting for the request `id` as long as a submission is under way.
    pub(super) fn take_into(&self, entries: &mut HashMap<RequestId, Entry>, id: RequestId) {
        let mut state = self.lock();
        loop {
            entries.extend(state.entries.drain(..));
            if state.submitting == 0 || entries.contains_key(&id) {
                return;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From now on submissions are refused with `reason`; moves what had arrived into `entries`.
    pub(super) fn close(&self, entries: &mut HashMap<RequestId, Entry>, reason: EnqueueError) {
        let mut state = self.lock();
        state.closed = Some(reason);
        entries.extend(state.entries.drain(..));
    }
}

/// A submission that is under way, until it is dropped.
struct Submitting<'a>(&'a Arrivals);

impl Drop for Submitting<'_> {
    fn drop(&mut self) {
        self.0.lock().submitting -= 1;
        self.0.arrived.notify_one();
    }
}
