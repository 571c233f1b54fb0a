//! One sequence that is being generated: its tokens so far, and what they say.

use std::time::{Duration, Instant};

use crate::executor::{FinishReason, TokenId, TokenLogProb, TokenResult};

use super::{Completion, Job};
use text::text_stream::TextStream;

pub(super) struct Sequence {
    index: usize,
    sequence_index: Option<usize>,
    prompt_tokens: usize,
    began: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    stream: Option<TextStream>,
    text: String,
    output_ids: Vec<TokenId>,
    log_probs: Option<Vec<f32>>,
    top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    cum_log_prob: Option<f32>,
    finish_reason: Option<FinishReason>,
}

impl Sequence {
    /// Sequence `number` of `job`, before its first token.
    pub(super) fn new(job: &Job, number: usize, stream: Option<TextStream>, began: Instant) -> Self {
        let spec = job.request.spec();
        Self {
            index: job.index,
            sequence_index: job.has_sequence_index().then_some(number),
            prompt_tokens: spec.input_token_ids.len(),
            began,
            first_token: None,
            last_token: None,
            stream,
            text: String::new(),
            output_ids: Vec::new(),
            log_probs: spec.output.return_log_probs.then(Vec::new),
            top_log_probs: (spec.output.top_log_probs > 0).then(Vec::new),
            cum_log_prob: None,
            finish_reason: None,
        }
    }

    pub(super) fn output_tokens(&self) -> usize {
        self.output_ids.len()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Takes a response in; the text that is new and certain.
    pub(super) fn push(&mut self, result: TokenResult) -> String {
        let now = Instant::now();
        let mut new = String::new();
        for (position, &token) in result.output_token_ids.iter().enumerate() {
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
            self.output_ids.push(token);
            if let (Some(all), Some(these)) = (&mut self.log_probs, &result.log_probs) {
                all.extend(these.get(position));
            }
            if let (Some(all), Some(these)) = (&mut self.top_log_probs, &result.top_log_probs) {
                all.extend(these.get(position).cloned());
            }
            let Some(stream) = &mut self.stream else { continue };
            let emit = stream.push(token);
            new.push_str(&emit.text);
            if emit.stopped.is_some() {
                self.stop();
                break;
            }
        }
        if self.finish_reason.is_none() && result.is_sequence_final {
            self.cum_log_prob = result.cum_log_prob;
            self.finish_reason = Some(result.finish_reason.unwrap_or(FinishReason::Cancelled));
            new.push_str(&self.flush());
        }
        self.text.push_str(&new);
        new
    }

    /// A stop string is complete. The executor's sum, if there is one, is of more tokens than are kept.
    fn stop(&mut self) {
        self.finish_reason = Some(FinishReason::StopWords);
        self.cum_log_prob = self.log_probs.as_ref().map(|log_probs| log_probs.iter().sum());
    }

    /// What was held back, now that no more tokens come.
    fn flush(&mut self) -> String {
        let Some(stream) = &mut self.stream else { return String::new() };
        let emit = stream.finish();
        if emit.stopped.is_some() {
            self.stop();
        }
        emit.text
    }

    /// The whole. A sequence without a finish reason counts as cancelled.
    pub(super) fn finish(self, prompt_log_probs: Option<Vec<f32>>) -> Completion {
        let generation_time = match (self.first_token, self.last_token) {
            (Some(first), Some(last)) => last.duration_since(first),
            _ => Duration::ZERO,
        };
        Completion {
            index: self.index,
            sequence_index: self.sequence_index,
            prompt_tokens: self.prompt_tokens,
            output_ids: self.output_ids,
            text: self.stream.is_some().then_some(self.text),
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            log_probs: self.log_probs,
            top_log_probs: self.top_log_probs,
            cum_log_prob: self.cum_log_prob,
            prompt_log_probs,
            time_to_first_token: self.first_token.map(|first| first.duration_since(self.began)),
            generation_time,
        }
    }
}
