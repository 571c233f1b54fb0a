//! Keys and values of past tokens, in blocks from one pool.

use cpu_kernels::bf16;
use engine_format::ModelConfig;

/// Tokens of one block; TensorRT-LLM's default `tokens_per_block`.
pub const TOKENS_PER_BLOCK: usize = 32;

/// The pool: for each layer, keys and values of `[blocks, kv_heads, TOKENS_PER_BLOCK, head_size]` in bfloat16.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    num_blocks: usize,
    kv_heads: usize,
    head_size: usize,
}

#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) keys: Vec<bf16>,
    pub(super) values: Vec<bf16>,
}

impl KvCache {
    /// A pool for `tokens` tokens, rounded up to whole blocks. The system gives the memory as blocks are first written.
    pub fn new(config: &ModelConfig, tokens: usize) -> Self {
        let num_blocks = tokens.div_ceil(TOKENS_PER_BLOCK);
        let elements = num_blocks * TOKENS_PER_BLOCK * config.key_value_size();
        let pool = || bytemuck::allocation::zeroed_vec(elements);
        let layers = (0..config.num_hidden_layers).map(|_| LayerCache { keys: pool(), values: pool() }).collect();
        Self { layers, num_blocks, kv_heads: config.num_key_value_heads, head_size: config.head_size }
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Stores the key and value of one token, each `[kv_heads, head_size]`, at `position` of the sequence that owns
    /// `blocks`.
    pub(super) fn store(&mut self, layer: usize, blocks: &[u32], position: usize, key: &[f32], value: &[f32]) {
        let block = blocks[position / TOKENS_PER_BLOCK] as usize;
        let cache = &mut self.layers[layer];
        for head in 0..self.kv_heads {
            let row = (block * self.kv_heads + head) * TOKENS_PER_BLOCK + position % TOKENS_PER_BLOCK;
            let (to, from) = (row * self.head_size, head * self.head_size);
            let round = |to: &mut [bf16], from: &[f32]| {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = engine_format::dtype::round_to_bf16(from));
            };
            round(&mut cache.keys[to..to + self.head_size], &key[from..from + self.head_size]);
            round(&mut cache.values[to..to + self.head_size], &value[from..from + self.head_size]);
        }
    }
}
