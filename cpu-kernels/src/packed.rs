//! The layout of weights, the same for every instruction set and the same on disk as in memory.
//!
//! W `[n, k]` is cut into `ceil(n / 16)` *panels* of 16 output columns. A panel is a run of *pairs*: for each
//! two consecutive k, 16 columns times two bf16.
//!
//! ```text
//! element(panel p, pair i, column c, j) = W[16 p + c][2 i + j]      at  ((p * padded_k / 2 + i) * 16 + c) * 2 + j
//! ```
//!
//! k is padded with zeros to a multiple of 32 and n to a multiple of 16. A pair is one 64-byte register of
//! AVX-512 BF16's VDPBF16PS, and 16 pairs are one B tile of AMX's TDPBF16PS.

#![forbid(unsafe_code)]

use half::bf16;

/// Output columns in a panel.
pub const PANEL_COLUMNS: usize = 16;

/// k is padded to a multiple of this.
pub const K_TILE: usize = 32;

/// `k` rounded up to a multiple of [`K_TILE`].
///
/// # Panics
/// If the result does not fit a `usize`.
pub fn padded_k(k: usize) -> usize {
    k.next_multiple_of(K_TILE)
}

/// Elements that W `[n, k]` takes when packed, or `None` where that does not fit a `usize`.
pub fn packed_len(n: usize, k: usize) -> Option<usize> {
    let n = n.checked_next_multiple_of(PANEL_COLUMNS)?;
    n.checked_mul(k.checked_next_multiple_of(K_TILE)?)
}

/// Why some data is not the packed matrix that it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A dimension is zero.
    #[error("a packed matrix of {n} x {k} is empty: both sizes must be at least 1")]
    Empty {
        /// Output columns.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// The sizes overflow.
    #[error("a packed matrix of {n} x {k} is too large for this machine's address space")]
    TooLarge {
        /// Output columns.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// There is more or less data than the sizes say.
    #[error("a packed matrix of {n} x {k} has {expected} elements, not {found}")]
    Length {
        /// Output columns.
        n: usize,
        /// Inputs.
        k: usize,
        /// [`packed_len`]`(n, k)`.
        expected: usize,
        /// Elements given.
        found: usize,
    },
}

/// A weight matrix W `[n, k]` in the packed layout, borrowed (usually from a mapped file).
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a> {
    data: &'a [bf16],
    n: usize,
    k: usize,
}

impl<'a> PackedMatrix<'a> {
    /// Takes `data` as W `[n, k]`. Padding is assumed to be zeros, as [`pack_panels`] writes it.
    ///
    /// # Errors
    /// If a size is zero, or `data` has not exactly [`packed_len`]`(n, k)` elements.
    pub fn new(data: &'a [bf16], n: usize, k: usize) -> Result<Self, PackError> {
        if n == 0 || k == 0 {
            return Err(PackError::Empty { n, k });
        }
        let expected = packed_len(n, k).ok_or(PackError::TooLarge { n, k })?;
        if data.len() != expected {
            return Err(PackError::Length { n, k, expected, found: data.len() });
        }
        Ok(PackedMatrix { data, n, k })
    }

    /// Output columns, at least 1.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs, at least 1.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Unpacks `W[n][..]` (an embedding, where the table is shared with the output head).
    ///
    /// # Panics
    /// If `n` is not below [`Self::n`], or `out` has not [`Self::k`] elements.
    pub fn row(&self, n: usize, out: &mut [bf16]) {
        assert!(n < self.n, "row {n} of a packed matrix of {} rows", self.n);
        assert_eq!(out.len(), self.k, "out must hold one row of the packed matrix");
        let panel = self.panels(n / PANEL_COLUMNS, n / PANEL_COLUMNS + 1);
        let column = n % PANEL_COLUMNS;
        for (out, pair) in out.chunks_mut(2).zip(panel.chunks_exact(2 * PANEL_COLUMNS)) {
            out.copy_from_slice(&pair[2 * column..][..out.len()]);
        }
    }

    /// How many panels there are.
    pub(crate) fn panel_count(&self) -> usize {
        self.n.div_ceil(PANEL_COLUMNS)
    }

    /// The data of panels `first..end`.
    pub(crate) fn panels(&self, first: usize, end: usize) -> &'a [bf16] {
        let len = PANEL_COLUMNS * padded_k(self.k);
        &self.data[first * len..end * len]
    }
}

/// Packs some rows of W: `rows` is `[r, k]`, row-major, with any r; `out` gets `ceil(r / 16)` whole panels.
///
/// To pack a matrix in pieces, give every call but the last a multiple of 16 rows; the outputs follow one another.
/// Every element of `out` is written, padding included.
///
/// # Panics
/// If `k` is zero, `rows` is no whole number of rows, or `out` has not [`packed_len`]`(r, k)` elements.
pub fn pack_panels(rows: &[bf16], k: usize, out: &mut [bf16]) {
    assert!(k > 0, "k must be at least 1");
    assert!(rows.len().is_multiple_of(k), "rows must be whole rows of {k} elements, not {} in all", rows.len());
    let count = rows.len() / k;
    let expected = packed_len(count, k);
    assert_eq!(Some(out.len()), expected, "out must hold the packed panels of {count} rows of {k}");
    let panels = out.chunks_exact_mut(PANEL_COLUMNS * padded_k(k));
    for (rows, panel) in rows.chunks(PANEL_COLUMNS * k).zip(panels) {
        pack_panel(rows, k, panel);
    }
}

/// One tile is the panel's share of 32 k: 32 x 16 elements, so that each row is read a cache line at a time and
/// the strided writes stay within one KiB.
fn pack_panel(rows: &[bf16], k: usize, panel: &mut [bf16]) {
    for (index, tile) in panel.chunks_exact_mut(K_TILE * PANEL_COLUMNS).enumerate() {
        let first = index * K_TILE;
        let end = k.min(first + K_TILE);
        if rows.len() < PANEL_COLUMNS * k || end - first < K_TILE {
            tile.fill(bf16::ZERO);
        }
        for (column, row) in rows.chunks_exact(k).enumerate() {
            let row = &row[first..end];
            let mut pairs = row.chunks_exact(2);
            let mut slots = tile.chunks_exact_mut(2 * PANEL_COLUMNS);
            for (pair, slot) in pairs.by_ref().zip(slots.by_ref()) {
                slot[2 * column..][..2].copy_from_slice(pair);
            }
            if let ([last], Some(slot)) = (pairs.remainder(), slots.next()) {
                slot[2 * column] = *last;
            }
        }
    }
}
