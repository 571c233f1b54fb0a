//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use ::args::ExecutorArgs;
use ::args::GenerationArgs;

/// Run an engine: complete prompts, streamed as they are generated.
///
/// Completions go to standard output, everything else to standard error. Exit codes: 0 done; 2 bad input or usage;
/// 3 this machine lacks what was asked for; 130 interrupted; 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "run-engine", version, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    /// Engine directory, made by `build-engine`
    #[arg(long, value_name = "DIR", required = true)]
    pub engine: Option<PathBuf>,

    /// A prompt to complete; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Vec<String>,

    /// A prompt as token ids, for example 1,2,3; may be given several times. Where all prompts are, the output is ids too
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    pub prompt_ids: Vec<String>,

    /// File of prompts, one on each line; `-` for standard input. A line that begins with `{` is JSON with `prompt`,
    /// `messages` or `prompt_ids`. Its fields override the options below. Without any prompt, standard input is one, without the end of
    /// its last line
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,

    /// Apply the model's chat template: a prompt is the user's message, or a JSON list of messages. Without a prompt, on a
    /// terminal, hold a conversation
    #[arg(long)]
    pub chat: bool,

    /// Give the output of --prompt-ids as text too, for which the tokenizer is read
    #[arg(long)]
    pub detokenize: bool,

    /// How completions are printed: `text` as it is generated, or `json`, one object a line for each finished sequence
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Print times, tokens and requests a second, what was batched, and memory to standard error
    #[arg(long)]
    pub stats: bool,

    /// Check every weight against its hash first. Without a prompt, do only that
    #[arg(long)]
    pub verify: bool,

    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,

    /// Show the information messages of TensorRT-LLM's log too, not only its warnings and errors
    #[arg(long, short)]
    pub verbose: bool,

    /// What to generate
    #[command(flatten)]
    pub generation: GenerationArgs,

    /// How to run it
    #[command(flatten)]
    pub executor: ExecutorArgs,

    /// Something else to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// Whether outputs are text: not where all prompts are ids and nothing asks for text, so that no tokenizer is read.
    pub(crate) fn give_text(&self) -> bool {
        let options = &self.generation.options;
        let only_ids = !self.prompt_ids.is_empty() && self.prompt.is_empty() && self.prompts.is_none();
        let shows_special = options.skip_special_tokens == Some(false);
        let needs_text =
            shows_special || options.stop.is_some() || options.bad_words.is_some() || !options.guides().is_empty();
        self.detokenize || needs_text || !only_ids
    }
}

/// What `run-engine` does besides running engines.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check whether this machine can run TensorRT engines, and say what to do if not
    Doctor {
        /// Look at this engine directory too
        #[arg(long, value_name = "DIR")]
        engine: Option<PathBuf>,
    },
}

/// How completions are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text, as it is generated.
    Text,
    /// One JSON object a line for each finished sequence.
    Json,
}
