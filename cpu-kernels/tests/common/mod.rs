//! Seeded inputs, and the stamp that runs every property on every instruction set.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Write;

use cpu_kernels::{Isa, Kernels, PackedMatrix, bf16, packed};

/// Half a unit in the last place of an f32, relative.
pub(crate) const F32_ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// Half a unit in the last place of a bf16, relative.
pub(crate) const BF16_ROUNDING: f64 = 1.0 / (1 << 8) as f64;

/// Below this, AVX-512 BF16 flushes to zero.
pub(crate) const TINY: f64 = 1.2e-38;

/// The kernels, or `None` with a line that even captured test output shows.
pub(crate) fn kernels(isa: Isa, test: &str) -> Option<Kernels> {
    let kernels = Kernels::for_isa(isa);
    if kernels.is_none() {
        // Unlike what eprintln! writes, this is not captured: a discarded case must not look like a passed one.
        let line = format!("\nDISCARDED: {test} for {isa}, which this CPU lacks\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    kernels
}

/// For each `fn name(kernels: Kernels)`, a test in each of the modules amx, avx512, avx512f, avx2 and portable, and in
/// `software_tiles`, which is AMX's code over tiles in plain Rust: that runs on every CPU.
macro_rules! on_every_isa {
    ($($name:ident),* $(,)?) => {
        common::on_every_isa!(@ amx Amx $($name)*);
        common::on_every_isa!(@ avx512 Avx512 $($name)*);
        common::on_every_isa!(@ avx512f Avx512f $($name)*);
        common::on_every_isa!(@ avx2 Avx2 $($name)*);
        common::on_every_isa!(@ portable Portable $($name)*);
        mod software_tiles {
            $(
                #[test]
                fn $name() {
                    super::$name(cpu_kernels::Kernels::amx_in_software());
                }
            )*
        }
    };
    (@ $module:ident $isa:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    if let Some(kernels) = super::common::kernels(cpu_kernels::Isa::$isa, stringify!($name)) {
                        super::$name(kernels);
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_isa;

/// SplitMix64: the same numbers everywhere for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn f32s(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.unit() * scale).collect()
    }

    pub(crate) fn bf16s(&mut self, len: usize, scale: f32) -> Vec<bf16> {
        (0..len).map(|_| bf16::from_f32(self.unit() * scale)).collect()
    }
}

/// A packed matrix that owns its data.
pub(crate) struct Weight {
    pub(crate) data: Vec<bf16>,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Weight {
    pub(crate) fn pack(rows: &[bf16], k: usize) -> Weight {
        let n = rows.len() / k;
        // Not zero, so that a test sees padding that was not written.
        let mut data = vec![bf16::NAN; packed::packed_len(n, k).unwrap()];
        packed::pack_panels(rows, k, &mut data);
        Weight { data, n, k }
    }

    pub(crate) fn matrix(&self) -> PackedMatrix<'_> {
        PackedMatrix::new(&self.data, self.n, self.k).unwrap()
    }
}

/// Runs `work` with this many threads.
pub(crate) fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// The bits, so that -0 and 0 differ and NaNs compare.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The message of the panic that `work` ends in.
pub(crate) fn panic_of(work: impl FnOnce()) -> String {
    let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
    match error.downcast::<String>() {
        Ok(message) => *message,
        Err(error) => (*error.downcast::<&str>().unwrap()).to_owned(),
    }
}
