//! How attention is divided among threads: some tokens of a sequence and one KV head are a tile. Where there are few tiles,
//! each part of the keys is a task of its own; otherwise a tile is one, which takes its parts in turn.
//!
//! The division decides only who computes what, never the order of a row's sums.

#![forbid(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use crate::attention::{Attention, QueryTile};
use crate::generic::attention::{Merge, Partial, Quotients};
use crate::instruction_set::InstructionSet;
use crate::submatrix::Submatrix;

/// Query rows (tokens times heads that share a KV head) of one tile: enough that reading a block of the cache is a small part
/// of the work, few enough that everything stays in the second-level cache.
const ROWS: usize = 64;

/// Multiplications below which waking another thread takes longer than the work.
const INLINE_WORK: usize = 1 << 17;

/// With fewer tiles for each thread, parts are tasks. What they give waits in memory to be added up: for few tiles, that is
/// little.
const TILES_PER_THREAD: usize = 4;

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
            let tokens_of_tile = rows.rows();
            done += tokens_of_tile;
            let keys = first_position + 1 - args.first_visible(first_position);
            work = work.saturating_add(args.q.len() / tokens * tokens_of_tile * keys);
            for (kv_head, out) in rows.grid(ROWS, group * args.head_dim).into_iter().enumerate() {
                let tile = QueryTile {
                    args,
                    blocks: sequence.blocks,
                    tokens: tokens_of_tile,
                    first_token,
                    first_position,
                    kv_head,
                    group,
                };
                tiles.push((tile, out));
            }
        }
        sequence_token += sequence.tokens;
    }
    let threads = rayon::current_num_threads();
    if threads == 1 || work < INLINE_WORK {
        tiles.into_iter().for_each(|(tile, out)| attend_in_turn(isa, &tile, out));
    } else if tiles.len() < TILES_PER_THREAD * threads {
        tiles.into_par_iter().with_max_len(1).for_each(|(tile, out)| attend_at_once(isa, &tile, out));
    } else {
        tiles.into_par_iter().with_max_len(1).for_each(|(tile, out)| attend_in_turn(isa, &tile, out));
    }
}

/// Computes the parts of a tile one after another.
fn attend_in_turn<I: InstructionSet>(isa: I, tile: &QueryTile<'_>, out: Submatrix<'_, bf16>) {
    finish(isa, tile, tile.parts().map(|part| isa.attend(tile, part)), out);
}

/// Computes the parts of a tile on all threads.
fn attend_at_once<I: InstructionSet>(isa: I, tile: &QueryTile<'_>, out: Submatrix<'_, bf16>) {
    let parts: Vec<_> = tile.parts().collect();
    let partials: Vec<_> = parts.into_par_iter().with_max_len(1).map(|part| isa.attend(tile, part)).collect();
    finish(isa, tile, partials.into_iter(), out);
}

/// Adds parts up in their order and writes what the tile comes to.
fn finish<I: InstructionSet>(
    isa: I,
    tile: &QueryTile<'_>,
    partials: impl Iterator<Item = Partial>,
    out: Submatrix<'_, bf16>,
) {
    let whole = partials.reduce(|mut whole, next| {
        isa.vectorize(Merge { whole: &mut whole, next: &next });
        whole
    });
    if let Some(partial) = &whole {
        isa.vectorize(Quotients { partial, tile, out });
    }
}
