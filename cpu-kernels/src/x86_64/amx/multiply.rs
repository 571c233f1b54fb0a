//! The instructions. Tiles 0 to 3 are sums, 4 and 5 rows of a, 6 and 7 panels of b.
//!
//! The configuration and nothing else is left in the unit between two pieces of assembly: each begins by loading its
//! sums or setting them to zero and ends by storing them.

use std::arch::asm;

use half::bf16;

use crate::tiled::tile_unit::{TILE_ROWS, TileProduct};

/// Bytes of a row of any tile.
const ROW: usize = 64;

/// Bytes of a row of b's tiles, and from one row of b to the next.
const B_ROW: usize = 64;

/// The rows of the tiles that hold a and the sums. With at most 16 rows in all, `lower` is `upper` and the sums of
/// four panels share the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) upper: u8,
    pub(super) lower: u8,
}

impl Shape {
    /// For this many rows, 1 to 32.
    pub(super) fn of(rows: usize) -> Shape {
        let upper = rows.min(TILE_ROWS);
        let lower = if rows > TILE_ROWS { rows - TILE_ROWS } else { upper };
        Shape { upper: upper as u8, lower: lower as u8 }
    }
}

/// What LDTILECFG reads: palette 1, the bytes of a row of each tile, and the rows of each.
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    pub(super) row_bytes: [u16; 16],
    pub(super) rows: [u8; 16],
}

impl Default for Configuration {
    /// No tiles.
    fn default() -> Self {
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] }
    }
}

impl Configuration {
    /// Configures the tiles of this thread.
    ///
    /// # Safety
    /// The CPU and the process must have AMX-TILE, and a tile has at most 16 rows of at most 64 bytes.
    pub(super) unsafe fn load(&self) {
        // SAFETY: the caller vouches for the instruction, which reads these 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly)) };
    }
}

/// Configures all tiles.
///
/// # Safety
/// The CPU and the process must have AMX-TILE, and rows must be 1 to 16.
pub(super) unsafe fn configure(shape: Shape) {
    let Shape { upper, lower } = shape;
    let mut configuration = Configuration::default();
    configuration.row_bytes[..8].fill(ROW as u16);
    configuration.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, 16, 16]);
    // SAFETY: the caller vouches for the instruction and the rows.
    unsafe { configuration.load() };
}

/// Asks for the panel's tile four steps on, for panels come from memory. Past the end of the weights this does nothing.
macro_rules! prefetch {
    ($b:ident) => {
        concat!(
            ".irp line,0,64,128,192,256,320,384,448,512,576,640,704,768,832,896,960\n",
            "prefetcht0 [{",
            stringify!($b),
            "} + 4096 + \\line]\n",
            ".endr"
        )
    };
}

/// At most 16 rows. For each panel: its number, which is that of its sums, the tile to load b into, and a name.
macro_rules! one_a_tile {
    ($operands:ident, $($panel:literal $tile:literal $b:ident),+) => {{
        $(let $b = $operands.b.wrapping_add($panel * $operands.b_next);)+
        asm!(
            $(concat!("tilezero tmm", $panel),)+
            "test {accumulate}, {accumulate}",
            "jz 2f",
            $(concat!("tileloadd tmm", $panel, ", [{c} + {c_row}*1 + 64*", $panel, "]"),)+
            "2:",
            "tileloadd tmm4, [{a} + {a_row}*1]",
            $(
                concat!("tileloadd tmm", $tile, ", [{", stringify!($b), "} + {b_row}*1]"),
                prefetch!($b),
                concat!("add {", stringify!($b), "}, 1024"),
                concat!("tdpbf16ps tmm", $panel, ", tmm4, tmm", $tile),
            )+
            "add {a}, {a_step}",
            "dec {steps}",
            "jnz 2b",
            $(concat!("tilestored [{c} + {c_row}*1 + 64*", $panel, "], tmm", $panel),)+
            $($b = inout(reg) $b => _,)+
            a = inout(reg) $operands.a => _,
            steps = inout(reg) $operands.steps => _,
            a_row = in(reg) $operands.a_row,
            a_step = in(reg) $operands.a_step,
            b_row = in(reg) B_ROW,
            c = in(reg) $operands.c,
            c_row = in(reg) $operands.c_row,
            accumulate = in(reg) $operands.accumulate,
            options(nostack),
        )
    }};
}

/// 17 to 32 rows. As `one_a_tile`, but each panel has upper sums and lower ones.
macro_rules! two_a_tiles {
    ($operands:ident, $($panel:literal $lower:literal $tile:literal $b:ident),+) => {{
        $(let $b = $operands.b.wrapping_add($panel * $operands.b_next);)+
        asm!(
            $(concat!("tilezero tmm", $panel), concat!("tilezero tmm", $lower),)+
            "test {accumulate}, {accumulate}",
            "jz 2f",
            $(
                concat!("tileloadd tmm", $panel, ", [{c} + {c_row}*1 + 64*", $panel, "]"),
                concat!("tileloadd tmm", $lower, ", [{d} + {c_row}*1 + 64*", $panel, "]"),
            )+
            "2:",
            "tileloadd tmm4, [{a} + {a_row}*1]",
            "tileloadd tmm5, [{a_lower} + {a_row}*1]",
            $(
                concat!("tileloadd tmm", $tile, ", [{", stringify!($b), "} + {b_row}*1]"),
                prefetch!($b),
                concat!("add {", stringify!($b), "}, 1024"),
                concat!("tdpbf16ps tmm", $panel, ", tmm4, tmm", $tile),
                concat!("tdpbf16ps tmm", $lower, ", tmm5, tmm", $tile),
            )+
            "add {a}, {a_step}",
            "add {a_lower}, {a_step}",
            "dec {steps}",
            "jnz 2b",
            $(
                concat!("tilestored [{c} + {c_row}*1 + 64*", $panel, "], tmm", $panel),
                concat!("tilestored [{d} + {c_row}*1 + 64*", $panel, "], tmm", $lower),
            )+
            $($b = inout(reg) $b => _,)+
            a = inout(reg) $operands.a => _,
            a_lower = inout(reg) $operands.a.wrapping_add(TILE_ROWS * $operands.a_row) => _,
            steps = inout(reg) $operands.steps => _,
            a_row = in(reg) $operands.a_row,
            a_step = in(reg) $operands.a_step,
            b_row = in(reg) B_ROW,
            c = in(reg) $operands.c,
            d = in(reg) $operands.c.wrapping_add(TILE_ROWS * $operands.c_row),
            c_row = in(reg) $operands.c_row,
            accumulate = in(reg) $operands.accumulate,
            options(nostack),
        )
    }};
}

/// A product as the instructions want it: addresses, and distances in bytes.
struct Operands {
    a: *const u8,
    a_row: usize,
    a_step: usize,
    b: *const u8,
    b_next: usize,
    c: *mut u8,
    c_row: usize,
    steps: usize,
    /// Not zero where the sums go on from what they were.
    accumulate: usize,
}

/// Computes one block.
///
/// # Safety
/// The CPU and the process must have AMX-TILE and AMX-BF16, the tiles must be configured for the rows of the product,
/// and `TileProduct::check` must have passed and given `panels`.
pub(super) unsafe fn multiply(product: TileProduct<'_>, panels: usize) {
    let TileProduct { a, a_stride, a_step, b, b_stride, steps, mut out, accumulate } = product;
    let operands = Operands {
        a: a.as_ptr().cast(),
        a_row: size_of::<bf16>() * a_stride,
        a_step: size_of::<bf16>() * a_step,
        b: b.as_ptr().cast(),
        b_next: size_of::<bf16>() * b_stride,
        c: out.as_mut_ptr().cast(),
        c_row: size_of::<f32>() * out.stride(),
        steps,
        accumulate: usize::from(accumulate),
    };
    // SAFETY: the caller vouches for the instructions and for the shape. By `check`, a has 64 bytes in each row of
    // each step, b `steps` times 1024 in each panel, and out 64 for each panel in each row; the tiles are configured
    // for as many rows as there are, and no other address is read or written (to prefetch is neither).
    unsafe {
        match (out.rows() > TILE_ROWS, panels) {
            (false, 1) => one_a_tile!(operands, 0 6 b0),
            (false, 2) => one_a_tile!(operands, 0 6 b0, 1 7 b1),
            (false, 3) => one_a_tile!(operands, 0 6 b0, 1 7 b1, 2 6 b2),
            (false, _) => one_a_tile!(operands, 0 6 b0, 1 7 b1, 2 6 b2, 3 7 b3),
            (true, 1) => two_a_tiles!(operands, 0 2 6 b0),
            (true, _) => two_a_tiles!(operands, 0 2 6 b0, 1 3 7 b1),
        }
    }
}

/// Stamps out a loop over tiles of zeros, four products with `$instruction` a round.
macro_rules! multiply_zeros {
    ($name:ident, $instruction:literal) => {
        /// Multiplies tiles of zeros.
        ///
        /// # Safety
        /// The CPU and the process must have AMX-TILE and the instruction, and all tiles must be configured with 16 rows.
        pub(super) unsafe fn $name(rounds: usize) {
            if rounds == 0 {
                return;
            }
            // SAFETY: the caller vouches for the instructions; no memory is touched.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    "tilezero tmm6",
                    "tilezero tmm7",
                    "2:",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "dec {}",
                    "jnz 2b",
                    inout(reg) rounds => _,
                    options(nostack, nomem),
                );
            }
        }
    };
}

multiply_zeros!(multiply_zeros, "tdpbf16ps");
multiply_zeros!(multiply_zero_codes, "tdpbsud");
