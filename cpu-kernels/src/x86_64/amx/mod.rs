//! AMX: tiles of bf16, multiplied by TDPBF16PS, and tiles of codes, multiplied by TDPBSUD.
//!
//! The compiler has no stable intrinsics for tiles and never uses a tile register itself, so the instructions are
//! written out; [`multiply`] has those of bf16 and [`codes`] those of codes.

mod codes;
mod multiply;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use super::avx512::Avx512;
use crate::tiled::Tiled;
use crate::tiled::tile_unit::{CodeProduct, TileProduct, TileSession, TileUnit};
use multiply::Shape;

/// AMX for the products, AVX-512 for the rest.
pub(crate) type AmxAvx512 = Tiled<Amx, Avx512>;

/// Proof that this CPU has AMX-TILE, AMX-BF16 and AMX-INT8 and that its operating system lets this process use them.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    /// # Errors
    /// What is missing.
    pub(crate) fn new() -> Result<Self, &'static str> {
        const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & NEEDED != NEEDED {
            return Err("this CPU lacks AMX-TILE, AMX-BF16 or AMX-INT8");
        }
        if !is_x86_feature_detected!("avx512f") {
            return Err("this CPU or its operating system lacks AVX-512");
        }
        // SAFETY: AVX-512 was detected, which implies that XGETBV may be used.
        if unsafe { enabled_state() } & TILE_STATE != TILE_STATE {
            return Err("the operating system lacks support for AMX tiles (XCR0 bits 17 and 18)");
        }
        if request_tile_data() != 0 {
            return Err(
                "this process lacks the kernel's permission for AMX tile data (arch_prctl ARCH_REQ_XCOMP_PERM)",
            );
        }
        Ok(Amx(()))
    }
}

/// XTILECFG and XTILEDATA.
const TILE_STATE: u64 = 1 << 17 | 1 << 18;

#[target_feature(enable = "xsave")]
fn enabled_state() -> u64 {
    // SAFETY: register 0 exists wherever XGETBV does.
    unsafe { _xgetbv(0) }
}

/// Asks Linux to let this process, its threads of today and tomorrow, use tile data; 0 where it does. Asking again
/// does no harm.
#[cfg(target_os = "linux")]
fn request_tile_data() -> i64 {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result;
    // SAFETY: the system call reads no memory and changes only what this process may do.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(not(target_os = "linux"))]
fn request_tile_data() -> i64 {
    -1
}

impl TileUnit for Amx {
    type Session = Session;
    const CODE_INSTRUCTIONS: &'static str = "AMX-INT8";

    fn open(self) -> Session {
        Session { proof: self, tiles: None }
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        let mut session = self.open();
        session.configure(Tiles::Bf16(Shape { upper: 16, lower: 16 }));
        // SAFETY: `self` proves the instructions; all tiles are configured.
        unsafe { multiply::multiply_zeros(rounds) };
        // Four times 16 x 16 sums of 32 products, a product and its addition being two.
        rounds as u64 * 4 * 16 * 16 * 32 * 2
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        let mut session = self.open();
        session.configure(Tiles::Bf16(Shape { upper: 16, lower: 16 }));
        // SAFETY: `self` proves the instructions; all tiles are configured.
        unsafe { multiply::multiply_zero_codes(rounds) };
        // Four times 16 x 16 sums of 64 products, a product and its addition being two.
        rounds as u64 * 4 * 16 * 16 * 64 * 2
    }
}

/// The tile unit of this thread: which tiles are configured is a state of the CPU.
pub(crate) struct Session {
    proof: Amx,
    /// How the tiles are configured; not at all at first.
    tiles: Option<Tiles>,
}

/// How tiles can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tiles {
    Bf16(Shape),
    /// For codes of this many rows, 1 to 16.
    Codes(u8),
}

impl Session {
    fn configure(&mut self, tiles: Tiles) {
        if self.tiles != Some(tiles) {
            let Amx(()) = self.proof;
            // SAFETY: the token proves the instructions.
            unsafe {
                match tiles {
                    Tiles::Bf16(shape) => multiply::configure(shape),
                    Tiles::Codes(rows) => codes::configure(rows),
                }
            }
            self.tiles = Some(tiles);
        }
    }
}

impl TileSession for Session {
    fn multiply(&mut self, product: TileProduct<'_>) {
        let panels = product.check();
        self.configure(Tiles::Bf16(Shape::of(product.out.rows())));
        // SAFETY: the token proves the instructions, the tiles are configured for these rows, and the operands are
        // as long as they must be, by `check`, which gave the number of panels.
        unsafe { multiply::multiply(product, panels) };
    }

    fn multiply_codes(&mut self, product: CodeProduct<'_>) {
        product.check();
        self.configure(Tiles::Codes(product.rows as u8));
        // SAFETY: the token proves the instructions, the tiles are configured for these rows, and the operands are
        // as long as they must be, by `check`.
        unsafe { codes::multiply(product) };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.tiles.is_some() {
            // SAFETY: the token proves the instruction. A clean unit lets the kernel save less and the CPU sleep.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::PANEL_COLUMNS;
    use crate::submatrix::Submatrix;
    use crate::tests::discarded;
    use crate::tiled::software::Software;
    use crate::tiled::tile_unit::CODE_TILE;
    use half::bf16;

    /// Every number of rows, with the codes that give the largest sums among others, against the unit in software.
    #[test]
    fn codes_have_the_same_sums_as_in_software() {
        let Ok(amx) = Amx::new() else { return discarded("amx", "codes_have_the_same_sums_as_in_software") };
        let mut session = amx.open();
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for rows in 1..=16 {
            for (blocks, stride) in [(2, 64), (4, 200), (16, 512)] {
                let mut a: Vec<i8> = (0..rows * stride.max(32 * blocks)).map(|_| (next() as i8).max(-127)).collect();
                let mut b: Vec<u8> = (0..blocks * CODE_TILE).map(|_| next()).collect();
                a[..32].fill(-127);
                b[..CODE_TILE / 2].fill(255);
                let run = |unit: &mut dyn FnMut(CodeProduct<'_>)| {
                    let mut out = vec![[[7; 16]; 16]; blocks];
                    unit(CodeProduct { a: &a, a_stride: stride, rows, b: &b, out: &mut out });
                    out
                };
                let found = run(&mut |product| session.multiply_codes(product));
                let expected = run(&mut |product| Software.multiply_codes(product));
                assert!(found == expected, "{rows} rows, {blocks} blocks");
            }
        }
    }

    /// Every number of rows and panels, with sums that go on and that begin, against the unit in software.
    #[test]
    fn the_same_bits_as_in_software() {
        let Ok(amx) = Amx::new() else { return discarded("amx", "the_same_bits_as_in_software") };
        let mut seed = 1_u32;
        let mut random = |len: usize| -> Vec<bf16> {
            let mut next = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bf16::from_f32((seed >> 8) as f32 / (1 << 23) as f32 - 1.0)
            };
            (0..len).map(|_| next()).collect()
        };
        for rows in 1..=32 {
            for panels in 1..=if rows > 16 { 2 } else { 4 } {
                for (steps, stride, a_step, accumulate) in
                    [(1, 32, 0, false), (3, 96, 32, true), (5, 200, 32, true), (2, 96, 32, false), (4, 32, 1024, true)]
                {
                    let (a, b) = (random(rows * stride + steps * a_step), random(panels * (steps + 1) * 512));
                    let start: Vec<f32> = random(rows * 80).into_iter().map(f32::from).collect();
                    let run = |session: &mut dyn FnMut(TileProduct<'_>)| {
                        let mut out = start.clone();
                        let mut whole = Submatrix::new(&mut out, rows, 80);
                        let out_part = whole.part(0, rows, 7, panels * PANEL_COLUMNS);
                        let b_stride = (steps + 1) * 512;
                        session(TileProduct {
                            a: &a,
                            a_stride: stride,
                            a_step,
                            b: &b,
                            b_stride,
                            steps,
                            out: out_part,
                            accumulate,
                        });
                        out
                    };
                    let mut session = amx.open();
                    let found = run(&mut |product| session.multiply(product));
                    let expected = run(&mut |product| Software.multiply(product));
                    let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{rows} rows, {panels} panels, {steps} steps, accumulate {accumulate}");
                }
            }
        }
    }
}
