//! A request's own say in its logits: TensorRT-LLM's logits post-processor.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{RequestId, TokenId};
use crate::contained::contained;

/// What a [`LogitsPostProcessor`] is told.
#[derive(Debug, Clone, Copy)]
pub struct LogitsContext<'a> {
    /// The request.
    pub request_id: RequestId,
    /// Number of the sequence, from 0; in a beam search the number of the beam, whose tokens can change between calls.
    pub sequence_index: usize,
    /// Prompt and output so far; the logits are those of the token that follows.
    pub token_ids: &'a [TokenId],
    /// How many of the tokens are the prompt.
    pub num_prompt_tokens: usize,
}

type Process = dyn Fn(&LogitsContext<'_>, &mut [f32]) -> Result<(), String> + Send + Sync;

/// Sees and edits the raw logits of one request, `[vocab_size]`, before everything else that chooses a token: bias,
/// temperature, penalties, guide and filters come after it. Log-probabilities are of the logits as they were before it.
///
/// Called once for each token of each sequence, from any thread, for several sequences at the same time; generation waits
/// for it. Minus infinity excludes a token. An error, a panic, a logit that is plus infinity or not a number, or no token left
/// ends the request with an error, and only that request.
#[derive(Clone)]
pub struct LogitsPostProcessor(Arc<Hook>);

/// The host's function, until its end, and how many of its calls run. No lock is held during a call: a host that divides its work
/// among threads may find itself in the call for another sequence.
struct Hook {
    state: Mutex<State>,
    is_idle: Condvar,
}

struct State {
    process: Option<Arc<Process>>,
    running: usize,
}

impl Hook {
    fn call(&self, context: &LogitsContext<'_>, logits: &mut [f32]) -> Result<(), String> {
        let mut state = self.lock();
        let Some(process) = state.process.clone() else { return Ok(()) };
        state.running += 1;
        drop(state);
        let _returns = Returns(self);
        // Dropped before the call counts as returned, so that `end` drops the last one.
        let process = process;
        process(context, logits)
    }

    /// Returns when no call runs; there is none afterwards.
    fn end(&self) {
        let mut state = self.lock();
        let process = state.process.take();
        while state.running > 0 {
            state = self.is_idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // What it owns may panic as it is dropped.
        let _ = contained(|| drop(process));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call, which returns or panics.
struct Returns<'a>(&'a Hook);

impl Drop for Returns<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.is_idle.notify_all();
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.end();
    }
}

impl LogitsPostProcessor {
    /// A post-processor that calls `process`.
    pub fn new(process: impl Fn(&LogitsContext<'_>, &mut [f32]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { process: Some(Arc::new(process)), running: 0 });
        Self(Arc::new(Hook { state, is_idle: Condvar::new() }))
    }

    /// The same for one request alone, so that [`Self::end`] ends no other's.
    pub(crate) fn of_one_request(self) -> Self {
        Self::new(move |context, logits| self.0.call(context, logits))
    }

    /// Waits for calls that run, and makes none afterwards. A request's final output is the host's sign to free what they use, and it
    /// may come while the executor still works on the request's last step.
    pub(crate) fn end(&self) {
        self.0.end();
    }

    /// Runs it, and checks what it leaves.
    ///
    /// # Errors
    /// The error that it gave, how it panicked, or what is wrong with the logits that it left, as a sentence.
    pub fn process(&self, context: &LogitsContext<'_>, logits: &mut [f32]) -> Result<(), String> {
        // What a panic leaves half-changed is the logits, which nobody reads then, and the host's own state.
        contained(|| self.0.call(context, logits))
            .map_err(|said| match said {
                Some(said) => format!("the logits post-processor panicked: {said}"),
                None => "the logits post-processor panicked".to_owned(),
            })?
            .map_err(|problem| format!("the logits post-processor failed: {problem}"))?;
        let mut best = f32::NEG_INFINITY;
        for (token, &logit) in logits.iter().enumerate() {
            if logit.is_nan() || logit == f32::INFINITY {
                return Err(format!(
                    "the logits post-processor left {logit} for token {token}: logits are finite, or minus infinity"
                ));
            }
            best = best.max(logit);
        }
        if best == f32::NEG_INFINITY {
            return Err("the logits post-processor excluded every token".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for LogitsPostProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogitsPostProcessor")
    }
}

/// The same one, not one that does the same.
impl PartialEq for LogitsPostProcessor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
