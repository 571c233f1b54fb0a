//! What a tile unit does: one block of a matrix product at a time.
//!
//! A step of two A tiles and two B tiles loads four tiles for four products of 8192 multiply-adds. One A tile and four
//! B tiles are five loads for four products.
//!
//! Tiles are as AMX has them. An A tile is up to 16 rows of 32 bf16, row-major; a B tile is 16 pairs of k by 16
//! columns, which is 1 KiB of the [`crate::packed`] layout; a C tile is up to 16 x 16 f32.

#![forbid(unsafe_code)]

use half::bf16;

use crate::packed::{K_TILE, PANEL_COLUMNS};
use crate::quantized::BLOCK;
use crate::submatrix::Submatrix;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Elements of a B tile.
pub(crate) const B_TILE: usize = K_TILE * PANEL_COLUMNS;

/// The most panels of a product whose rows fit one A tile. AMX has eight tiles: these are four sums, A, and two of B.
pub(crate) const PANELS_OF_ONE_TILE: usize = 4;

/// The most panels of a product of more rows, which take two A tiles: four sums, two of A and two of B.
pub(crate) const PANELS_OF_TWO_TILES: usize = 2;

/// out `[rows, 16 panels]` = a `[rows, 32 steps]` . b, plus `out` itself if it is accumulated.
///
/// For each element and step, the products of the even k are one chain of fused multiply-adds from zero, those of the
/// odd k another; their sum is added to the element. Every operation rounds to nearest, ties to even, and subnormal
/// operands and results are zero. (This is how Intel defines TDPBF16PS.)
pub(crate) struct TileProduct<'a> {
    /// The A tile of step s has its row r at `a[r * a_stride + s * a_step..]`.
    pub(crate) a: &'a [bf16],
    pub(crate) a_stride: usize,
    pub(crate) a_step: usize,
    /// The B tile of panel p and step s is `b[p * b_stride + s * B_TILE..][..B_TILE]`.
    pub(crate) b: &'a [bf16],
    pub(crate) b_stride: usize,
    pub(crate) steps: usize,
    pub(crate) out: Submatrix<'a, f32>,
    pub(crate) accumulate: bool,
}

impl TileProduct<'_> {
    /// The number of panels.
    ///
    /// # Panics
    /// If there are more or fewer rows or panels than one product takes, or an operand ends too early.
    #[inline(always)]
    pub(crate) fn check(&self) -> usize {
        let (rows, columns) = (self.out.rows(), self.out.columns());
        let panels = columns / PANEL_COLUMNS;
        let most = if rows > TILE_ROWS { PANELS_OF_TWO_TILES } else { PANELS_OF_ONE_TILE };
        assert!((1..=2 * TILE_ROWS).contains(&rows), "{rows} rows");
        assert!((1..=most).contains(&panels) && columns.is_multiple_of(PANEL_COLUMNS), "{columns} columns");
        assert!(self.steps > 0, "no steps");
        assert!(
            self.a.len() >= (rows - 1) * self.a_stride + (self.steps - 1) * self.a_step + K_TILE,
            "a ends too early"
        );
        assert!(self.b.len() >= (panels - 1) * self.b_stride + self.steps * B_TILE, "b ends too early");
        panels
    }
}

/// Bytes of a B tile of codes: eight quads of k by 16 columns, which is a block of [`crate::quantized`].
pub(crate) const CODE_TILE: usize = BLOCK * PANEL_COLUMNS;

/// For each block of 32 k, out `[rows, 16]` = a . b in 32-bit integers. Tiles are as AMX has them: an A tile is up to 16 rows
/// of 32 codes with a sign, a B tile eight quads of k by 16 columns of codes without.
pub(crate) struct CodeProduct<'a> {
    /// Row r of block i is `a[r * a_stride + 32 i..][..32]`.
    pub(crate) a: &'a [i8],
    pub(crate) a_stride: usize,
    /// At most 16.
    pub(crate) rows: usize,
    /// The B tile of block i is `b[i * CODE_TILE..][..CODE_TILE]`.
    pub(crate) b: &'a [u8],
    /// An even number of blocks. Rows from `rows` on are left as they are.
    pub(crate) out: &'a mut [[[i32; PANEL_COLUMNS]; TILE_ROWS]],
}

impl CodeProduct<'_> {
    /// # Panics
    /// If there are more or fewer rows or blocks than one product takes, or an operand ends too early.
    #[inline(always)]
    pub(crate) fn check(&self) {
        let blocks = self.out.len();
        assert!((1..=TILE_ROWS).contains(&self.rows), "{} rows", self.rows);
        assert!(blocks > 0 && blocks.is_multiple_of(2), "{blocks} blocks");
        assert!(self.a.len() >= (self.rows - 1) * self.a_stride + blocks * BLOCK, "a ends too early");
        assert!(self.b.len() >= blocks * CODE_TILE, "b ends too early");
    }
}

/// Hardware that multiplies tiles, or an imitation of it.
pub(crate) trait TileUnit: Copy + Send + Sync {
    /// The unit as one thread uses it for a while.
    type Session: TileSession;

    /// See [`crate::instruction_set::InstructionSet::code_instructions`].
    const CODE_INSTRUCTIONS: &'static str;

    /// Begins to use the unit in this thread.
    fn open(self) -> Self::Session;

    /// See [`crate::instruction_set::InstructionSet::multiply_adds`].
    fn multiply_adds(self, rounds: usize) -> u64;

    /// See [`crate::instruction_set::InstructionSet::code_multiply_adds`].
    fn code_multiply_adds(self, rounds: usize) -> u64;
}

/// See [`TileUnit::Session`].
pub(crate) trait TileSession {
    /// Computes one block.
    ///
    /// # Panics
    /// As [`TileProduct::check`].
    fn multiply(&mut self, product: TileProduct<'_>);

    /// Computes some blocks of codes.
    ///
    /// # Panics
    /// As [`CodeProduct::check`].
    fn multiply_codes(&mut self, product: CodeProduct<'_>);
}
