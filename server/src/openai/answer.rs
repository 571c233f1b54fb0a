//! Answers: what a client of OpenAI's API reads.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use runner::executor::TokenId;

use crate::error::ApiError;
use crate::generate::cell::{Cell, Delta, PromptScores};
use crate::http::reply::{self, Body};
use crate::http::routes::Call;
use crate::http::sse;
use crate::model::seconds_now;
use crate::state::State;

use super::chunks::Chunks;
use super::logprobs::{self, Entry, Logprobs, Names, PromptLogprobs};
use super::request::Wanted;
use super::sequence::{self, Piece, Sequence};
use super::shape::{Answer, Choice, Message, PromptDetails, Usage};
use super::start::{Started, StartedPrompt};

/// What all chunks of an answer have in common.
pub(super) struct Context {
    pub(super) state: Arc<State>,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) wanted: Wanted,
    pub(super) prompts: Vec<StartedPrompt>,
    pub(super) scores: Vec<Option<PromptScores>>,
    pub(super) added_ends: Vec<TokenId>,
    pub(super) is_chat: bool,
    pub(super) is_guided: bool,
}

impl Context {
    fn names(&self) -> Names<'_> {
        let tokenizer = self.state.model().and_then(|model| model.tokenizer("").ok());
        Names { tokenizer, as_ids: self.wanted.tokens_as_ids }
    }

    pub(super) fn logprobs(&self, entries: &[Entry]) -> Option<Logprobs> {
        let top = self.wanted.logprobs.filter(|_| !entries.is_empty())?;
        Some(match self.is_chat {
            true => logprobs::content(self.names(), entries, top, self.wanted.skip_special_tokens),
            false => logprobs::lists(self.names(), entries, top),
        })
    }

    /// The prompt of a sequence.
    pub(super) fn prompt(&self, sequence: usize) -> usize {
        sequence / self.wanted.best_of.max(1)
    }

    fn sequence(&self, index: usize) -> Sequence {
        let mut sequence = Sequence::default();
        if self.wanted.logprobs.is_some()
            && let (Some(tokenizer), Some(prompt)) = (self.names().tokenizer, self.prompts.get(self.prompt(index)))
        {
            let skip = self.wanted.skip_special_tokens;
            sequence.track(tokenizer, &prompt.ids, self.is_guided, skip);
        }
        sequence
    }

    /// What is said of the prompt before the output of a sequence: its text and tokens.
    pub(super) fn echo(&mut self, index: usize, cell: &Cell, sequence: &mut Sequence) -> Result<Piece, ApiError> {
        let number = self.prompt(index);
        self.fetch(number, cell);
        let names = self.names();
        let prompt = &self.prompts[number];
        let skip = self.wanted.skip_special_tokens;
        let text = match (&prompt.text, names.tokenizer) {
            (Some(text), _) => text.clone(),
            (None, Some(tokenizer)) => {
                tokenizer.decode(&prompt.ids, skip).map_err(|error| ApiError::internal(error.to_string()))?
            }
            (None, None) => String::new(),
        };
        sequence.echoed(text.chars().count());
        let entries = match (names.tokenizer, &self.scores[number]) {
            (Some(tokenizer), Some(scores)) if self.wanted.logprobs.is_some() => {
                sequence::of_prompt(tokenizer, &prompt.ids, scores, skip)
            }
            _ => Vec::new(),
        };
        Ok(Piece { text, entries, ..Piece::default() })
    }

    fn fetch(&mut self, prompt: usize, cell: &Cell) {
        if self.scores[prompt].is_none() {
            self.scores[prompt] = cell.scores(prompt);
        }
    }

    pub(super) fn prompt_logprobs(&self, number: usize) -> Option<PromptLogprobs> {
        let most = self.wanted.prompt_logprobs?;
        // Of a prompt of one token there is nothing to score, and an executor may say so by nothing.
        let nothing = PromptScores::default();
        let scores = self.scores[number].as_ref().unwrap_or(&nothing);
        Some(logprobs::of_prompt(self.names(), &self.prompts[number].ids, scores, most))
    }

    pub(super) fn usage(&self, cell: &Cell) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let completion_tokens = cell.tokens();
        let details = (cell.open() == 0).then(|| PromptDetails {
            cached_tokens: cell.went().iter().map(|went| went.metrics.cached_prompt_tokens).sum(),
        });
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: details,
        }
    }

    /// A choice of an answer that does not stream.
    fn choice<'a>(&'a self, index: usize, piece: &'a Piece) -> Choice<'a> {
        let number = index / self.wanted.n.max(1);
        let ended = piece.ended.as_ref();
        let (text, ids) = (piece.text.as_str(), self.wanted.return_token_ids);
        Choice {
            index,
            text: (!self.is_chat).then_some(text),
            message: self.is_chat.then_some(Message { role: "assistant", content: text, refusal: () }),
            logprobs: self.logprobs(&piece.entries),
            finish_reason: ended.map(|ended| ended.finish_reason),
            stop_reason: ended.map(|ended| ended.stop_reason.as_ref()),
            token_ids: ids.then_some(piece.ids.as_slice()),
            prompt_token_ids: (ids && !self.is_chat).then(|| self.prompts[number].ids.as_slice()),
            prompt_logprobs: if self.is_chat { None } else { self.prompt_logprobs(number) },
            delta: None,
        }
    }

    pub(super) fn answer<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<Choice<'a>>,
        usage: Option<Option<Usage>>,
    ) -> Answer<'a> {
        Answer {
            id: &self.id,
            object,
            created: self.created,
            model: &self.wanted.model,
            system_fingerprint: self.state.model().map_or("", |model| model.fingerprint()),
            choices,
            usage,
            prompt_logprobs: None,
            prompt_token_ids: None,
        }
    }
}

/// Answers with what comes of requests under way: all at once, or as it comes.
///
/// # Errors
/// They failed before the answer began.
pub async fn respond(state: &Arc<State>, call: &Call, started: Started) -> Result<Response<Body>, ApiError> {
    let told = Told::of(&started);
    let Started { flight, wanted, prompts, is_guided, is_chat, stop_token_ids, .. } = started;
    let is_stream = wanted.stream;
    let mut context = Context {
        state: state.clone(),
        id: format!("{}-{}", if is_chat { "chatcmpl" } else { "cmpl" }, call.id()),
        created: seconds_now(),
        scores: vec![None; prompts.len()],
        wanted,
        prompts,
        added_ends: stop_token_ids,
        is_chat,
        is_guided,
    };
    let mut response = if is_stream {
        let count = context.prompts.len() * context.wanted.best_of;
        let sequences = (0..count).map(|index| context.sequence(index)).collect();
        sse::response(state, flight, Chunks { context, sequences })
    } else {
        let cell = flight.cell();
        let taken = std::future::poll_fn(|polling| cell.poll_all(polling)).await;
        if let Some(failure) = taken.error {
            return Err(state.lifecycle.explain(failure).await);
        }
        let mut response = whole(&mut context, cell, taken.deltas)?;
        times(&mut response, cell, call.arrived.elapsed());
        response
    };
    told.write(&mut response);
    Ok(response)
}

/// What headers say of a request, streaming or not.
pub(crate) struct Told {
    prompt_tokens: usize,
    ignored: Option<String>,
    seed: Option<u64>,
    truncated: usize,
}

impl Told {
    pub(crate) fn of<T>(started: &Started<T>) -> Self {
        Self {
            prompt_tokens: started.prompts.iter().map(|prompt| prompt.ids.len()).sum(),
            ignored: started.ignored.clone(),
            seed: started.wanted.drawn_seed,
            truncated: started.truncated,
        }
    }

    pub(crate) fn write(self, response: &mut Response<Body>) {
        reply::header(response, "x-prompt-tokens", &self.prompt_tokens.to_string());
        if let Some(names) = self.ignored {
            reply::header(response, "x-ignored-fields", &names);
        }
        if let Some(seed) = self.seed {
            reply::header(response, "x-seed", &seed.to_string());
        }
        if self.truncated > 0 {
            reply::header(response, "x-truncated-tokens", &self.truncated.to_string());
        }
    }
}

/// The times of a request in milliseconds, by TGI's names.
pub(crate) fn times(response: &mut Response<Body>, cell: &Cell, total: Duration) {
    let went = cell.went();
    let longest = |of: fn(&crate::generate::cell::Went) -> Duration| went.iter().map(of).max().unwrap_or_default();
    let queue = longest(|went| went.metrics.queue_time());
    let inference = longest(|went| went.metrics.context_time() + went.metrics.generation_time());
    let tokens = cell.tokens();
    let per_token = inference.checked_div(u32::try_from(tokens.max(1)).unwrap_or(u32::MAX)).unwrap_or_default();
    for (name, time) in [
        ("x-total-time", total),
        ("x-queue-time", queue),
        ("x-inference-time", inference),
        ("x-time-per-token", per_token),
    ] {
        reply::header(response, name, &time.as_millis().to_string());
    }
    reply::header(response, "x-generated-tokens", &tokens.to_string());
}

/// The answer that does not stream.
fn whole(context: &mut Context, cell: &Cell, deltas: Vec<(usize, Delta)>) -> Result<Response<Body>, ApiError> {
    let (n, best_of) = (context.wanted.n, context.wanted.best_of);
    let mut ended: Vec<Option<(f32, Piece)>> = Vec::new();
    ended.resize_with(context.prompts.len() * best_of, || None);
    for (index, delta) in deltas {
        let mut sequence = context.sequence(index);
        let mut piece = match context.wanted.echo {
            true => context.echo(index, cell, &mut sequence)?,
            false => Piece::default(),
        };
        let rest = sequence.take(delta, cell.tokens(), &context.added_ends)?;
        piece.text.push_str(&rest.text);
        piece.entries.extend(rest.entries);
        (piece.ids, piece.ended) = (rest.ids, rest.ended);
        ended[index] = Some((sequence.mean_log_prob(), piece));
    }
    let mut chosen: Vec<(usize, Piece)> = Vec::with_capacity(context.prompts.len() * n);
    for (number, of_prompt) in ended.chunks_mut(best_of).enumerate() {
        context.fetch(number, cell);
        let mut of_prompt: Vec<_> = of_prompt.iter_mut().filter_map(Option::take).collect();
        if best_of > n {
            of_prompt.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        }
        let places = of_prompt.into_iter().take(n).zip(number * n..);
        chosen.extend(places.map(|((_, piece), index)| (index, piece)));
    }
    let context = &*context;
    let ids = context.wanted.return_token_ids;
    let choices = chosen.iter().map(|(index, piece)| context.choice(*index, piece)).collect();
    let object = if context.is_chat { "chat.completion" } else { "text_completion" };
    let mut answer = context.answer(object, choices, Some(Some(context.usage(cell))));
    if context.is_chat {
        answer.prompt_logprobs = context.prompt_logprobs(0);
        answer.prompt_token_ids = ids.then(|| context.prompts[0].ids.as_slice());
    }
    Ok(reply::json(StatusCode::OK, &answer))
}
