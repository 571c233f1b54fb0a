//! How much is taken at once: so many sequences, and prompt tokens that wait, beyond what runs. What comes on top is refused before any
//! work, with the time after which there will be room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// What may be under way.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sequences that run at once.
    pub running: usize,
    /// Sequences beyond those.
    pub queued: usize,
    /// Prompt tokens of requests without a first token.
    pub queued_tokens: usize,
}

/// Tokens a second that are believed while none have been seen.
const FIRST_PACE: f64 = 100.0;

/// Why a request is refused, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Which limit, as a sentence.
    pub message: String,
    /// Seconds.
    pub retry_after: u64,
}

/// Counts what is under way.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sequences: usize,
    /// Sequences that have no token yet.
    waiting: usize,
    /// Prompt tokens of those.
    waiting_tokens: usize,
    /// Tokens to compute at most.
    work: usize,
    /// Tokens that were computed since `since`, and a second before that.
    done: usize,
    since: Instant,
    pace: f64,
}

impl Admission {
    /// Nothing is under way.
    pub fn new(limits: Limits) -> Arc<Self> {
        let state =
            State { sequences: 0, waiting: 0, waiting_tokens: 0, work: 0, done: 0, since: Instant::now(), pace: 0.0 };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for sequences whose prompts have about so many tokens. What fits into an idle server always does, however large.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(self: &Arc<Self>, sequences: usize, prompt_tokens: usize) -> Result<Permit, Full> {
        let mut state = self.lock();
        self.check(&state, sequences, prompt_tokens)?;
        state.add(sequences, prompt_tokens, prompt_tokens);
        drop(state);
        Ok(Permit { admission: self.clone(), sequences, prompt_tokens, work: prompt_tokens, waits: true })
    }

    fn check(&self, state: &State, sequences: usize, prompt_tokens: usize) -> Result<(), Full> {
        let Limits { running, queued, queued_tokens } = self.limits;
        if state.waiting > 0 && state.sequences + sequences > running + queued {
            let message = format!(
                "the server is full: {} sequences are under way, and {running} run at once with {queued} more that may wait \
                 (max_queued_requests)",
                state.sequences
            );
            return Err(Full { message, retry_after: state.retry_after() });
        }
        if state.waiting_tokens > 0 && state.waiting_tokens + prompt_tokens > queued_tokens {
            let message = format!(
                "the server is full: {} prompt tokens wait, and {queued_tokens} may (max_queued_tokens)",
                state.waiting_tokens
            );
            return Err(Full { message, retry_after: state.retry_after() });
        }
        Ok(())
    }

    /// Sequences that may be under way.
    pub fn most_sequences(&self) -> usize {
        self.limits.running.saturating_add(self.limits.queued)
    }

    /// Sequences under way, and those of them that have no token yet.
    pub fn under_way(&self) -> (usize, usize) {
        let state = self.lock();
        (state.sequences, state.waiting)
    }

    /// Seconds after which there should be room.
    pub fn retry_after(&self) -> u64 {
        self.lock().retry_after()
    }

    /// Notes tokens that were computed.
    pub fn note_tokens(&self, tokens: usize) {
        let mut state = self.lock();
        state.done += tokens;
        let elapsed = state.since.elapsed().as_secs_f64();
        if elapsed >= 1.0 {
            let now = state.done as f64 / elapsed;
            state.pace = if state.pace == 0.0 { now } else { 0.7 * state.pace + 0.3 * now };
            state.done = 0;
            state.since = Instant::now();
        }
    }
}

impl State {
    fn add(&mut self, sequences: usize, prompt_tokens: usize, work: usize) {
        self.sequences += sequences;
        self.waiting += sequences;
        self.waiting_tokens += prompt_tokens;
        self.work += work;
    }

    /// The work at hand by the pace of late, from 1 to 60 s, and a fifth more or less so that those who wait do not come back
    /// together.
    fn retry_after(&self) -> u64 {
        let pace = if self.pace > 0.0 { self.pace } else { FIRST_PACE };
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        let jitter = 0.8 + 0.4 * f64::from(nanos % 1000) / 1000.0;
        (self.work as f64 / pace * jitter).ceil().clamp(1.0, 60.0) as u64
    }
}

/// Room for sequences; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    sequences: usize,
    prompt_tokens: usize,
    work: usize,
    /// Whether it has no token yet.
    waits: bool,
}

impl Permit {
    /// Puts what is now known in the place of what was estimated.
    ///
    /// # Errors
    /// [`Full`]: there is no room for that much.
    pub fn settle(&mut self, sequences: usize, prompt_tokens: usize, work: usize) -> Result<(), Full> {
        let mut state = self.admission.lock();
        state.remove(self);
        (self.sequences, self.prompt_tokens, self.work) = (0, 0, 0);
        self.admission.check(&state, sequences, prompt_tokens)?;
        state.add(sequences, prompt_tokens, work);
        (self.sequences, self.prompt_tokens, self.work) = (sequences, prompt_tokens, work);
        Ok(())
    }

    /// A part of it, on its own.
    pub fn split(&mut self, sequences: usize, prompt_tokens: usize, output_tokens: usize) -> Self {
        let sequences = sequences.min(self.sequences);
        let work = prompt_tokens.saturating_add(output_tokens).min(self.work);
        let prompt_tokens = prompt_tokens.min(self.prompt_tokens);
        self.sequences -= sequences;
        self.prompt_tokens -= prompt_tokens;
        self.work -= work;
        Self { admission: self.admission.clone(), sequences, prompt_tokens, work, waits: self.waits }
    }

    /// The first output has come: its sequences wait no longer.
    pub fn begin(&mut self) {
        if !std::mem::replace(&mut self.waits, false) {
            return;
        }
        let mut state = self.admission.lock();
        state.waiting = state.waiting.saturating_sub(self.sequences);
        state.waiting_tokens = state.waiting_tokens.saturating_sub(self.prompt_tokens);
        drop(state);
        self.admission.note_tokens(self.prompt_tokens);
    }
}

impl State {
    fn remove(&mut self, permit: &Permit) {
        self.sequences = self.sequences.saturating_sub(permit.sequences);
        self.work = self.work.saturating_sub(permit.work);
        if permit.waits {
            self.waiting = self.waiting.saturating_sub(permit.sequences);
            self.waiting_tokens = self.waiting_tokens.saturating_sub(permit.prompt_tokens);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.lock().remove(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Admission::new(Limits { running: 2, queued: 2, queued_tokens: 100 })
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused_and_told_when_to_come() {
        let admission = admission();
        let mut first = admission.admit(2, 10).unwrap();
        let second = admission.admit(2, 10).unwrap();
        let full = admission.admit(1, 1).unwrap_err();
        assert!(full.message.contains("4 sequences are under way") && (1..=60).contains(&full.retry_after), "{full:?}");
        first.begin();
        assert_eq!(admission.under_way(), (4, 2));
        drop(first);
        let third = admission.admit(1, 80).unwrap();
        assert!(admission.admit(1, 11).unwrap_err().message.contains("90 prompt tokens wait"));
        drop((second, third));
        assert_eq!(admission.under_way(), (0, 0));
    }

    #[test]
    fn an_idle_server_takes_what_is_larger_than_its_queue() {
        let admission = admission();
        let mut permit = admission.admit(50, 1000).unwrap();
        permit.settle(64, 5000, 6000).unwrap();
        let share = permit.split(32, 2500, 500);
        drop(permit);
        assert_eq!(admission.under_way(), (32, 32));
        drop(share);
        assert_eq!(admission.under_way(), (0, 0));
        assert_eq!(admission.lock().work, 0);
    }

    #[test]
    fn the_wait_follows_from_work_and_pace() {
        let admission = admission();
        admission.lock().pace = 10.0;
        let mut permit = admission.admit(4, 10).unwrap();
        permit.settle(4, 10, 200).unwrap();
        let wait = admission.admit(1, 1).unwrap_err().retry_after;
        assert!((16..=25).contains(&wait), "{wait}");
    }
}
