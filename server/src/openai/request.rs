//! The fields that completions and chat share, as options of a request and as what is wanted in its answer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use runner::executor::{EarlyStopping, TokenId};
use runner::generation_options::GenerationOptions;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fields::{Fields, shown, whole};
use crate::model::Model;

use super::guide;

/// Log-probabilities that may be asked for at a position.
pub const MOST_LOGPROBS: usize = 20;

/// Sequences of a prompt.
const MOST_SEQUENCES: usize = 128;

/// Stop strings, and bytes of one.
const MOST_STOPS: (usize, usize) = (16, 1024);

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
    /// Tokens of the prompt that are kept, its last ones.
    pub truncate: Option<usize>,
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
    asked.wanted.model = fields.text("model")?.unwrap_or_default();
    asked.options.lora = model.resolve(&asked.wanted.model)?.map(std::path::Path::to_owned);
    if asked.wanted.model.is_empty() {
        asked.wanted.model = model.name().to_owned();
    }
    length(fields, &mut asked, bounds)?;
    sampling(fields, &mut asked, model)?;
    ends(fields, &mut asked, vocab_size)?;
    tokens(fields, &mut asked, vocab_size)?;
    sequences(fields, &mut asked)?;
    asked.more.guide = guide::read(fields, &mut asked.options)?.unwrap_or_default();
    stream(fields, &mut asked.wanted)?;
    if let Some(salt) = fields.text("cache_salt")? {
        if salt.is_empty() || salt.chars().count() > 128 {
            return Err(ApiError::invalid("cache_salt", "`cache_salt` must have from 1 to 128 characters"));
        }
        asked.more.cache_salt = Some(salt);
    }
    asked.options.priority = fields.number("priority", 0.0, 1.0)?.map(|priority| priority as f32);
    asked.more.add_special_tokens = fields.boolean("add_special_tokens")?;
    asked.more.truncate = fields.count("truncate_prompt_tokens", 1, usize::MAX)?;
    let header = timeout.map(|text| text.trim().parse::<f64>().unwrap_or(f64::NAN));
    if let Some(seconds) = fields.number("timeout", 0.0, 31_536_000.0)?.or(header) {
        if !(seconds > 0.0 && seconds <= 31_536_000.0) {
            let message = "`timeout` (X-Request-Timeout) must be a number of seconds above 0";
            return Err(ApiError::invalid("timeout", message));
        }
        asked.more.allotted_time = Some(Duration::from_secs_f64(seconds));
    }
    Ok(asked)
}

fn length(fields: &mut Fields, asked: &mut Asked, bounds: Bounds) -> Result<(), ApiError> {
    let newer = fields.count("max_completion_tokens", bounds.min_max_tokens, usize::MAX)?;
    let older = fields.count("max_tokens", bounds.min_max_tokens, usize::MAX)?;
    let max_tokens = newer.or(older);
    asked.options.max_new_tokens = Some(max_tokens.unwrap_or(bounds.default_max_tokens));
    asked.options.min_tokens = fields.count("min_tokens", 0, usize::MAX)?;
    match (asked.options.min_tokens, max_tokens) {
        (Some(min), Some(max)) if min > max => {
            Err(ApiError::invalid("min_tokens", format!("`min_tokens` {min} is above `max_tokens` {max}")))
        }
        _ => Ok(()),
    }
}

fn sampling(fields: &mut Fields, asked: &mut Asked, model: &Model) -> Result<(), ApiError> {
    let (options, defaults) = (&mut asked.options, model.defaults());
    let number = |value: Option<f64>, default: f32| Some(value.map_or(default, |value| value as f32));
    options.temperature = number(fields.number("temperature", 0.0, 2.0)?, defaults.temperature);
    options.top_p = number(fields.number("top_p", 0.0, 1.0)?, defaults.top_p);
    let top_k = fields.integer("top_k", -1, i64::MAX)?.map(|k| usize::try_from(k).unwrap_or(0));
    options.top_k = Some(top_k.unwrap_or(defaults.top_k));
    options.min_p = number(fields.number("min_p", 0.0, 1.0)?, defaults.min_p);
    options.presence_penalty = fields.number("presence_penalty", -2.0, 2.0)?.map(|value| value as f32);
    options.frequency_penalty = fields.number("frequency_penalty", -2.0, 2.0)?.map(|value| value as f32);
    let penalty = fields.number("repetition_penalty", 0.0, f64::from(f32::MAX))?;
    if penalty == Some(0.0) {
        return Err(ApiError::invalid("repetition_penalty", "`repetition_penalty` must be a number above 0, not 0"));
    }
    options.repetition_penalty = number(penalty, defaults.repetition_penalty);
    options.prompt_ignore_length = fields.count("prompt_ignore_length", 0, usize::MAX)?;
    options.no_repeat_ngram_size = fields.count("no_repeat_ngram_size", 0, usize::MAX)?;
    let seed = match fields.take("seed") {
        None => None,
        Some(value) => {
            let number = whole(&value).filter(|&seed| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&seed));
            let wrong = || {
                ApiError::invalid("seed", format!("`seed` must be a whole number of 64 bits, not {}", shown(&value)))
            };
            // Negative ones as two's complement.
            Some(number.ok_or_else(wrong)? as u64)
        }
    };
    let drawn = seed.is_none().then(draw);
    options.seed = seed.or(drawn);
    asked.wanted.drawn_seed = drawn;
    Ok(())
}

/// A seed that nobody asked for. It is small enough for every JSON reader to keep exactly.
fn draw() -> u64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let random = Uuid::now_v7().as_u128() as u64;
    (random ^ nanos.rotate_left(32)) & ((1 << 53) - 1)
}

fn ends(fields: &mut Fields, asked: &mut Asked, vocab_size: usize) -> Result<(), ApiError> {
    let stop = fields.texts("stop")?.unwrap_or_default();
    let (most, longest) = MOST_STOPS;
    if stop.len() > most {
        return Err(ApiError::invalid("stop", format!("`stop` has {} strings; at most {most} are taken", stop.len())));
    }
    if let Some(index) = stop.iter().position(|stop| stop.is_empty() || stop.len() > longest) {
        let path = format!("stop[{index}]");
        let message = format!("`{path}` has {} bytes; it must have from 1 to {longest}", stop[index].len());
        return Err(ApiError::invalid(&path, message));
    }
    asked.options.stop = (!stop.is_empty()).then_some(stop);
    asked.more.stop_token_ids = fields.ids("stop_token_ids", vocab_size)?.unwrap_or_default();
    asked.options.ignore_eos = fields.boolean("ignore_eos")?;
    asked.options.include_stop_str_in_output = fields.boolean("include_stop_str_in_output")?;
    asked.options.skip_special_tokens = fields.boolean("skip_special_tokens")?;
    asked.wanted.skip_special_tokens = asked.options.skip_special_tokens != Some(false);
    Ok(())
}

fn tokens(fields: &mut Fields, asked: &mut Asked, vocab_size: usize) -> Result<(), ApiError> {
    asked.options.allowed_token_ids = fields.ids("allowed_token_ids", vocab_size)?.filter(|ids| !ids.is_empty());
    asked.options.bad_words = fields.texts("bad_words")?.filter(|words| !words.is_empty());
    for (index, value) in fields.list("bad_words_token_ids")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("bad_words_token_ids[{index}]");
        let word = match &value {
            Json::Array(ids) if !ids.is_empty() => crate::fields::ids(&path, ids, vocab_size)?,
            Json::Number(_) => crate::fields::ids(&path, std::slice::from_ref(&value), vocab_size)?,
            other => {
                let message = format!("`{path}` must be a token id or a list of them, not {}", shown(other));
                return Err(ApiError::invalid(&path, message));
            }
        };
        asked.more.bad_words.push(word);
    }
    let mut biases = BTreeMap::new();
    for (key, value) in fields.object("logit_bias")?.map(Fields::into_map).unwrap_or_default() {
        let path = format!("logit_bias.{key}");
        let id = key.parse::<TokenId>().ok().filter(|&id| (id as usize) < vocab_size);
        let id = id.ok_or_else(|| {
            let last = vocab_size.saturating_sub(1);
            ApiError::invalid(&path, format!("`{path}`: a key must be a token id from 0 to {last}"))
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| {
            ApiError::invalid(&path, format!("`{path}` must be a number from -100 to 100, not {}", shown(&value)))
        })?;
        if bias == -100.0 {
            asked.more.bad_words.push(vec![id]);
        } else {
            biases.insert(id, bias as f32);
        }
    }
    asked.options.logit_bias = (!biases.is_empty()).then(|| biases.into_iter().collect());
    Ok(())
}

fn sequences(fields: &mut Fields, asked: &mut Asked) -> Result<(), ApiError> {
    let n = fields.count("n", 1, MOST_SEQUENCES)?.unwrap_or(1);
    let best_of = fields.count("best_of", 1, MOST_SEQUENCES)?.unwrap_or(n);
    if best_of < n {
        return Err(ApiError::invalid("best_of", format!("`best_of` {best_of} is below `n` {n}")));
    }
    let beams = fields.boolean("use_beam_search")? == Some(true);
    let (penalty, early) = (fields.take("length_penalty"), fields.take("early_stopping"));
    if beams {
        asked.options.beam_width = Some(best_of);
        asked.options.length_penalty = penalty.as_ref().and_then(Json::as_f64).map(|penalty| penalty as f32);
        asked.options.early_stopping = early.as_ref().and_then(Json::as_bool).map(|early| match early {
            true => EarlyStopping::Yes,
            false => EarlyStopping::No,
        });
        // A search returns its best beams in order.
        (asked.wanted.n, asked.wanted.best_of) = (n, n);
    } else {
        let is_neutral = |value: &Json| matches!(value.as_f64(), Some(1.0 | 0.0)) || value.as_bool() == Some(false);
        for (name, value) in [("length_penalty", penalty), ("early_stopping", early)] {
            if value.is_some_and(|value| !is_neutral(&value)) {
                return Err(ApiError::unsupported(name, format!("`{name}` is for `use_beam_search`")));
            }
        }
        (asked.wanted.n, asked.wanted.best_of) = (n, best_of);
    }
    asked.options.n = Some(asked.wanted.best_of);
    Ok(())
}

fn stream(fields: &mut Fields, wanted: &mut Wanted) -> Result<(), ApiError> {
    wanted.stream = fields.boolean("stream")?.unwrap_or(false);
    if let Some(mut options) = fields.object("stream_options")? {
        if !wanted.stream {
            return Err(ApiError::invalid("stream_options", "`stream_options` is for `stream`: true"));
        }
        wanted.include_usage = options.boolean("include_usage")?.unwrap_or(false);
        wanted.continuous_usage = options.boolean("continuous_usage_stats")?.unwrap_or(false);
        options.take("include_obfuscation");
    }
    if wanted.stream && wanted.best_of > wanted.n {
        let message = "`best_of` above `n` cannot stream: which are the best is known at the end";
        return Err(ApiError::invalid("best_of", message));
    }
    wanted.return_token_ids = fields.boolean("return_token_ids")?.unwrap_or(false);
    wanted.tokens_as_ids = fields.boolean("return_tokens_as_token_ids")?.unwrap_or(false);
    wanted.prompt_logprobs = fields.count("prompt_logprobs", 0, MOST_LOGPROBS)?;
    Ok(())
}
