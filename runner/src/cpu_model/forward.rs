//! One forward pass: any number of sequences, each with any number of its next tokens.
//!
//! Activations are fp32 with an fp32 residual stream; what goes into a matrix product, and keys and values, are rounded
//! to bfloat16.
//!
//! A pass over `T` tokens multiplies each by every weight of the layers, and its attention reads the keys and values of all
//! tokens before it (of its window, where there is one). For few tokens the time is that of reading the weights once, for many
//! that of the products. [`CpuModel::logits`] costs `vocab_size * hidden` multiplications a row, and is asked for only where a
//! token is chosen or a prompt is scored. Buffers grow to the largest pass there was.

use cpu_kernels::{Attention, AttentionSequence, bf16};
use engine_format::ModelConfig;
use engine_format::error::counted;
use engine_format::rope::Rope;
use rayon::prelude::*;

use super::weights::{LayerWeights, Matrix};
use super::{CpuModel, KvCache, MemoryError};
use crate::executor::TokenId;
use crate::model::{ForwardError, Interrupted, StepSequence};

/// Rows of one task where rows are copied: fewer are not worth another thread.
const ROWS_PER_TASK: usize = 16;

/// Buffers of a forward pass, kept between passes.
#[derive(Debug, Default)]
pub struct ForwardPass {
    residual: Vec<f32>,
    normed: Vec<bf16>,
    wide: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    attended: Vec<bf16>,
    up: Vec<f32>,
    activated: Vec<bf16>,
    delta: Vec<f32>,
    rows: Vec<bf16>,
}

impl ForwardPass {
    /// Buffers with room for passes over `tokens` tokens and for logits of `rows` of them, so that no pass runs out of memory.
    /// The system gives the memory as it is first written.
    ///
    /// # Errors
    /// The system does not give that much address space.
    pub fn with_room(config: &ModelConfig, tokens: usize, rows: usize) -> Result<Self, MemoryError> {
        fn reserve<T>(buffer: &mut Vec<T>, rows: usize, width: usize, all: &mut u64) -> bool {
            let elements = rows.saturating_mul(width);
            *all = all.saturating_add((elements as u64).saturating_mul(size_of::<T>() as u64));
            buffer.try_reserve_exact(elements).is_ok()
        }
        let (mut pass, mut bytes) = (Self::default(), 0);
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let reserved = [
            reserve(&mut pass.residual, tokens, hidden, &mut bytes),
            reserve(&mut pass.normed, tokens, hidden, &mut bytes),
            reserve(&mut pass.wide, tokens, wide.max(config.qkv_size()), &mut bytes),
            reserve(&mut pass.queries, tokens, config.query_size(), &mut bytes),
            reserve(&mut pass.keys, tokens, config.key_value_size(), &mut bytes),
            reserve(&mut pass.attended, tokens, config.query_size(), &mut bytes),
            reserve(&mut pass.up, tokens, wide, &mut bytes),
            reserve(&mut pass.activated, tokens, wide, &mut bytes),
            reserve(&mut pass.delta, tokens.max(rows), hidden, &mut bytes),
            reserve(&mut pass.rows, rows, hidden, &mut bytes),
        ];
        if reserved.contains(&false) {
            return Err(MemoryError::refused(format!("room for {} in one step", counted(tokens, "token")), bytes));
        }
        Ok(pass)
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let of_f32 = [&self.residual, &self.wide, &self.queries, &self.keys, &self.up, &self.delta];
        let of_bf16 = [&self.normed, &self.attended, &self.activated, &self.rows];
        let bytes = of_f32.map(|buffer| buffer.capacity() * size_of::<f32>()).into_iter();
        bytes.chain(of_bf16.map(|buffer| buffer.capacity() * size_of::<bf16>())).sum::<usize>() as u64
    }
}

/// The first `length` elements of a buffer that grows when it has to. The content is left from before.
fn sized<T: bytemuck::Zeroable + Clone>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::zeroed());
    }
    &mut buffer[..length]
}

impl CpuModel {
    /// Runs all layers over the tokens of `sequences` and stores their keys and values in `cache`. The residual stream
    /// stays in `pass`, ready for [`CpuModel::logits`]. `interrupted` is asked before each layer.
    ///
    /// # Errors
    /// The pass was interrupted: what it left in `pass`, and in the places of its tokens in `cache`, is of no use.
    ///
    /// # Panics
    /// When a token is outside the vocabulary or a sequence's blocks do not cover its tokens; callers hold checked
    /// requests.
    pub fn forward(
        &self,
        pass: &mut ForwardPass,
        cache: &mut KvCache,
        sequences: &[StepSequence<'_>],
        interrupted: &mut Interrupted<'_>,
    ) -> Result<(), ForwardError> {
        self.pool.install(|| {
            let hidden = self.config.hidden_size;
            let tokens: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
            let residual = sized(&mut pass.residual, tokens * hidden);
            let row = sized(&mut pass.normed, hidden);
            let ids = sequences.iter().flat_map(|sequence| sequence.tokens);
            for (&id, out) in ids.zip(residual.chunks_exact_mut(hidden)) {
                self.weights.embed(id as usize, row);
                out.iter_mut().zip(&*row).for_each(|(out, value)| *out = value.to_f32());
            }
            let positions =
                sequences.iter().flat_map(|sequence| sequence.start..sequence.start + sequence.tokens.len());
            let (cos, sin) = Rope::tables(&self.inverse_frequencies, positions);
            for (index, layer) in self.weights.layers.iter().enumerate() {
                if interrupted() {
                    return Err(ForwardError::Interrupted);
                }
                self.attention_block(pass, cache, sequences, index, layer, (&cos, &sin));
                self.mlp_block(pass, tokens, layer);
            }
            Ok(())
        })
    }

    /// `residual += dense(attention(norm(residual)))`
    fn attention_block(
        &self,
        pass: &mut ForwardPass,
        cache: &mut KvCache,
        sequences: &[StepSequence<'_>],
        index: usize,
        layer: &LayerWeights,
        (cos, sin): (&[f32], &[f32]),
    ) {
        let config = &self.config;
        let (query_size, kv_size, head_size) = (config.query_size(), config.key_value_size(), config.head_size);
        let tokens = cos.len() / (head_size / 2);
        let residual = sized(&mut pass.residual, tokens * config.hidden_size);
        let normed = sized(&mut pass.normed, tokens * config.hidden_size);
        self.kernels.rms_norm(residual, self.weights.vector(&layer.input_norm), config.norm_epsilon, normed);
        let qkv = sized(&mut pass.wide, tokens * config.qkv_size());
        self.kernels.gemm_stacked(normed, &self.weights.stack(&layer.qkv), qkv);
        if let Some(bias) = &layer.qkv_bias {
            self.kernels.add_bias(qkv, self.weights.vector(bias));
        }

        let queries = sized(&mut pass.queries, tokens * query_size);
        let keys = sized(&mut pass.keys, tokens * kv_size);
        let targets = queries.par_chunks_exact_mut(query_size).zip(keys.par_chunks_exact_mut(kv_size));
        let copies = targets.zip(qkv.par_chunks_exact(config.qkv_size())).with_min_len(ROWS_PER_TASK);
        copies.for_each(|((query, key), row)| {
            query.copy_from_slice(&row[..query_size]);
            key.copy_from_slice(&row[query_size..][..kv_size]);
        });
        self.kernels.rope(queries, config.num_attention_heads, head_size, cos, sin);
        self.kernels.rope(keys, config.num_key_value_heads, head_size, cos, sin);
        cache.store(index, sequences, keys, qkv);

        let spans: Vec<_> = sequences
            .iter()
            .map(|step| AttentionSequence { tokens: step.tokens.len(), start: step.start, blocks: step.blocks })
            .collect();
        let attended = sized(&mut pass.attended, tokens * query_size);
        let attention = Attention {
            q: queries,
            keys: &cache.layer(index).keys,
            values: &cache.layer(index).values,
            sequences: &spans,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: head_size,
            tokens_per_block: cache.tokens_per_block(),
            dtype: cache.dtype(),
            scale: 1.0 / (head_size as f32).sqrt(),
            sliding_window: config.sliding_window,
        };
        self.kernels.attention(attention, attended);

        let delta = sized(&mut pass.delta, tokens * config.hidden_size);
        self.kernels.gemm(attended, self.weights.matrix(&layer.dense), delta);
        if let Some(bias) = &layer.dense_bias {
            self.kernels.add_bias(delta, self.weights.vector(bias));
        }
        self.kernels.add(residual, delta);
    }

    /// `residual += proj(silu(fc(h)) * gate(h))` with `h = norm(residual)`
    fn mlp_block(&self, pass: &mut ForwardPass, tokens: usize, layer: &LayerWeights) {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let residual = sized(&mut pass.residual, tokens * hidden);
        let normed = sized(&mut pass.normed, tokens * hidden);
        self.kernels.rms_norm(residual, self.weights.vector(&layer.post_norm), self.config.norm_epsilon, normed);
        let through_silu = sized(&mut pass.wide, tokens * wide);
        self.kernels.gemm(normed, self.weights.matrix(&layer.mlp_fc), through_silu);
        let linear = sized(&mut pass.up, tokens * wide);
        self.kernels.gemm(normed, self.weights.matrix(&layer.mlp_gate), linear);
        let activated = sized(&mut pass.activated, tokens * wide);
        self.kernels.swiglu(through_silu, linear, activated);
        let delta = sized(&mut pass.delta, tokens * hidden);
        self.kernels.gemm(activated, self.weights.matrix(&layer.mlp_proj), delta);
        self.kernels.add(residual, delta);
    }

    /// Logits after the last forward pass: `rows` are tokens of the pass, counted over all its sequences; the result in
    /// `out` is `[rows, vocab_size]`.
    pub fn logits<'a>(&self, pass: &mut ForwardPass, rows: &[usize], out: &'a mut Vec<f32>) -> &'a mut [f32] {
        let hidden = self.config.hidden_size;
        let logits = sized(out, rows.len() * self.config.vocab_size);
        let gathered = sized(&mut pass.delta, rows.len() * hidden);
        for (&row, gathered) in rows.iter().zip(gathered.chunks_exact_mut(hidden)) {
            gathered.copy_from_slice(&pass.residual[row * hidden..][..hidden]);
        }
        let normed = sized(&mut pass.rows, rows.len() * hidden);
        let lm_head: &Matrix = &self.weights.lm_head;
        self.pool.install(|| {
            let norm = self.weights.vector(&self.weights.final_norm);
            self.kernels.rms_norm(gathered, norm, self.config.norm_epsilon, normed);
            self.kernels.gemm(normed, self.weights.matrix(lm_head), logits);
        });
        logits
    }

    /// The natural log-probability of `token` under `logits`, which has one entry for each token of the vocabulary.
    pub fn log_prob(&self, logits: &[f32], token: TokenId) -> f32 {
        logits[token as usize] - self.kernels.log_sum_exp(logits)
    }
}
