//! The documented semantics of TensorRT-LLM's GPTAttention plugin with packed tokens and a paged KV cache.
//!
//! Source: TensorRT-LLM 1.x, `docs/source/advanced/gpt-attention.md`, `gptAttentionPlugin.cpp` (order of inputs), and
//! `batch_manager/runtimeBuffers.cpp` (what the runtime puts into them).

use std::collections::HashMap;

use crate::interpreter::Arithmetic;
use crate::plan::{Data, Layer, Tensor};

/// Blocks by pool, layer in the pool and offset: `[kv_heads, tokens_per_block, head_size]`.
pub(crate) type Cache = HashMap<(i64, i64, i64), Vec<f32>>;

/// One attention layer over every request of the step.
pub(crate) fn attention(layer: &Layer, inputs: &[&Tensor], cache: &mut Cache, arithmetic: Arithmetic) -> Tensor {
    let [
        qkv,
        sequence_length,
        past_lengths,
        windows,
        _sink,
        context_lengths,
        _cache_indirection,
        request_types,
        _block_offsets,
        block_offsets,
        _pool_pointers,
        pool_mapping,
        inv_freq,
        cos_sin,
        host_context_lengths,
        _perf_knobs,
        _context_progress,
    ] = inputs
    else {
        panic!("{}: {} inputs", layer.name(), inputs.len());
    };
    let size = |name: &str| layer.scalar(name) as usize;
    let (heads, kv_heads, head) = (size("num_heads"), size("num_kv_heads"), size("head_size"));
    assert_eq!((size("rotary_embedding_dim"), inv_freq.shape.as_slice()), (head, &[head / 2][..]));
    assert_eq!((size("paged_kv_cache"), size("remove_input_padding"), size("mask_type")), (1, 1, 1));
    assert_eq!(context_lengths, host_context_lengths);
    let (block_tokens, layer_index) = (size("tokens_per_block"), size("layer_idx"));
    let (pool, layer_in_pool) = (pool_mapping.ints()[2 * layer_index], pool_mapping.ints()[2 * layer_index + 1]);
    let window = windows.ints()[layer_index] as usize;
    let scale = 1.0 / ((head as f32).sqrt() * layer.scalar("q_scaling") as f32);
    let [_, sequences, _, blocks] = block_offsets.shape[..] else { panic!("block offsets are of four dimensions") };
    let width = (heads + 2 * kv_heads) * head;
    assert_eq!(qkv.shape[1], width);

    let rotate = |vector: &[f32], position: usize| -> Vec<f32> {
        let half = head / 2;
        let angle =
            |i: usize| (cos_sin.floats()[(position * half + i) * 2], cos_sin.floats()[(position * half + i) * 2 + 1]);
        let element = |i: usize| {
            let (cos, sin) = angle(i % half);
            let rotated = if i < half { -vector[i + half] } else { vector[i - half] };
            arithmetic.round(vector[i] * cos + rotated * sin)
        };
        (0..head).map(element).collect()
    };
    let block_of = |sequence: usize, which: usize, position: usize| {
        let index = ((pool as usize * sequences + sequence) * 2 + which) * blocks + position / block_tokens;
        (pool, layer_in_pool, block_offsets.ints()[index])
    };
    let place = |kv_head: usize, position: usize| (kv_head * block_tokens + position % block_tokens) * head;

    let mut out = Vec::with_capacity(qkv.shape[0] * heads * head);
    let mut token = 0;
    for sequence in 0..sequences {
        let is_context = request_types.ints()[sequence] == 0;
        assert!(
            is_context || sequence + 1 == sequences || request_types.ints()[sequence + 1] == 1,
            "context comes first"
        );
        let count = if is_context { context_lengths.ints()[sequence] as usize } else { 1 };
        let past = past_lengths.ints()[sequence] as usize;
        assert_eq!(sequence_length.ints()[sequence] as usize, past + count);
        for position in past..past + count {
            let row = &qkv.floats()[token * width..(token + 1) * width];
            token += 1;
            let slice = |first: usize| &row[first * head..(first + 1) * head];
            for kv_head in 0..kv_heads {
                let key = rotate(slice(heads + kv_head), position);
                for (which, vector) in [(0, key.as_slice()), (1, slice(heads + kv_heads + kv_head))] {
                    let block = cache.entry(block_of(sequence, which, position));
                    let block = block.or_insert_with(|| vec![f32::NAN; kv_heads * block_tokens * head]);
                    block[place(kv_head, position)..][..head].copy_from_slice(vector);
                }
            }
            let first_key = (position + 1).saturating_sub(window);
            for query_head in 0..heads {
                let query = rotate(slice(query_head), position);
                let kv_head = query_head / (heads / kv_heads);
                let vector =
                    |which: usize, key: usize| &cache[&block_of(sequence, which, key)][place(kv_head, key)..][..head];
                let score = |key| query.iter().zip(vector(0, key)).map(|(q, k)| q * k).sum::<f32>() * scale;
                let scores: Vec<f32> = (first_key..=position).map(score).collect();
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f32 = weights.iter().sum();
                let mut mean = vec![0.0f32; head];
                for (weight, key) in weights.iter().zip(first_key..) {
                    mean.iter_mut().zip(vector(1, key)).for_each(|(sum, value)| *sum += weight * value);
                }
                out.extend(mean.into_iter().map(|sum| arithmetic.round(sum / total)));
            }
        }
    }
    assert_eq!(token, qkv.shape[0], "{}: every token belongs to a request", layer.name());
    Tensor { dtype: qkv.dtype.clone(), shape: vec![token, heads * head], data: Data::Floats(out) }
}
