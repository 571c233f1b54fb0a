//! What goes into an executor. Holding a [`Request`] means that it is valid for the executor whose limits it was
//! checked against.

use super::{Limits, TokenId};

/// What a request asks for, before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSpec {
    /// The prompt; at least one token.
    pub input_token_ids: Vec<TokenId>,
    /// Tokens to generate at most; at least one.
    pub max_tokens: usize,
    /// Any of these ends a sequence; the end id is part of the output.
    pub end_ids: Vec<TokenId>,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// What is returned beside tokens.
    pub output: OutputConfig,
    /// Whether tokens are delivered as they are generated, rather than all at the end.
    pub streaming: bool,
}

impl RequestSpec {
    /// A greedy, streaming request.
    pub fn new(input_token_ids: Vec<TokenId>, max_tokens: usize) -> Self {
        Self {
            input_token_ids,
            max_tokens,
            end_ids: Vec::new(),
            sampling: SamplingConfig::default(),
            output: OutputConfig::default(),
            streaming: true,
        }
    }
}

/// How tokens are chosen. Steps apply in this order: repetition penalty, temperature, top-k, top-p, min-p, draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Divides the logits; 0 is greedy: the best token, the lowest id among equals.
    pub temperature: f32,
    /// Keep the k best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest best tokens whose probabilities reach this sum; 1 keeps all, 0 the best only.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the best; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 changes nothing.
    pub repetition_penalty: f32,
    /// A draw depends on this and on the token's position in the sequence only.
    pub seed: u64,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// What is returned beside tokens. Log-probabilities are natural log-softmax of the raw logits, before temperature,
/// penalties and filters, at temperature 0 too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// The log-probability of each generated token.
    pub return_log_probs: bool,
    /// The log-probability of each prompt token after the first.
    pub return_prompt_log_probs: bool,
}

/// Why a request cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No prompt.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// Nothing asked for.
    #[error("max_tokens must be at least 1")]
    NoTokens,
    /// The prompt leaves no room in the engine.
    #[error(
        "the prompt has {prompt} tokens, but the engine's max_seq_len is {max_seq_len}, of which one is kept for the output"
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
        /// Where it was given: `prompt id` or `end id`.
        what: &'static str,
        /// The id.
        id: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
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
        if spec.max_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        let room = limits.max_seq_len.saturating_sub(prompt);
        if room == 0 {
            return Err(RequestError::PromptTooLong { prompt, max_seq_len: limits.max_seq_len });
        }
        for (what, ids) in [("prompt id", &spec.input_token_ids), ("end id", &spec.end_ids)] {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(RequestError::UnknownToken { what, id, vocab_size });
            }
        }
        spec.sampling.validate()?;
        let shortened = spec.max_tokens > room;
        spec.max_tokens = spec.max_tokens.min(room);
        Ok(Self { spec, shortened })
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

impl SamplingConfig {
    fn validate(&self) -> Result<(), RequestError> {
        let unit = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            (
                "temperature",
                "a number from 0",
                self.temperature,
                self.temperature >= 0.0 && self.temperature.is_finite(),
            ),
            ("top_p", "from 0 to 1", self.top_p, unit(self.top_p)),
            ("min_p", "from 0 to 1", self.min_p, unit(self.min_p)),
            (
                "repetition_penalty",
                "a number above 0",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
            ),
        ];
        match checks.into_iter().find(|&(.., holds)| !holds) {
            Some((field, range, value, _)) => Err(RequestError::Sampling { field, range, value }),
            None => Ok(()),
        }
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
        check(|spec| spec.max_tokens = 0, "at least 1");
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
