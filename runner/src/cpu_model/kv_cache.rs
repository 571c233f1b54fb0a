//! Keys and values of past tokens, in blocks from one pool.

use cpu_kernels::bf16;
use engine_format::ModelConfig;

/// The pool: for each layer, keys and values of `[blocks, kv_heads, tokens_per_block, head_size]` in bfloat16.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    num_blocks: usize,
    tokens_per_block: usize,
    kv_heads: usize,
    head_size: usize,
}

#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) keys: Vec<bf16>,
    pub(super) values: Vec<bf16>,
}

impl KvCache {
    /// A pool of so many blocks. The system gives the memory as blocks are first written.
    pub fn new(config: &ModelConfig, num_blocks: usize, tokens_per_block: usize) -> Self {
        let elements = num_blocks * tokens_per_block * config.key_value_size();
        let pool = || bytemuck::allocation::zeroed_vec(elements);
        let layers = (0..config.num_hidden_layers).map(|_| LayerCache { keys: pool(), values: pool() }).collect();
        let (kv_heads, head_size) = (config.num_key_value_heads, config.head_size);
        Self { layers, num_blocks, tokens_per_block, kv_heads, head_size }
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Tokens of one block.
    pub fn tokens_per_block(&self) -> usize {
        self.tokens_per_block
    }

    /// Copies a block's keys and values, in every layer.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let elements = self.kv_heads * self.tokens_per_block * self.head_size;
        let (from, to) = (from as usize * elements, to as usize * elements);
        for layer in &mut self.layers {
            layer.keys.copy_within(from..from + elements, to);
            layer.values.copy_within(from..from + elements, to);
        }
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Stores the key and value of one token, each `[kv_heads, head_size]`, at `position` of the sequence that owns
    /// `blocks`.
    pub(super) fn store(&mut self, layer: usize, blocks: &[u32], position: usize, key: &[f32], value: &[f32]) {
        let block = blocks[position / self.tokens_per_block] as usize;
        let cache = &mut self.layers[layer];
        for head in 0..self.kv_heads {
            let row = (block * self.kv_heads + head) * self.tokens_per_block + position % self.tokens_per_block;
            let (to, from) = (row * self.head_size, head * self.head_size);
            let round = |to: &mut [bf16], from: &[f32]| {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = engine_format::dtype::round_to_bf16(from));
            };
            round(&mut cache.keys[to..to + self.head_size], &key[from..from + self.head_size]);
            round(&mut cache.values[to..to + self.head_size], &value[from..from + self.head_size]);
        }
    }
}
