//! From what was typed to requests: prompts are collected, encoded and checked before anything runs.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::args::{Args, Format, GenerationArgs};
use crate::chat::{self, ChatTemplate};
use crate::executor::{Executor, OutputConfig, Request, RequestSpec, SamplingConfig, TokenId};
use crate::generation::Job;
use crate::stop_strings::StopStrings;
use crate::tokenizer::Tokenizer;

const DEFAULT_MAX_NEW_TOKENS: usize = 128;

/// What some editors begin a text file with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A prompt as it was given, with its own settings.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// The line it is in, when it came from a file of prompts.
    pub origin: Option<String>,
    source: PromptSource,
    generation: GenerationArgs,
}

#[derive(Debug, Clone)]
enum PromptSource {
    Text(String),
    Ids(Vec<TokenId>),
}

/// Collects every prompt: of the command line, of the file, or else of standard input. Empty only with `--verify`.
pub(super) fn collect(args: &Args) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let plain = |source| Prompt { origin: None, source, generation: args.generation.clone() };
    prompts.extend(args.prompt.iter().cloned().map(PromptSource::Text).map(plain));
    for ids in &args.prompt_ids {
        prompts.push(plain(PromptSource::Ids(parse_ids(ids)?)));
    }
    if let Some(path) = &args.prompts {
        prompts.extend(from_file(path, args.chat, &args.generation)?);
    }
    if prompts.is_empty() && !args.verify {
        use std::io::IsTerminal;
        let mut text = String::new();
        if !std::io::stdin().is_terminal() {
            std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from standard input")?;
        }
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        ensure!(
            !text.is_empty(),
            "there is no prompt: give --prompt TEXT, --prompt-ids, --prompts FILE or standard input"
        );
        prompts.push(plain(PromptSource::Text(text.to_owned())));
    }
    let asks = |settings: &GenerationArgs| settings.logprobs == Some(true) || settings.prompt_logprobs == Some(true);
    if args.format != Format::Json
        && let Some(prompt) = prompts.iter().find(|prompt| asks(&prompt.generation))
    {
        let error = anyhow!("--logprobs and --prompt-logprobs are printed as JSON only: add --format json");
        return Err(match &prompt.origin {
            Some(origin) => error.context(origin.clone()),
            None => error,
        });
    }
    Ok(prompts)
}

/// Reads a file of prompts; what a line does not say is as in `defaults`.
pub(crate) fn from_file(path: &Path, chat: bool, defaults: &GenerationArgs) -> Result<Vec<Prompt>> {
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
    pub(crate) fn or(self, defaults: &GenerationArgs) -> Self {
        Self { generation: self.generation.or(defaults), ..self }
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
fn parse_line(line: &str, chat: bool, defaults: &GenerationArgs) -> Result<Prompt> {
    if !line.starts_with('{') {
        let source = PromptSource::Text(line.to_owned());
        return Ok(Prompt { origin: None, source, generation: defaults.clone() });
    }
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(line)?;
    let source = match (fields.remove("prompt"), fields.remove("prompt_ids")) {
        (Some(Value::String(text)), None) => PromptSource::Text(text),
        (Some(messages @ Value::Array(_)), None) if chat => PromptSource::Text(messages.to_string()),
        (None, Some(ids)) => {
            PromptSource::Ids(serde_json::from_value(ids).context("`prompt_ids` must be a list of token ids")?)
        }
        (Some(_), None) => bail!("`prompt` must be a string, or with --chat a list of messages"),
        _ => bail!("a JSON line needs either `prompt` or `prompt_ids`"),
    };
    for (name, value) in &fields {
        // One at a time: the error of the whole object does not say which field it is about.
        let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
        serde_json::from_value::<GenerationArgs>(alone).with_context(|| format!("`{name}`"))?;
    }
    let generation: GenerationArgs = serde_json::from_value(Value::Object(fields))?;
    ensure!(
        generation.max_new_tokens.is_none() || generation.max_length.is_none(),
        "`max_new_tokens` and `max_length` exclude each other"
    );
    Ok(Prompt { origin: None, source, generation: generation.or(defaults) })
}

/// What prompts become requests with.
pub(crate) struct Encoder<'a> {
    /// The engine's tokenizer, if it has one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The chat template, with `--chat`.
    pub chat: Option<&'a ChatTemplate>,
    /// Ids that end a sequence.
    pub end_ids: &'a [TokenId],
    /// What will run the requests.
    pub executor: &'a dyn Executor,
}

impl Encoder<'_> {
    /// Encodes and checks prompt number `index`.
    pub(crate) fn job(&self, index: usize, prompt: Prompt) -> Result<Job> {
        let settings = prompt.generation;
        let input_token_ids = match prompt.source {
            PromptSource::Ids(ids) => {
                ensure!(self.chat.is_none(), "--chat needs text, but the prompt is given as token ids");
                ids
            }
            PromptSource::Text(text) => self.encode(&text)?,
        };
        let max_tokens = match (settings.max_new_tokens, settings.max_length) {
            (Some(tokens), _) => {
                ensure!(tokens > 0, "max_new_tokens must be at least 1");
                tokens
            }
            (None, Some(length)) => {
                length.checked_sub(input_token_ids.len()).filter(|&left| left > 0).ok_or_else(|| {
                    let prompt = input_token_ids.len();
                    anyhow!("the prompt has {prompt} tokens: --max-length {length} leaves none to generate")
                })?
            }
            (None, None) => DEFAULT_MAX_NEW_TOKENS,
        };
        let draws = settings.top_k.is_some() || settings.top_p.is_some() || settings.min_p.is_some();
        let greedy = SamplingConfig::default();
        let spec = RequestSpec {
            end_ids: if settings.ignore_eos == Some(true) { Vec::new() } else { self.end_ids.to_vec() },
            sampling: SamplingConfig {
                temperature: settings.temperature.unwrap_or(if draws { 1.0 } else { 0.0 }),
                top_k: settings.top_k.unwrap_or(greedy.top_k),
                top_p: settings.top_p.unwrap_or(greedy.top_p),
                min_p: settings.min_p.unwrap_or(greedy.min_p),
                repetition_penalty: settings.repetition_penalty.unwrap_or(greedy.repetition_penalty),
                seed: settings.seed.unwrap_or(greedy.seed),
                ..greedy
            },
            output: OutputConfig {
                return_log_probs: settings.logprobs == Some(true),
                return_prompt_log_probs: settings.prompt_logprobs == Some(true),
                ..OutputConfig::default()
            },
            ..RequestSpec::new(input_token_ids, max_tokens)
        };
        ensure!(
            settings.stop.is_empty() || self.tokenizer.is_some(),
            "--stop needs text, but the engine has no tokenizer"
        );
        let request = Request::new(spec, self.executor.limits(), self.executor.vocab_size())?;
        Ok(Job { index, request, stop_strings: StopStrings::new(settings.stop)? })
    }

    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        ensure!(!text.is_empty(), "the prompt is empty");
        let tokenizer = self.tokenizer.context(
            "the engine has no tokenizer: give --prompt-ids, or build it again from a model with `tokenizer.json`",
        )?;
        Ok(match self.chat {
            None => tokenizer.encode(text, true)?,
            Some(template) => tokenizer.encode(&template.render(&chat::parse_messages(text)?, true)?, false)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_override_the_command_line() {
        let defaults =
            GenerationArgs { max_length: Some(9), seed: Some(3), stop: vec!["x".into()], ..Default::default() };
        let prompt =
            parse_line(r#"{"prompt": "a", "max_new_tokens": 5, "temperature": 1, "stop": "y"}"#, false, &defaults)
                .unwrap();
        assert_eq!((prompt.generation.max_new_tokens, prompt.generation.max_length), (Some(5), None));
        assert_eq!((prompt.generation.temperature, prompt.generation.seed), (Some(1.0), Some(3)));
        assert_eq!(prompt.generation.stop, ["y"]);
        let plain = parse_line("just text", false, &defaults).unwrap();
        assert_eq!(plain.generation, defaults);
    }

    #[test]
    fn wrong_lines_say_why() {
        let check = |line: &str, expected: &str| {
            let error = format!("{:#}", parse_line(line, false, &GenerationArgs::default()).unwrap_err());
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
        assert!(parse_ids("1, 2,x").unwrap_err().to_string().contains("`x`"));
        assert_eq!(parse_ids("1, 2").unwrap(), [1, 2]);
    }
}
