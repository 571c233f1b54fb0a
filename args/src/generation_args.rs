//! What can be asked for of a completion: on the command line for every prompt, in a line of a prompts file for that one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use runner::executor::{EarlyStopping, GuidedDecodingParams, TokenId};

/// What to generate.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Generation")]
pub struct GenerationArgs {
    /// Tokens to generate at most [default: 128]
    #[arg(long, value_name = "N", conflicts_with = "max_length", allow_negative_numbers = true)]
    pub max_new_tokens: Option<usize>,

    /// Tokens of prompt and output together at most
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_length: Option<usize>,

    /// Randomness: 0 is greedy [default: 0, or 1 when --top-k, --top-p or --min-p is given]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,

    /// Draw among the K best tokens; 0 for all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<usize>,

    /// Draw among the fewest best tokens whose probabilities reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,

    /// Draw among tokens at least P times as probable as the best
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,

    /// Seed of the draws; the same seed gives the same tokens [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// Make tokens of prompt and output less likely, by a factor; 1 changes nothing
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,

    /// Take X from the logits of tokens of prompt and output
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,

    /// Take X from the logits of tokens of prompt and output, once for each time that they occur
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,

    /// Tokens at the start of the prompt that presence and frequency penalties overlook
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub prompt_ignore_length: Option<usize>,

    /// Let no N tokens in a row occur twice; 0 allows all
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub no_repeat_ngram_size: Option<usize>,

    /// Add BIAS to the logit of token ID; may be given several times
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias, allow_hyphen_values = true)]
    #[serde(deserialize_with = "biases")]
    pub logit_bias: Vec<(TokenId, f32)>,

    /// Never generate this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(deserialize_with = "one_or_many")]
    pub bad_words: Vec<String>,

    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(deserialize_with = "one_or_many")]
    pub stop: Vec<String>,

    /// Tokens to generate before the model may end
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_tokens: Option<usize>,

    /// Go on after the model's end token
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub ignore_eos: Option<bool>,

    /// Sequences to generate for each prompt, with seeds SEED, SEED+1, … [default: 1, or all beams]
    #[arg(long = "n", visible_alias = "num-return-sequences", value_name = "N", allow_negative_numbers = true)]
    #[serde(alias = "num_return_sequences")]
    pub n: Option<usize>,

    /// Search with this many beams; 1 for none
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub beam_width: Option<usize>,

    /// Divide a beam's log-probability by its length to this power; above 0 favours long ones [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,

    /// End the search when enough beams have ended (`true`), when none that runs is better now (`false`), or when none
    /// ever could be (`never`) [default: true]
    #[arg(long, value_name = "WHEN", value_parser = parse_early_stopping, allow_hyphen_values = true)]
    #[serde(deserialize_with = "early_stopping")]
    pub early_stopping: Option<EarlyStopping>,

    /// Generate a JSON value
    #[arg(long, num_args = 0, default_missing_value = "true", conflicts_with_all = ["json_schema", "regex", "grammar"])]
    pub json: Option<bool>,

    /// Generate JSON that the schema in this file admits
    #[arg(long, value_name = "FILE", value_parser = read_file, conflicts_with_all = ["regex", "grammar"])]
    #[serde(deserialize_with = "schema")]
    pub json_schema: Option<String>,

    /// Generate text that this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN", conflicts_with = "grammar", allow_hyphen_values = true)]
    pub regex: Option<String>,

    /// Generate text of the Lark grammar in this file
    #[arg(long, value_name = "FILE", value_parser = read_file)]
    pub grammar: Option<String>,

    /// From 0 to 1; prompts of higher priority are started first [default: 0.5]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub priority: Option<f32>,

    /// End a prompt's sequences after this many milliseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub allotted_time_ms: Option<u64>,

    /// Share cached prefixes only with prompts of the same salt
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cache_salt_id: Option<u64>,

    /// Apply a LoRA adapter: a folder that PEFT wrote (TensorRT engines)
    #[arg(long, value_name = "DIR")]
    pub lora: Option<PathBuf>,

    /// How long the KV-cache blocks of prompt and output are kept for reuse: from 0, to go first, to 100 (TensorRT engines)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub retention_priority: Option<u8>,

    /// Report the log-probability of each generated token (with --format json)
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub logprobs: Option<bool>,

    /// Report the N most probable tokens at each generated one's place (with --format json)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top_logprobs: Option<usize>,

    /// Report the log-probability of each prompt token after the first (with --format json)
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub prompt_logprobs: Option<bool>,
}

impl GenerationArgs {
    /// These settings where given, else those of `defaults`. Settings that exclude each other give way together.
    pub fn or(self, defaults: &Self) -> Self {
        let limited = self.max_new_tokens.is_some() || self.max_length.is_some();
        let guided = self.json.is_some() || !self.guides().is_empty();
        let list = |own: Vec<String>, default: &Vec<String>| if own.is_empty() { default.clone() } else { own };
        Self {
            max_new_tokens: self.max_new_tokens.or(defaults.max_new_tokens.filter(|_| !limited)),
            max_length: self.max_length.or(defaults.max_length.filter(|_| !limited)),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            seed: self.seed.or(defaults.seed),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            prompt_ignore_length: self.prompt_ignore_length.or(defaults.prompt_ignore_length),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(defaults.no_repeat_ngram_size),
            logit_bias: if self.logit_bias.is_empty() { defaults.logit_bias.clone() } else { self.logit_bias },
            bad_words: list(self.bad_words, &defaults.bad_words),
            stop: list(self.stop, &defaults.stop),
            min_tokens: self.min_tokens.or(defaults.min_tokens),
            ignore_eos: self.ignore_eos.or(defaults.ignore_eos),
            n: self.n.or(defaults.n),
            beam_width: self.beam_width.or(defaults.beam_width),
            length_penalty: self.length_penalty.or(defaults.length_penalty),
            early_stopping: self.early_stopping.or(defaults.early_stopping),
            json: self.json.or(defaults.json.filter(|_| !guided)),
            json_schema: self.json_schema.or(defaults.json_schema.clone().filter(|_| !guided)),
            regex: self.regex.or(defaults.regex.clone().filter(|_| !guided)),
            grammar: self.grammar.or(defaults.grammar.clone().filter(|_| !guided)),
            priority: self.priority.or(defaults.priority),
            allotted_time_ms: self.allotted_time_ms.or(defaults.allotted_time_ms),
            cache_salt_id: self.cache_salt_id.or(defaults.cache_salt_id),
            lora: self.lora.or(defaults.lora.clone()),
            retention_priority: self.retention_priority.or(defaults.retention_priority),
            logprobs: self.logprobs.or(defaults.logprobs),
            top_logprobs: self.top_logprobs.or(defaults.top_logprobs),
            prompt_logprobs: self.prompt_logprobs.or(defaults.prompt_logprobs),
        }
    }

    /// Whether anything is asked for that only `--format json` prints.
    pub fn asks_for_log_probs(&self) -> bool {
        self.logprobs == Some(true) || self.prompt_logprobs == Some(true) || self.top_logprobs.unwrap_or(0) > 0
    }

    /// What the output must look like; at most one entry once the settings are known not to exclude each other.
    pub fn guides(&self) -> Vec<(&'static str, GuidedDecodingParams)> {
        let json = (self.json == Some(true)).then_some(GuidedDecodingParams::Json);
        [
            ("json", json),
            ("json_schema", self.json_schema.clone().map(GuidedDecodingParams::JsonSchema)),
            ("regex", self.regex.clone().map(GuidedDecodingParams::Regex)),
            ("grammar", self.grammar.clone().map(GuidedDecodingParams::LarkGrammar)),
        ]
        .into_iter()
        .filter_map(|(name, guide)| Some((name, guide?)))
        .collect()
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a string or a list of strings")]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    })
}

fn parse_bias(text: &str) -> Result<(TokenId, f32), String> {
    let (id, bias) = text.split_once(['=', ':']).ok_or("must be ID=BIAS, for example 42=-3.5")?;
    let id = id.trim().parse().map_err(|_| format!("`{id}` is not a token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("`{bias}` is not a number"))?;
    Ok((id, bias))
}

fn biases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(TokenId, f32)>, D::Error> {
    Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
}

/// Transformers' names, and TensorRT-LLM's numbers: 1, 0, and any other.
fn parse_early_stopping(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "true" | "1" => Ok(EarlyStopping::Yes),
        "false" | "0" => Ok(EarlyStopping::No),
        "never" => Ok(EarlyStopping::Never),
        other if other.parse::<i64>().is_ok() => Ok(EarlyStopping::Never),
        other => Err(format!("must be `true`, `false`, `never` or an integer, not `{other}`")),
    }
}

fn early_stopping<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EarlyStopping>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    parse_early_stopping(&text).map(Some).map_err(serde::de::Error::custom)
}

/// A schema as itself, or as text.
fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        object @ Value::Object(_) => Ok(Some(object.to_string())),
        other => Err(serde::de::Error::custom(format!("must be an object or a string, not {other}"))),
    }
}

fn read_file(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read the file: {error}"))
}
