//! One sequence on its way out: its text with the tokens that the text is of, and its end.

use std::collections::VecDeque;

use runner::executor::{FinishReason, TokenId};
use runner::session::StopReason;
use serde::Serialize;
use text::detokenizer::Detokenizer;
use text::tokenizer::Tokenizer;

use crate::error::ApiError;
use crate::generate::cell::{Delta, Finish, PromptScores};

use super::logprobs::Entry;

/// A sequence, so far.
#[derive(Debug, Default)]
pub struct Sequence {
    track: Option<Track>,
    /// Tokens that came and were not given out as ids yet.
    ids: Vec<TokenId>,
    /// Tokens that came.
    pub tokens: usize,
    /// The sum of their log-probabilities.
    pub sum_log_probs: f32,
    /// Whether anything was given out.
    pub has_begun: bool,
}

/// Where the tokens of a text are.
#[derive(Debug)]
struct Track {
    detokenizer: Detokenizer,
    /// Characters that the tokens so far make, and of them those that were given out: the others may be the beginning of a stop string.
    made: usize,
    given: usize,
    waiting: VecDeque<Entry>,
}

/// What may be given out.
#[derive(Debug, Default)]
pub struct Piece {
    /// New text.
    pub text: String,
    /// The tokens that it is of.
    pub entries: Vec<Entry>,
    /// All tokens that came.
    pub ids: Vec<TokenId>,
    /// How the sequence ended.
    pub ended: Option<Ended>,
}

/// How a sequence ended, by OpenAI's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// `stop` or `length`.
    pub finish_reason: &'static str,
    /// What ended it, as vLLM says it.
    pub stop_reason: Option<Stop>,
}

/// A stop string or token.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Stop {
    /// A string.
    Text(String),
    /// A token.
    Token(TokenId),
}

impl Sequence {
    /// Begins to follow the places of tokens, after a prompt that is not part of the text.
    pub fn track(&mut self, tokenizer: &Tokenizer, prompt: &[TokenId], is_guided: bool, skip_special_tokens: bool) {
        let detokenizer = match is_guided {
            true => Detokenizer::of_guided_output(tokenizer, skip_special_tokens),
            false => Detokenizer::after_prompt(tokenizer, prompt, skip_special_tokens),
        };
        self.track = Some(Track { detokenizer, made: 0, given: 0, waiting: VecDeque::new() });
    }

    /// The text of the choice begins with the prompt's, of so many characters.
    pub fn echoed(&mut self, characters: usize) {
        if let Some(track) = &mut self.track {
            (track.made, track.given) = (characters, characters);
        }
    }

    /// Takes in what came. `flight_tokens` are those of the whole flight; `added_ends` the end tokens that the request added.
    ///
    /// # Errors
    /// The sequence did not end as one should.
    pub fn take(&mut self, delta: Delta, flight_tokens: usize, added_ends: &[TokenId]) -> Result<Piece, ApiError> {
        let Delta { text, tokens, log_probs, top_log_probs, finish } = delta;
        self.tokens += tokens.len();
        self.sum_log_probs = log_probs.iter().fold(self.sum_log_probs, |sum, log_prob| sum + log_prob);
        let ended = finish.as_ref().map(|finish| ended(finish, flight_tokens, added_ends)).transpose()?;
        let by_text = matches!(finish, Some(Finish { stop: Some(StopReason::Text(_)), .. }));
        let entries = match &mut self.track {
            None => Vec::new(),
            Some(track) => {
                let mut top = top_log_probs.into_iter();
                let mut log_probs = log_probs.into_iter();
                for &id in &tokens {
                    let top = top.next().unwrap_or_default();
                    track.push(Entry { id, log_prob: log_probs.next(), top, offset: 0, end: 0 });
                }
                track.given += text.chars().count();
                track.release(ended.is_some(), by_text, !text.is_empty())
            }
        };
        self.ids.extend(tokens);
        let gives = !text.is_empty() || ended.is_some();
        let ids = if gives { std::mem::take(&mut self.ids) } else { Vec::new() };
        Ok(Piece { text, entries, ids, ended })
    }

    /// The average log-probability of a token, by which the best are known.
    pub fn mean_log_prob(&self) -> f32 {
        if self.tokens == 0 { 0.0 } else { self.sum_log_probs / self.tokens as f32 }
    }
}

impl Track {
    fn push(&mut self, entry: Entry) {
        let offset = self.made;
        self.made += self.detokenizer.push(entry.id).chars().count();
        self.waiting.push_back(Entry { offset, end: self.made, ..entry });
    }

    /// The tokens whose text was given out. At the end all of them, but those that a stop string has cut away.
    fn release(&mut self, is_over: bool, by_text: bool, has_text: bool) -> Vec<Entry> {
        let given = self.given;
        if is_over {
            let rest = std::mem::take(&mut self.waiting);
            return rest.into_iter().filter(|entry| !by_text || entry.offset < given).collect();
        }
        if !has_text {
            return Vec::new();
        }
        let count = self.waiting.iter().take_while(|entry| entry.offset < given).count();
        self.waiting.drain(..count).collect()
    }
}

/// The tokens of a prompt that is part of the text.
pub fn of_prompt(
    tokenizer: &Tokenizer,
    ids: &[TokenId],
    scores: &PromptScores,
    skip_special_tokens: bool,
) -> Vec<Entry> {
    let mut detokenizer = Detokenizer::new(tokenizer, skip_special_tokens);
    let mut made = 0;
    let one = |(index, &id): (usize, &TokenId)| {
        let offset = made;
        made += detokenizer.push(id).chars().count();
        let before = index.checked_sub(1);
        let log_prob = before.and_then(|index| scores.log_probs.get(index).copied());
        let top = before.and_then(|index| scores.top_log_probs.get(index).cloned()).unwrap_or_default();
        Entry { id, log_prob, top, offset, end: made }
    };
    ids.iter().enumerate().map(one).collect()
}

fn ended(finish: &Finish, flight_tokens: usize, added_ends: &[TokenId]) -> Result<Ended, ApiError> {
    let ended = |finish_reason, stop_reason| Ok(Ended { finish_reason, stop_reason });
    match (finish.reason, &finish.stop) {
        (FinishReason::EndId, Some(StopReason::Tokens(tokens))) => {
            let added = tokens.last().filter(|id| added_ends.contains(id));
            ended("stop", added.map(|&id| Stop::Token(id)))
        }
        (FinishReason::EndId, _) => ended("stop", None),
        (FinishReason::StopWords, stop) => ended(
            "stop",
            match stop {
                Some(StopReason::Text(text)) => Some(Stop::Text(text.clone())),
                Some(StopReason::Tokens(tokens)) => tokens.last().map(|&id| Stop::Token(id)),
                None => None,
            },
        ),
        (FinishReason::Length, _) => ended("length", None),
        (FinishReason::TimedOut, _) if flight_tokens > 0 => ended("length", Some(Stop::Text("timeout".to_owned()))),
        (FinishReason::TimedOut, _) => Err(ApiError::deadline_exceeded()),
        // Nobody else cancels a request whose client waits for it.
        (FinishReason::Cancelled, _) => Err(ApiError::shutting_down()),
        (FinishReason::Unknown(number), _) => {
            Err(ApiError::internal(format!("the executor ended the output for a reason that is not known: {number}")))
        }
    }
}
