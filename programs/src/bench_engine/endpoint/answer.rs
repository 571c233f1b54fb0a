//! A streamed answer: which tokens came when.
//!
//! Chunks are not counted: one may hold several tokens, and a token may make none. Servers that tell `usage` in each chunk
//! (`continuous_usage_stats`) say how many tokens have come with it. Of others the number is in the last chunk, and the tokens are
//! spread evenly over the chunks, so that first and last are those that came first and last.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::problem::{Problem, in_stream};

/// What was answered. Times are from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: usize,
    /// Of these, tokens that were in its cache, where it tells.
    pub cached_tokens: Option<usize>,
    /// When each token came.
    pub token_times: Vec<Duration>,
    /// Whether each chunk said how many tokens had come.
    pub is_counted_by_chunk: bool,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Json>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<Json>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Clone, Deserialize)]
struct Details {
    cached_tokens: Option<usize>,
}

/// A chunk that said something: when it came, whether with text, and how many tokens had come then.
#[derive(Debug, Clone, Copy)]
struct Mark {
    time: Duration,
    has_text: bool,
    tokens: Option<usize>,
}

/// An answer that is being read.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    marks: Vec<Mark>,
    usage: Option<Usage>,
    has_finished: bool,
    is_done: bool,
}

impl AnswerReader {
    /// Takes an event that came at `time`.
    ///
    /// # Errors
    /// It is an error, or no chunk.
    pub(super) fn event(&mut self, time: Duration, data: &[u8]) -> Result<(), Problem> {
        if data == b"[DONE]" {
            self.is_done = true;
        }
        if self.is_done {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|_| {
            let shown: String = String::from_utf8_lossy(data).chars().filter(|c| !c.is_control()).take(100).collect();
            Problem::broken(format!("an event of the stream is no chunk of a completion: {shown}"))
        })?;
        if let Some(error) = chunk.error {
            return Err(in_stream(&error));
        }
        let mut has_text = false;
        for choice in chunk.choices.iter().flatten() {
            let delta = choice.delta.as_ref();
            let texts = [
                choice.text.as_ref(),
                delta.and_then(|delta| delta.content.as_ref()),
                delta.and_then(|delta| delta.reasoning_content.as_ref()),
                delta.and_then(|delta| delta.reasoning.as_ref()),
            ];
            has_text |= texts.into_iter().flatten().any(|text| !text.is_empty());
            self.has_finished |= choice.finish_reason.as_ref().is_some_and(Json::is_string);
        }
        let tokens = chunk.usage.as_ref().map(|usage| usage.completion_tokens);
        if has_text || tokens.is_some() {
            self.marks.push(Mark { time, has_text, tokens });
        }
        self.usage = chunk.usage.or_else(|| self.usage.take());
        Ok(())
    }

    /// Takes the end of the stream.
    ///
    /// # Errors
    /// It ended before the answer did, or without telling how many tokens there were.
    pub(super) fn end(self) -> Result<Answer, Problem> {
        if !self.has_finished && !self.is_done {
            return Err(Problem::broken("the stream was cut off"));
        }
        let Some(usage) = self.usage else {
            return Err(Problem::broken(
                "the server does not tell `usage` in streams, so its tokens cannot be counted",
            ));
        };
        let mut texts = self.marks.iter().filter(|mark| mark.has_text).peekable();
        let is_counted_by_chunk = texts.peek().is_some() && texts.all(|mark| mark.tokens.is_some());
        let token_times = match is_counted_by_chunk {
            true => counted(&self.marks),
            false => spread(&self.marks, usage.completion_tokens),
        };
        Ok(Answer {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
            token_times,
            is_counted_by_chunk,
        })
    }
}

/// The tokens that each chunk added.
fn counted(marks: &[Mark]) -> Vec<Duration> {
    let mut times = Vec::new();
    for mark in marks {
        times.resize(times.len().max(mark.tokens.unwrap_or(0)), mark.time);
    }
    times
}

/// So many tokens, evenly over the chunks with text.
fn spread(marks: &[Mark], tokens: usize) -> Vec<Duration> {
    let mut chunks: Vec<Duration> = marks.iter().filter(|mark| mark.has_text).map(|mark| mark.time).collect();
    if chunks.is_empty() {
        // Tokens without text, all known of at the end.
        chunks.extend(marks.last().map(|mark| mark.time));
    }
    let Some(last_chunk) = chunks.len().checked_sub(1) else { return Vec::new() };
    let gaps = tokens.saturating_sub(1).max(1);
    (0..tokens).map(|token| chunks[(token * last_chunk + gaps / 2) / gaps]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[&str]) -> Result<Answer, String> {
        let mut reader = AnswerReader::default();
        for (time, event) in events.iter().enumerate() {
            reader.event(Duration::from_secs(time as u64), event.as_bytes()).map_err(|problem| problem.message)?;
        }
        reader.end().map_err(|problem| problem.message)
    }

    fn times(answer: &Answer) -> Vec<u64> {
        answer.token_times.iter().map(Duration::as_secs).collect()
    }

    fn text(text: &str, tokens: Option<usize>) -> String {
        let usage =
            tokens.map(|n| serde_json::json!({ "prompt_tokens": 3, "completion_tokens": n, "total_tokens": 0 }));
        serde_json::json!({ "choices": [{ "index": 0, "text": text, "finish_reason": null }], "usage": usage })
            .to_string()
    }

    const USAGE: &str = r#"{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}}"#;

    #[test]
    fn usage_of_each_chunk_says_which_tokens_came_with_it() {
        let chunks = [text("a", Some(1)), text("bc", Some(3)), text("", Some(4)), text("d", Some(5))];
        let mut events: Vec<&str> = chunks.iter().map(String::as_str).collect();
        events.extend([USAGE, "[DONE]"]);
        let answer = read(&events).unwrap();
        assert_eq!(times(&answer), [0, 1, 1, 2, 3]);
        assert_eq!((answer.prompt_tokens, answer.cached_tokens, answer.is_counted_by_chunk), (3, Some(2), true));
        // Tokens at the end that make no text come with the last usage.
        let answer = read(&[&chunks[0], USAGE, "[DONE]"]).unwrap();
        assert_eq!(times(&answer), [0, 1, 1, 1, 1]);
    }

    #[test]
    fn without_it_tokens_are_spread_over_the_chunks() {
        let chunk = text("a", None);
        let of = |chunks: usize| {
            let events: Vec<&str> = std::iter::repeat_n(chunk.as_str(), chunks).chain([USAGE, "[DONE]"]).collect();
            let answer = read(&events).unwrap();
            assert!(!answer.is_counted_by_chunk);
            times(&answer)
        };
        assert_eq!(of(5), [0, 1, 2, 3, 4]);
        assert_eq!(of(3), [0, 1, 1, 2, 2]);
        assert_eq!(of(1), [0; 5]);
        assert_eq!(of(9), [0, 2, 4, 6, 8]);
        // No text at all: the time of the usage.
        assert_eq!(of(0), [0; 5]);
        // Usage in the last chunk with text alone is no usage in each.
        let answer = read(&[&chunk, &chunk, &text("b", Some(4)), "[DONE]"]).unwrap();
        assert_eq!((times(&answer), answer.is_counted_by_chunk), (vec![0, 1, 1, 2], false));
    }

    #[test]
    fn chat_begins_with_its_first_text() {
        let role = r#"{"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}"#;
        let thought = r#"{"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": null}]}"#;
        let said = r#"{"choices": [{"delta": {"content": "yes"}, "finish_reason": null}]}"#;
        let last = r#"{"choices": [{"delta": {}, "finish_reason": "length"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}"#;
        // A stream that names its end needs no `[DONE]`.
        assert_eq!(times(&read(&[role, thought, said, last]).unwrap()), [1, 2]);
    }

    #[test]
    fn what_is_no_answer_says_so() {
        let chunk = text("a", None);
        let refuses = |events: &[&str], part: &str| {
            let problem = read(events).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        refuses(&[&chunk], "cut off");
        refuses(&[], "cut off");
        refuses(&[&chunk, "[DONE]"], "does not tell `usage`");
        refuses(&[&chunk, r#"{"error": {"message": "the engine failed"}}"#, "[DONE]"], "error: the engine failed");
        refuses(&[r#"{"error": "overloaded", "error_type": "x"}"#], "error: overloaded");
        refuses(&["<html>"], "no chunk of a completion: <html>");
    }
}
