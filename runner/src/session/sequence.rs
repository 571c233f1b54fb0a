//! One sequence on its way out: what its tokens say, and when it is over.

use std::time::Instant;

use crate::executor::{FinishReason, TokenResult};
use text::text_stream::TextStream;

use super::SequenceStats;

#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    stream: Option<TextStream>,
    output_tokens: usize,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl Sequence {
    pub(super) fn new(stream: Option<TextStream>) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Takes a result in: the text that is new. Where that ends the sequence, `result` is changed to say so.
    pub(super) fn push(&mut self, result: &mut TokenResult, now: Instant) -> String {
        if !result.output_token_ids.is_empty() {
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
        }
        let mut text = String::new();
        if let Some(stream) = &mut self.stream {
            let mut stopped_after = None;
            for (position, &token) in result.output_token_ids.iter().enumerate() {
                let emit = stream.push(token);
                if text.is_empty() {
                    text = emit.text;
                } else {
                    text.push_str(&emit.text);
                }
                if emit.stopped.is_some() {
                    stopped_after = Some(position + 1);
                    break;
                }
            }
            if stopped_after.is_none() && result.is_sequence_final {
                let emit = stream.finish();
                text.push_str(&emit.text);
                stopped_after = emit.stopped.map(|_| result.output_token_ids.len());
            }
            if let Some(length) = stopped_after {
                stop(result, length);
            }
        }
        self.output_tokens += result.output_token_ids.len();
        text
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
    if length < result.output_token_ids.len() {
        // The sum, where there is one, is of more tokens than are kept.
        result.cum_log_prob = None;
    }
    result.output_token_ids.truncate(length);
    if let Some(log_probs) = &mut result.log_probs {
        log_probs.truncate(length);
    }
    if let Some(top_log_probs) = &mut result.top_log_probs {
        top_log_probs.truncate(length);
    }
    result.finish_reason = Some(FinishReason::StopWords);
    result.is_sequence_final = true;
}
