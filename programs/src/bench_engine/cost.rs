//! What a run has to do at least: operations and bytes that follow from the model, whatever program runs it.
//!
//! With P weights in the layers' matrices, H in the head, and per layer and query head of size D:
//!
//! - a token costs 2 P operations, and 4 D for each key that it sees (query by key, weight by value), in each layer and
//!   for each query head;
//! - a token whose logits are needed costs 2 H more: every generated one, and the last of each prompt;
//! - a step reads every weight once, all but the embedding's table, as the engine stores it;
//! - a generation token reads the keys and values of all positions that it sees.
//!
//! How many keys the tokens see follows from the lengths of prompts and outputs. It is a sum over the run; an iteration
//! gets its part by its number of tokens. What a prompt's later chunks read of earlier ones is left out, and a prefix
//! taken from the cache makes the tokens that are left look cheaper than they are: the shares are then a little low.

use engine_format::weights_file::WEIGHTS_FILE;
use engine_format::{EngineDir, FormatError, ModelConfig, Weight};

use super::timings::Served;
use runner::executor::IterationStats;

const BF16_BYTES: f64 = 2.0;

/// The model's sizes that costs follow from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelCost {
    layer_matrices: f64,
    head: f64,
    step_bytes: f64,
    kv_bytes_per_token: f64,
    flops_per_key: f64,
    window: usize,
}

/// Operations and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Work {
    /// Multiplications and additions.
    pub flops: f64,
    /// Bytes read of weights, keys and values.
    pub bytes: f64,
}

/// What one token of a run costs on average.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TokenCost {
    step_bytes: f64,
    context: Work,
    generation: Work,
}

impl ModelCost {
    /// Of an engine that stores its weights, keys and values in bfloat16.
    pub(super) fn new(config: &ModelConfig) -> Self {
        let size = |weight: &Weight| weight.shape(config).iter().product::<usize>() as f64;
        let weights = Weight::all(config);
        let is_matrix = |weight: &&Weight| weight.layer().is_some() && weight.shape(config).len() == 2;
        Self {
            layer_matrices: weights.iter().filter(is_matrix).map(size).sum(),
            head: size(&Weight::LmHead),
            step_bytes: weights.iter().filter(|weight| **weight != Weight::Embedding).map(size).sum::<f64>()
                * BF16_BYTES,
            kv_bytes_per_token: config.kv_bytes_per_token() as f64,
            flops_per_key: (4 * config.query_size() * config.num_hidden_layers) as f64,
            window: config.sliding_window.unwrap_or(usize::MAX),
        }
    }

    /// Of the engine `dir`, whose weights file, where it has one, says what is read.
    ///
    /// # Errors
    /// A weights file that does not hold.
    pub(super) fn of_engine(dir: &EngineDir) -> Result<Self, FormatError> {
        let cost = Self::new(dir.config());
        if dir.manifest().files.contains_key(WEIGHTS_FILE) {
            let weights = dir.weights()?;
            let read = weights.tensors().filter(|entry| entry.name != Weight::Embedding.name(0));
            let step_bytes = read.map(|entry| entry.bytes as f64).sum();
            return Ok(Self { step_bytes, ..cost });
        }
        Ok(cost)
    }

    /// The same with what a token takes in the KV cache of a run.
    pub(super) fn with_kv_bytes_per_token(self, kv_bytes_per_token: f64) -> Self {
        Self { kv_bytes_per_token, ..self }
    }

    /// Bytes of weights that every step reads.
    pub(super) fn step_bytes(&self) -> f64 {
        self.step_bytes
    }

    /// Keys that the tokens at positions `from..to` see, in sum, in one layer.
    fn keys(&self, from: usize, to: usize) -> f64 {
        // Sum of 1 to n, where the token at position p sees p + 1 keys, and all later ones the window.
        let triangle = |n: usize| n as f64 * (n as f64 + 1.0) / 2.0;
        let below_window = |n: usize| n.min(self.window);
        let full = |from: usize, to: usize| (to - from) as f64 * self.window as f64;
        triangle(below_window(to)) - triangle(below_window(from))
            + if to > self.window { full(from.max(self.window), to) } else { 0.0 }
    }

    /// The average costs of a run's tokens.
    pub(super) fn of_tokens(&self, served: &[Served]) -> TokenCost {
        let (mut context_keys, mut generation_keys, mut context_tokens, mut generation_tokens) = (0.0, 0.0, 0.0, 0.0);
        for request in served {
            let (prompt, output) = (request.prompt_tokens, request.token_times.len());
            context_keys += self.keys(0, prompt);
            context_tokens += prompt as f64;
            // The first token comes out of the context phase, and the last one is never put in.
            generation_keys += self.keys(prompt, prompt + output.saturating_sub(1));
            generation_tokens += output.saturating_sub(1) as f64;
        }
        let mean = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        let token = 2.0 * self.layer_matrices;
        let logits_per_context_token = mean(served.len() as f64, context_tokens);
        let (context_keys, generation_keys) =
            (mean(context_keys, context_tokens), mean(generation_keys, generation_tokens));
        TokenCost {
            step_bytes: self.step_bytes(),
            context: Work {
                flops: token + self.flops_per_key * context_keys + 2.0 * self.head * logits_per_context_token,
                bytes: 0.0,
            },
            generation: Work {
                flops: token + self.flops_per_key * generation_keys + 2.0 * self.head,
                bytes: self.kv_bytes_per_token * generation_keys,
            },
        }
    }
}

impl TokenCost {
    /// What an iteration has to do.
    pub(super) fn of_iteration(&self, stats: &IterationStats) -> Work {
        let batch = &stats.inflight_batching;
        let (context, generation) = (batch.num_ctx_tokens as f64, batch.num_gen_requests as f64);
        Work {
            flops: context * self.context.flops + generation * self.generation.flops,
            bytes: self.step_bytes + context * self.context.bytes + generation * self.generation.bytes,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use engine_format::model_config::Architecture;
    use engine_format::rope::{Rope, RopeScaling};

    use super::*;

    pub(in super::super) fn tiny() -> (ModelConfig, ModelCost) {
        (config(None), ModelCost::new(&config(None)))
    }

    fn config(sliding_window: Option<usize>) -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Mistral,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_size: 4,
            intermediate_size: 10,
            vocab_size: 100,
            max_position_embeddings: 64,
            norm_epsilon: 1e-5,
            attention_bias: false,
            tie_word_embeddings: false,
            sliding_window,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None },
        }
    }

    #[test]
    fn costs_are_those_of_the_matrices() {
        let cost = ModelCost::new(&config(None));
        // QKV (16 + 2 * 8) x 8, dense 8 x 16, three MLP matrices of 80; two layers.
        assert_eq!(cost.layer_matrices, 2.0 * (256.0 + 128.0 + 240.0));
        assert_eq!(cost.head, 800.0);
        // Five norms of 8 besides.
        assert_eq!(cost.step_bytes(), 2.0 * (1248.0 + 800.0 + 40.0));
        assert_eq!(cost.kv_bytes_per_token, 2.0 * 2.0 * 8.0 * 2.0);
        assert_eq!(cost.flops_per_key, 4.0 * 16.0 * 2.0);
    }

    #[test]
    fn keys_are_counted_as_a_loop_would() {
        for window in [None, Some(1), Some(5), Some(40)] {
            let cost = ModelCost::new(&config(window));
            for (from, to) in [(0, 0), (0, 1), (0, 12), (3, 9), (7, 30), (5, 6), (20, 20)] {
                let expected: usize = (from..to).map(|position| (position + 1).min(window.unwrap_or(99))).sum();
                assert_eq!(cost.keys(from, to), expected as f64, "{window:?} {from}..{to}");
            }
        }
    }

    #[test]
    fn iterations_together_do_the_work_of_the_requests() {
        let cost = ModelCost::new(&config(None));
        let request = |prompt_tokens, output| Served {
            arrival: Duration::ZERO,
            prompt_tokens,
            token_times: vec![Duration::ZERO; output],
        };
        let tokens = cost.of_tokens(&[request(3, 2), request(5, 1)]);
        let context = 8.0 * 2.0 * 1248.0 + 128.0 * (6.0 + 15.0) + 2.0 * 1600.0;
        assert!((8.0 * tokens.context.flops - context).abs() < 1e-6);
        // One generation token, which sees four keys.
        assert_eq!(tokens.generation, Work { flops: 2.0 * 1248.0 + 128.0 * 4.0 + 1600.0, bytes: 64.0 * 4.0 });
    }
}
