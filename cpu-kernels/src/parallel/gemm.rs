//! How a matrix product is divided among threads.
//!
//! Each task is some panels of W times some rows of the activations, and writes its own rectangle of the output.
//! Each task reads its panels' weights at least once, and does 2 flops with each for each of its rows.
//! The division decides only who computes an element, never the order of its sum. Matrices whose outputs stand side by side are
//! divided at once: threads are woken once, and the activations are rounded once for each form that a matrix takes.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::instruction_set::InstructionSet;
use crate::packed::{Data, PANEL_COLUMNS, PackedMatrix, bf16_panels, padded_k};
use crate::quantized::Quantization;
use crate::quantized::rows::{QuantizedRows, Rows};
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

/// See [`crate::Kernels::gemm_stacked`], which has checked the sizes.
pub(crate) fn gemm<I: InstructionSet>(isa: I, a: &[bf16], weights: &[PackedMatrix<'_>], out: &mut [f32]) {
    let (n, k) = (weights.iter().map(PackedMatrix::n).sum::<usize>(), weights[0].k());
    for (a, out) in a.chunks(ROWS_AT_ONCE * k).zip(out.chunks_mut(ROWS_AT_ONCE * n)) {
        let operands = Operands::new(isa, a, k, weights);
        let rows = a.len() / k;
        let (mut tasks, mut right) = (Vec::new(), Submatrix::new(out, rows, n));
        for &weight in weights {
            let (out, rest) = right.split_columns(weight.n());
            right = rest;
            tasks.extend(divide(weight, out, operands.row_step(weight)));
        }
        let run = |task: Task<'_>| operands.multiply(isa, task);
        if tasks.len() > 1 && work(rows, n.div_ceil(PANEL_COLUMNS), padded_k(k)) >= INLINE_WORK {
            tasks.into_par_iter().with_max_len(1).for_each(run);
        } else {
            tasks.into_iter().for_each(run);
        }
    }
}

/// At most [`ROWS_AT_ONCE`] rows of activations, in each form that a matrix takes.
struct Operands<'a, I: InstructionSet> {
    plain: Option<Cow<'a, [I::Activation]>>,
    rounded: Vec<(Quantization, QuantizedRows)>,
}

impl<'a, I: InstructionSet> Operands<'a, I> {
    fn new(isa: I, a: &'a [bf16], k: usize, weights: &[PackedMatrix<'_>]) -> Self {
        let taken = |form| weights.iter().any(|weight| weight.quantization() == form);
        let plain = taken(None).then(|| isa.activations(a, k, padded_k(k)));
        let forms = Quantization::ALL.into_iter().filter(|&form| taken(Some(form)));
        Operands { plain, rounded: forms.map(|form| (form, QuantizedRows::new(isa, a, k, form))).collect() }
    }

    /// The rows for such codes.
    fn rounded(&self, quantization: Quantization) -> Rows<'_> {
        match self.rounded.iter().find(|(form, _)| *form == quantization) {
            Some((_, rows)) => rows.all(),
            None => unreachable!("rows are rounded for every matrix of the product"),
        }
    }

    /// What the first rows of tasks are multiples of.
    fn row_step(&self, weight: PackedMatrix<'_>) -> usize {
        weight.quantization().map_or(I::ROW_STEP, |quantization| self.rounded(quantization).group)
    }

    fn multiply(&self, isa: I, Task { weight, first_row, panels, out }: Task<'_>) {
        let rows = first_row..first_row + out.rows();
        match weight.data() {
            Data::Bf16(all) => {
                let (k, padded_k) = (weight.k(), padded_k(weight.k()));
                let all_rows = self.plain.as_deref().unwrap_or_default();
                let rows = &all_rows[rows.start * padded_k..rows.end * padded_k];
                isa.multiply(rows, padded_k, bf16_panels(all, k, panels.start, panels.end), out);
            }
            Data::Quantized(all) => {
                let rows = self.rounded(all.quantization()).range(rows.start, rows.end);
                isa.multiply_quantized(rows, all.range(panels.start, panels.end), out);
            }
        }
    }
}

/// Some panels of a matrix times some rows.
struct Task<'a> {
    weight: PackedMatrix<'a>,
    first_row: usize,
    panels: Range<usize>,
    out: Submatrix<'a, f32>,
}

/// The product with `weight` as tasks for all threads, whose first rows are multiples of `least_row_step`.
fn divide<'a>(
    weight: PackedMatrix<'a>,
    out: Submatrix<'a, f32>,
    least_row_step: usize,
) -> impl Iterator<Item = Task<'a>> {
    let panel_count = out.columns().div_ceil(PANEL_COLUMNS);
    let (row_step, panel_step) = steps(out.rows(), panel_count, padded_k(weight.k()), rayon::current_num_threads());
    let row_step = row_step.next_multiple_of(least_row_step);
    let parts_across = panel_count.div_ceil(panel_step);
    let parts = out.grid(row_step, panel_step * PANEL_COLUMNS).into_iter().enumerate();
    parts.map(move |(index, out)| {
        let first_panel = index % parts_across * panel_step;
        let panels = first_panel..first_panel + out.columns().div_ceil(PANEL_COLUMNS);
        Task { weight, first_row: index / parts_across * row_step, panels, out }
    })
}

/// Multiplications of `m` rows with `panels` panels.
fn work(m: usize, panels: usize, padded_k: usize) -> usize {
    m.saturating_mul(panels).saturating_mul(padded_k * PANEL_COLUMNS)
}

/// The rows and the panels of one task.
fn steps(m: usize, panels: usize, padded_k: usize, threads: usize) -> (usize, usize) {
    if threads == 1 || work(m, panels, padded_k) < INLINE_WORK {
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
