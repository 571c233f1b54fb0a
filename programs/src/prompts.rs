//! Prompts as they were given: on the command line, in a file, on standard input.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::run_engine::flags::{Args, Format};
use runner::executor::TokenId;
use runner::generation_options::GenerationOptions;
use runner::request_builder::{self, BuildRequestError};

/// What some editors begin a text file with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A prompt as it was given, with its own options.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// The line it is in, when it came from a file of prompts.
    pub origin: Option<String>,
    /// The prompt itself.
    pub prompt: request_builder::Prompt,
    /// What is asked of its completion.
    pub options: GenerationOptions,
}

/// Collects every prompt: of the command line, of the file, or else of standard input. Empty only with `--verify`.
pub(crate) fn collect(args: &Args) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let options = &args.generation.options;
    let plain = |prompt| Prompt { origin: None, prompt, options: options.clone() };
    prompts.extend(args.prompt.iter().map(|prompt| plain(text(prompt.clone(), args.chat))));
    for given in &args.prompt_ids {
        prompts.push(plain(ids(parse_ids(given)?, args.chat)?));
    }
    if let Some(path) = &args.prompts {
        prompts.extend(from_file(path, args.chat, options)?);
    }
    if prompts.is_empty() && !args.verify {
        use std::io::IsTerminal;
        let mut read = String::new();
        if !std::io::stdin().is_terminal() {
            std::io::stdin().read_to_string(&mut read).context("cannot read the prompt from standard input")?;
        }
        let line = read.strip_suffix('\n').map_or(read.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        ensure!(
            !line.is_empty(),
            "there is no prompt: give --prompt TEXT, --prompt-ids, --prompts FILE or standard input"
        );
        prompts.push(plain(text(line.to_owned(), args.chat)));
    }
    if args.format != Format::Json
        && let Some(prompt) = prompts.iter().find(|prompt| prompt.options.asks_for_log_probs())
    {
        let error =
            anyhow!("--logprobs, --top-logprobs and --prompt-logprobs are printed as JSON only: add --format json");
        return Err(match &prompt.origin {
            Some(origin) => error.context(origin.clone()),
            None => error,
        });
    }
    Ok(prompts)
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

/// Reads a file of prompts; what a line does not say is as in `defaults`.
pub(crate) fn from_file(path: &Path, chat: bool, defaults: &GenerationOptions) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let text = read_prompts_file(path)?;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let origin = format!("{}, line {}", name_of(path), number + 1);
        let prompt = parse_line(line, chat, defaults).with_context(|| origin.clone())?;
        prompts.push(Prompt { origin: Some(origin), ..prompt });
    }
    ensure!(!prompts.is_empty(), "{} holds no prompt", name_of(path));
    Ok(prompts)
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
        other => other.into(),
    }
}

/// What a file of prompts is called in messages.
fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { format!("`{}`", path.display()) }
}

fn read_prompts_file(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).context("cannot read prompts from standard input")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    }
    let mut text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", name_of(path)))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
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

/// A line of a prompts file: JSON if it begins with `{`, else the prompt itself.
fn parse_line(line: &str, chat: bool, defaults: &GenerationOptions) -> Result<Prompt> {
    if !line.starts_with('{') {
        return Ok(Prompt { origin: None, prompt: text(line.to_owned(), chat), options: defaults.clone() });
    }
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(line)?;
    let prompt = match (fields.remove("prompt"), fields.remove("prompt_ids")) {
        (Some(Value::String(prompt)), None) => text(prompt, chat),
        (Some(messages @ Value::Array(_)), None) if chat => request_builder::Prompt::Messages(messages.to_string()),
        (None, Some(given)) => {
            ids(serde_json::from_value(given).context("`prompt_ids` must be a list of token ids")?, chat)?
        }
        (Some(_), None) => bail!("`prompt` must be a string, or with --chat a list of messages"),
        _ => bail!("a JSON line needs either `prompt` or `prompt_ids`"),
    };
    for (name, value) in &fields {
        // One at a time: the error of the whole object does not say which field it is about.
        let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
        serde_json::from_value::<GenerationOptions>(alone).with_context(|| format!("`{name}`"))?;
    }
    let options: GenerationOptions = serde_json::from_value(Value::Object(fields))?;
    ensure!(
        options.max_new_tokens.is_none() || options.max_length.is_none(),
        "`max_new_tokens` and `max_length` exclude each other"
    );
    if let [(first, _), (second, _), ..] = options.guides()[..] {
        bail!("`{first}` and `{second}` exclude each other");
    }
    Ok(Prompt { origin: None, prompt, options: options.or(defaults) })
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
        check("{", "EOF");
        check("{}", "needs either");
        check(r#"{"prompt": "a", "prompt_ids": [1]}"#, "needs either");
        check(r#"{"prompt": 1}"#, "must be a string");
        check(r#"{"prompt": []}"#, "with --chat");
        check(r#"{"prompt_ids": [-1]}"#, "prompt_ids");
        check(r#"{"prompt": "a", "max_tokens": 1}"#, "max_tokens");
        check(r#"{"prompt": "a", "top_k": 1, "seed": -1}"#, "`seed`: invalid value: integer `-1`");
        check(r#"{"prompt": "a", "stop": 1}"#, "stop");
        check(r#"{"prompt": "a", "max_new_tokens": 1, "max_length": 2}"#, "exclude");
        check(r#"{"prompt": "a", "json": true, "regex": "a"}"#, "`json` and `regex` exclude");
        check(r#"{"prompt": "a", "json_schema": {}, "grammar": "a"}"#, "`json_schema` and `grammar` exclude");
        check(r#"{"prompt": "a", "json_schema": 1}"#, "`json_schema`: must be an object or a string, not 1");
        check(r#"{"prompt": "a", "early_stopping": 0.5}"#, "`early_stopping`: must be `true`");
        check(r#"{"prompt": "a", "logit_bias": {"x": 1}}"#, "`logit_bias`");
        check(r#"{"prompt": "a", "logit_bias": [[1, 2]]}"#, "`logit_bias`");
        check(r#"{"prompt": "a", "bad_words": 1}"#, "`bad_words`: must be a string or a list of strings");
        check(r#"{"prompt": "a", "n": 2, "num_return_sequences": 2}"#, "duplicate");
        assert!(parse_ids("1, 2,x").unwrap_err().to_string().contains("`x`"));
        assert_eq!(parse_ids("1, 2").unwrap(), [1, 2]);
    }
}
