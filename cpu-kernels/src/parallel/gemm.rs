//! How a matrix product is divided among threads.
//!
//! Each task is some panels of W times some rows of the activations, and writes its own rectangle of the output.
//! Each task reads its panels' weights at least once, and does 2 flops with each for each of its rows.
//! The division decides only who computes an element, never the order of its sum.

#![forbid(unsafe_code)]

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::instruction_set::InstructionSet;
use crate::packed::{Data, PANEL_COLUMNS, PackedMatrix, bf16_panels, padded_k};
use crate::quantized::rows::QuantizedRows;
use crate::submatrix::Submatrix;

/// Task boundaries are multiples of this many panels: what the widest kernel takes at a time.
const PANEL_STEP: usize = 4;

/// Fewer rows than this are never divided: a task would read its weights for too little work.
const MIN_ROWS: usize = 48;

/// Multiplications below which waking another thread takes longer than the work.
const INLINE_WORK: usize = 1 << 17;

/// Tasks for each thread: when one thread starts late, the others take over its tasks. All wait for the last one, so the more
/// there are, the shorter.
const TASKS_PER_THREAD: usize = 8;

/// Rows that are taken at a time: a multiple of every [`InstructionSet::ROW_STEP`], far more than it takes for
/// reading the weights to be a small part of the work, and so few that their activations, in whichever form, are
/// tens of megabytes at most.
const ROWS_AT_ONCE: usize = 480;

/// See [`crate::Kernels::gemm`], which has checked the sizes.
pub(crate) fn gemm<I: InstructionSet>(isa: I, a: &[bf16], weight: PackedMatrix<'_>, out: &mut [f32]) {
    let (n, k) = (weight.n(), weight.k());
    for (a, out) in a.chunks(ROWS_AT_ONCE * k).zip(out.chunks_mut(ROWS_AT_ONCE * n)) {
        multiply_rows(isa, a, weight, out);
    }
}

/// At most [`ROWS_AT_ONCE`] rows.
fn multiply_rows<I: InstructionSet>(isa: I, a: &[bf16], weight: PackedMatrix<'_>, out: &mut [f32]) {
    let (n, k) = (weight.n(), weight.k());
    let out = Submatrix::new(out, a.len() / k, n);
    match weight.data() {
        Data::Bf16(all) => {
            let padded_k = padded_k(k);
            let activations = isa.activations(a, k, padded_k);
            divide(out, padded_k, I::ROW_STEP, |first_row, panels, part| {
                let rows = &activations[first_row * padded_k..][..part.rows() * padded_k];
                isa.multiply(rows, padded_k, bf16_panels(all, k, panels.start, panels.end), part);
            });
        }
        Data::Quantized(all) => {
            let rows = QuantizedRows::new(isa, a, k, all.quantization());
            divide(out, all.padded_k(), rows.all().group, |first_row, panels, part| {
                let rows = rows.all().range(first_row, first_row + part.rows());
                isa.multiply_quantized(rows, all.range(panels.start, panels.end), part);
            });
        }
    }
}

/// Calls `run_part` for every part of `out`, on all threads: its first row, its panels and its place.
fn divide(
    out: Submatrix<'_, f32>,
    padded_k: usize,
    least_row_step: usize,
    run_part: impl Fn(usize, Range<usize>, Submatrix<'_, f32>) + Sync,
) {
    let panel_count = out.columns().div_ceil(PANEL_COLUMNS);
    let (row_step, panel_step) = steps(out.rows(), panel_count, padded_k, rayon::current_num_threads());
    let row_step = row_step.next_multiple_of(least_row_step);
    let parts_across = panel_count.div_ceil(panel_step);
    let run_part = |(index, part): (usize, Submatrix<'_, f32>)| {
        let first_panel = index % parts_across * panel_step;
        let panels = first_panel..first_panel + part.columns().div_ceil(PANEL_COLUMNS);
        run_part(index / parts_across * row_step, panels, part);
    };
    let parts = out.grid(row_step, panel_step * PANEL_COLUMNS);
    if parts.len() > 1 {
        parts.into_par_iter().enumerate().with_max_len(1).for_each(run_part);
    } else {
        parts.into_iter().enumerate().for_each(run_part);
    }
}

/// The rows and the panels of one task.
fn steps(m: usize, panels: usize, padded_k: usize, threads: usize) -> (usize, usize) {
    let work = m.saturating_mul(panels).saturating_mul(padded_k * PANEL_COLUMNS);
    if threads == 1 || work < INLINE_WORK {
        return (m.max(1), panels);
    }
    let tasks = threads * TASKS_PER_THREAD;
    let panel_step = panels.div_ceil(tasks).next_multiple_of(PANEL_STEP);
    let parts_across = panels.div_ceil(panel_step);
    // Narrow matrices leave threads without a column; then long inputs are cut into rows as well.
    let parts_down = if parts_across < threads { (m / MIN_ROWS).min(tasks.div_ceil(parts_across)).max(1) } else { 1 };
    (m.div_ceil(parts_down).max(1), panel_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_and_leave_no_thread_idle() {
        for m in [0, 1, 7, 48, 500, 5000] {
            for panels in [1, 3, 4, 64, 1000] {
                for threads in [1, 2, 64] {
                    let (rows, step) = steps(m, panels, 4096, threads);
                    assert!(rows >= 1 && step >= 1);
                    let tasks = m.div_ceil(rows) * panels.div_ceil(step);
                    assert!(tasks <= 2 * threads * TASKS_PER_THREAD + 1, "{m} x {panels} over {threads}: {tasks}");
                    let possible = (m / MIN_ROWS).max(1) * panels.div_ceil(PANEL_STEP);
                    assert!(m == 0 || tasks >= threads.min(possible), "{m} x {panels} over {threads}: {tasks}");
                }
            }
        }
    }
}
