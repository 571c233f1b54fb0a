//! AVX-512: one kind of vectors, and two matrix products, with FMA in fp32 and with VDPBF16PS.
//!
//! In reading order: `registers`, `transpose`, `vectors`, then `fma` and `dpbf16`.

mod dpbf16;
mod fma;
mod registers;
mod transpose;
mod vectors;

pub(crate) use dpbf16::Avx512Bf16;
pub(crate) use vectors::Avx512;
