//! An option's value as text, as flags have it.

use std::path::PathBuf;

use crate::executor::{EarlyStopping, TokenId};

/// A type of options.
pub(super) trait FromText: Sized {
    /// Whether several values add up.
    const REPEATS: bool = false;

    /// Sets an option, or adds to it.
    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String>;
}

macro_rules! parsed {
    ($($type:ty),+) => {
        $(impl FromText for $type {
            fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
                *option = Some(text.parse().map_err(|error: <$type as std::str::FromStr>::Err| error.to_string())?);
                Ok(())
            }
        })+
    };
}

parsed!(usize, u64, f32, bool, String, PathBuf);

/// A priority of KV-cache blocks.
impl FromText for u8 {
    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        let priority = text.parse().ok().filter(|&priority| priority <= 100);
        *option = Some(priority.ok_or("must be from 0 to 100")?);
        Ok(())
    }
}

impl FromText for EarlyStopping {
    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        *option = Some(early_stopping(text)?);
        Ok(())
    }
}

impl FromText for Vec<String> {
    const REPEATS: bool = true;

    fn set(option: &mut Option<Self>, text: &str) -> Result<(), String> {
        option.get_or_insert_default().push(text.to_owned());
        Ok(())
    }
}

impl FromText for Vec<(TokenId, f32)> {
    const REPEATS: bool = true;

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
