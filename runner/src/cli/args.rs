//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Deserializer};

/// Run an engine: complete prompts, streamed as they are generated.
///
/// Completions go to standard output, everything else to standard error. Exit codes: 0 done; 2 bad input or usage;
/// 3 this machine lacks what was asked for; 130 interrupted; 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "run-engine", version, max_term_width = 110)]
pub(super) struct Args {
    /// Engine directory, made by `build-engine`
    #[arg(long, value_name = "DIR")]
    pub engine: PathBuf,

    /// A prompt to complete; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Vec<String>,

    /// A prompt as token ids, for example 1,2,3; may be given several times
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    pub prompt_ids: Vec<String>,

    /// A file of prompts, one a line (`-` for standard input); a line that begins with `{` is JSON with `prompt` or
    /// `prompt_ids`, and any option below under "Generation", named with underscores
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,

    /// Apply the model's chat template: a prompt is the user's message, or a JSON list of messages
    #[arg(long)]
    pub chat: bool,

    /// How completions are printed: `text` as it is generated, or `json`, one object a line for each finished sequence
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Print times, tokens a second and memory to standard error
    #[arg(long)]
    pub stats: bool,

    /// Check every weight against its hash first; without a prompt, do nothing else
    #[arg(long)]
    pub verify: bool,

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,

    /// What to generate
    #[command(flatten)]
    pub generation: GenerationArgs,
}

/// How completions are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text, as it is generated.
    Text,
    /// One JSON object a line for each finished sequence.
    Json,
}

/// What to generate; on the command line for every prompt, in a line of a prompts file for that one.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
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

    /// Make tokens seen before less likely; 1 changes nothing
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,

    /// Seed of the draws; the same seed gives the same tokens [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(deserialize_with = "one_or_many")]
    pub stop: Vec<String>,

    /// Go on after the model's end token
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub ignore_eos: Option<bool>,

    /// Report the log-probability of each generated token (with --format json)
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub logprobs: Option<bool>,

    /// Report the log-probability of each prompt token after the first (with --format json)
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub prompt_logprobs: Option<bool>,
}

impl GenerationArgs {
    /// These settings where given, else those of `defaults`.
    pub(super) fn or(self, defaults: &Self) -> Self {
        let limited = self.max_new_tokens.is_some() || self.max_length.is_some();
        Self {
            max_new_tokens: self.max_new_tokens.or(defaults.max_new_tokens.filter(|_| !limited)),
            max_length: self.max_length.or(defaults.max_length.filter(|_| !limited)),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            seed: self.seed.or(defaults.seed),
            stop: if self.stop.is_empty() { defaults.stop.clone() } else { self.stop },
            ignore_eos: self.ignore_eos.or(defaults.ignore_eos),
            logprobs: self.logprobs.or(defaults.logprobs),
            prompt_logprobs: self.prompt_logprobs.or(defaults.prompt_logprobs),
        }
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`stop` must be a string or a list of strings")]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Stop::deserialize(deserializer)? {
        Stop::One(text) => vec![text],
        Stop::Many(texts) => texts,
    })
}
