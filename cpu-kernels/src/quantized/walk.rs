//! In what order a product of codes is computed, for kernels that keep the sums of some rows and panels in registers.
//!
//! 2 m n k operations. The codes of W come from memory once a call. Up to as many rows as a kernel takes see each code once;
//! with more, k is cut so that the codes of some panels stay in the nearest caches while all rows pass by.

use super::rows::Rows;
use super::{BLOCK, Panels};
use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;

/// The blocks of one step, where several groups of rows share panels: 1024 k.
const BLOCKS_AT_ONCE: usize = 1024 / BLOCK;

/// Some rows, some panels, some blocks of k.
pub(crate) struct Step<'a> {
    pub(crate) rows: Rows<'a>,
    pub(crate) panels: Panels<'a>,
    /// The blocks that are multiplied.
    pub(crate) first: usize,
    pub(crate) end: usize,
    /// Where the result goes; it is added to what is there if `first` is not zero.
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// How many rows and panels a kernel takes at most, for a product of so many rows.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) panels: usize,
}

/// Calls `accumulate` for every step of out `[m, n]` = rows . W^T.
///
/// # Panics
/// If the sizes contradict one another.
#[inline(always)]
pub(crate) fn walk(
    rows: Rows<'_>,
    panels: Panels<'_>,
    mut out: Submatrix<'_, f32>,
    shape: Shape,
    mut accumulate: impl FnMut(&Step<'_>, &mut Submatrix<'_, f32>),
) {
    let (m, n, blocks) = (out.rows(), out.columns(), rows.blocks());
    assert!(rows.count() == m && rows.padded_k == panels.padded_k(), "activations");
    assert_eq!(panels.count(), n.div_ceil(PANEL_COLUMNS), "panels");
    let groups = m.div_ceil(shape.rows);
    let blocks_at_once = if groups > 1 { BLOCKS_AT_ONCE } else { blocks };
    for first in (0..blocks).step_by(blocks_at_once) {
        let end = blocks.min(first + blocks_at_once);
        for panel in (0..panels.count()).step_by(shape.panels) {
            let group = panels.range(panel, panels.count().min(panel + shape.panels));
            for index in 0..groups {
                let (row, last) = (index * m / groups, (index + 1) * m / groups);
                let rows = rows.range(row, last);
                let step = Step { rows, panels: group, first, end, row, column: panel * PANEL_COLUMNS };
                accumulate(&step, &mut out);
            }
        }
    }
}
