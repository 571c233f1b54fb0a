//! Prompts and text-level options to requests: encoded, and checked against the engine's limits, before anything runs.

use std::time::Duration;

use engine_format::FormatError;
use engine_format::error::counted;
use text::chat::{self, ChatError, Rendered};
use text::stop_strings::{StopStringError, StopStrings};
use text::tokenizer::{LazyTokenizer, Tokenizer, TokenizerError};

use crate::engine::{Engine, Running};
use crate::executor::{
    Executor, KvCacheRetentionConfig, Limits, OutputConfig, Request, RequestError, RequestSpec, SamplingConfig,
    TokenId, TokenRangeRetention,
};
use crate::generation_options::GenerationOptions;
use crate::session::Submission;

/// Tokens that are generated at most where nothing is said.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 128;

/// Sequences of one request at most: each has its place in memory from the start.
pub const MAX_SEQUENCES: usize = 65_536;

/// Bytes for each token of `max_seq_len` beyond which a text is very long: few texts have more in a token.
const BYTES_PER_TOKEN: usize = 16;

/// What goes before the output.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, encoded with the tokenizer's special tokens.
    Text(String),
    /// A conversation, for the model's chat template: a JSON list of messages, or a text, which is the user's message.
    Messages(String),
    /// Token ids, as they are.
    Ids(Vec<TokenId>),
}

/// Why a prompt and its options make no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildRequestError {
    /// The engine has no tokenizer.
    #[error(
        "`{field}` is text, but the engine has no tokenizer: give token ids, or build it again from a model with `tokenizer.json`"
    )]
    NoTokenizer {
        /// What was given as text: `prompt`, or an option by its name in [`GenerationOptions`].
        field: &'static str,
    },
    /// The tokenizer cannot be opened, or cannot encode a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The engine has no chat template that can be used.
    #[error(transparent)]
    ChatTemplate(ChatError),
    /// The messages do not go through the chat template.
    #[error(transparent)]
    Messages(ChatError),
    /// A text of which the beginning alone is far too long.
    #[error(
        "the prompt's {bytes} bytes have more than twice the tokens that max_seq_len, {max_seq_len}, allows: shorten it"
    )]
    TextTooLong {
        /// Of the text.
        bytes: usize,
        /// The limit.
        max_seq_len: usize,
    },
    /// An adapter cannot be read, or does not fit the model.
    #[error(transparent)]
    Lora(FormatError),
    /// The engine is known by its executor only, so it reads no files.
    #[error("{field} needs an engine directory")]
    NoEngine {
        /// The option.
        field: &'static str,
    },
    /// A stop string.
    #[error(transparent)]
    StopString(#[from] StopStringError),
    /// An option.
    #[error("{problem}")]
    Option {
        /// The option, by a name of it in [`GenerationOptions`].
        field: &'static str,
        /// What is wrong, as a sentence that names it.
        problem: String,
    },
    /// What the executor's limits do not allow.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Makes requests of prompts and options.
#[derive(Clone, Copy)]
pub struct RequestBuilder<'a> {
    /// What will run them.
    pub executor: &'a dyn Executor,
    /// The engine's tokenizer, if it has one; parsed when something is given or stopped as text.
    pub tokenizer: Option<&'a LazyTokenizer>,
    /// The engine: its end ids, its chat template, its adapters. `None` for an executor without one.
    pub engine: Option<&'a Engine>,
}

impl<'a> RequestBuilder<'a> {
    /// The builder of an engine's requests.
    pub fn new(engine: &'a Engine, executor: &'a dyn Executor) -> Self {
        Self { executor, tokenizer: engine.tokenizer(), engine: Some(engine) }
    }

    /// A prompt and its options as a submission whose outputs carry text, if the engine has a tokenizer.
    ///
    /// # Errors
    /// [`BuildRequestError`].
    pub fn build(&self, prompt: &Prompt, options: &GenerationOptions) -> Result<Submission, BuildRequestError> {
        let spec = self.spec(prompt, options)?;
        self.submission(spec, options, true)
    }

    /// The request, without stop strings, which need text. A caller may add to it before [`RequestBuilder::submission`].
    ///
    /// # Errors
    /// [`BuildRequestError`].
    pub fn spec(&self, prompt: &Prompt, options: &GenerationOptions) -> Result<RequestSpec, BuildRequestError> {
        let input_token_ids = self.encode(prompt, options)?;
        let of_model = || self.engine.filter(|_| options.ignore_eos != Some(true)).map(Engine::end_ids);
        let end_ids = options.end_id.as_deref().or_else(of_model);
        Ok(RequestSpec {
            end_ids: end_ids.unwrap_or_default().to_vec(),
            allowed_token_ids: options.allowed_token_ids.clone(),
            bad_words: self.bad_words(options.bad_words.as_deref().unwrap_or_default())?,
            lora: match &options.lora {
                None => None,
                Some(path) => {
                    let engine = self.engine.ok_or(BuildRequestError::NoEngine { field: "lora" })?;
                    if let Running::Cpu(_) = engine.running() {
                        let problem =
                            "the CPU engine has no LoRA adapters: leave the adapter out, or build the engine for a GPU";
                        return Err(BuildRequestError::Option { field: "lora", problem: problem.to_owned() });
                    }
                    Some(engine.lora(path).map_err(BuildRequestError::Lora)?)
                }
            },
            ..without_engine(options, input_token_ids)?
        })
    }

    /// Checks what was asked for against the executor's limits, and adds what the text is to be. `text` is whether outputs carry
    /// text, which stop strings need.
    ///
    /// # Errors
    /// [`BuildRequestError`].
    pub fn submission(
        &self,
        spec: RequestSpec,
        options: &GenerationOptions,
        text: bool,
    ) -> Result<Submission, BuildRequestError> {
        let stop = options.stop.clone().unwrap_or_default();
        if !stop.is_empty() {
            self.tokenizer("stop")?;
        }
        let included = options.include_stop_str_in_output == Some(true);
        let request = Request::new(spec, self.executor.limits(), self.executor.vocab_size())?;
        Ok(Submission {
            stop_strings: StopStrings::new(stop)?.included(included),
            skip_special_tokens: options.skip_special_tokens != Some(false),
            text,
            ..Submission::new(request)
        })
    }

    /// The first stop string that a valid request can never come to: it is longer than the output can be.
    pub fn out_of_reach<'s>(&self, submission: &'s Submission) -> Option<&'s str> {
        let tokens = submission.request.spec().max_tokens;
        let mut long = submission.stop_strings.texts().iter().filter(|stop| stop.len() > tokens).peekable();
        // Every token is looked at only where a stop string could be too long.
        long.peek()?;
        let longest = self.tokenizer?.get().ok()?.longest_token();
        long.find(|stop| stop.len() > tokens.saturating_mul(longest)).map(String::as_str)
    }

    fn tokenizer(&self, field: &'static str) -> Result<&'a Tokenizer, BuildRequestError> {
        Ok(self.tokenizer.ok_or(BuildRequestError::NoTokenizer { field })?.get()?)
    }

    fn encode(&self, prompt: &Prompt, options: &GenerationOptions) -> Result<Vec<TokenId>, BuildRequestError> {
        if let Some(field) = options.chat_only().filter(|_| !matches!(prompt, Prompt::Messages(_))) {
            let problem = format!("{field} is for conversations, but the prompt is none: give messages");
            return Err(BuildRequestError::Option { field, problem });
        }
        match prompt {
            Prompt::Ids(ids) => Ok(ids.clone()),
            Prompt::Text(text) if text.is_empty() => Err(RequestError::EmptyPrompt.into()),
            Prompt::Text(text) => {
                let tokenizer = self.tokenizer("prompt")?;
                self.check_beginning(tokenizer, text)?;
                Ok(tokenizer.encode(text, true)?)
            }
            Prompt::Messages(text) => {
                let rendered = self.render(text, options)?;
                let tokenizer = self.tokenizer("prompt")?;
                self.check_beginning(tokenizer, rendered.as_str())?;
                Ok(match options.allow_special_tokens_in_messages {
                    Some(true) => tokenizer.encode(rendered.as_str(), false)?,
                    _ => tokenizer.encode_rendered(&rendered)?,
                })
            }
        }
    }

    /// A conversation, as [`Prompt::Messages`] has it, by the model's chat template.
    ///
    /// # Errors
    /// [`BuildRequestError`].
    pub fn render(&self, messages: &str, options: &GenerationOptions) -> Result<Rendered, BuildRequestError> {
        if messages.is_empty() {
            return Err(RequestError::EmptyPrompt.into());
        }
        let engine = self.engine.ok_or(BuildRequestError::NoEngine { field: "a chat template" })?;
        let template = engine.chat().map_err(BuildRequestError::ChatTemplate)?;
        let messages = chat::parse_messages(messages).map_err(BuildRequestError::Messages)?;
        template.render(&messages, &options.chat()).map_err(|error| match error {
            ChatError::Option { field, problem } => BuildRequestError::Option { field, problem },
            other => BuildRequestError::Messages(other),
        })
    }

    /// Encoding takes a second for a few megabytes. So of a very long text the beginning is encoded first: where that has twice the
    /// tokens that there may be, no rest makes it fit.
    ///
    /// # Errors
    /// It does not fit, or cannot be encoded.
    pub fn check_beginning(&self, tokenizer: &Tokenizer, text: &str) -> Result<(), BuildRequestError> {
        let max_seq_len = self.executor.limits().max_seq_len;
        let beginning = &text[..text.floor_char_boundary(max_seq_len.saturating_mul(BYTES_PER_TOKEN))];
        if beginning.len() < text.len() && tokenizer.encode(beginning, false)?.len() > max_seq_len.saturating_mul(2) {
            return Err(BuildRequestError::TextTooLong { bytes: text.len(), max_seq_len });
        }
        Ok(())
    }

    /// Each word as the tokenizer encodes it alone, and after a blank.
    fn bad_words(&self, words: &[String]) -> Result<Vec<Vec<TokenId>>, BuildRequestError> {
        let mut encoded = Vec::new();
        for (number, word) in words.iter().enumerate() {
            let tokenizer = self.tokenizer("bad_words")?;
            check_bad_word(number, word)?;
            encoded.extend(tokenizer.encode_word(word)?);
        }
        Ok(encoded)
    }
}

/// Checks what is wrong with options whatever the engine and the prompt: values outside their range, empty texts.
///
/// # Errors
/// [`BuildRequestError`].
pub fn check(options: &GenerationOptions) -> Result<(), BuildRequestError> {
    const ANY: Limits = Limits { max_seq_len: usize::MAX, max_batch_size: usize::MAX, max_num_tokens: usize::MAX };
    // How long the prompt may be depends on the engine.
    let any_length = GenerationOptions { max_length: None, ..options.clone() };
    Request::new(without_engine(&any_length, vec![0])?, ANY, usize::MAX)?;
    options.bad_words.iter().flatten().enumerate().try_for_each(|(number, word)| check_bad_word(number, word))?;
    StopStrings::new(options.stop.clone().unwrap_or_default())?;
    Ok(())
}

/// What of a request needs nothing but its prompt and options.
fn without_engine(options: &GenerationOptions, prompt: Vec<TokenId>) -> Result<RequestSpec, BuildRequestError> {
    let max_tokens = max_tokens(options, prompt.len())?;
    let default = RequestSpec::new(prompt, max_tokens);
    Ok(RequestSpec {
        embedding_bias: options.logit_bias.clone().unwrap_or_default(),
        guided_decoding: options.guides().into_iter().next().map(|(_, guide)| guide),
        sampling: sampling(options)?,
        output: OutputConfig {
            return_log_probs: options.logprobs == Some(true),
            top_log_probs: options.top_logprobs.unwrap_or(0),
            return_prompt_log_probs: options.prompt_logprobs == Some(true),
            prompt_top_log_probs: options.prompt_top_logprobs.unwrap_or(0),
            ..OutputConfig::default()
        },
        priority: options.priority.unwrap_or(default.priority),
        allotted_time: options.allotted_time_ms.map(Duration::from_millis),
        cache_salt_id: options.cache_salt_id,
        kv_cache_retention: options.retention_priority.map(|priority| KvCacheRetentionConfig {
            ranges: vec![TokenRangeRetention { tokens: (0, None), priority, duration: None }],
            decode_priority: priority,
            decode_duration: None,
        }),
        ..default
    })
}

fn check_bad_word(number: usize, word: &str) -> Result<(), BuildRequestError> {
    if !word.is_empty() {
        return Ok(());
    }
    let problem = format!("bad word number {} is empty: leave it out or give it text", number + 1);
    Err(BuildRequestError::Option { field: "bad_words", problem })
}

/// Tokens to generate after a prompt of `prompt` tokens.
fn max_tokens(options: &GenerationOptions, prompt: usize) -> Result<usize, BuildRequestError> {
    match (options.max_new_tokens, options.max_length) {
        (Some(tokens), _) => Ok(tokens),
        (None, Some(length)) if length > prompt => Ok(length - prompt),
        (None, Some(length)) => {
            let problem =
                format!("the prompt has {}: max_length {length} leaves none to generate", counted(prompt, "token"));
            Err(BuildRequestError::Option { field: "max_length", problem })
        }
        (None, None) => Ok(DEFAULT_MAX_NEW_TOKENS),
    }
}

fn sampling(options: &GenerationOptions) -> Result<SamplingConfig, BuildRequestError> {
    let default = SamplingConfig::default();
    let beam_width = options.beam_width.unwrap_or(default.beam_width);
    // As in TensorRT-LLM, a beam search returns all beams unless fewer are asked for.
    let num_return_sequences = options.n.unwrap_or(beam_width.max(1));
    // As many beams as the executor runs are few enough; it refuses more by its limit.
    if let Some(n) = options.n.filter(|&n| n > MAX_SEQUENCES) {
        let problem = format!("num_return_sequences must be at most {MAX_SEQUENCES}, not {n}");
        return Err(BuildRequestError::Option { field: "num_return_sequences", problem });
    }
    Ok(SamplingConfig {
        beam_width,
        temperature: options.temperature_or_default(),
        top_k: options.top_k.unwrap_or(default.top_k),
        top_p: options.top_p.unwrap_or(default.top_p),
        min_p: options.min_p.unwrap_or(default.min_p),
        seed: options.seed.unwrap_or(default.seed),
        min_tokens: options.min_tokens.unwrap_or(default.min_tokens),
        repetition_penalty: options.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: options.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: options.frequency_penalty.unwrap_or(default.frequency_penalty),
        prompt_ignore_length: options.prompt_ignore_length.unwrap_or(default.prompt_ignore_length),
        no_repeat_ngram_size: options.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
        num_return_sequences,
        length_penalty: options.length_penalty.unwrap_or(default.length_penalty),
        early_stopping: options.early_stopping.unwrap_or(default.early_stopping),
    })
}
