//! From prompts to requests: encoded and checked before anything runs.

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::prompts::{Prompt, PromptSource};
use args::GenerationArgs;
use runner::engine::Engine;
use runner::executor::{
    Executor, KvCacheRetentionConfig, OutputConfig, Request, RequestSpec, SamplingConfig, TokenId, TokenRangeRetention,
};
use runner::generation::Job;
use text::chat::{self, ChatTemplate};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

const DEFAULT_MAX_NEW_TOKENS: usize = 128;

/// Each sequence has a place in memory from the start.
const MAX_SEQUENCES: usize = 65_536;

/// What prompts become requests with.
pub(crate) struct Encoder<'a> {
    /// The engine's tokenizer, if it has one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The chat template, with `--chat`.
    pub chat: Option<&'a ChatTemplate>,
    /// Ids that end a sequence.
    pub end_ids: &'a [TokenId],
    /// The engine, which reads adapters.
    pub engine: &'a Engine,
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
        let max_tokens = max_tokens(&settings, input_token_ids.len())?;
        ensure!(
            settings.stop.is_empty() || self.tokenizer.is_some(),
            "--stop needs text, but the engine has no tokenizer"
        );
        if let Some(n) = settings.n.filter(|&n| n > MAX_SEQUENCES) {
            bail!("n must be at most {MAX_SEQUENCES}, not {n}");
        }
        let default = RequestSpec::new(input_token_ids, max_tokens);
        let spec = RequestSpec {
            end_ids: if settings.ignore_eos == Some(true) { Vec::new() } else { self.end_ids.to_vec() },
            bad_words: self.bad_words(&settings.bad_words)?,
            embedding_bias: settings.logit_bias.clone(),
            guided_decoding: settings.guides().into_iter().next().map(|(_, guide)| guide),
            sampling: sampling(&settings),
            output: OutputConfig {
                return_log_probs: settings.logprobs == Some(true),
                top_log_probs: settings.top_logprobs.unwrap_or(0),
                return_prompt_log_probs: settings.prompt_logprobs == Some(true),
                return_perf_metrics: false,
            },
            priority: settings.priority.unwrap_or(default.priority),
            allotted_time: settings.allotted_time_ms.map(std::time::Duration::from_millis),
            cache_salt_id: settings.cache_salt_id,
            lora: settings.lora.as_deref().map(|path| self.engine.lora(path)).transpose()?,
            kv_cache_retention: settings.retention_priority.map(|priority| KvCacheRetentionConfig {
                ranges: vec![TokenRangeRetention { tokens: (0, None), priority, duration: None }],
                decode_priority: priority,
                decode_duration: None,
            }),
            ..default
        };
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

    fn bad_words(&self, words: &[String]) -> Result<Vec<Vec<TokenId>>> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let tokenizer = self.tokenizer.context("--bad-words needs text, but the engine has no tokenizer")?;
        let mut encoded = Vec::new();
        for (number, word) in words.iter().enumerate() {
            ensure!(!word.is_empty(), "bad word number {} is empty: leave it out or give it text", number + 1);
            encoded.extend(tokenizer.encode_word(word)?);
        }
        Ok(encoded)
    }
}

/// Tokens to generate after a prompt of this many.
fn max_tokens(settings: &GenerationArgs, prompt: usize) -> Result<usize> {
    match (settings.max_new_tokens, settings.max_length) {
        (Some(tokens), _) => {
            ensure!(tokens > 0, "max_new_tokens must be at least 1");
            Ok(tokens)
        }
        (None, Some(length)) => length
            .checked_sub(prompt)
            .filter(|&left| left > 0)
            .ok_or_else(|| anyhow!("the prompt has {prompt} tokens: --max-length {length} leaves none to generate")),
        (None, None) => Ok(DEFAULT_MAX_NEW_TOKENS),
    }
}

fn sampling(settings: &GenerationArgs) -> SamplingConfig {
    let draws = settings.top_k.is_some() || settings.top_p.is_some() || settings.min_p.is_some();
    let default = SamplingConfig::default();
    let beam_width = settings.beam_width.unwrap_or(default.beam_width);
    SamplingConfig {
        beam_width,
        temperature: settings.temperature.unwrap_or(if draws { 1.0 } else { 0.0 }),
        top_k: settings.top_k.unwrap_or(default.top_k),
        top_p: settings.top_p.unwrap_or(default.top_p),
        min_p: settings.min_p.unwrap_or(default.min_p),
        seed: settings.seed.unwrap_or(default.seed),
        min_tokens: settings.min_tokens.unwrap_or(default.min_tokens),
        repetition_penalty: settings.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: settings.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: settings.frequency_penalty.unwrap_or(default.frequency_penalty),
        prompt_ignore_length: settings.prompt_ignore_length.unwrap_or(default.prompt_ignore_length),
        no_repeat_ngram_size: settings.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
        // As in TensorRT-LLM, a beam search returns all beams unless fewer are asked for.
        num_return_sequences: settings.n.unwrap_or(beam_width.max(1)),
        length_penalty: settings.length_penalty.unwrap_or(default.length_penalty),
        early_stopping: settings.early_stopping.unwrap_or(default.early_stopping),
    }
}
