//! Attention over a paged KV cache as a problem: the arguments, their checks, and the piece that one thread computes.
//!
//! A *query row* is one head of one token: `head_dim` elements. It takes 2 `head_dim` multiply-adds for each key that
//! it sees. The keys and values of a KV head are read once for each piece, so a piece of R rows does R multiply-adds
//! for each bf16 that it reads.
//!
//! Keys are cut into *parts* at multiples of [`PART`]. The softmax of a row begins anew in each of them, and what they
//! gave is added up in their order, whoever computed them: so parts may be computed at once, and the bits tell nothing of it.

#![forbid(unsafe_code)]

use std::ops::Range;

use half::bf16;

use crate::generic::attention_products::SLICE;
use crate::kv_layout::{KvDtype, KvLayout};

/// Keys of a part, a multiple of the keys that are taken at a time: 512 KiB of a head of 128, far more than a task costs.
pub(crate) const PART: usize = 1024;

/// Queries and the cache that they attend to. One call serves context and generation, in any mixture.
///
/// Query heads are shared out among the KV heads in order: query head h reads KV head
/// h / (heads / kv_heads). The keys and values of the query tokens are in the cache already.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `[tokens, heads, head_dim]`, rotary embedding applied; the tokens of all sequences, one after another.
    pub q: &'a [f32],
    /// One layer's keys: `[blocks, kv_heads]` pages, see [`KvLayout`].
    pub keys: &'a [bf16],
    /// One layer's values, in as many pages.
    pub values: &'a [bf16],
    /// Whose tokens `q` holds, in order.
    pub sequences: &'a [AttentionSequence<'a>],
    /// Query heads: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads in the cache.
    pub kv_heads: usize,
    /// Elements of a head: even.
    pub head_dim: usize,
    /// Tokens in a block of the cache, at least 1.
    pub tokens_per_block: usize,
    /// What keys and values are.
    pub dtype: KvDtype,
    /// What q . k is multiplied by, usually 1 / sqrt(head_dim).
    pub scale: f32,
    /// With a window of W, the query at position i attends to positions i - W + 1 to i; otherwise from 0.
    pub sliding_window: Option<usize>,
}

/// One sequence's share of the queries.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSequence<'a> {
    /// Query tokens.
    pub tokens: usize,
    /// The position of the first of them.
    pub start: usize,
    /// The cache blocks of the sequence, from position 0: position i is in `blocks[i / tokens_per_block]`.
    /// Entries that lie wholly before the window of the first query are not read and may be anything.
    pub blocks: &'a [u32],
}

impl Attention<'_> {
    /// How pages are laid out.
    #[inline(always)]
    pub(crate) fn layout(&self) -> KvLayout {
        let Attention { head_dim, tokens_per_block, dtype, .. } = *self;
        KvLayout { head_dim, tokens_per_block, dtype }
    }

    /// The first position that the query at `position` sees.
    #[inline(always)]
    pub(crate) fn first_visible(&self, position: usize) -> usize {
        self.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The number of query tokens.
    ///
    /// # Panics
    /// If anything in these arguments or the length of the output contradicts something else.
    pub(crate) fn check(&self, out: usize) -> usize {
        let Attention { heads, kv_heads, head_dim, tokens_per_block, .. } = *self;
        assert!(kv_heads > 0 && heads > 0, "attention needs heads");
        assert!(heads.is_multiple_of(kv_heads), "{heads} query heads cannot share {kv_heads} KV heads");
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "head_dim must be even, not {head_dim}");
        assert!(tokens_per_block > 0, "tokens_per_block must be at least 1");
        assert!(self.sliding_window != Some(0), "a sliding window must hold at least 1 token");

        let token = checked_product([1, 1, heads, head_dim]);
        let tokens = self.sequences.iter().try_fold(0_usize, |sum, sequence| sum.checked_add(sequence.tokens));
        let expected = tokens.and_then(|tokens| tokens.checked_mul(token));
        assert_eq!(Some(self.q.len()), expected, "q must hold the tokens of all sequences");
        assert_eq!(self.q.len(), out, "out must be as long as q");

        checked_product([1, kv_heads, tokens_per_block, head_dim]);
        let block = kv_heads * self.layout().page_len();
        assert!(self.keys.len().is_multiple_of(block), "keys must be whole blocks of {block} words");
        assert_eq!(self.keys.len(), self.values.len(), "keys and values must be of one length");
        for (index, sequence) in self.sequences.iter().enumerate() {
            self.check_blocks(index, sequence, self.keys.len() / block);
        }
        self.q.len() / token
    }

    fn check_blocks(&self, index: usize, sequence: &AttentionSequence<'_>, pool: usize) {
        if sequence.tokens == 0 {
            return;
        }
        let Some(end) = sequence.start.checked_add(sequence.tokens) else {
            panic!("sequence {index} starts at position {}, which leaves no room for its tokens", sequence.start)
        };
        let needed = end.div_ceil(self.tokens_per_block);
        let given = sequence.blocks.len();
        assert!(given >= needed, "sequence {index} ends at position {end}: that takes {needed} blocks, not {given}");
        let first = self.first_visible(sequence.start) / self.tokens_per_block;
        for block in &sequence.blocks[first..needed] {
            assert!((*block as usize) < pool, "sequence {index} names block {block} of a pool of {pool}");
        }
    }
}

fn checked_product(sizes: [usize; 4]) -> usize {
    let product = sizes.into_iter().try_fold(1_usize, usize::checked_mul);
    assert!(product.is_some(), "{sizes:?} elements are more than memory can hold");
    product.unwrap_or_default()
}

/// Some consecutive tokens of one sequence, and the query heads of one KV head.
///
/// Its query rows are numbered token by token, and within a token in the order of the heads.
///
/// Invariant: [`Attention::check`] has passed, so that the tokens' queries are in `args.q` and every block that a row
/// sees is in `blocks` and in the pool.
pub(crate) struct QueryTile<'a> {
    pub(crate) args: Attention<'a>,
    /// The block table of the sequence.
    pub(crate) blocks: &'a [u32],
    /// Tokens, at least 1.
    pub(crate) tokens: usize,
    /// The first token's index in `args.q`.
    pub(crate) first_token: usize,
    /// The first token's position in the sequence.
    pub(crate) first_position: usize,
    pub(crate) kv_head: usize,
    /// Query heads that share a KV head: `heads / kv_heads`.
    pub(crate) group: usize,
}

impl QueryTile<'_> {
    /// Query rows: tokens times heads of the group.
    pub(crate) fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// The queries in slices of 32 elements `[parts, slices, rows, 32]`, scaled, then converted; zeros at the end.
    pub(crate) fn scaled_queries<T: Copy + Default>(
        &self,
        parts: usize,
        convert: impl Fn(f32, usize) -> T,
    ) -> Vec<[T; SLICE]> {
        let Attention { q, heads, head_dim, scale, .. } = self.args;
        let (token_len, group_len) = (heads * head_dim, self.group * head_dim);
        let (rows, slices) = (self.rows(), head_dim.div_ceil(SLICE));
        let mut queries = vec![[T::default(); SLICE]; parts * slices * rows];
        let tokens = q[self.first_token * token_len..][..self.tokens * token_len].chunks_exact(token_len);
        let heads = tokens.flat_map(|token| token[self.kv_head * group_len..][..group_len].chunks_exact(head_dim));
        for (row, head) in heads.enumerate() {
            for part in 0..parts {
                for (slice, elements) in head.chunks(SLICE).enumerate() {
                    let out = &mut queries[(part * slices + slice) * rows + row];
                    out.iter_mut().zip(elements).for_each(|(out, x)| *out = convert(x * scale, part));
                }
            }
        }
        queries
    }

    /// The positions that any of the rows sees, cut into parts.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let (start, end) = (self.args.first_visible(self.first_position), self.first_position + self.tokens);
        (start / PART..end.div_ceil(PART)).map(move |part| start.max(part * PART)..end.min((part + 1) * PART))
    }

    /// Which of the `keys` positions from `base` on a query row sees, counted from `base`; empty where it sees none.
    #[inline(always)]
    pub(crate) fn visible_to(&self, row: usize, base: usize, keys: usize) -> Range<usize> {
        let position = self.first_position + row / self.group;
        let end = (position + 1).saturating_sub(base).min(keys);
        self.args.first_visible(position).saturating_sub(base).min(end)..end
    }

    /// Whether every row sees all of the `keys` positions from `base` on.
    #[inline(always)]
    pub(crate) fn all_see(&self, base: usize, keys: usize) -> bool {
        let last = self.first_position + self.tokens - 1;
        base + keys <= self.first_position + 1 && self.args.first_visible(last) <= base
    }

    /// How pages are laid out.
    #[inline(always)]
    pub(crate) fn layout(&self) -> KvLayout {
        self.args.layout()
    }

    /// The page that holds a position: where it begins in `args.keys` and in `args.values`, and the position's slot.
    #[inline(always)]
    pub(crate) fn page(&self, position: usize) -> (usize, usize) {
        let Attention { kv_heads, tokens_per_block, .. } = self.args;
        let block = self.blocks[position / tokens_per_block] as usize;
        ((block * kv_heads + self.kv_head) * self.layout().page_len(), position % tokens_per_block)
    }
}
