//! Prompts in, text out: executor, detokenizer and stop strings together.

mod sequence;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::executor::{
    EnqueueError, Executor, FinishReason, Request, RequestId, Response, TokenId, TokenLogProb, TokenResult,
};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

use sequence::Sequence;
use text::text_stream::TextStream;

/// One prompt to complete.
#[derive(Debug)]
pub struct Job {
    /// Number of the prompt, from 0; comes back with everything about it.
    pub index: usize,
    /// What to run.
    pub request: Request,
    /// Strings that end the text of a sequence; they are not part of it.
    pub stop_strings: StopStrings,
}

impl Job {
    /// How many sequences come back.
    pub fn num_sequences(&self) -> usize {
        self.request.spec().sampling.num_return_sequences
    }

    /// Whether sequences are told apart: there are several, or they are beams.
    fn has_sequence_index(&self) -> bool {
        self.num_sequences() > 1 || self.request.spec().sampling.beam_width > 1
    }
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
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
    /// When log-probabilities were asked for: their sum over `output_ids`.
    pub cum_log_prob: Option<f32>,
    /// When asked for: one for each prompt token after the first.
    pub prompt_log_probs: Option<Vec<f32>>,
    /// From the start of the run to the first token; `None` when there was none.
    pub time_to_first_token: Option<Duration>,
    /// From the first token to the last.
    pub generation_time: Duration,
}

/// What happens while prompts are completed.
#[derive(Debug)]
pub enum Event<'a> {
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
#[non_exhaustive]
pub enum GenerationError {
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
    /// The executor ended without a final response for every request.
    #[error("the executor ended with {unfinished} prompts unfinished")]
    ExecutorGone {
        /// Prompts without an end.
        unfinished: usize,
    },
}

/// Completes `jobs`, in whatever order the executor works, and reports through `on_event`. Without a tokenizer there is
/// no text, and stop strings match nothing.
///
/// # Errors
/// [`GenerationError`]; what had finished before was reported, what still ran is cancelled.
pub fn generate(
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    jobs: Vec<Job>,
    on_event: impl FnMut(Event<'_>),
) -> Result<(), GenerationError> {
    let mut run = Run { executor, tokenizer, began: Instant::now(), running: HashMap::new(), on_event };
    let result = run.complete(jobs.into());
    for &id in run.running.keys() {
        executor.cancel(id);
    }
    result
}

struct Run<'a, F> {
    executor: &'a dyn Executor,
    tokenizer: Option<&'a Tokenizer>,
    began: Instant,
    running: HashMap<RequestId, Running>,
    on_event: F,
}

/// A request that is being worked on.
struct Running {
    index: usize,
    /// By their number; taken out when they end.
    sequences: Vec<Option<Sequence>>,
    /// One for all sequences; comes with the first response.
    prompt_log_probs: Option<Vec<f32>>,
}

impl<F: FnMut(Event<'_>)> Run<'_, F> {
    fn complete(&mut self, mut waiting: VecDeque<Job>) -> Result<(), GenerationError> {
        while !waiting.is_empty() || !self.running.is_empty() {
            while let Some(job) = waiting.pop_front() {
                match self.executor.enqueue(job.request.clone()) {
                    Ok(id) => {
                        self.running.insert(id, Running::new(self.tokenizer, &job, self.began));
                    }
                    Err(EnqueueError::QueueFull { .. }) if !self.running.is_empty() => {
                        waiting.push_front(job);
                        break;
                    }
                    // A shutdown from elsewhere (an interrupt) ends what runs with final responses; wait for those.
                    Err(EnqueueError::ShutDown) if !self.running.is_empty() => waiting.clear(),
                    Err(source) => return Err(GenerationError::Enqueue { index: job.index, source }),
                }
            }
            let responses = self.executor.await_responses(None);
            if responses.is_empty() {
                return Err(GenerationError::ExecutorGone { unfinished: self.running.len() });
            }
            for response in responses {
                self.take(response)?;
            }
        }
        Ok(())
    }

    /// Reports what a response brings.
    fn take(&mut self, response: Response) -> Result<(), GenerationError> {
        let (request_id, is_final) = (response.request_id(), response.is_final());
        // A request whose sequences have all stopped is no longer known; what the executor sends for it is dropped.
        let Some(request) = self.running.get_mut(&request_id) else { return Ok(()) };
        match response {
            Response::Error { message, .. } => {
                let index = request.index;
                self.running.remove(&request_id);
                return Err(GenerationError::Failed { index, message });
            }
            Response::Result(result) => request.take(result, &mut self.on_event),
        }
        if is_final {
            for place in 0..request.sequences.len() {
                request.finish(place, &mut self.on_event);
            }
        } else if request.sequences.iter().all(Option::is_none) {
            // Cancelling ends all sequences of a request, so one that a stop string has ended runs on until all have.
            self.executor.cancel(request_id);
        }
        if request.sequences.iter().all(Option::is_none) {
            self.running.remove(&request_id);
        }
        Ok(())
    }
}

impl Running {
    fn new(tokenizer: Option<&Tokenizer>, job: &Job, began: Instant) -> Self {
        let spec = job.request.spec();
        let stream = tokenizer.map(|tokenizer| {
            TextStream::new(tokenizer, &spec.input_token_ids, spec.guided_decoding.is_some(), job.stop_strings.clone())
        });
        let numbers = 0..job.num_sequences();
        let sequences = numbers.map(|number| Some(Sequence::new(job, number, stream.clone(), began)));
        Self { index: job.index, sequences: sequences.collect(), prompt_log_probs: None }
    }

    fn take(&mut self, mut result: TokenResult, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some(prompt_log_probs) = result.prompt_log_probs.take() {
            self.prompt_log_probs = Some(prompt_log_probs);
        }
        let place = result.sequence_index;
        let Some(sequence) = self.sequences.get_mut(place).and_then(Option::as_mut) else { return };
        let before = sequence.output_tokens();
        let text = sequence.push(result);
        let output_tokens = sequence.output_tokens();
        let is_finished = sequence.is_finished();
        if !text.is_empty() || output_tokens > before {
            on_event(Event::Text { index: self.index, sequence_index: place, output_tokens, text: &text });
        }
        if is_finished {
            self.finish(place, on_event);
        }
    }

    /// Reports a sequence's end, unless that was done.
    fn finish(&mut self, place: usize, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some(sequence) = self.sequences[place].take() {
            on_event(Event::Finished(sequence.finish(self.prompt_log_probs.clone())));
        }
    }
}
