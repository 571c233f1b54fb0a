//! The executor's settings, as the table takes them.

use std::ffi::CString;

use super::GpuError;
use super::bindings;

/// One setting of TensorRT-LLM's `ExecutorConfig`: its name in snake_case, below the name of the configuration class that
/// has it, as `kv_cache.max_tokens`. `trtllm-sys/gpu/cpp/config.cc` is the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The name.
    pub name: String,
    /// The value.
    pub value: SettingValue,
}

/// What a [`Setting`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// Whole numbers from 0.
    Integers(Vec<i32>),
    /// Lists of whole numbers from 0.
    Lists(Vec<Vec<i32>>),
}

/// The tokenizer, which guided decoding needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuTokenizer {
    /// The text of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Every token as the tokenizer writes it, in the order of ids.
    pub vocabulary: Vec<String>,
    /// The ids that end an output.
    pub stop_token_ids: Vec<u32>,
}

/// Settings with what they point to.
pub(super) struct Settings {
    pub(super) array: Vec<bindings::trtllm_gpu_setting>,
    _texts: Vec<CString>,
    _integers: Vec<Vec<i32>>,
}

impl Settings {
    pub(super) fn new(settings: &[Setting]) -> Result<Self, GpuError> {
        let (mut array, mut texts, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for Setting { name, value } in settings {
            let mut raw = bindings::trtllm_gpu_setting::default();
            let c_name = to_c(name, name)?;
            // A CString's and a vector's content stays where it is when they are moved.
            raw.name = c_name.as_ptr();
            texts.push(c_name);
            match value {
                SettingValue::Bool(value) => {
                    (raw.kind, raw.integer) = (bindings::TRTLLM_GPU_BOOL as i32, i64::from(*value));
                }
                SettingValue::Integer(value) => {
                    (raw.kind, raw.integer) = (bindings::TRTLLM_GPU_INTEGER as i32, *value);
                }
                SettingValue::Number(value) => {
                    (raw.kind, raw.number) = (bindings::TRTLLM_GPU_NUMBER as i32, *value);
                }
                SettingValue::Text(value) => {
                    let text = to_c(value, name)?;
                    (raw.kind, raw.text) = (bindings::TRTLLM_GPU_TEXT as i32, text.as_ptr());
                    texts.push(text);
                }
                SettingValue::Integers(value) => raw = with_integers(raw, value.clone(), &mut lists),
                SettingValue::Lists(value) => {
                    let flat = value.iter().flat_map(|list| list.iter().copied().chain([-1])).collect();
                    raw = with_integers(raw, flat, &mut lists);
                }
            }
            array.push(raw);
        }
        Ok(Self { array, _texts: texts, _integers: lists })
    }
}

fn with_integers(
    mut raw: bindings::trtllm_gpu_setting,
    integers: Vec<i32>,
    lists: &mut Vec<Vec<i32>>,
) -> bindings::trtllm_gpu_setting {
    raw.kind = bindings::TRTLLM_GPU_INTEGERS as i32;
    raw.integers = bindings::trtllm_gpu_ids { data: integers.as_ptr(), len: integers.len() };
    lists.push(integers);
    raw
}

/// `text` for C++; `what` names it where it cannot be that.
pub(super) fn to_c(text: &str, what: &str) -> Result<CString, GpuError> {
    CString::new(text).map_err(|_| GpuError::Nul { what: what.to_owned() })
}
