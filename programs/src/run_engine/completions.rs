//! Completes prompts over a session, and reports what happens: text as it comes, sequences as they end.

use std::collections::VecDeque;
use std::time::Duration;

use runner::executor::{EnqueueError, FinishReason, Request, Response, TokenId, TokenLogProb};
use runner::session::{Awaited, Output, SequenceStats, Session, Submission};
use text::stop_strings::StopStrings;

/// One prompt to complete.
#[derive(Debug)]
pub(super) struct Job {
    /// Number of the prompt, from 0; comes back with everything about it.
    pub index: usize,
    /// What to run.
    pub request: Request,
    /// Strings that end the text of a sequence; they are not part of it.
    pub stop_strings: StopStrings,
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Completion {
    /// Number of the prompt.
    pub index: usize,
    /// Number of the sequence, from 0, when the request asked for several or for beams; beams come best first.
    pub sequence_index: Option<usize>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Every generated id, an end id included.
    pub output_ids: Vec<TokenId>,
    /// The text of the ids, without special tokens and cut before a stop string; `None` without a tokenizer.
    pub text: Option<String>,
    /// Why the sequence ended.
    pub finish_reason: FinishReason,
    /// When asked for: one for each of `output_ids`.
    pub log_probs: Option<Vec<f32>>,
    /// When asked for: the most probable tokens, best first, at the position of each of `output_ids`.
    pub top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    /// When asked for: one for each prompt token after the first.
    pub prompt_log_probs: Option<Vec<f32>>,
    /// How the sequence went.
    pub stats: SequenceStats,
}

/// What happens while prompts are completed.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// More of a sequence.
    Text {
        /// Number of the prompt.
        index: usize,
        /// Number of the sequence, from 0.
        sequence_index: usize,
        /// Tokens of the sequence so far.
        output_tokens: usize,
        /// The new text, never a part of a character; empty when the new tokens made none certain.
        text: &'a str,
    },
    /// A sequence has ended.
    Finished(Completion),
}

/// Why a run ended before all prompts were completed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompletionError {
    /// The executor did not take a prompt.
    #[error("prompt {index}: {source}")]
    Enqueue {
        /// Number of the prompt.
        index: usize,
        /// Why not.
        source: EnqueueError,
    },
    /// The executor failed on a prompt.
    #[error("prompt {index} failed: {message}")]
    Failed {
        /// Number of the prompt.
        index: usize,
        /// The executor's reason.
        message: String,
    },
    /// The session ended without a final output for every request.
    #[error("the executor ended with {unfinished} prompts unfinished")]
    SessionEnded {
        /// Prompts without an end.
        unfinished: usize,
    },
}

impl Job {
    /// How many sequences come back.
    pub(super) fn num_sequences(&self) -> usize {
        self.request.spec().sampling.num_return_sequences
    }

    fn submission(&self) -> Submission {
        let stop_strings = self.stop_strings.clone();
        Submission { stop_strings, tag: self.index as u64, ..Submission::new(self.request.clone()) }
    }
}

/// Completes `jobs`, whose indices count from 0, in whatever order the executor works, and reports through `on_event`. What has
/// not ended when this returns with an error still runs: close the session.
///
/// # Errors
/// [`CompletionError`]; what had finished before was reported.
pub(super) fn complete(
    session: &Session,
    jobs: Vec<Job>,
    mut on_event: impl FnMut(Event<'_>),
) -> Result<(), CompletionError> {
    let gives_text = session.tokenizer().is_some_and(|tokenizer| tokenizer.get().is_ok());
    let mut running: Vec<Option<Running>> = jobs.iter().map(|_| None).collect();
    let mut waiting = VecDeque::from(jobs);
    let mut unfinished = 0;
    while !waiting.is_empty() || unfinished > 0 {
        while let Some(job) = waiting.front() {
            match session.submit(job.submission()) {
                Ok(_) => {
                    running[job.index] = Some(Running::new(job, gives_text));
                    unfinished += 1;
                    waiting.pop_front();
                }
                Err(EnqueueError::QueueFull { .. }) if unfinished > 0 => break,
                // A shutdown from elsewhere (an interrupt) ends what runs with final outputs; wait for those.
                Err(EnqueueError::ShutDown) if unfinished > 0 => waiting.clear(),
                Err(source) => return Err(CompletionError::Enqueue { index: job.index, source }),
            }
        }
        let Awaited::Outputs(outputs) = session.await_outputs(None) else {
            return Err(CompletionError::SessionEnded { unfinished });
        };
        for output in outputs {
            let index = output.tag as usize;
            let is_final = output.response.is_final();
            if let Response::Error { message, .. } = output.response {
                return Err(CompletionError::Failed { index, message });
            }
            if let Some(request) = &mut running[index] {
                request.take(output, &mut on_event);
            }
            if is_final {
                running[index] = None;
                unfinished -= 1;
            }
        }
    }
    Ok(())
}

/// A request that is being worked on.
struct Running {
    index: usize,
    has_text: bool,
    has_sequence_index: bool,
    return_log_probs: bool,
    return_top_log_probs: bool,
    /// What came of each sequence.
    sequences: Vec<Option<Output>>,
    /// One for all sequences; comes with the first output.
    prompt_log_probs: Option<Vec<f32>>,
}

impl Running {
    fn new(job: &Job, has_text: bool) -> Self {
        let spec = job.request.spec();
        Self {
            index: job.index,
            has_text,
            has_sequence_index: job.num_sequences() > 1 || spec.sampling.beam_width > 1,
            return_log_probs: spec.output.return_log_probs,
            return_top_log_probs: spec.output.top_log_probs > 0,
            sequences: vec![None; job.num_sequences()],
            prompt_log_probs: None,
        }
    }

    fn take(&mut self, mut output: Output, on_event: &mut impl FnMut(Event<'_>)) {
        let Response::Result(result) = &mut output.response else { return };
        if let Some(prompt_log_probs) = result.prompt_log_probs.take() {
            self.prompt_log_probs = Some(prompt_log_probs);
        }
        let (index, sequence_index, is_over) = (self.index, result.sequence_index, result.is_sequence_final);
        let is_news = !result.output_token_ids.is_empty() || !output.text.is_empty();
        let text = output.text.clone();
        let Some(sequence) = self.sequences.get_mut(sequence_index) else { return };
        let whole = match sequence {
            Some(whole) => {
                whole.append(output);
                whole
            }
            None => sequence.insert(output),
        };
        let Response::Result(result) = &whole.response else { return };
        if is_news {
            let output_tokens = result.output_token_ids.len();
            on_event(Event::Text { index, sequence_index, output_tokens, text: &text });
        }
        if is_over && let Some(whole) = sequence.take() {
            self.finish(whole, on_event);
        }
    }

    /// Reports a sequence's end.
    fn finish(&self, whole: Output, on_event: &mut impl FnMut(Event<'_>)) {
        let Response::Result(result) = whole.response else { return };
        let stats = whole.stats.unwrap_or(SequenceStats {
            prompt_tokens: 0,
            output_tokens: 0,
            time_to_first_token: None,
            generation_time: Duration::ZERO,
        });
        on_event(Event::Finished(Completion {
            index: self.index,
            sequence_index: self.has_sequence_index.then_some(result.sequence_index),
            prompt_tokens: stats.prompt_tokens,
            output_ids: result.output_token_ids,
            text: self.has_text.then_some(whole.text),
            finish_reason: result.finish_reason.unwrap_or(FinishReason::Cancelled),
            log_probs: result.log_probs.or(self.return_log_probs.then(Vec::new)),
            top_log_probs: result.top_log_probs.or(self.return_top_log_probs.then(Vec::new)),
            prompt_log_probs: self.prompt_log_probs.clone(),
            stats,
        }));
    }
}

#[cfg(test)]
mod tests;
