//! The fields that say how tokens are chosen: sampling, tokens that are favoured or banned, and how many sequences.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runner::executor::{EarlyStopping, TokenId};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fields::{Fields, whole, wrong};
use crate::model::Model;

use super::request::Asked;

/// Sequences of a prompt.
pub const MOST_SEQUENCES: usize = 128;

/// Reads these fields.
///
/// # Errors
/// The first field that is wrong.
pub fn read(fields: &mut Fields, asked: &mut Asked, model: &Model) -> Result<(), ApiError> {
    sampling(fields, asked, model)?;
    seed(fields, asked)?;
    tokens(fields, asked, model.session().executor().vocab_size())?;
    sequences(fields, asked)
}

fn sampling(fields: &mut Fields, asked: &mut Asked, model: &Model) -> Result<(), ApiError> {
    let (options, defaults) = (&mut asked.options, model.defaults());
    let number = |value: Option<f64>, default: f32| Some(value.map_or(default, |value| value as f32));
    options.temperature =
        number(fields.number("temperature", 0.0, model.rules().max_temperature)?, defaults.temperature);
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
    Ok(())
}

/// Sets the seed, which is drawn where none is given; whether one was.
///
/// # Errors
/// It is no number of 64 bits.
pub fn seed(fields: &mut Fields, asked: &mut Asked) -> Result<bool, ApiError> {
    let path = fields.path("seed");
    let given = match fields.take("seed") {
        None => None,
        Some(value) => {
            let number = whole(&value).filter(|&seed| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&seed));
            // Negative ones as two's complement.
            Some(number.ok_or_else(|| wrong(&path, "a whole number of 64 bits", &value))? as u64)
        }
    };
    let drawn = given.is_none().then(draw);
    asked.options.seed = given.or(drawn);
    asked.wanted.drawn_seed = drawn;
    Ok(given.is_some())
}

/// A seed that nobody asked for. It is small enough for every JSON reader to keep exactly.
fn draw() -> u64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let random = Uuid::now_v7().as_u128() as u64;
    (random ^ nanos.rotate_left(32)) & ((1 << 53) - 1)
}

fn tokens(fields: &mut Fields, asked: &mut Asked, vocab_size: usize) -> Result<(), ApiError> {
    asked.options.allowed_token_ids = fields.ids("allowed_token_ids", vocab_size)?;
    asked.options.bad_words = fields.texts("bad_words")?.filter(|words| !words.is_empty());
    if let Some(index) = asked.options.bad_words.iter().flatten().position(String::is_empty) {
        let path = format!("bad_words[{index}]");
        return Err(ApiError::invalid(&path, format!("`{path}` is empty: leave it out or give it text")));
    }
    for (index, value) in fields.list("bad_words_token_ids")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("bad_words_token_ids[{index}]");
        let word = match &value {
            Json::Array(ids) if !ids.is_empty() => crate::fields::ids(&path, ids, vocab_size)?,
            Json::Number(_) => crate::fields::ids(&path, std::slice::from_ref(&value), vocab_size)?,
            other => {
                return Err(wrong(&path, "a token id or a list of them", other));
            }
        };
        asked.more.bad_words.push(word);
    }
    let mut biases = BTreeMap::new();
    let given = fields.object("logit_bias")?.map(Fields::into_map).unwrap_or_default();
    for (key, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
        let path = format!("logit_bias.{key}");
        let id = key.parse::<TokenId>().ok().filter(|&id| (id as usize) < vocab_size);
        let id = id.ok_or_else(|| {
            let last = vocab_size.saturating_sub(1);
            ApiError::invalid(&path, format!("`{path}`: a key must be a token id from 0 to {last}"))
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| wrong(&path, "a number from -100 to 100", &value))?;
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
    let bound = f64::from(f32::MAX);
    let penalty = fields.number("length_penalty", -bound, bound)?;
    let early = early_stopping(fields)?;
    if beams {
        asked.options.beam_width = Some(best_of);
        asked.options.length_penalty = penalty.map(|penalty| penalty as f32);
        asked.options.early_stopping = early;
        // A search returns its best beams in order.
        (asked.wanted.n, asked.wanted.best_of) = (n, n);
    } else {
        let of_search = [
            ("length_penalty", penalty.is_some_and(|penalty| penalty != 0.0 && penalty != 1.0)),
            ("early_stopping", early.is_some_and(|early| early != EarlyStopping::No)),
        ];
        if let Some((name, _)) = of_search.into_iter().find(|&(_, asks)| asks) {
            return Err(ApiError::unsupported(name, format!("`{name}` is for `use_beam_search`")));
        }
        (asked.wanted.n, asked.wanted.best_of) = (n, best_of);
    }
    asked.options.n = Some(asked.wanted.best_of);
    Ok(())
}

fn early_stopping(fields: &mut Fields) -> Result<Option<EarlyStopping>, ApiError> {
    match fields.take("early_stopping") {
        None => Ok(None),
        Some(Json::Bool(true)) => Ok(Some(EarlyStopping::Yes)),
        Some(Json::Bool(false)) => Ok(Some(EarlyStopping::No)),
        Some(Json::String(word)) if word == "never" => Ok(Some(EarlyStopping::Never)),
        Some(other) => Err(wrong("early_stopping", "true, false or \"never\"", &other)),
    }
}
