//! From a body to requests under way. All of it happens on a thread that prepares, and nothing of it for a client that has gone.

use std::sync::Arc;

use bytes::Bytes;
use runner::executor::{RequestSpec, TokenId};
use runner::request_builder::Prompt;
use runner::session::Submission;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::generate::admission::{Full, Permit};
use crate::generate::{Flight, Prepared};
use crate::http::read;
use crate::http::routes::Call;
use crate::keys;
use crate::model::Model;
use crate::state::State;

use super::policy;
use super::request::{Asked, Wanted};

/// Bytes of a body that are taken for a token before it has been read.
const BYTES_PER_TOKEN: usize = 4;

/// What comes before an output.
#[derive(Debug, Clone)]
pub enum Input {
    /// For the chat template.
    Prompt(Prompt),
    /// Token ids, and the text that they were made of.
    Ids {
        /// All of them, special ones included.
        ids: Vec<TokenId>,
        /// For `echo`.
        text: Option<String>,
    },
}

/// A body that was read.
#[derive(Debug)]
pub struct Read<T = ()> {
    /// What it asks for.
    pub asked: Asked,
    /// The prompts.
    pub inputs: Vec<Input>,
    /// Which of the two APIs it is of.
    pub is_chat: bool,
    /// The field that the prompts came in.
    pub prompt_field: &'static str,
    /// What an API keeps for its own answer.
    pub own: T,
}

/// Reads a body's fields.
pub type Reader<T = ()> = fn(&mut Fields, &Model, &Call) -> Result<Read<T>, ApiError>;

/// A prompt of a request that is under way.
#[derive(Debug, Clone)]
pub struct StartedPrompt {
    /// Its tokens.
    pub ids: Vec<TokenId>,
    /// As it was given.
    pub text: Option<String>,
}

/// Requests under way, and what is to become of their outputs.
#[derive(Debug)]
pub struct Started<T = ()> {
    /// What is under way.
    pub flight: Flight,
    /// What is to be in the answer.
    pub wanted: Wanted,
    /// The prompts.
    pub prompts: Vec<StartedPrompt>,
    /// Whether outputs are guided, and their first blank is text.
    pub is_guided: bool,
    /// Of chat.
    pub is_chat: bool,
    /// End tokens that a request added.
    pub stop_token_ids: Vec<TokenId>,
    /// Fields that nobody honours.
    pub ignored: Option<String>,
    /// Prompt tokens that were cut off.
    pub truncated: usize,
    /// What an API keeps for its own answer.
    pub own: T,
}

/// A refusal because too much is under way.
fn full(state: &State, full: Full) -> ApiError {
    state.metrics.count_rejection("queue");
    ApiError::overloaded("queue_full", full.message, full.retry_after)
}

/// Starts what a body asks for.
///
/// # Errors
/// It cannot be read, cannot be run, or too much is under way.
pub async fn start<T: Send + 'static>(
    state: &Arc<State>,
    call: &Call,
    body: Bytes,
    reader: Reader<T>,
) -> Result<Started<T>, ApiError> {
    let model = state.serving()?;
    let most = model.session().executor().limits().max_seq_len;
    let estimate = (body.len() / BYTES_PER_TOKEN).min(most);
    let permit = model.admission().admit(1, estimate).map_err(|error| full(state, error))?;
    let call = call.clone();
    state.prepare(move |state| prepare(state, &call, &body, reader, permit)).await
}

/// Reads a body: what it asks for, and its fields, of which those are left that nobody knows.
///
/// # Errors
/// It is no JSON object, or a field of it is wrong or cannot be honoured.
pub fn read_body<T>(model: &Model, call: &Call, body: &[u8], reader: Reader<T>) -> Result<(Read<T>, Fields), ApiError> {
    let mut fields = read::fields(body)?;
    let read = reader(&mut fields, model, call)?;
    policy::settle(&mut fields)?;
    Ok((read, fields))
}

fn prepare<T>(
    state: &State,
    call: &Call,
    body: &[u8],
    reader: Reader<T>,
    mut permit: Permit,
) -> Result<Started<T>, ApiError> {
    let model = state.serving()?;
    let (Read { mut asked, inputs, is_chat, prompt_field, own }, fields) = read_body(model, call, body, reader)?;
    if let Some(id) = asked.more.request_id.take() {
        call.record.set_id(id);
    }
    let rejects = state.settings.unknown_fields == "reject";
    let ignored = policy::ignored(&fields, model.unread(&asked.options, &asked.more.message_fields), rejects)?;
    let each = asked.wanted.best_of;
    let most = state.settings.max_num_sequences;
    if inputs.len().saturating_mul(each) > most {
        let message =
            format!("{} prompts with {each} sequences each are more than {most} (max_num_sequences)", inputs.len());
        return Err(ApiError::invalid("n", message));
    }
    scores(&mut asked);
    let (mut truncated, is_one) = (0, inputs.len() == 1);
    let mut prompts = Vec::with_capacity(inputs.len());
    let mut submissions = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.into_iter().enumerate() {
        let field = if is_chat || is_one { prompt_field.to_owned() } else { format!("{prompt_field}[{index}]") };
        let (submission, text) = submission(model, call, &asked, input, &field, &mut truncated)?;
        prompts.push(StartedPrompt { ids: submission.request.spec().input_token_ids.clone(), text });
        submissions.push(submission);
    }
    let specs = || submissions.iter().map(|submission| submission.request.spec());
    let tokens = specs().map(|spec| spec.input_token_ids.len()).sum();
    let output: usize = specs().map(|spec| spec.max_tokens.saturating_mul(each)).sum();
    permit.settle(prompts.len() * each, tokens, tokens + output).map_err(|error| full(state, error))?;
    if let Some(key) = &call.key {
        let charged = key.charge(tokens + output).inspect_err(|_| state.metrics.count_rejection("key"))?;
        call.record.set_charged(charged);
    }
    let is_guided = specs().any(|spec| spec.guided_decoding.is_some());
    let cut = cut(model, &asked, specs().next());
    let guide = asked.more.guide;
    let prepared = Prepared { submissions, each, cut, permit, record: call.record.clone() };
    let flight =
        model.generator().start(prepared).map_err(|error| ApiError::of_enqueue(error, prompt_field, &guide))?;
    let stop_token_ids = asked.more.stop_token_ids;
    Ok(Started { flight, wanted: asked.wanted, prompts, is_guided, is_chat, stop_token_ids, ignored, truncated, own })
}

/// Asks for the log-probabilities that the answer needs.
fn scores(asked: &mut Asked) {
    let Asked { options, wanted, .. } = asked;
    options.logprobs = (wanted.logprobs.is_some() || wanted.best_of > wanted.n).then_some(true);
    options.top_logprobs = wanted.logprobs.filter(|&top| top > 0);
    let of_echo = wanted.logprobs.filter(|_| wanted.echo);
    let top = of_echo.max(wanted.prompt_logprobs);
    options.prompt_logprobs = top.map(|_| true);
    options.prompt_top_logprobs = top.filter(|&top| top > 0);
}

fn submission(
    model: &Model,
    call: &Call,
    asked: &Asked,
    input: Input,
    field: &str,
    truncated: &mut usize,
) -> Result<(Submission, Option<String>), ApiError> {
    let (prompt, mut text) = match input {
        Input::Prompt(prompt) => (prompt, None),
        Input::Ids { ids, text } => (Prompt::Ids(ids), text),
    };
    let refused = |error| ApiError::of_build(error, field, &asked.more.guide);
    let builder = model.builder();
    let mut spec = builder.spec(&prompt, &asked.options).map_err(refused)?;
    if let Some(kept) = asked.more.truncate {
        let surplus = spec.input_token_ids.len().saturating_sub(kept);
        match asked.more.keeps_beginning {
            true => spec.input_token_ids.truncate(kept),
            false => drop(spec.input_token_ids.drain(..surplus)),
        }
        *truncated += surplus;
        text = text.filter(|_| surplus == 0);
    }
    if let Some(key) = &call.key {
        spec.priority = key.priority(asked.options.priority, spec.priority)?;
    }
    add(&mut spec, model, call, asked);
    if spec.output.top_log_probs == 1 && chooses_the_most_probable(&spec) {
        // It is the chosen one, whose log-probability every executor returns. TensorRT-LLM's returns no others.
        spec.output.top_log_probs = 0;
    }
    let submission = builder.submission(spec, &asked.options, true).map_err(refused)?;
    Ok((submission, text))
}

/// Whether each token is the one of the highest logit: a greedy choice in which nothing else has a say.
fn chooses_the_most_probable(spec: &RequestSpec) -> bool {
    let sampling = &spec.sampling;
    let is_changed = sampling.beam_width > 1
        || sampling.min_tokens > 0
        || sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
        || sampling.no_repeat_ngram_size > 0
        || !spec.bad_words.is_empty()
        || !spec.embedding_bias.is_empty()
        || spec.allowed_token_ids.is_some()
        || spec.guided_decoding.is_some();
    sampling.is_greedy() && !is_changed
}

/// Puts in what options have no names for.
fn add(spec: &mut RequestSpec, model: &Model, call: &Call, asked: &Asked) {
    spec.streaming = asked.wanted.stream && spec.sampling.beam_width == 1;
    spec.output.return_perf_metrics = true;
    spec.output.return_prompt_ranks = asked.wanted.prompt_logprobs.is_some();
    spec.allotted_time = asked.more.allotted_time;
    spec.bad_words.extend(asked.more.bad_words.iter().cloned());
    spec.end_ids = match asked.options.ignore_eos {
        Some(true) => Vec::new(),
        _ => model.end_ids().to_vec(),
    };
    let more = asked.more.stop_token_ids.iter().filter(|id| !model.end_ids().contains(id) || spec.end_ids.is_empty());
    spec.end_ids.extend(more.copied().collect::<Vec<_>>());
    let salt = asked.more.cache_salt.as_deref();
    spec.cache_salt_id = match &call.key {
        Some(key) => Some(key.salt(salt.unwrap_or_default())),
        None => salt.map(|salt| keys::salt(&[0; 32], salt)),
    };
}

/// The end tokens that are ordinary ones, with their texts, which are cut off where they are not asked for.
fn cut(model: &Model, asked: &Asked, spec: Option<&RequestSpec>) -> Vec<(TokenId, String)> {
    let (Some(spec), Ok(tokenizer)) = (spec, model.tokenizer("")) else { return Vec::new() };
    if asked.options.include_stop_str_in_output == Some(true) {
        return Vec::new();
    }
    let is_shown = |id: TokenId| !asked.wanted.skip_special_tokens || !tokenizer.is_special(id);
    let shown = spec.end_ids.iter().filter(|&&id| is_shown(id));
    shown.map(|&id| (id, String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())).collect()
}
