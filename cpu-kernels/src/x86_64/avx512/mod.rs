//! AVX-512: one kind of vectors, two matrix products of bf16, with FMA in fp32 and with VDPBF16PS, and one of codes.
//!
//! In reading order: `registers`, `transpose`, `vectors`, then `fma`, `dpbf16` and `vnni`.

mod dpbf16;
mod fma;
mod registers;
mod transpose;
mod vectors;
mod vnni;

pub(crate) use dpbf16::Avx512Bf16;
pub(crate) use vectors::Avx512;
