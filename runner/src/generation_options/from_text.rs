//! An option's value as text, as flags have it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::executor::{EarlyStopping, TokenId};

/// A type of options.
pub(super) trait FromText: Sized {
    /// Whether several values add up.
    const REPEATS: bool = false;
    /// What a value in JSON must be.
    const EXPECTED: &'static str;

    /// Sets an option, or adds to it.
    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String>;
}

macro_rules! parsed {
    ($($type:ty: $expected:literal),+) => {
        $(impl FromText for $type {
            const EXPECTED: &'static str = $expected;

            fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
                *option = Some(text.parse().map_err(|_| concat!("must be ", $expected))?);
                Ok(())
            }
        })+
    };
}

parsed!(
    usize: "a whole number from 0 to 18446744073709551615",
    u64: "a whole number from 0 to 18446744073709551615",
    f32: "a number",
    bool: "`true` or `false`",
    String: "a string",
    PathBuf: "a string"
);

/// A whole number in `range`.
///
/// # Errors
/// What it must be.
pub fn whole_number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}

/// A priority of KV-cache blocks.
impl FromText for u8 {
    const EXPECTED: &'static str = "a whole number from 0 to 100";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        let priority = text.parse().ok().filter(|&priority| priority <= 100);
        *option = Some(priority.ok_or("must be a whole number from 0 to 100")?);
        Ok(())
    }
}

/// Reads JSON; an error says where it is none, if that is what is wrong.
fn json<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| match error.is_data() {
        true => format!("must be {what}"),
        false => format!("must be {what}, and is not JSON at {}:{} (line and column)", error.line(), error.column()),
    })
}

impl FromText for Vec<Json> {
    const EXPECTED: &'static str = "a list of objects";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        *option = Some(json(text, "a JSON list")?);
        Ok(())
    }
}

impl FromText for Map<String, Json> {
    const EXPECTED: &'static str = "an object";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        *option = Some(json(text, "a JSON object")?);
        Ok(())
    }
}

impl FromText for EarlyStopping {
    const EXPECTED: &'static str = "`true`, `false`, `\"never\"` or an integer";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        *option = Some(early_stopping(text)?);
        Ok(())
    }
}

impl FromText for Vec<String> {
    const REPEATS: bool = true;
    const EXPECTED: &'static str = "a string or a list of strings";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        option.get_or_insert_default().push(text.to_owned());
        Ok(())
    }
}

/// Ids with commas between them.
impl FromText for Vec<TokenId> {
    const REPEATS: bool = true;
    const EXPECTED: &'static str = "a token id or a list of token ids";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        let id = |id: &str| id.trim().parse().map_err(|_| format!("`{}` is not a token id", id.trim()));
        let ids = text.split(',').map(id).collect::<Result<Vec<TokenId>, String>>()?;
        option.get_or_insert_default().extend(ids);
        Ok(())
    }
}

impl FromText for Vec<(TokenId, f32)> {
    const REPEATS: bool = true;
    const EXPECTED: &'static str = "an object from token ids to numbers, for example {\"42\": -3.5}";

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        let (id, bias) = text.split_once(['=', ':']).ok_or("must be ID=BIAS, for example 42=-3.5")?;
        let id = id.trim().parse().map_err(|_| format!("`{id}` is not a token id"))?;
        let bias = bias.trim().parse().map_err(|_| format!("`{bias}` is not a number"))?;
        option.get_or_insert_default().push((id, bias));
        Ok(())
    }
}

/// Transformers' names, and TensorRT-LLM's numbers: 1, 0, and any other.
pub(super) fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "true" | "1" => Ok(EarlyStopping::Yes),
        "false" | "0" => Ok(EarlyStopping::No),
        "never" => Ok(EarlyStopping::Never),
        other if other.parse::<i64>().is_ok() => Ok(EarlyStopping::Never),
        other => Err(format!("must be `true`, `false`, `never` or an integer, not `{other}`")),
    }
}
