//! Prompts in, text out: executor, detokenizer and stop strings together.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::detokenizer::Detokenizer;
use crate::executor::{EnqueueError, Executor, FinishReason, Request, RequestId, Response, TokenId, TokenResult};
use crate::stop_strings::StopStrings;
use crate::tokenizer::Tokenizer;

/// One prompt to complete.
#[derive(Debug)]
pub struct Job {
    /// Number of the prompt, from 0; comes back with everything about it.
    pub index: usize,
    /// What to run.
    pub request: Request,
    /// Strings that end the text; they are not part of it.
    pub stop_strings: StopStrings,
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Number of the prompt.
    pub index: usize,
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
    /// More text of a prompt's completion; never a part of a character.
    Text {
        /// Number of the prompt.
        index: usize,
        /// The new text; not empty.
        text: &'a str,
    },
    /// A completion has ended.
    Finished(Completion),
}

/// Why a run ended before all prompts were completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The executor took no more requests.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
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
/// [`GenerationError`]; what had finished before was reported.
pub fn generate(
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    jobs: Vec<Job>,
    mut on_event: impl FnMut(Event<'_>),
) -> Result<(), GenerationError> {
    let began = Instant::now();
    let mut waiting = VecDeque::from(jobs);
    let mut running: HashMap<RequestId, Sequence> = HashMap::new();
    while !waiting.is_empty() || !running.is_empty() {
        while let Some(job) = waiting.pop_front() {
            match executor.enqueue(job.request.clone()) {
                Ok(id) => {
                    running.insert(id, Sequence::new(tokenizer, job, began));
                }
                Err(EnqueueError::QueueFull { .. }) if !running.is_empty() => {
                    waiting.push_front(job);
                    break;
                }
                // A shutdown from elsewhere (an interrupt) ends what runs with final responses; wait for those.
                Err(EnqueueError::ShutDown) if !running.is_empty() => waiting.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        let responses = executor.await_responses(None);
        if responses.is_empty() {
            return Err(GenerationError::ExecutorGone { unfinished: running.len() });
        }
        for response in responses {
            let Some(sequence) = running.get_mut(&response.request_id()) else { continue };
            let (request_id, is_final) = (response.request_id(), response.is_final());
            match response {
                Response::Error { message, .. } => {
                    return Err(GenerationError::Failed { index: sequence.index, message });
                }
                Response::Result(result) => {
                    let text = sequence.push(result);
                    if !text.is_empty() {
                        on_event(Event::Text { index: sequence.index, text: &text });
                    }
                }
            }
            if sequence.finish_reason.is_some() && !is_final {
                executor.cancel(request_id);
            }
            // A stopped sequence is reported at once; the rest of what the executor sends for it is dropped.
            if (sequence.finish_reason.is_some() || is_final)
                && let Some(sequence) = running.remove(&request_id)
            {
                on_event(Event::Finished(sequence.finish()));
            }
        }
    }
    Ok(())
}

/// A sequence that is being generated.
struct Sequence {
    index: usize,
    prompt_tokens: usize,
    began: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    detokenizer: Option<Detokenizer>,
    stop_strings: StopStrings,
    text: String,
    output_ids: Vec<TokenId>,
    log_probs: Option<Vec<f32>>,
    prompt_log_probs: Option<Vec<f32>>,
    finish_reason: Option<FinishReason>,
}

impl Sequence {
    fn new(tokenizer: Option<&Tokenizer>, job: Job, began: Instant) -> Self {
        let spec = job.request.spec();
        Self {
            index: job.index,
            prompt_tokens: spec.input_token_ids.len(),
            began,
            first_token: None,
            last_token: None,
            detokenizer: tokenizer.map(|tokenizer| match spec.guided_decoding {
                Some(_) => Detokenizer::of_guided_output(tokenizer, true),
                None => Detokenizer::after_prompt(tokenizer, &spec.input_token_ids, true),
            }),
            stop_strings: job.stop_strings,
            text: String::new(),
            output_ids: Vec::new(),
            log_probs: spec.output.return_log_probs.then(Vec::new),
            prompt_log_probs: None,
            finish_reason: None,
        }
    }

    /// Takes a response in; the text that is new and certain.
    fn push(&mut self, result: TokenResult) -> String {
        let now = Instant::now();
        if result.prompt_log_probs.is_some() {
            self.prompt_log_probs = result.prompt_log_probs;
        }
        let mut new = String::new();
        for (position, &token) in result.output_token_ids.iter().enumerate() {
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
            self.output_ids.push(token);
            if let (Some(all), Some(these)) = (&mut self.log_probs, &result.log_probs) {
                all.extend(these.get(position));
            }
            let Some(detokenizer) = &mut self.detokenizer else { continue };
            let emit = self.stop_strings.push(&detokenizer.push(token));
            new.push_str(&emit.text);
            if emit.stopped.is_some() {
                self.finish_reason = Some(FinishReason::StopWords);
                break;
            }
        }
        if self.finish_reason.is_none() && result.is_final {
            self.finish_reason = result.finish_reason;
            new.push_str(&self.flush());
        }
        self.text.push_str(&new);
        new
    }

    /// What was held back, now that no more tokens come.
    fn flush(&mut self) -> String {
        let Some(detokenizer) = &mut self.detokenizer else { return String::new() };
        let emit = self.stop_strings.push(&detokenizer.finish());
        if emit.stopped.is_some() {
            self.finish_reason = Some(FinishReason::StopWords);
            return emit.text;
        }
        emit.text + &self.stop_strings.finish()
    }

    fn finish(self) -> Completion {
        let since = |earlier: Instant, later: Option<Instant>| later.map(|later| later.duration_since(earlier));
        Completion {
            index: self.index,
            prompt_tokens: self.prompt_tokens,
            output_ids: self.output_ids,
            text: self.detokenizer.is_some().then_some(self.text),
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            log_probs: self.log_probs,
            prompt_log_probs: self.prompt_log_probs,
            time_to_first_token: since(self.began, self.first_token),
            generation_time: self.first_token.and_then(|first| since(first, self.last_token)).unwrap_or_default(),
        }
    }
}
