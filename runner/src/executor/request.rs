//! What goes into an executor. Holding a [`Request`] means that it is valid for the executor whose limits it was
//! checked against.

use std::sync::Arc;
use std::time::Duration;

use engine_format::error::counted;
use engine_format::lora::LoraAdapter;
use text::GuidedDecodingParams;

use super::{Limits, LogitsPostProcessor, SamplingConfig, TokenId};

/// What a request asks for, before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSpec {
    /// The prompt; at least one token.
    pub input_token_ids: Vec<TokenId>,
    /// Tokens to generate at most. With none, the prompt's log-probabilities are all that there is to ask for, and every
    /// sequence ends with [`FinishReason::Length`](super::FinishReason::Length).
    pub max_tokens: usize,
    /// Any of these ends a sequence; the end id is part of the output.
    pub end_ids: Vec<TokenId>,
    /// Any of these token sequences, once generated, ends a sequence; it stays part of the output.
    pub stop_words: Vec<Vec<TokenId>>,
    /// None of these token sequences is generated.
    pub bad_words: Vec<Vec<TokenId>>,
    /// The only tokens that are generated; `None` for all. A guide and bans choose among them. An end id has to be one of them
    /// to be generated; a guided output whose end ids are not ends where nothing but an end could follow.
    pub allowed_token_ids: Option<Vec<TokenId>>,
    /// Added to the logits of these tokens.
    pub embedding_bias: Vec<(TokenId, f32)>,
    /// What the output must look like.
    pub guided_decoding: Option<GuidedDecodingParams>,
    /// What sees and edits the logits before a token is chosen.
    pub logits_post_processor: Option<LogitsPostProcessor>,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// What is returned beside tokens.
    pub output: OutputConfig,
    /// Whether tokens are delivered as they are generated, rather than all at the end.
    pub streaming: bool,
    /// From 0 to 1; requests of higher priority are started first. TensorRT-LLM's default is 0.5.
    pub priority: f32,
    /// Ends the request with [`FinishReason::TimedOut`](super::FinishReason::TimedOut) this long after it was queued.
    pub allotted_time: Option<Duration>,
    /// Requests share cached prefixes with those of the same salt only.
    pub cache_salt_id: Option<u64>,
    /// An adapter that is applied to the model.
    pub lora: Option<LoraRequest>,
    /// How long the request's KV-cache blocks are kept for reuse.
    pub kv_cache_retention: Option<KvCacheRetentionConfig>,
}

/// A LoRA adapter, in the terms of TensorRT-LLM's `LoraConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRequest {
    /// The adapter's number: requests of the same number share its weights.
    pub task_id: u64,
    /// The adapter. An executor that has seen it lately has it in its cache, and takes the number alone.
    pub adapter: Option<Arc<LoraAdapter>>,
}

/// Which blocks go last when the KV cache is full, in the terms of TensorRT-LLM's `KvCacheRetentionConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvCacheRetentionConfig {
    /// Of the prompt.
    pub ranges: Vec<TokenRangeRetention>,
    /// Of generated tokens, from 0 to 100; TensorRT-LLM's default is 35.
    pub decode_priority: u8,
    /// How long that priority holds; `None` for without limit.
    pub decode_duration: Option<Duration>,
}

/// How long blocks of some prompt tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRangeRetention {
    /// Their positions in the prompt; without an end, to the prompt's.
    pub tokens: (usize, Option<usize>),
    /// From 0, to go first, to 100.
    pub priority: u8,
    /// How long that priority holds; `None` for without limit.
    pub duration: Option<Duration>,
}

impl RequestSpec {
    /// A greedy, streaming request.
    pub fn new(input_token_ids: Vec<TokenId>, max_tokens: usize) -> Self {
        Self {
            input_token_ids,
            max_tokens,
            end_ids: Vec::new(),
            stop_words: Vec::new(),
            bad_words: Vec::new(),
            allowed_token_ids: None,
            embedding_bias: Vec::new(),
            guided_decoding: None,
            logits_post_processor: None,
            sampling: SamplingConfig::default(),
            output: OutputConfig::default(),
            streaming: true,
            priority: 0.5,
            allotted_time: None,
            cache_salt_id: None,
            lora: None,
            kv_cache_retention: None,
        }
    }
}

impl RequestSpec {
    /// Bytes of the logits that its responses carry, at most; fewer where it ends early.
    pub fn logits_bytes(&self, vocab_size: usize) -> usize {
        let context = if self.output.return_context_logits { self.input_token_ids.len() } else { 0 };
        let generation = if self.output.return_generation_logits { self.max_tokens } else { 0 };
        let rows = generation.saturating_mul(self.sampling.num_return_sequences).saturating_add(context);
        rows.saturating_mul(vocab_size).saturating_mul(size_of::<f32>())
    }

    fn check_beams(&self, limits: Limits) -> Result<(), RequestError> {
        let beam_width = self.sampling.beam_width;
        if beam_width == 1 {
            return Ok(());
        }
        let max_batch_size = limits.max_batch_size.min(limits.max_num_tokens);
        if beam_width > max_batch_size {
            return Err(RequestError::BeamWidth { beam_width, max_batch_size });
        }
        let excluded = [
            ("a guide", self.guided_decoding.is_some()),
            ("top_log_probs", self.output.top_log_probs > 0),
            ("return_generation_logits", self.output.return_generation_logits),
        ];
        match excluded.into_iter().find(|&(_, given)| given) {
            Some((second, _)) => Err(RequestError::Excluded { first: "a beam_width above 1", second }),
            None => Ok(()),
        }
    }
}

/// What is returned beside tokens. Log-probabilities are natural log-softmax of the raw logits, before temperature,
/// penalties and filters, at temperature 0 too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// The log-probability of each generated token.
    pub return_log_probs: bool,
    /// How many of the most probable tokens to return at each position, with their log-probabilities.
    pub top_log_probs: usize,
    /// The log-probability of each prompt token after the first.
    pub return_prompt_log_probs: bool,
    /// How many of the most probable tokens to return at the position of each prompt token after the first.
    pub prompt_top_log_probs: usize,
    /// With the prompt's log-probabilities: the rank of each of these tokens among all, from 1 for the most probable.
    pub return_prompt_ranks: bool,
    /// The raw logits of what follows each prompt token: prompt x vocabulary x 4 bytes.
    pub return_context_logits: bool,
    /// The raw logits that each token is chosen from, as the model gave them: before hooks, masks, penalties and temperature. Tokens
    /// x vocabulary x 4 bytes for each sequence. Not with a beam search.
    pub return_generation_logits: bool,
    /// How the request went, in its final response.
    pub return_perf_metrics: bool,
}

impl OutputConfig {
    /// Whether the logits of every prompt token are needed.
    pub fn needs_context_logits(&self) -> bool {
        self.return_prompt_log_probs || self.prompt_top_log_probs > 0 || self.return_context_logits
    }

    /// Whether the logits of every generated token are needed by an executor that gives no top log-probabilities itself.
    pub(crate) fn needs_generation_logits(&self) -> bool {
        self.top_log_probs > 0 || self.return_generation_logits
    }
}

/// Why a request cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No prompt.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// No token is allowed.
    #[error("allowed_token_ids is empty: no token could be generated; leave it out to allow all")]
    NoAllowedTokens,
    /// The prompt leaves no room in the engine.
    #[error(
        "the prompt has {}, but max_seq_len is {max_seq_len}, of which one is kept for the output: shorten the prompt, or run or build the engine with a larger max_seq_len", counted(*prompt, "token")
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// The engine's limit for prompt and output together.
        max_seq_len: usize,
    },
    /// A token that the model does not have.
    #[error("{what} {id} is outside the vocabulary: ids go from 0 to {}", vocab_size - 1)]
    UnknownToken {
        /// Where it was given: `prompt id`, `end id` and so on.
        what: &'static str,
        /// The id.
        id: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A stop or bad word of no tokens.
    #[error("a {what} has no tokens")]
    EmptyWord {
        /// `stop word` or `bad word`.
        what: &'static str,
    },
    /// A bias that is not a number.
    #[error("the embedding bias of token {id} must be a finite number, not {value}")]
    Bias {
        /// The token.
        id: TokenId,
        /// What was given.
        value: f32,
    },
    /// More sequences than beams.
    #[error("num_return_sequences is {asked}, but a beam search of beam_width {beam_width} has no more than that")]
    Sequences {
        /// What was asked for.
        asked: usize,
        /// The width.
        beam_width: usize,
    },
    /// More beams than run at once.
    #[error("beam_width is {beam_width}, but the executor runs {max_batch_size} sequences at once (max_batch_size)")]
    BeamWidth {
        /// What was asked for.
        beam_width: usize,
        /// The limit.
        max_batch_size: usize,
    },
    /// Two settings that exclude each other.
    #[error("{first} cannot be combined with {second}")]
    Excluded {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A sampling setting out of its range.
    #[error("{field} must be {range}, not {value}")]
    Sampling {
        /// The setting.
        field: &'static str,
        /// What is accepted.
        range: &'static str,
        /// What was given.
        value: f32,
    },
}

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    spec: RequestSpec,
    shortened: bool,
}

impl Request {
    /// Checks `spec` against an executor's limits and vocabulary. `max_tokens` is lowered to what fits into
    /// `max_seq_len` beside the prompt.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn new(mut spec: RequestSpec, limits: Limits, vocab_size: usize) -> Result<Self, RequestError> {
        let prompt = spec.input_token_ids.len();
        if prompt == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if spec.allowed_token_ids.as_ref().is_some_and(Vec::is_empty) {
            return Err(RequestError::NoAllowedTokens);
        }
        let room = limits.max_seq_len.saturating_sub(prompt);
        // Where nothing is generated the prompt may fill the window.
        if room == 0 && (spec.max_tokens > 0 || prompt > limits.max_seq_len) {
            return Err(RequestError::PromptTooLong { prompt, max_seq_len: limits.max_seq_len });
        }
        let allowed = spec.allowed_token_ids.as_deref().unwrap_or_default();
        for (what, ids) in
            [("prompt id", &spec.input_token_ids[..]), ("end id", &spec.end_ids), ("allowed token", allowed)]
        {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(RequestError::UnknownToken { what, id, vocab_size });
            }
        }
        for (what, of, words) in
            [("stop word", "stop word's id", &spec.stop_words), ("bad word", "bad word's id", &spec.bad_words)]
        {
            if words.iter().any(Vec::is_empty) {
                return Err(RequestError::EmptyWord { what });
            }
            if let Some(&id) = words.iter().flatten().find(|&&id| id as usize >= vocab_size) {
                return Err(RequestError::UnknownToken { what: of, id, vocab_size });
            }
        }
        if let Some(&(id, value)) = spec.embedding_bias.iter().find(|(_, value)| !value.is_finite()) {
            return Err(RequestError::Bias { id, value });
        }
        if let Some(&(id, _)) = spec.embedding_bias.iter().find(|&&(id, _)| id as usize >= vocab_size) {
            return Err(RequestError::UnknownToken { what: "biased token", id, vocab_size });
        }
        let retention = spec.kv_cache_retention.iter();
        let mut priorities =
            retention.flat_map(|keep| keep.ranges.iter().map(|range| range.priority).chain([keep.decode_priority]));
        if let Some(priority) = priorities.find(|&priority| priority > 100) {
            let value = f32::from(priority);
            return Err(RequestError::Sampling { field: "retention priority", range: "from 0 to 100", value });
        }
        if !(0.0..=1.0).contains(&spec.priority) {
            return Err(RequestError::Sampling { field: "priority", range: "from 0 to 1", value: spec.priority });
        }
        spec.sampling.validate()?;
        spec.check_beams(limits)?;
        let shortened = spec.max_tokens > room;
        spec.max_tokens = spec.max_tokens.min(room);
        Ok(Self { spec, shortened })
    }

    /// The same request, its tokens delivered as they are generated; beams stay as they are, which never stream.
    pub(crate) fn streamed(mut self) -> Self {
        self.spec.streaming |= self.spec.sampling.beam_width == 1;
        self
    }

    /// With a logits post-processor that is this request's alone.
    pub(crate) fn with_own_post_processor(mut self) -> Self {
        let hook = self.spec.logits_post_processor.take();
        self.spec.logits_post_processor = hook.map(LogitsPostProcessor::of_one_request);
        self
    }

    /// What was asked for, within the limits.
    pub fn spec(&self) -> &RequestSpec {
        &self.spec
    }

    /// Whether `max_tokens` had to be lowered.
    pub fn is_shortened(&self) -> bool {
        self.shortened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_seq_len: 10, max_batch_size: 1, max_num_tokens: 4 };

    fn check(change: impl FnOnce(&mut RequestSpec), expected: &str) {
        let mut spec = RequestSpec::new(vec![1, 2], 3);
        change(&mut spec);
        let error = Request::new(spec, LIMITS, 5).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn impossible_requests_name_the_limit() {
        check(|spec| spec.input_token_ids.clear(), "empty");
        check(|spec| spec.allowed_token_ids = Some(Vec::new()), "allowed_token_ids is empty");
        check(|spec| spec.allowed_token_ids = Some(vec![1, 5]), "allowed token 5");
        check(|spec| spec.input_token_ids = vec![1; 10], "max_seq_len is 10");
        check(|spec| spec.input_token_ids = vec![5], "prompt id 5");
        check(|spec| spec.end_ids = vec![7], "end id 7");
        check(|spec| spec.sampling.temperature = -1.0, "temperature");
        check(|spec| spec.sampling.temperature = f32::NAN, "temperature");
        check(|spec| spec.sampling.top_p = 1.5, "top_p");
        check(|spec| spec.sampling.min_p = -0.1, "min_p");
        check(|spec| spec.sampling.repetition_penalty = 0.0, "repetition_penalty");
    }

    #[test]
    fn a_long_output_is_shortened() {
        let request = Request::new(RequestSpec::new(vec![1; 8], 3), LIMITS, 5).unwrap();
        assert!(request.is_shortened());
        assert_eq!(request.spec().max_tokens, 2);
        assert!(!Request::new(RequestSpec::new(vec![1; 8], 2), LIMITS, 5).unwrap().is_shortened());
    }
}
