//! The rotary tables that every attention layer reads.
//!
//! Source: TensorRT-LLM 1.x, `functional.py` (`RopeEmbeddingUtils`): `rotary_inv_freq` `[head / 2]`, and `rotary_cos_sin`
//! `[1, positions * head]`, which is `[positions, head / 2, 2]` with a cosine and a sine in each pair. The frequencies are
//! those of the CPU engine and of Transformers, in fp32; upstream raises theta in double precision, at most one last bit apart.

use engine_format::ModelConfig;
use engine_format::rope::Rope;

use super::error::NetworkError;
use super::graph::Graph;
use super::ops::Value;
use super::tensor::TensorId;

/// The two tables' tensors.
#[derive(Debug, Clone, Copy)]
pub struct RotaryTables {
    /// `rotary_inv_freq`.
    pub inv_freq: TensorId,
    /// `rotary_cos_sin`.
    pub cos_sin: TensorId,
}

/// Adds both tables.
///
/// # Errors
/// None that a validated model has.
pub fn rotary_tables(graph: &mut Graph, config: &ModelConfig) -> Result<RotaryTables, NetworkError> {
    let frequencies = config.rope.inverse_frequencies(config.head_size);
    let (cos, sin) = Rope::tables(&frequencies, 0..config.max_position_embeddings);
    let cos_sin: Vec<f32> = cos.into_iter().zip(sin).flat_map(|(cos, sin)| [cos, sin]).collect();
    let (frequency_count, cos_sin_count) = (frequencies.len() as i64, cos_sin.len() as i64);
    Ok(RotaryTables {
        inv_freq: graph.constant("rotary_inv_freq".into(), vec![frequency_count], Value::Floats(frequencies))?,
        cos_sin: graph.constant("rotary_cos_sin".into(), vec![1, cos_sin_count], Value::Floats(cos_sin))?,
    })
}
