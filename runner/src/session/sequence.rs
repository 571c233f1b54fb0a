//! One sequence on its way out: what its tokens say, and when it is over.

use std::time::Instant;

use text::text_stream::TextStream;

use crate::executor::{FinishReason, TokenResult};

use super::ends::{Ends, Tail};
use super::{Output, SequenceStats, StopReason};

#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    stream: Option<TextStream>,
    tail: Tail,
    output_tokens: usize,
    /// The sum of the log-probabilities of the tokens that were given out.
    cum_log_prob: f32,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    /// What a request that does not stream has made so far.
    pub(super) gathered: Option<Box<Output>>,
}

impl Sequence {
    pub(super) fn new(stream: Option<TextStream>, tail: Tail) -> Self {
        Self { stream, tail, ..Self::default() }
    }

    /// Takes a result in and adds the text that is new. The stop string that has ended the sequence, if one did, which `result`
    /// then says too.
    #[inline]
    pub(super) fn push(
        &mut self,
        result: &mut TokenResult,
        ends: &Ends,
        text: &mut String,
        now: Instant,
    ) -> Option<StopReason> {
        if !result.output_token_ids.is_empty() {
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
        }
        let stopped_after = self.add_text(result, text);
        if let Some((length, _)) = stopped_after {
            stop(result, length);
        }
        ends.follow(&mut self.tail, &result.output_token_ids);
        self.output_tokens += result.output_token_ids.len();
        if let Some(log_probs) = &result.log_probs {
            self.cum_log_prob = log_probs.iter().fold(self.cum_log_prob, |sum, log_prob| sum + log_prob);
            if stopped_after.is_some() {
                // The executor's sum, if it has sent one, may be of more tokens than are kept.
                result.cum_log_prob = Some(self.cum_log_prob);
            }
        }
        let (_, stop_string) = stopped_after?;
        let stop_string = self.stream.as_ref().and_then(|stream| stream.stop_string(stop_string));
        Some(StopReason::Text(stop_string.unwrap_or_default().to_owned()))
    }

    /// Which end id or stop word has ended the sequence, as far as its tokens tell.
    pub(super) fn stop_reason(&self, ends: &Ends, finish_reason: Option<FinishReason>) -> Option<StopReason> {
        ends.reason(&self.tail, finish_reason)
    }

    /// Adds the text of a result's tokens to `text`: after how many of them a stop string was complete, and which.
    #[inline]
    fn add_text(&mut self, result: &TokenResult, text: &mut String) -> Option<(usize, usize)> {
        let stream = self.stream.as_mut()?;
        for (position, &token) in result.output_token_ids.iter().enumerate() {
            let emit = stream.push(token);
            if text.is_empty() {
                *text = emit.text;
            } else {
                text.push_str(&emit.text);
            }
            if let Some(stop_string) = emit.stopped {
                return Some((position + 1, stop_string));
            }
        }
        if !result.is_sequence_final {
            return None;
        }
        let emit = stream.finish();
        text.push_str(&emit.text);
        emit.stopped.map(|stop_string| (result.output_token_ids.len(), stop_string))
    }

    /// Keeps an output of a request that does not stream, and leaves an empty one in its place.
    pub(super) fn gather(&mut self, output: &mut Output) {
        let request_id = output.response.request_id();
        let output = std::mem::replace(output, Output::error(request_id, 0, String::new(), 0));
        match &mut self.gathered {
            Some(gathered) => gathered.append(output),
            None => self.gathered = Some(Box::new(output)),
        }
    }

    pub(super) fn stats(&self, prompt_tokens: usize, submitted: Instant) -> SequenceStats {
        let (first, last) = (self.first_token, self.last_token);
        SequenceStats {
            prompt_tokens,
            output_tokens: self.output_tokens,
            time_to_first_token: first.map(|first| first.duration_since(submitted)),
            generation_time: first.zip(last).map(|(first, last)| last.duration_since(first)).unwrap_or_default(),
        }
    }
}

/// A stop string ended the sequence with the token before `length`.
fn stop(result: &mut TokenResult, length: usize) {
    if let Some(logits) = &mut result.generation_logits {
        logits.truncate(length);
    }
    result.output_token_ids.truncate(length);
    result.cum_log_prob = None;
    if let Some(log_probs) = &mut result.log_probs {
        log_probs.truncate(length);
    }
    if let Some(top_log_probs) = &mut result.top_log_probs {
        top_log_probs.truncate(length);
    }
    result.finish_reason = Some(FinishReason::StopWords);
    result.is_sequence_final = true;
}
