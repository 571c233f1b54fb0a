//! The instructions for codes. Tiles 0 and 1 are sums of two blocks, 4 and 5 their rows of a, 6 and 7 their codes of b.
//!
//! The configuration and nothing else is left in the unit between two pieces of assembly.

use std::arch::asm;

use super::multiply::Configuration;
use crate::tiled::tile_unit::CodeProduct;

/// Bytes of a row of a's tiles: the k of a block.
const A_ROW: u16 = 32;

/// Bytes of a row of any other tile, and from one row of b, or of the sums, to the next.
const ROW: u16 = 64;

/// Rows of b's tiles: the quads of a block.
const B_ROWS: u8 = 8;

/// Configures all tiles for this many rows.
///
/// # Safety
/// The CPU and the process must have AMX-TILE, and rows must be 1 to 16.
pub(super) unsafe fn configure(rows: u8) {
    let mut configuration = Configuration::default();
    configuration.row_bytes[..8].copy_from_slice(&[ROW, ROW, 0, 0, A_ROW, A_ROW, ROW, ROW]);
    configuration.rows[..8].copy_from_slice(&[rows, rows, 0, 0, rows, rows, B_ROWS, B_ROWS]);
    // SAFETY: the caller vouches for the instruction and the rows.
    unsafe { configuration.load() };
}

/// Computes some blocks, two at a time.
///
/// # Safety
/// The CPU and the process must have AMX-TILE and AMX-INT8, the tiles must be configured for the rows of the product, and
/// `CodeProduct::check` must have passed.
pub(super) unsafe fn multiply(product: CodeProduct<'_>) {
    let CodeProduct { a, a_stride, b, out, .. } = product;
    // SAFETY: the caller vouches for the instructions and for the shape. By `check`, there is an even number of blocks, at
    // least two; a has 32 bytes for each in every row, b 512 and out 1024; no other address is read or written.
    unsafe {
        asm!(
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{a} + {a_row}*1]",
            "tileloadd tmm6, [{b} + {row}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {a_row}*1 + 32]",
            "tileloadd tmm7, [{b} + {row}*1 + 512]",
            "tdpbsud tmm1, tmm5, tmm7",
            "tilestored [{c} + {row}*1], tmm0",
            "tilestored [{c} + {row}*1 + 1024], tmm1",
            "add {a}, 64",
            "add {b}, 1024",
            "add {c}, 2048",
            "dec {pairs}",
            "jnz 2b",
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            c = inout(reg) out.as_mut_ptr() => _,
            pairs = inout(reg) out.len() / 2 => _,
            a_row = in(reg) a_stride,
            row = in(reg) usize::from(ROW),
            options(nostack),
        );
    }
}
