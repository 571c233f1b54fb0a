//! In what order a product of codes is computed, for kernels that keep the sums of a group of rows and some panels in
//! registers.
//!
//! 2 m n k operations. The codes of W come from memory once a call. One group of rows sees each code once; for more, k is cut
//! so that the codes of some panels stay in the first-level cache while all groups pass by, and what comes next is fetched
//! meanwhile.

use std::ops::Range;

use super::rows::Rows;
use super::{BLOCK, Panels};
use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;

/// The blocks of one step, where several groups of rows share panels: 1024 k.
const BLOCKS_AT_ONCE: usize = 1024 / BLOCK;

/// Up to so many codes of activations stay in the second-level cache while whole panels pass by. With more, only their share of
/// a step does.
const ROWS_IN_CACHE: usize = 1 << 18;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// How many bytes ahead of their use the codes are fetched that one group of rows reads: into the next page, whose address
/// takes time to find.
const AHEAD: usize = 4096;

/// Some rows, some panels, some blocks of k.
pub(crate) struct Step<'a> {
    /// One group.
    pub(crate) rows: Rows<'a>,
    pub(crate) panels: Panels<'a>,
    /// The blocks that are multiplied.
    pub(crate) first: usize,
    pub(crate) end: usize,
    /// Where the result goes; it is added to what is there if `first` is not zero.
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// What a kernel is to fetch ahead with each block: these cache lines of the codes that are so many bytes behind the
    /// block's.
    pub(crate) ahead: usize,
    pub(crate) lines: Range<usize>,
}

/// Calls `accumulate` for every step of out `[m, n]` = rows . W^T, with a group of rows and at most `panels_at_once`.
///
/// # Panics
/// If the sizes contradict one another.
#[inline(always)]
pub(crate) fn walk(
    rows: Rows<'_>,
    panels: Panels<'_>,
    mut out: Submatrix<'_, f32>,
    panels_at_once: usize,
    mut accumulate: impl FnMut(&Step<'_>, &mut Submatrix<'_, f32>),
) {
    let (m, n, blocks) = (out.rows(), out.columns(), rows.blocks());
    assert!(rows.count() == m && rows.padded_k == panels.padded_k(), "activations");
    assert_eq!(panels.count(), n.div_ceil(PANEL_COLUMNS), "panels");
    let groups = m.div_ceil(rows.group);
    let blocks_at_once = if groups > 1 { BLOCKS_AT_ONCE } else { blocks };
    let blocks_in_cache = if m * rows.padded_k <= ROWS_IN_CACHE { blocks } else { blocks_at_once };
    for first in (0..blocks).step_by(blocks_in_cache) {
        let of_k = first..blocks.min(first + blocks_in_cache);
        for panel in (0..panels.count()).step_by(panels_at_once) {
            let some = panels.range(panel, panels.count().min(panel + panels_at_once));
            for first in of_k.clone().step_by(blocks_at_once) {
                let end = of_k.end.min(first + blocks_at_once);
                for index in 0..groups {
                    let row = index * rows.group;
                    let (ahead, lines) = ahead(&some, &of_k, first..end, index, groups);
                    let rows = rows.range(row, m.min(row + rows.group));
                    let column = panel * PANEL_COLUMNS;
                    accumulate(&Step { rows, panels: some, first, end, row, column, ahead, lines }, &mut out);
                }
            }
        }
    }
}

/// What is fetched in a step, [`Step::ahead`] and [`Step::lines`]: of the blocks that come after `step`, each group of rows
/// fetches its share.
fn ahead(
    panels: &Panels<'_>,
    of_k: &Range<usize>,
    step: Range<usize>,
    index: usize,
    groups: usize,
) -> (usize, Range<usize>) {
    let code_bytes = panels.code_bytes();
    let lines = code_bytes / LINE;
    if groups == 1 {
        return (AHEAD, 0..lines);
    }
    let distance = if step.end < of_k.end {
        step.len() * code_bytes
    } else {
        // The first blocks of the panels behind these.
        (panels.bytes().len()).wrapping_sub((step.start - of_k.start) * code_bytes)
    };
    (distance, (index * lines).div_ceil(groups)..((index + 1) * lines).div_ceil(groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantized::Quantization;

    /// The groups of a step together fetch each line of the next step's codes once.
    #[test]
    fn what_comes_next_is_fetched() {
        for quantization in Quantization::ALL {
            for (m, group, k, n) in [(9, 3, 2200, 70), (40, 8, 2048, 40), (200, 8, 1100, 16)] {
                let bytes = vec![0; quantization.packed_bytes(n, k).unwrap()];
                let panels = Panels::new(quantization, k, &bytes);
                let (padded_k, panel_bytes) = (panels.padded_k(), panels.places().panel_bytes);
                let (codes, scales) = (vec![0; m * padded_k], vec![0.0; m * padded_k / BLOCK]);
                let offsets = vec![0; scales.len()];
                let rows = Rows { padded_k, group, codes: &codes, scales: &scales, offsets: &offsets };
                let mut out = vec![0.0; m * n];
                let mut steps = Vec::new();
                walk(rows, panels, Submatrix::new(&mut out, m, n), 2, |step, _| {
                    let place = step.column / PANEL_COLUMNS * panel_bytes + step.first * panels.code_bytes();
                    steps.push((step.row, place, step.ahead, step.lines.clone()));
                });
                let of_groups: Vec<_> = steps.chunk_by(|a, b| a.1 == b.1).collect();
                assert!(of_groups.len() > 1, "one step");
                for (some, next) in of_groups.iter().zip(&of_groups[1..]) {
                    assert!(some.iter().map(|step| step.0).eq((0..m).step_by(group)), "rows");
                    let lines: Vec<usize> = some.iter().flat_map(|step| step.3.clone()).collect();
                    assert!(lines.into_iter().eq(0..panels.code_bytes() / LINE), "lines");
                    let found = some.iter().all(|step| step.1.wrapping_add(step.2) == next[0].1);
                    assert!(found || next[0].1 < some[0].1, "{some:?} before {next:?}");
                }
            }
        }
    }
}
