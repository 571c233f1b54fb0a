//! How tokens are chosen, in the terms of TensorRT-LLM's `SamplingConfig`.

use super::RequestError;

/// How tokens are chosen.
///
/// Steps apply in TensorRT-LLM's order: embedding bias, temperature, repetition, presence and frequency penalty,
/// minimum length, bad words and repeated n-grams, guide; then top-k, top-p, min-p and the draw. With `beam_width`
/// above 1 the filters and the draw give way to beam search.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Beams of a beam search; 1 for none.
    pub beam_width: usize,
    /// Divides the logits; 0 is greedy: the best token, the lowest id among equals.
    pub temperature: f32,
    /// Keep the k best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest best tokens whose probabilities reach this sum; 1 keeps all, 0 the best only.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the best; 0 keeps all.
    pub min_p: f32,
    /// A draw depends on this and on the token's position in the sequence only; sequence i of a request uses `seed + i`.
    pub seed: u64,
    /// End ids are not chosen before this many tokens were generated.
    pub min_tokens: usize,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens seen in prompt or output.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens seen in prompt or output, once for each time.
    pub frequency_penalty: f32,
    /// Tokens at the start of the prompt that presence and frequency penalties overlook.
    pub prompt_ignore_length: usize,
    /// No sequence of this many tokens occurs twice in prompt and output; 0 allows all.
    pub no_repeat_ngram_size: usize,
    /// Sequences to return. With `beam_width` above 1 at most that many, the best first.
    pub num_return_sequences: usize,
    /// A beam's score is its log-probability divided by its generated length to this power; above 0 favours long ones.
    pub length_penalty: f32,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
}

/// When a beam search ends. TensorRT-LLM's values 1, 0 and any other; Transformers' `True`, `False` and `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// As soon as `beam_width` beams have ended.
    #[default]
    Yes,
    /// When the best running beam, ending now, could not better the worst ended one.
    No,
    /// When no running beam could ever better the worst ended one.
    Never,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            beam_width: 1,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            min_tokens: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            prompt_ignore_length: 0,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            length_penalty: 0.0,
            early_stopping: EarlyStopping::default(),
        }
    }
}

impl SamplingConfig {
    /// Whether the best token is taken rather than drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1 || self.top_p == 0.0
    }

    pub(super) fn validate(&self) -> Result<(), RequestError> {
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
            ("presence_penalty", "a finite number", self.presence_penalty, self.presence_penalty.is_finite()),
            ("frequency_penalty", "a finite number", self.frequency_penalty, self.frequency_penalty.is_finite()),
            ("length_penalty", "a finite number", self.length_penalty, self.length_penalty.is_finite()),
        ];
        if let Some((field, range, value, _)) = checks.into_iter().find(|&(.., holds)| !holds) {
            return Err(RequestError::Sampling { field, range, value });
        }
        for (field, value) in [("beam_width", self.beam_width), ("num_return_sequences", self.num_return_sequences)] {
            if value == 0 {
                return Err(RequestError::Sampling { field, range: "at least 1", value: 0.0 });
            }
        }
        if self.beam_width > 1 && self.num_return_sequences > self.beam_width {
            return Err(RequestError::Sequences { asked: self.num_return_sequences, beam_width: self.beam_width });
        }
        Ok(())
    }
}
