//! Prompts as they were given: on the command line, in a file, on standard input.
//!
//! They are read one by one, while those before them run: a file of any length takes the memory of its longest line.

mod file;

use std::io::Read;
use std::vec;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::run_engine::conversation;
use crate::run_engine::flags::{Args, Format};
use runner::executor::{RequestError, TokenId};
use runner::generation_options::GenerationOptions;
use runner::request_builder::{self, BuildRequestError};
use text::chat::ChatError;

pub(crate) use file::PromptsFile;

/// A prompt as it was given, with its own options.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// The prompt itself.
    pub prompt: request_builder::Prompt,
    /// What is asked of its completion.
    pub options: GenerationOptions,
}

/// A prompt, or why it is none.
#[derive(Debug)]
pub(crate) struct Given {
    /// What messages call it; nothing where it is the run's only one.
    pub name: Option<String>,
    /// The prompt. An error is its own, and no other prompt's.
    pub prompt: Result<Prompt>,
}

/// Every prompt of a run: of the command line, of the file, or else of standard input. An error of the iterator itself ends it.
#[derive(Debug)]
pub(crate) struct Prompts {
    typed: vec::IntoIter<Given>,
    file: Option<PromptsFile>,
}

impl Prompts {
    /// Reads what was typed, and opens the file; without either, reads standard input. Without a prompt only with `--verify`.
    pub(crate) fn open(args: &Args) -> Result<Self> {
        let options = &args.generation.options;
        ensure!(
            args.format == Format::Json || !options.asks_for_log_probs(),
            "--logprobs, --top-logprobs, --prompt-logprobs and --prompt-top-logprobs are printed as JSON only: add --format json"
        );
        let mut typed: Vec<_> = args.prompt.iter().map(|prompt| text(prompt.clone(), args.chat)).collect();
        for given in &args.prompt_ids {
            typed.push(ids(parse_ids(given)?, args.chat)?);
        }
        let file = args.prompts.as_deref().map(|path| PromptsFile::open(path, args.chat, options)).transpose()?;
        if typed.is_empty() && file.is_none() && !args.verify && !conversation::is_asked_for(args) {
            typed.push(text(from_standard_input()?, args.chat));
        }
        let several = typed.len() > 1 || file.is_some();
        let given = |(index, prompt)| Given {
            name: several.then(|| format!("prompt {index}")),
            prompt: Ok(Prompt { prompt, options: options.clone() }),
        };
        Ok(Self { typed: typed.into_iter().enumerate().map(given).collect::<Vec<_>>().into_iter(), file })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.typed.as_slice().is_empty() && self.file.is_none()
    }

    /// Whether the run is about one prompt, which was not in a file.
    pub(crate) fn is_one(&self) -> bool {
        self.typed.as_slice().len() == 1 && self.file.is_none()
    }
}

impl Iterator for Prompts {
    type Item = Result<Given>;

    fn next(&mut self) -> Option<Self::Item> {
        self.typed.next().map(Ok).or_else(|| self.file.as_mut()?.next())
    }
}

/// All of standard input, as one prompt, without the end of its last line.
fn from_standard_input() -> Result<String> {
    use std::io::IsTerminal;
    let mut read = String::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_string(&mut read).context("cannot read the prompt from standard input")?;
    }
    let prompt = read.strip_suffix('\n').map_or(read.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    ensure!(
        !prompt.is_empty(),
        "there is no prompt: give --prompt TEXT, --prompt-ids, --prompts FILE or standard input"
    );
    Ok(prompt.to_owned())
}

/// A prompt of text, or with `--chat` a conversation.
fn text(text: String, chat: bool) -> request_builder::Prompt {
    if chat { request_builder::Prompt::Messages(text) } else { request_builder::Prompt::Text(text) }
}

/// A prompt of token ids.
fn ids(ids: Vec<TokenId>, chat: bool) -> Result<request_builder::Prompt> {
    ensure!(!chat, "--chat needs text, but the prompt is given as token ids");
    Ok(request_builder::Prompt::Ids(ids))
}

impl Prompt {
    /// The prompt, with `defaults` for what it does not say itself.
    pub(crate) fn or(self, defaults: &GenerationOptions) -> Self {
        Self { options: self.options.or(defaults), ..self }
    }
}

/// Why a prompt makes no request, in the terms of the command line.
pub(crate) fn refused(error: BuildRequestError) -> anyhow::Error {
    let flag = |field: &str| format!("--{}", field.replace('_', "-"));
    match error {
        BuildRequestError::NoTokenizer { field: "prompt" } => {
            anyhow!(
                "the engine has no tokenizer: give --prompt-ids, or build it again from a model with `tokenizer.json`"
            )
        }
        BuildRequestError::NoTokenizer { field } => {
            anyhow!("{} needs text, but the engine has no tokenizer", flag(field))
        }
        BuildRequestError::Option { field: field @ "num_return_sequences", problem } => {
            anyhow!(problem.replace(field, "n"))
        }
        BuildRequestError::Option { field: field @ "max_length", problem } => {
            anyhow!(problem.replace(field, "--max-length"))
        }
        BuildRequestError::ChatTemplate(error @ ChatError::Missing { .. }) => {
            let plain = "give the prompt as plain text";
            anyhow!(error.to_string().replace(plain, &format!("leave out --chat and {plain}")))
        }
        BuildRequestError::Option { field, problem } if problem.starts_with(field) => {
            let problem = problem.replacen(field, &flag(field), 1);
            anyhow!(problem.replace("give messages", "add --chat, or give `messages` in a line of a prompts file"))
        }
        BuildRequestError::Request(error) => anyhow!(error.to_string().replace("num_return_sequences", "n")),
        other => other.into(),
    }
}

/// What is wrong with an option that was typed, by its flag.
pub(crate) fn refused_flag(error: BuildRequestError) -> anyhow::Error {
    match error {
        BuildRequestError::Option { field, problem } => {
            let flag = if field == "num_return_sequences" { "n" } else { field }.replace('_', "-");
            anyhow!(problem.replace(field, &format!("--{flag}")))
        }
        BuildRequestError::Request(RequestError::Sampling { field, range, value }) => {
            let flag = if field == "num_return_sequences" { "n" } else { field }.replace('_', "-");
            anyhow!("--{flag} must be {range}, not {value}")
        }
        other => refused(other),
    }
}

fn parse_ids(text: &str) -> Result<Vec<TokenId>> {
    ensure!(!text.trim().is_empty(), "the prompt is empty: --prompt-ids needs token ids, for example 1,2,3");
    text.split(',')
        .map(|id| {
            let id = id.trim();
            id.parse().map_err(|_| anyhow!("`{id}` in --prompt-ids `{text}` is not a token id"))
        })
        .collect()
}

/// A line of a prompts file: JSON if it begins with `{`, blanks aside, else the prompt itself.
fn parse_line(line: &str, chat: bool, defaults: &GenerationOptions) -> Result<Prompt> {
    if !line.trim_start().starts_with('{') {
        return Ok(Prompt { prompt: text(line.to_owned(), chat), options: defaults.clone() });
    }
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(line).map_err(|error| not_json(&error))?;
    let prompt = match (fields.remove("prompt"), fields.remove("messages"), fields.remove("prompt_ids")) {
        (Some(Value::String(prompt)), None, None) => text(prompt, chat),
        (Some(messages @ Value::Array(_)), None, None) if chat => {
            request_builder::Prompt::Messages(messages.to_string())
        }
        (None, Some(messages @ Value::Array(_)), None) => request_builder::Prompt::Messages(messages.to_string()),
        (None, None, Some(given)) => {
            let given = serde_json::from_value(given).map_err(|_| {
                anyhow!("`prompt_ids` must be a list of token ids, which are whole numbers, for example [1, 2, 3]")
            });
            ids(given?, chat)?
        }
        (Some(_), None, None) => bail!("`prompt` must be a string, or with --chat a list of messages"),
        (None, Some(_), None) => bail!("`messages` must be a list of messages"),
        (None, None, None) => bail!("a JSON line needs `prompt`, `messages` or `prompt_ids`"),
        _ => bail!("`prompt`, `messages` and `prompt_ids` exclude one another: leave one of them in the line"),
    };
    let options = GenerationOptions::from_json(fields).map_err(|problem| anyhow!(problem))?;
    Ok(Prompt { prompt, options: options.or(defaults) })
}

/// What JSON lacks, with its column: the line is told by who reads the file.
fn not_json(error: &serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or_default();
    anyhow!(
        "the line begins with `{{` but is not valid JSON: {problem} (column {}); a prompt that begins with `{{` is written as JSON itself: {{\"prompt\": \"{{…\"}}",
        error.column()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use runner::executor::{EarlyStopping, GuidedDecodingParams};

    #[test]
    fn lines_override_the_command_line() {
        let stop = Some(vec!["x".into()]);
        let defaults = GenerationOptions { max_length: Some(9), seed: Some(3), stop, ..Default::default() };
        let prompt =
            parse_line(r#"{"prompt": "a", "max_new_tokens": 5, "temperature": 1, "stop": "y"}"#, false, &defaults)
                .unwrap();
        assert_eq!((prompt.options.max_new_tokens, prompt.options.max_length), (Some(5), None));
        assert_eq!((prompt.options.temperature, prompt.options.seed), (Some(1.0), Some(3)));
        assert_eq!(prompt.options.stop, Some(vec!["y".to_owned()]));
        let plain = parse_line("just text", false, &defaults).unwrap();
        assert_eq!(plain.options, defaults);
        // Blanks before JSON are no part of it; blanks before text are.
        let prompt = |line: &str| parse_line(line, false, &defaults).unwrap().prompt;
        assert_eq!(prompt(" \t{\"prompt\": \"a\"} "), request_builder::Prompt::Text("a".into()));
        assert_eq!(prompt("  a {"), request_builder::Prompt::Text("  a {".into()));
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        let settings = |line: &str| parse_line(line, false, &GenerationOptions::default()).unwrap().options;
        let given = settings(
            r#"{"prompt": "a", "presence_penalty": 1, "bad_words": "x", "logit_bias": {"7": -1, "3": 0.5},
                "num_return_sequences": 2, "early_stopping": 2, "json_schema": {"type": "object"}, "priority": 1}"#,
        );
        let expected = GenerationOptions {
            presence_penalty: Some(1.0),
            bad_words: Some(vec!["x".into()]),
            logit_bias: Some(vec![(3, 0.5), (7, -1.0)]),
            n: Some(2),
            early_stopping: Some(EarlyStopping::Never),
            json_schema: Some(r#"{"type":"object"}"#.into()),
            priority: Some(1.0),
            ..GenerationOptions::default()
        };
        assert_eq!(given, expected);
        let stopping =
            |value: &str| settings(&format!(r#"{{"prompt": "a", "early_stopping": {value}}}"#)).early_stopping;
        assert_eq!(["true", "1", "\"true\""].map(stopping), [Some(EarlyStopping::Yes); 3]);
        assert_eq!(["false", "0"].map(stopping), [Some(EarlyStopping::No); 2]);
        assert_eq!(["\"never\"", "-1"].map(stopping), [Some(EarlyStopping::Never); 2]);
        assert_eq!(stopping("null"), None);
    }

    #[test]
    fn a_guide_of_a_line_replaces_that_of_the_command_line() {
        let defaults = GenerationOptions { regex: Some("a".into()), ..Default::default() };
        let guides = |line: &str| parse_line(line, false, &defaults).unwrap().options.guides();
        assert_eq!(guides(r#"{"prompt": "a"}"#), [("regex", GuidedDecodingParams::Regex("a".into()))]);
        assert_eq!(guides(r#"{"prompt": "a", "json": true}"#), [("json", GuidedDecodingParams::Json)]);
        assert_eq!(guides(r#"{"prompt": "a", "json": false}"#), []);
    }

    #[test]
    fn wrong_lines_say_why() {
        let check = |line: &str, expected: &str| {
            let error = format!("{:#}", parse_line(line, false, &GenerationOptions::default()).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("{", "the line begins with `{` but is not valid JSON: EOF while parsing an object (column 1)");
        check("{x", "key must be a string (column 2)");
        check(r#"{"prompt": "a"} x"#, "trailing characters (column 17)");
        check("{}", "needs `prompt`");
        check(r#"{"prompt": "a", "prompt_ids": [1]}"#, "exclude one another");
        check(r#"{"messages": "a"}"#, "`messages` must be a list");
        check(r#"{"messages": [], "prompt": "a"}"#, "exclude one another");
        check(r#"{"prompt": 1}"#, "must be a string");
        check(r#"{"prompt": []}"#, "with --chat");
        check(r#"{"prompt_ids": [-1]}"#, "prompt_ids");
        check(r#"{"prompt": "a", "max_tokens": 1}"#, "max_tokens");
        check(
            r#"{"prompt": "a", "top_k": 1, "seed": -1}"#,
            "`seed` must be a whole number from 0 to 18446744073709551615, not -1",
        );
        check(r#"{"prompt": "a", "stop": 1}"#, "stop");
        check(r#"{"prompt": "a", "max_new_tokens": 1, "max_length": 2}"#, "exclude");
        check(r#"{"prompt": "a", "json": true, "regex": "a"}"#, "`json` and `regex` exclude");
        check(r#"{"prompt": "a", "json_schema": {}, "grammar": "a"}"#, "`json_schema` and `grammar` exclude");
        check(r#"{"prompt": "a", "json_schema": 1}"#, "`json_schema` must be an object or a string, not 1");
        check(r#"{"prompt": "a", "early_stopping": 0.5}"#, "`early_stopping` must be `true`");
        check(r#"{"prompt": "a", "logit_bias": {"x": 1}}"#, "`logit_bias`");
        check(r#"{"prompt": "a", "logit_bias": [[1, 2]]}"#, "`logit_bias`");
        check(r#"{"prompt": "a", "bad_words": 1}"#, "`bad_words` must be a string or a list of strings");
        check(r#"{"prompt": "a", "n": 2, "num_return_sequences": 2}"#, "duplicate");
        check(r#"{"prompt_ids": [1.5]}"#, "`prompt_ids` must be a list of token ids");
        assert!(parse_ids("1, 2,x").unwrap_err().to_string().contains("`x`"));
        assert_eq!(parse_ids("1, 2").unwrap(), [1, 2]);
    }
}
