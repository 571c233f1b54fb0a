//! How attention is divided among threads: some tokens of a sequence and one KV head are a task.
//!
//! The division decides only who computes a query row, never the order of its sums.

#![forbid(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use crate::attention::{Attention, QueryTile};
use crate::instruction_set::InstructionSet;
use crate::submatrix::Submatrix;

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
    let mut rest = Submatrix::new(out, tokens, args.heads * args.head_dim);
    let mut sequence_token = 0;
    for sequence in args.sequences {
        let (mut left, after) = rest.split_rows(sequence.tokens);
        rest = after;
        let mut done = 0;
        while done < sequence.tokens {
            let (rows, below) = left.split_rows((ROWS / group).max(1));
            left = below;
            let (first_token, first_position) = (sequence_token + done, sequence.start + done);
            done += rows.rows();
            let keys = first_position + 1 - args.first_visible(first_position);
            work = work.saturating_add(args.q.len() / tokens * rows.rows() * keys);
            for (kv_head, out) in rows.grid(ROWS, group * args.head_dim).into_iter().enumerate() {
                tiles.push(QueryTile {
                    args,
                    blocks: sequence.blocks,
                    first_token,
                    first_position,
                    kv_head,
                    group,
                    out,
                });
            }
        }
        sequence_token += sequence.tokens;
    }
    if tiles.len() > 1 && work >= INLINE_WORK && rayon::current_num_threads() > 1 {
        tiles.into_par_iter().with_max_len(1).for_each(|tile| isa.attend(tile));
    } else {
        tiles.into_iter().for_each(|tile| isa.attend(tile));
    }
}
