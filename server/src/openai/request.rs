//! The fields that completions and chat share, as options of a request and as what is wanted in its answer.

use std::time::Duration;

use runner::executor::TokenId;
use runner::generation_options::GenerationOptions;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::http::routes::is_request_id;
use crate::model::Model;

use super::{guide, sampling};

/// Log-probabilities that may be asked for at a position.
pub const MOST_LOGPROBS: usize = 20;

/// Stop strings, and bytes of one.
pub const MOST_STOPS: (usize, usize) = (16, 1024);

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// As the library knows it.
    pub options: GenerationOptions,
    /// What of it the library's options have no names for.
    pub more: More,
    /// What is to be in the answer.
    pub wanted: Wanted,
}

/// What of a request goes into its specification directly.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// End a sequence, and are no part of its text.
    pub stop_token_ids: Vec<TokenId>,
    /// Token sequences that are not generated.
    pub bad_words: Vec<Vec<TokenId>>,
    /// The field that says what the output must look like; empty for none.
    pub guide: String,
    /// Tokens of the prompt that are kept.
    pub truncate: Option<usize>,
    /// Whether these are its first ones, not its last.
    pub keeps_beginning: bool,
    /// Fields of messages beside role and content: their paths and names.
    pub message_fields: Vec<(String, String)>,
    /// The request's id, where the body has one.
    pub request_id: Option<String>,
    /// Ends the request.
    pub allotted_time: Option<Duration>,
    /// Separates cached prefixes.
    pub cache_salt: Option<String>,
    /// Whether the prompt gets the tokenizer's special tokens; the API's way where nothing is said.
    pub add_special_tokens: Option<bool>,
}

/// What is to be in the answer.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "as many as the API has")]
pub struct Wanted {
    /// The model's name, as it was given.
    pub model: String,
    /// Chunks.
    pub stream: bool,
    /// A last chunk with usage, and usage in each.
    pub include_usage: bool,
    /// Running usage in each chunk.
    pub continuous_usage: bool,
    /// Sequences of each prompt that are returned.
    pub n: usize,
    /// Sequences of each prompt that are generated.
    pub best_of: usize,
    /// The most probable tokens at each position, so many; with 0 the chosen one alone.
    pub logprobs: Option<usize>,
    /// The same of the prompt, in vLLM's shape.
    pub prompt_logprobs: Option<usize>,
    /// The prompt before the output.
    pub echo: bool,
    /// Token ids beside texts.
    pub return_token_ids: bool,
    /// Token ids in the place of tokens' names.
    pub tokens_as_ids: bool,
    /// Special tokens are no text.
    pub skip_special_tokens: bool,
    /// The seed, where it was drawn here.
    pub drawn_seed: Option<u64>,
}

/// Where an API's bounds differ.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The fewest tokens that may be asked for.
    pub min_max_tokens: usize,
    /// The tokens that are generated where nothing is said.
    pub default_max_tokens: usize,
}

/// Reads the shared fields.
///
/// # Errors
/// The first field that is wrong.
pub fn read(fields: &mut Fields, model: &Model, bounds: Bounds, timeout: Option<&str>) -> Result<Asked, ApiError> {
    let vocab_size = model.session().executor().vocab_size();
    let mut asked = Asked::default();
    asked.more.request_id = request_id(fields)?;
    asked.wanted.model = fields.text("model")?.unwrap_or_default();
    asked.options.lora = model.resolve(&asked.wanted.model)?.map(std::path::Path::to_owned);
    if asked.wanted.model.is_empty() {
        asked.wanted.model = model.name().to_owned();
    }
    if let Some(name) = fields.text("lora")? {
        asked.options.lora = Some(model.adapter(&name)?.to_owned());
    }
    length(fields, &mut asked, bounds)?;
    sampling::read(fields, &mut asked, model)?;
    ends(fields, &mut asked, vocab_size)?;
    asked.more.guide = guide::read(fields, &mut asked.options)?.unwrap_or_default();
    stream(fields, &mut asked.wanted, asked.options.beam_width.is_some())?;
    asked.more.cache_salt = salt(fields, model)?;
    asked.options.priority = priority(fields, model)?;
    asked.more.add_special_tokens = fields.boolean("add_special_tokens")?;
    asked.more.truncate = fields.count("truncate_prompt_tokens", 1, usize::MAX)?;
    // The side that is cut.
    asked.more.keeps_beginning = fields.word("truncation_side", &["left", "right"])? == Some("right");
    let given = fields.number("timeout", 0.0, 31_536_000.0)?;
    asked.more.allotted_time = allotted_time(given, timeout)?;
    Ok(asked)
}

fn request_id(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let id = fields.text("request_id")?;
    if id.as_ref().is_some_and(|id| !is_request_id(id)) {
        return Err(ApiError::invalid("request_id", "`request_id` must have from 1 to 128 visible ASCII characters"));
    }
    Ok(id)
}

fn salt(fields: &mut Fields, model: &Model) -> Result<Option<String>, ApiError> {
    let salt = fields.text("cache_salt")?;
    if salt.as_ref().is_some_and(|salt| salt.is_empty() || salt.chars().count() > 128) {
        return Err(ApiError::invalid("cache_salt", "`cache_salt` must have from 1 to 128 characters"));
    }
    let key = fields.text("prompt_cache_key")?.filter(|key| model.rules().salt_from_cache_key && !key.is_empty());
    Ok(salt.or(key))
}

/// From 0 to 1, higher first.
fn priority(fields: &mut Fields, model: &Model) -> Result<Option<f32>, ApiError> {
    if !model.rules().vllm_priority {
        return Ok(fields.number("priority", 0.0, 1.0)?.map(|priority| priority as f32));
    }
    // vLLM's 0 is the middle, as no priority is here; numbers from -1000 to 1000 all differ.
    let of_vllm = |number: i64| (0.5 - 0.5 * (number as f64 / (1.0 + (number as f64).abs()))) as f32;
    Ok(fields.integer("priority", i64::MIN, i64::MAX)?.map(of_vllm))
}

/// The time of a request, as a field says or, where none does, a header.
///
/// # Errors
/// It is no number of seconds.
pub fn allotted_time(given: Option<f64>, header: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let header = header.map(|text| text.trim().parse::<f64>().unwrap_or(f64::NAN));
    match given.or(header) {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds <= 31_536_000.0 => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            let message = "`timeout` (X-Request-Timeout) must be a number of seconds above 0";
            Err(ApiError::invalid("timeout", message))
        }
    }
}

fn length(fields: &mut Fields, asked: &mut Asked, bounds: Bounds) -> Result<(), ApiError> {
    let newer = fields.count("max_completion_tokens", bounds.min_max_tokens, usize::MAX)?;
    let older = fields.count("max_tokens", bounds.min_max_tokens, usize::MAX)?;
    let max = newer.or(older).unwrap_or(bounds.default_max_tokens);
    asked.options.max_new_tokens = Some(max);
    asked.options.min_tokens = fields.count("min_tokens", 0, usize::MAX)?;
    match asked.options.min_tokens.filter(|&min| min > max) {
        Some(min) => Err(ApiError::invalid("min_tokens", format!("`min_tokens` {min} is above `max_tokens` {max}"))),
        None => Ok(()),
    }
}

/// Sets the stop strings.
///
/// # Errors
/// They are too many, or one is empty or too long.
pub fn stops(fields: &mut Fields, options: &mut GenerationOptions) -> Result<(), ApiError> {
    let path = fields.path("stop");
    let stop = fields.texts("stop")?.unwrap_or_default();
    let (most, longest) = MOST_STOPS;
    if stop.len() > most {
        return Err(ApiError::invalid(&path, format!("`{path}` has {} strings; at most {most} are taken", stop.len())));
    }
    if let Some(index) = stop.iter().position(|stop| stop.is_empty() || stop.len() > longest) {
        let path = format!("{path}[{index}]");
        let message = format!("`{path}` has {} bytes; it must have from 1 to {longest}", stop[index].len());
        return Err(ApiError::invalid(&path, message));
    }
    options.stop = (!stop.is_empty()).then_some(stop);
    Ok(())
}

fn ends(fields: &mut Fields, asked: &mut Asked, vocab_size: usize) -> Result<(), ApiError> {
    stops(fields, &mut asked.options)?;
    asked.more.stop_token_ids = fields.ids("stop_token_ids", vocab_size)?.unwrap_or_default();
    asked.options.ignore_eos = fields.boolean("ignore_eos")?;
    asked.options.include_stop_str_in_output = fields.boolean("include_stop_str_in_output")?;
    asked.options.skip_special_tokens = fields.boolean("skip_special_tokens")?;
    asked.wanted.skip_special_tokens = asked.options.skip_special_tokens != Some(false);
    Ok(())
}

fn stream(fields: &mut Fields, wanted: &mut Wanted, is_search: bool) -> Result<(), ApiError> {
    wanted.stream = fields.boolean("stream")?.unwrap_or(false);
    if let Some(mut options) = fields.object("stream_options")? {
        if !wanted.stream {
            return Err(ApiError::invalid("stream_options", "`stream_options` is for `stream`: true"));
        }
        wanted.include_usage = options.boolean("include_usage")?.unwrap_or(false);
        wanted.continuous_usage = options.boolean("continuous_usage_stats")?.unwrap_or(false);
        options.boolean("include_obfuscation")?;
    }
    if wanted.stream && wanted.best_of > wanted.n {
        let message = "`best_of` above `n` cannot stream: which are the best is known at the end";
        return Err(ApiError::invalid("best_of", message));
    }
    if wanted.stream && is_search {
        return Err(ApiError::invalid("use_beam_search", "`use_beam_search` cannot stream: its beams come whole"));
    }
    wanted.return_token_ids = fields.boolean("return_token_ids")?.unwrap_or(false);
    wanted.tokens_as_ids = fields.boolean("return_tokens_as_token_ids")?.unwrap_or(false);
    wanted.prompt_logprobs = fields.count("prompt_logprobs", 0, MOST_LOGPROBS)?;
    Ok(())
}
