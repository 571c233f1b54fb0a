//! Attention over a paged KV cache: the arguments, their checks, and the division among threads.

#![forbid(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use crate::generic::attention::QueryTile;
use crate::instruction_set::InstructionSet;
use crate::tile::Tile;

/// Queries and the cache that they attend to. One call serves context and generation, in any mixture.
///
/// Query heads are shared out among the KV heads in order: query head h reads KV head
/// h / (heads / kv_heads). The keys and values of the query tokens are in the cache already.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `[tokens, heads, head_dim]`, rotary embedding applied; the tokens of all sequences, one after another.
    pub q: &'a [f32],
    /// One layer's keys: `[blocks, kv_heads, tokens_per_block, head_dim]`.
    pub keys: &'a [bf16],
    /// One layer's values, in the same shape as the keys.
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
    /// The first position that the query at `position` sees.
    #[inline(always)]
    pub(crate) fn first_visible(&self, position: usize) -> usize {
        self.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The number of query tokens.
    ///
    /// # Panics
    /// If anything in these arguments or the length of the output contradicts something else.
    fn check(&self, out: usize) -> usize {
        let Attention { heads, kv_heads, head_dim, tokens_per_block, .. } = *self;
        assert!(kv_heads > 0 && heads > 0, "attention needs heads");
        assert!(heads.is_multiple_of(kv_heads), "{heads} query heads cannot share {kv_heads} KV heads");
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "head_dim must be even, not {head_dim}");
        assert!(tokens_per_block > 0, "tokens_per_block must be at least 1");
        assert!(self.sliding_window != Some(0), "a sliding window must hold at least 1 token");

        let token = product([1, 1, heads, head_dim]);
        let tokens = self.sequences.iter().try_fold(0_usize, |sum, sequence| sum.checked_add(sequence.tokens));
        let expected = tokens.and_then(|tokens| tokens.checked_mul(token));
        assert_eq!(Some(self.q.len()), expected, "q must hold the tokens of all sequences");
        assert_eq!(self.q.len(), out, "out must be as long as q");

        let block = product([1, kv_heads, tokens_per_block, head_dim]);
        assert!(self.keys.len().is_multiple_of(block), "keys must be whole blocks of {block} elements");
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

fn product(sizes: [usize; 4]) -> usize {
    let product = sizes.into_iter().try_fold(1_usize, usize::checked_mul);
    assert!(product.is_some(), "{sizes:?} elements are more than memory can hold");
    product.unwrap_or_default()
}

/// Query rows (tokens times heads that share a KV head) of one task: enough that converting a block of the cache
/// is a small part of the work, few enough that everything stays in the second-level cache.
const ROWS: usize = 64;

/// Multiplications below which waking another thread takes longer than the work.
const INLINE_WORK: usize = 1 << 17;

/// See [`crate::Kernels::attention`].
pub(crate) fn attention<I: InstructionSet>(isa: I, args: Attention<'_>, out: &mut [bf16]) {
    let tokens = args.check(out.len());
    let group = args.heads / args.kv_heads;
    let mut tiles = Vec::new();
    let mut work = 0_usize;
    let mut rest = Tile::new(out, tokens, args.heads * args.head_dim);
    let mut first_token = 0;
    for sequence in args.sequences {
        let (mut left, below) = rest.split_rows(sequence.tokens);
        rest = below;
        let mut done = 0;
        while done < sequence.tokens {
            let (rows, below) = left.split_rows((ROWS / group).max(1));
            left = below;
            let (token, start) = (first_token + done, sequence.start + done);
            done += rows.rows();
            work = work.saturating_add(args.q.len() / tokens * rows.rows() * (start + 1 - args.first_visible(start)));
            for (kv_head, out) in rows.grid(ROWS, group * args.head_dim).into_iter().enumerate() {
                tiles.push(QueryTile { args, blocks: sequence.blocks, token, start, kv_head, out });
            }
        }
        first_token += sequence.tokens;
    }
    if tiles.len() > 1 && work >= INLINE_WORK && rayon::current_num_threads() > 1 {
        tiles.into_par_iter().with_max_len(1).for_each(|tile| isa.attend(tile));
    } else {
        tiles.into_iter().for_each(|tile| isa.attend(tile));
    }
}
