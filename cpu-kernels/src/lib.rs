//! The arithmetic of a decoder-only transformer on a CPU: weights in bf16 or as integer codes, a KV cache in bf16 or in eight
//! bits, and fp32 everywhere else.
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
//!   Between instruction sets results differ by rounding, but for products of quantized weights, which do not.
//! - **No undefined behaviour from safe calls.** Sizes are checked where the call comes in; a mismatch is a
//!   panic that names the argument, never a wild read.
//! - **The threads are the caller's.** Work is split over the rayon pool that the call runs in.
//!
//! Subnormal numbers may be flushed to zero (the AVX-512 BF16 and AMX instructions do).
//!
//! # In reading order
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`packed`] | the layout of weights in bf16; [`PackedMatrix`] |
//! | [`quantized`] | weights as integer codes of eight or four bits: layout, arithmetic, rounding of weights and of activations |
//! | `submatrix` | rectangles of an output, one for each thread |
//! | `simd` | the vector operations that an algorithm may ask for |
//! | `kv_layout` | [`KvLayout`]: the layout of keys and values in the cache |
//! | `kv_int8` | keys and values in eight bits: codes and scales |
//! | `attention` | [`Attention`]: its arguments, their checks, and the piece that one thread computes |
//! | `generic` | each algorithm once, over `simd`: exponential, norms, rotary embedding, attention, sampling |
//! | `instruction_set` | what an instruction set is: vectors, a matrix product, attention |
//! | `portable` | plain Rust, for every CPU |
//! | `tiled` | products and attention over a unit that multiplies tiles, and such a unit in software |
//! | `x86_64` | AVX2, AVX-512 (its products are `fma` and `dpbf16`), and AMX, whose instructions are in assembly |
//! | `parallel` | matrix products and attention divided among threads, for any instruction set |
//! | `isa` | [`Isa`]: the names of the instruction sets |
//! | `preference` | which of them is the best of which CPU: a table |
//! | `any_instruction_set` | one of them, chosen at run time |
//! | `detect` | which one: `TRTLLM_CPU_ISA`, or the best of this CPU |
//! | `kernels`, `sampling` | [`Kernels`]: the checked front |
//! | [`limits`] | what the machine could do at best |

mod any_instruction_set;
mod attention;
mod detect;
mod generic;
mod instruction_set;
mod isa;
mod kernels;
mod kv_int8;
mod kv_layout;
pub mod limits;
pub mod packed;
mod parallel;
mod portable;
mod preference;
pub mod quantized;
mod sampling;
mod simd;
mod submatrix;
#[cfg(test)]
mod tests;
mod tiled;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use attention::{Attention, AttentionSequence};
pub use detect::{ISA_VARIABLE, IsaError};
pub use half::bf16;
pub use isa::{Isa, UnknownIsa};
pub use kernels::Kernels;
pub use kv_layout::{KvDtype, KvLayout};
pub use packed::{PackError, PackedMatrix};
pub use quantized::Quantization;
