//! The arithmetic of a decoder-only transformer on a CPU: bf16 weights and KV cache, fp32 everywhere else.
//!
//! [`Kernels::detect`] picks the best instruction set of this machine, once; every operation is a method of the
//! value it returns. All matrices are dense and row-major, except weights, which are in the [`packed`] layout
//! that every instruction set reads without conversion.
//!
//! ```
//! use cpu_kernels::{Kernels, PackedMatrix, bf16, packed};
//!
//! // W [n = 2, k = 3], packed once; then out [m = 1, n = 2] = a [1, 3] . W^T
//! let w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(bf16::from_f32);
//! let mut data = vec![bf16::ZERO; packed::packed_len(2, 3).unwrap()];
//! packed::pack_panels(&w, 3, &mut data);
//!
//! let kernels = Kernels::detect()?;
//! let a = [1.0, 0.0, -1.0].map(bf16::from_f32);
//! let mut out = [0.0; 2];
//! kernels.gemm(&a, PackedMatrix::new(&data, 2, 3)?, &mut out);
//! assert_eq!(out, [-2.0, -2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - **The same bits within an instruction set.** The result for a row does not depend on which rows come with
//!   it, on the number of threads, on how a sequence is cut into chunks, or on the KV cache's block size.
//!   Between instruction sets results differ by rounding.
//! - **No undefined behaviour from safe calls.** Sizes are checked where the call comes in; a mismatch is a
//!   panic that names the argument, never a wild read.
//! - **The threads are the caller's.** Work is split over the rayon pool that the call runs in.
//!
//! Subnormal numbers may be flushed to zero (the AVX-512 BF16 and AMX instructions do).
//!
//! # Where things are
//!
//! [`Kernels`] is the checked front. `generic/` holds each algorithm once, over the small vector interface of
//! `simd.rs`; `portable/`, `x86_64/avx512/` and `x86_64/avx2/` implement that interface, and each has its own
//! `gemm.rs`: AVX-512 has two, `fma/` and, with BF16, `pairs/`. `tiled/` has the matrix product and attention for a
//! unit that multiplies tiles, of which there are two: `x86_64/amx/`, which is written in assembly, and
//! `tiled/software.rs`, which computes the same bits without it ([`Kernels::amx_in_software`]). The matrix product
//! and attention are divided among threads in `gemm.rs` and `attention.rs`.
//! [`limits`] measures what the machine could do at best.

mod attention;
mod gemm;
mod generic;
mod instruction_set;
mod isa;
mod kernels;
pub mod limits;
pub mod packed;
mod portable;
mod sampling;
mod simd;
mod tile;
mod tiled;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use attention::{Attention, AttentionSequence};
pub use half::bf16;
pub use isa::{ISA_VARIABLE, Isa, IsaError, UnknownIsa};
pub use kernels::Kernels;
pub use packed::{PackError, PackedMatrix};
