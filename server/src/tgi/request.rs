//! The fields of TGI's bodies.
//!
//! TGI's defaults are kept, not those of the model's `generation_config.json`: a request that says nothing of sampling is greedy.

use serde_json::Map;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::http::routes::Call;
use crate::model::Model;
use crate::openai::request::{self, Asked, MOST_LOGPROBS};
use crate::openai::sampling::{self, MOST_SEQUENCES};
use crate::openai::start::Read;
use crate::openai::{guide, prompt};

/// Tokens that are generated where nothing is said, if the window has room for them.
const DEFAULT_MAX_NEW_TOKENS: usize = 1024;

/// The highest temperature that is told from an even choice.
const MOST_TEMPERATURE: f64 = 100.0;

/// What the answer needs beside what OpenAI's needs.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// What goes before the text: the inputs, if they are asked for.
    pub prefix: String,
    /// Characters of the inputs.
    pub characters: usize,
    /// Whether the answer has details.
    pub details: bool,
    /// The seed of the first sequence, where tokens are drawn.
    pub seed: Option<u64>,
}

/// Reads a body of `/generate`.
///
/// # Errors
/// The first field that is wrong.
pub fn whole(fields: &mut Fields, model: &Model, call: &Call) -> Result<Read<Own>, ApiError> {
    only(fields, false, "`/generate` does not stream: send this to /generate_stream")?;
    read(fields, model, call, false, false)
}

/// Reads a body of `/generate_stream`.
///
/// # Errors
/// The first field that is wrong.
pub fn stream(fields: &mut Fields, model: &Model, call: &Call) -> Result<Read<Own>, ApiError> {
    only(fields, true, "`/generate_stream` streams: send this to /generate")?;
    read(fields, model, call, true, false)
}

/// Reads a body of POST `/`, which gives the inputs back unless told not to.
///
/// # Errors
/// The first field that is wrong.
pub fn root(fields: &mut Fields, model: &Model, call: &Call) -> Result<Read<Own>, ApiError> {
    let streams = fields.boolean("stream")?.unwrap_or(false);
    read(fields, model, call, streams, true)
}

/// Takes `stream`, which a route decides.
fn only(fields: &mut Fields, streams: bool, otherwise: &str) -> Result<(), ApiError> {
    match fields.boolean("stream")? {
        Some(asked) if asked != streams => Err(ApiError::invalid("stream", otherwise)),
        _ => Ok(()),
    }
}

fn read(
    fields: &mut Fields,
    model: &Model,
    call: &Call,
    streams: bool,
    full_text: bool,
) -> Result<Read<Own>, ApiError> {
    let inputs = fields.text("inputs")?.unwrap_or_default();
    if inputs.is_empty() {
        return Err(ApiError::invalid("inputs", "`inputs` cannot be empty"));
    }
    let parameters = fields.object("parameters")?;
    let mut parameters = parameters.unwrap_or_else(|| Fields::new(Map::new()));
    let mut asked = Asked::default();
    asked.wanted.stream = streams;
    asked.wanted.skip_special_tokens = true;
    if let Some(adapter) = parameters.text("adapter_id")? {
        asked.options.lora = model
            .resolve(&adapter)
            .map_err(|error| {
                let path = parameters.path("adapter_id");
                ApiError { message: format!("`{path}`: {}", error.message), param: Some(path), ..error }
            })?
            .map(std::path::Path::to_owned);
    }
    let mut own = Own { characters: inputs.chars().count(), ..Own::default() };
    let samples = choice(&mut parameters, &mut asked)?;
    sequences(&mut parameters, &mut asked, samples)?;
    own.seed = asked.options.seed.filter(|_| samples);
    length(&mut parameters, &mut asked)?;
    request::stops(&mut parameters, &mut asked.options)?;
    // TGI's text ends with the stop sequence that ended it.
    asked.options.include_stop_str_in_output = Some(true);
    details(&mut parameters, &mut asked, &mut own)?;
    if parameters.boolean("return_full_text")?.unwrap_or(full_text) {
        own.prefix.clone_from(&inputs);
    }
    if let Some(mut grammar) = parameters.object("grammar")? {
        asked.more.guide = guide::of_tgi(&mut grammar, &mut asked.options)?;
    }
    if parameters.boolean("watermark")? == Some(true) {
        let path = parameters.path("watermark");
        return Err(ApiError::unsupported(&path, format!("`{path}` is not supported: outputs are not marked")));
    }
    drop(parameters);
    asked.more.allotted_time = request::allotted_time(None, call.timeout.as_deref())?;
    let inputs = vec![prompt::of_text("inputs", inputs, model, &asked)?];
    Ok(Read { asked, inputs, is_chat: false, prompt_field: "inputs", own })
}

/// Whether tokens are drawn: if it is asked for, or anything is said that matters for it only.
fn choice(parameters: &mut Fields, asked: &mut Asked) -> Result<bool, ApiError> {
    let positive = |fields: &mut Fields, name: &'static str, most: f64| {
        let number = fields.number(name, 0.0, most)?;
        match number {
            Some(0.0) => {
                let path = fields.path(name);
                Err(ApiError::invalid(&path, format!("`{path}` must be strictly positive")))
            }
            number => Ok(number),
        }
    };
    let temperature = positive(parameters, "temperature", MOST_TEMPERATURE)?;
    let top_p = positive(parameters, "top_p", 1.0)?;
    let top_k = parameters.count("top_k", 1, usize::MAX)?;
    let typical_p = positive(parameters, "typical_p", 1.0)?;
    if typical_p.is_some_and(|typical_p| typical_p < 1.0) {
        let path = parameters.path("typical_p");
        return Err(ApiError::unsupported(&path, format!("`{path}` below 1 is not supported: use top_p")));
    }
    let do_sample = parameters.boolean("do_sample")?.unwrap_or(false);
    let samples = do_sample || temperature.is_some() || top_p.is_some() || top_k.is_some();
    let options = &mut asked.options;
    options.temperature = Some(if samples { temperature.map_or(1.0, |number| number as f32) } else { 0.0 });
    options.top_p = Some(top_p.map_or(1.0, |number| number as f32));
    options.top_k = Some(top_k.unwrap_or(0));
    let penalty = positive(parameters, "repetition_penalty", f64::from(f32::MAX))?;
    options.repetition_penalty = penalty.map(|number| number as f32);
    options.frequency_penalty = parameters.number("frequency_penalty", -2.0, 2.0)?.map(|number| number as f32);
    Ok(samples)
}

fn sequences(parameters: &mut Fields, asked: &mut Asked, samples: bool) -> Result<(), ApiError> {
    let best_of = parameters.count("best_of", 1, MOST_SEQUENCES)?.unwrap_or(1);
    let given = sampling::seed(parameters, asked)?;
    if !samples {
        // What is greedy has no use for one, so none is told.
        asked.wanted.drawn_seed = None;
    }
    let refused = |message: &str| Err(ApiError::invalid(&parameters.path("best_of"), message));
    if best_of > 1 {
        if !samples {
            return refused("you must use sampling when `best_of` is > 1");
        }
        if given {
            return refused("`seed` must not be set when `best_of` > 1");
        }
        if asked.wanted.stream {
            return refused("`best_of` != 1 is not supported when streaming tokens");
        }
    }
    (asked.wanted.n, asked.wanted.best_of) = (best_of, best_of);
    asked.options.n = Some(best_of);
    Ok(())
}

fn length(parameters: &mut Fields, asked: &mut Asked) -> Result<(), ApiError> {
    let max_new_tokens = parameters.count("max_new_tokens", 0, usize::MAX)?;
    if max_new_tokens == Some(0) {
        let path = parameters.path("max_new_tokens");
        return Err(ApiError::invalid(&path, format!("`{path}` must be strictly positive")));
    }
    asked.options.max_new_tokens = Some(max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS));
    asked.more.truncate = parameters.count("truncate", 1, usize::MAX)?;
    Ok(())
}

fn details(parameters: &mut Fields, asked: &mut Asked, own: &mut Own) -> Result<(), ApiError> {
    let of_prompt = parameters.boolean("decoder_input_details")?.unwrap_or(false);
    own.details = parameters.boolean("details")?.unwrap_or(false) || of_prompt;
    let top = parameters.count("top_n_tokens", 0, MOST_LOGPROBS)?.unwrap_or(0);
    let streams = asked.wanted.stream;
    if of_prompt && streams {
        let message = "`decoder_input_details` == true is not supported when streaming tokens";
        return Err(ApiError::invalid(&parameters.path("decoder_input_details"), message));
    }
    asked.wanted.prompt_logprobs = of_prompt.then_some(0);
    // The best of several are known by their probabilities.
    let are_needed = own.details || streams || asked.wanted.best_of > 1;
    asked.wanted.logprobs = are_needed.then_some(top);
    Ok(())
}
