//! Puts the completions of prompts together of what a session gives out, and reports what happens: text as it comes, sequences
//! and prompts as they end.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::anyhow;
use args::Failure;
use runner::executor::{FinishReason, RequestSpec, Response, TokenId, TokenLogProb};
use runner::session::{Output, SequenceStats, StopReason};

use super::feed::{Fed, Feed};

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
    /// The text of the ids, without special tokens and cut before a stop string unless they were asked for; `None` without a
    /// tokenizer.
    pub text: Option<String>,
    /// Why the sequence ended.
    pub finish_reason: FinishReason,
    /// The stop string, end id or stop word that ended the sequence.
    pub stop_reason: Option<Box<StopReason>>,
    /// When asked for: one for each of `output_ids`.
    pub log_probs: Option<Vec<f32>>,
    /// When asked for: the most probable tokens, best first, at the position of each of `output_ids`.
    pub top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    /// When asked for: one for each prompt token after the first.
    pub prompt_log_probs: Option<Vec<f32>>,
    /// When asked for: the most probable tokens, best first, at the position of each prompt token after the first.
    pub prompt_top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    /// How the sequence went.
    pub stats: SequenceStats,
}

/// What happens while prompts are completed.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A prompt runs. The first event of each that does, in the order of the prompts.
    Started {
        /// Number of the prompt.
        index: usize,
        /// Sequences that come back.
        sequences: usize,
        /// What its user may not expect.
        warnings: &'a [String],
    },
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
    /// A prompt has no completion, or no whole one.
    Failed {
        /// Number of the prompt.
        index: usize,
        /// Why, with the prompt's name.
        failure: Failure,
    },
    /// A prompt is over, whatever it came to. The last event of each.
    Ended {
        /// Number of the prompt.
        index: usize,
    },
}

/// How a run of prompts went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Prompts that ran, or failed.
    pub prompts: usize,
    /// Prompts without a whole completion.
    pub failed: usize,
    /// Whether prompts are left that never ran.
    pub is_cut: bool,
}

/// Completes what `feed` brings, in whatever order the executor works, and reports through `on_event`. One prompt's failure is
/// reported and ends no other.
///
/// # Errors
/// What ends all prompts; those that were under way have ended.
pub(super) fn complete(feed: &Feed, mut on_event: impl FnMut(Event<'_>)) -> Result<Outcome, Failure> {
    let mut running: HashMap<usize, Running> = HashMap::new();
    let mut outcome = Outcome::default();
    // How the prompts ended, once no more come.
    let mut end = None;
    while end.is_none() || !running.is_empty() {
        let Some(fed) = feed.next() else { break };
        match fed {
            Fed::Started(request) => {
                outcome.prompts += 1;
                let (index, sequences) = (request.index, request.sequences.len());
                on_event(Event::Started { index, sequences, warnings: &request.warnings });
                running.insert(index, request);
            }
            Fed::Output(output) => {
                let index = output.tag as usize;
                let is_final = output.response.is_final();
                if let Response::Error { message, .. } = &output.response {
                    let name = running.get(&index).and_then(|request| request.name.as_deref());
                    let failure = Failure::Other(anyhow!(message.clone())).of(name);
                    outcome.failed += 1;
                    on_event(Event::Failed { index, failure });
                } else if let Some(request) = running.get_mut(&index) {
                    request.take(output, &mut on_event);
                }
                if is_final && running.remove(&index).is_some() {
                    on_event(Event::Ended { index });
                }
            }
            Fed::Refused { index, failure } => {
                outcome.prompts += usize::from(running.remove(&index).is_none());
                outcome.failed += 1;
                on_event(Event::Failed { index, failure });
                on_event(Event::Ended { index });
            }
            Fed::Closed { index } => {
                outcome.prompts -= 1;
                outcome.is_cut = true;
                running.remove(&index);
                on_event(Event::Ended { index });
            }
            Fed::End(how) => end = Some(how),
            Fed::Stop => {
                outcome.is_cut |= end.is_none();
                end.get_or_insert(Ok(()));
            }
        }
    }
    end.unwrap_or(Ok(()))?;
    Ok(outcome)
}

/// A request that is being worked on.
pub(super) struct Running {
    index: usize,
    name: Option<String>,
    warnings: Vec<String>,
    has_text: bool,
    has_sequence_index: bool,
    return_log_probs: bool,
    return_top_log_probs: bool,
    /// What came of each sequence.
    sequences: Vec<Option<Output>>,
    /// One for all sequences; comes with the first output.
    prompt_log_probs: Option<Vec<f32>>,
    /// The same.
    prompt_top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
}

impl Running {
    pub(super) fn new(
        index: usize,
        name: Option<String>,
        spec: &RequestSpec,
        has_text: bool,
        warnings: Vec<String>,
    ) -> Self {
        let sequences = spec.sampling.num_return_sequences;
        Self {
            index,
            name,
            warnings,
            has_text,
            has_sequence_index: sequences > 1 || spec.sampling.beam_width > 1,
            return_log_probs: spec.output.return_log_probs,
            return_top_log_probs: spec.output.top_log_probs > 0,
            sequences: vec![None; sequences],
            prompt_log_probs: None,
            prompt_top_log_probs: None,
        }
    }

    fn take(&mut self, mut output: Output, on_event: &mut impl FnMut(Event<'_>)) {
        let Response::Result(result) = &mut output.response else { return };
        if let Some(prompt_log_probs) = result.prompt_log_probs.take() {
            self.prompt_log_probs = Some(prompt_log_probs);
        }
        if let Some(prompt_top_log_probs) = result.prompt_top_log_probs.take() {
            self.prompt_top_log_probs = Some(prompt_top_log_probs);
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
            stop_reason: whole.stop_reason,
            log_probs: result.log_probs.or(self.return_log_probs.then(Vec::new)),
            top_log_probs: result.top_log_probs.or(self.return_top_log_probs.then(Vec::new)),
            prompt_log_probs: self.prompt_log_probs.clone(),
            prompt_top_log_probs: self.prompt_top_log_probs.clone(),
            stats,
        }));
    }
}

#[cfg(test)]
mod tests;
