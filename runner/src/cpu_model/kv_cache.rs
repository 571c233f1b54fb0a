//! Keys and values of past tokens, in blocks from one pool.
//!
//! Storing costs one rounding and one write an element; finding the blocks of a pass costs a sort of them, once a layer.

use cpu_kernels::{KvDtype, KvLayout, bf16};
use engine_format::ModelConfig;
use engine_format::error::counted;
use rayon::prelude::*;

use super::MemoryError;
use crate::executor::KvCacheDtype;
use crate::model::{BlockId, StepSequence};

/// The pool: for each layer, `[blocks, kv_heads]` pages of keys and as many of values, in words of 16 bits. [`KvLayout`] says what
/// is where in a page.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    num_blocks: usize,
    kv_heads: usize,
    layout: KvLayout,
}

/// How a page of a cache is laid out.
fn layout(config: &ModelConfig, dtype: KvCacheDtype, tokens_per_block: usize) -> KvLayout {
    let dtype = match dtype {
        KvCacheDtype::Bf16 => KvDtype::Bf16,
        KvCacheDtype::Int8 => KvDtype::Int8,
    };
    KvLayout { head_dim: config.head_size, tokens_per_block, dtype }
}

/// Bytes of the KV cache of one token, over all layers.
pub fn bytes_per_token(config: &ModelConfig, dtype: KvCacheDtype) -> usize {
    let words = layout(config, dtype, 1).page_len();
    2 * config.num_hidden_layers * config.num_key_value_heads * words * size_of::<bf16>()
}

#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) keys: Vec<bf16>,
    pub(super) values: Vec<bf16>,
}

impl KvCache {
    /// A pool of so many blocks. The system gives the memory as blocks are first written.
    ///
    /// # Errors
    /// The system does not give that much address space.
    pub fn new(
        config: &ModelConfig,
        dtype: KvCacheDtype,
        num_blocks: usize,
        tokens_per_block: usize,
    ) -> Result<Self, MemoryError> {
        let tokens = num_blocks.saturating_mul(tokens_per_block);
        let kv_heads = config.num_key_value_heads;
        let layout = layout(config, dtype, tokens_per_block);
        let words = num_blocks.saturating_mul(kv_heads.saturating_mul(layout.page_len()));
        let refused = || {
            let bytes = (tokens as u64).saturating_mul(bytes_per_token(config, dtype) as u64);
            MemoryError::refused(format!("the KV cache of {}", counted(tokens, "token")), bytes)
        };
        let pool = || bytemuck::allocation::try_zeroed_vec(words).map_err(|()| refused());
        let layer = |_| Ok(LayerCache { keys: pool()?, values: pool()? });
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?;
        Ok(Self { layers, num_blocks, kv_heads, layout })
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Tokens of one block.
    pub fn tokens_per_block(&self) -> usize {
        self.layout.tokens_per_block
    }

    /// Bytes of one block, over all layers.
    pub fn bytes_per_block(&self) -> usize {
        2 * self.layers.len() * self.kv_heads * self.layout.page_len() * size_of::<bf16>()
    }

    pub(super) fn dtype(&self) -> KvDtype {
        self.layout.dtype
    }

    /// Copies a block's keys and values, in every layer.
    pub fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let elements = self.kv_heads * self.layout.page_len();
        let (from, to) = (from as usize * elements, to as usize * elements);
        for layer in &mut self.layers {
            layer.keys.copy_within(from..from + elements, to);
            layer.values.copy_within(from..from + elements, to);
        }
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Stores the keys and values of the tokens of `sequences`, one sequence after another. Keys are `[tokens,
    /// kv_heads * head_size]`; `values` has a row for each token, whose last `kv_heads * head_size` elements they are.
    pub(super) fn store(&mut self, layer: usize, sequences: &[StepSequence<'_>], keys: &[f32], values: &[f32]) {
        let pieces = self.pieces(sequences);
        let (layout, width) = (self.layout, self.kv_heads * self.layout.head_dim);
        let row_width = values.len() / (keys.len() / width);
        let cache = &mut self.layers[layer];
        let written = pieces.iter().map(|piece| piece.block);
        let slab = self.kv_heads * layout.page_len();
        let key_slabs = select(&mut cache.keys, slab, written.clone());
        let value_slabs = select(&mut cache.values, slab, written);
        let store = |(piece, (key_slab, value_slab)): (&Piece, (&mut [bf16], &mut [bf16]))| {
            let pages =
                key_slab.chunks_exact_mut(layout.page_len()).zip(value_slab.chunks_exact_mut(layout.page_len()));
            for ((key_page, value_page), column) in pages.zip((0..).step_by(layout.head_dim)) {
                for (row, slot) in (piece.row..piece.row + piece.tokens).zip(piece.slot..) {
                    layout.store_key(key_page, slot, &keys[row * width + column..][..layout.head_dim]);
                    let value = &values[(row + 1) * row_width - width + column..][..layout.head_dim];
                    layout.store_value(value_page, slot, value);
                }
            }
        };
        let work: Vec<_> = pieces.iter().zip(key_slabs.into_iter().zip(value_slabs)).collect();
        if keys.len() >= PARALLEL_ELEMENTS {
            work.into_par_iter().for_each(store);
        } else {
            work.into_iter().for_each(store);
        }
    }

    /// The tokens of `sequences` by the block that they are stored in, in the order of blocks.
    fn pieces(&self, sequences: &[StepSequence<'_>]) -> Vec<Piece> {
        let (mut pieces, mut row) = (Vec::new(), 0);
        for sequence in sequences {
            let mut position = sequence.start;
            let end = sequence.start + sequence.tokens.len();
            while position < end {
                let (index, slot) = (position / self.tokens_per_block(), position % self.tokens_per_block());
                let tokens = (end - position).min(self.tokens_per_block() - slot);
                pieces.push(Piece { block: sequence.blocks[index], slot, row, tokens });
                position += tokens;
                row += tokens;
            }
        }
        pieces.sort_unstable_by_key(|piece| piece.block);
        pieces
    }
}

/// Elements below which waking another thread takes longer than storing them.
const PARALLEL_ELEMENTS: usize = 1 << 14;

/// Consecutive tokens of one sequence that are stored in one block.
struct Piece {
    block: BlockId,
    /// The first token's place in the block.
    slot: usize,
    /// The first token's row.
    row: usize,
    tokens: usize,
}

/// The blocks of `pool`, each of `slab` elements, that `blocks` names: rising, none twice.
fn select(pool: &mut [bf16], slab: usize, blocks: impl Iterator<Item = BlockId>) -> Vec<&mut [bf16]> {
    let (mut rest, mut passed) = (pool, 0);
    blocks
        .map(|block| {
            let (_, from) = std::mem::take(&mut rest).split_at_mut((block as usize - passed) * slab);
            let (this, after) = from.split_at_mut(slab);
            (rest, passed) = (after, block as usize + 1);
            this
        })
        .collect()
}
