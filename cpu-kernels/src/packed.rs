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
//!
//! [`crate::quantized`] has the layout of integer codes; a [`PackedMatrix`] is either.

#![forbid(unsafe_code)]

use half::bf16;

use crate::quantized::{Panels, Quantization};

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
    #[error("a packed matrix of {n} x {k} has {expected} {unit}, not {found}")]
    Length {
        /// Output columns.
        n: usize,
        /// Inputs.
        k: usize,
        /// `elements`, or `bytes` of a quantized matrix.
        unit: &'static str,
        /// [`packed_len`]`(n, k)` or [`Quantization::packed_bytes`]`(n, k)`.
        expected: usize,
        /// Elements or bytes given.
        found: usize,
    },
}

/// A weight matrix W `[n, k]` in a packed layout, borrowed (usually from a mapped file).
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a> {
    data: Data<'a>,
    n: usize,
    k: usize,
}

/// What a packed matrix is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    Bf16(&'a [bf16]),
    Quantized(Panels<'a>),
}

impl<'a> PackedMatrix<'a> {
    /// Takes `data` as W `[n, k]`. Padding is assumed to be zeros, as [`pack_panels`] writes it.
    ///
    /// # Errors
    /// If a size is zero, or `data` has not exactly [`packed_len`]`(n, k)` elements.
    pub fn new(data: &'a [bf16], n: usize, k: usize) -> Result<Self, PackError> {
        check_len(n, k, packed_len(n, k), data.len(), "elements")?;
        Ok(PackedMatrix { data: Data::Bf16(data), n, k })
    }

    /// Takes `data` as W `[n, k]`, as [`Quantization::pack`] writes it.
    ///
    /// # Errors
    /// If a size is zero, or `data` has not exactly [`Quantization::packed_bytes`]`(n, k)` bytes.
    pub fn quantized(quantization: Quantization, data: &'a [u8], n: usize, k: usize) -> Result<Self, PackError> {
        check_len(n, k, quantization.packed_bytes(n, k), data.len(), "bytes")?;
        Ok(PackedMatrix { data: Data::Quantized(Panels::new(quantization, k, data)), n, k })
    }

    /// Output columns, at least 1.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs, at least 1.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How the weights are quantized; `None` where they are bf16.
    pub fn quantization(&self) -> Option<Quantization> {
        match self.data {
            Data::Bf16(_) => None,
            Data::Quantized(panels) => Some(panels.quantization()),
        }
    }

    /// Unpacks `W[n][..]`, rounded to bf16 where it is quantized (an embedding, where the table is shared with the output head).
    ///
    /// # Panics
    /// If `n` is not below [`Self::n`], or `out` has not [`Self::k`] elements.
    pub fn row(&self, n: usize, out: &mut [bf16]) {
        assert!(n < self.n, "row {n} of a packed matrix of {} rows", self.n);
        assert_eq!(out.len(), self.k, "out must hold one row of the packed matrix");
        let (panel, column) = (n / PANEL_COLUMNS, n % PANEL_COLUMNS);
        match self.data {
            Data::Bf16(panels) => {
                let panel = bf16_panels(panels, self.k, panel, panel + 1);
                for (out, pair) in out.chunks_mut(2).zip(panel.chunks_exact(2 * PANEL_COLUMNS)) {
                    out.copy_from_slice(&pair[2 * column..][..out.len()]);
                }
            }
            Data::Quantized(panels) => panels.dequantize(n, out),
        }
    }

    pub(crate) fn data(&self) -> Data<'a> {
        self.data
    }
}

/// Panels `first..end` of W over `k`.
pub(crate) fn bf16_panels(panels: &[bf16], k: usize, first: usize, end: usize) -> &[bf16] {
    let len = PANEL_COLUMNS * padded_k(k);
    &panels[first * len..end * len]
}

fn check_len(n: usize, k: usize, expected: Option<usize>, found: usize, unit: &'static str) -> Result<(), PackError> {
    if n == 0 || k == 0 {
        return Err(PackError::Empty { n, k });
    }
    let expected = expected.ok_or(PackError::TooLarge { n, k })?;
    if found == expected { Ok(()) } else { Err(PackError::Length { n, k, unit, expected, found }) }
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
