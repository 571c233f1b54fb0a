//! The checked front: every size is looked at here, then the work goes to the instruction set.

#![forbid(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use crate::any_instruction_set::{AnyInstructionSet, with_isa};
use crate::attention::Attention;
use crate::detect::{ISA_VARIABLE, IsaError, detect};
use crate::generic::elementwise::{Add, AddBias, SwiGlu};
use crate::generic::log_sum_exp::LogSumExp;
use crate::generic::rms_norm::RmsNorm;
use crate::generic::rope::Rope;
use crate::instruction_set::InstructionSet;
use crate::isa::Isa;
use crate::packed::PackedMatrix;
use crate::parallel::{attention::attention, gemm::gemm};

/// Elements that one task of an elementwise operation takes; fewer are not worth another thread.
const GRAIN: usize = 1 << 15;

/// The operations, for one instruction set. Holding one proves that this CPU has it.
#[derive(Clone, Copy)]
pub struct Kernels(pub(crate) AnyInstructionSet);

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa()).finish()
    }
}

impl Kernels {
    /// The best instruction set of this CPU, or the one that the environment variable `TRTLLM_CPU_ISA` names.
    ///
    /// # Errors
    /// If the variable names something unknown or not on this CPU. The message says what would
    /// be accepted.
    pub fn detect() -> Result<Kernels, IsaError> {
        detect(std::env::var_os(ISA_VARIABLE).as_deref()).map(Kernels)
    }

    /// The kernels of one instruction set, or `None` where this CPU lacks it.
    pub fn for_isa(isa: Isa) -> Option<Kernels> {
        AnyInstructionSet::new(isa).ok().map(Kernels)
    }

    /// The kernels of [`Isa::Amx`] with a tile unit in plain Rust: matrix products are the same bits as AMX's, on any
    /// CPU, slowly. It is how everything but the instructions themselves is tested where there are none, and
    /// [`Kernels::detect`] never gives it.
    pub fn amx_in_software() -> Kernels {
        Kernels(AnyInstructionSet::software_tiles())
    }

    /// Which instruction set this is.
    pub fn isa(&self) -> Isa {
        self.0.isa()
    }

    /// The instructions that multiply integer codes, by the name that their maker gives them: `AMX-INT8` (but for a few rows, which
    /// AVX-512 multiplies), `AVX-512 VNNI`, `AVX-VNNI`, `AVX2`, or `portable code`. The results are the same bits.
    pub fn code_instructions(&self) -> &'static str {
        with_isa!(self.0, isa => isa.code_instructions())
    }

    /// out `[m, n]` = a `[m, k]` . W^T, with n and k of `weight` and m = `a.len() / k`; products and sums in fp32.
    ///
    /// # Panics
    /// If `a` is no whole number of rows, or `out` has not m n elements.
    pub fn gemm(&self, a: &[bf16], weight: PackedMatrix<'_>, out: &mut [f32]) {
        self.gemm_stacked(a, &[weight], out);
    }

    /// [`Self::gemm`] with matrices of one k, each of any type: row by row, `out` has the outputs of the first, then those of the next.
    /// They are the bits of a call for each, and the threads are woken once.
    ///
    /// # Panics
    /// If there is no matrix, their k differ, `a` is no whole number of rows, or `out` has not m (n + n + ...) elements.
    pub fn gemm_stacked(&self, a: &[bf16], weights: &[PackedMatrix<'_>], out: &mut [f32]) {
        assert!(!weights.is_empty(), "a product needs a matrix");
        let k = weights[0].k();
        assert!(weights.iter().all(|weight| weight.k() == k), "all matrices must have the k of the first, {k}");
        assert!(a.len().is_multiple_of(k), "a must be whole rows of {k} elements, not {} in all", a.len());
        let n = weights.iter().try_fold(0_usize, |n, weight| n.checked_add(weight.n()));
        let expected = n.and_then(|n| (a.len() / k).checked_mul(n));
        assert_eq!(Some(out.len()), expected, "out must be {} x {}", a.len() / k, n.unwrap_or(usize::MAX));
        with_isa!(self.0, isa => gemm(isa, a, weights, out));
    }

    /// out = x / sqrt(mean(x^2) + eps) weight, for each row of `x` `[rows, weight.len()]`; `out` as `x`.
    ///
    /// # Panics
    /// If `weight` is empty, `x` is no whole number of rows, or `out` is not as long as `x`.
    pub fn rms_norm(&self, x: &[f32], weight: &[bf16], eps: f32, out: &mut [bf16]) {
        let width = weight.len();
        check_rows("x", x.len(), "weight", width);
        check_same("out", out.len(), "x", x.len());
        let part_len = rows_per_task(width) * width;
        with_isa!(self.0, isa => {
            let run_part = |(x, out)| isa.vectorize(RmsNorm { x, weight, eps, out });
            if worth_dividing(x.len()) {
                x.par_chunks(part_len).zip(out.par_chunks_mut(part_len)).for_each(run_part);
            } else {
                run_part((x, out));
            }
        });
    }

    /// x += y, elementwise (the residual connection).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        check_same("y", y.len(), "x", x.len());
        with_isa!(self.0, isa => {
            let run_part = |(x, y)| isa.vectorize(Add { x, y });
            if worth_dividing(x.len()) {
                x.par_chunks_mut(GRAIN).zip(y.par_chunks(GRAIN)).for_each(run_part);
            } else {
                run_part((x, y));
            }
        });
    }

    /// Adds `bias` to each row of `x` `[rows, bias.len()]`.
    ///
    /// # Panics
    /// If `bias` is empty or `x` is no whole number of rows.
    pub fn add_bias(&self, x: &mut [f32], bias: &[bf16]) {
        let width = bias.len();
        check_rows("x", x.len(), "bias", width);
        with_isa!(self.0, isa => {
            let run_part = |x| isa.vectorize(AddBias { x, bias });
            if worth_dividing(x.len()) {
                x.par_chunks_mut(rows_per_task(width) * width).for_each(run_part);
            } else {
                run_part(x);
            }
        });
    }

    /// out = silu(gate) up, elementwise, with silu(x) = x / (1 + e^-x); fp32 until `out` is rounded.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu(&self, gate: &[f32], up: &[f32], out: &mut [bf16]) {
        check_same("up", up.len(), "gate", gate.len());
        check_same("out", out.len(), "gate", gate.len());
        with_isa!(self.0, isa => {
            let run_part = |((gate, up), out)| isa.vectorize(SwiGlu { gate, up, out });
            if worth_dividing(gate.len()) {
                gate.par_chunks(GRAIN).zip(up.par_chunks(GRAIN)).zip(out.par_chunks_mut(GRAIN)).for_each(run_part);
            } else {
                run_part(((gate, up), out));
            }
        });
    }

    /// Rotates each head of `x` `[tokens, heads, head_dim]`: elements i and i + head_dim / 2 are one point, turned
    /// by the angle whose cosine and sine are `cos[token][i]` and `sin[token][i]`, both `[tokens, head_dim / 2]`.
    ///
    /// # Panics
    /// If `heads` is zero, `head_dim` is odd or zero, or the lengths contradict one another.
    pub fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, cos: &[f32], sin: &[f32]) {
        assert!(heads > 0, "rope needs heads");
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "head_dim must be even, not {head_dim}");
        let (half, tokens) = (head_dim / 2, cos.len() / (head_dim / 2));
        check_rows("cos", cos.len(), "half of head_dim", half);
        check_same("sin", sin.len(), "cos", cos.len());
        let expected = heads.checked_mul(head_dim).and_then(|token| token.checked_mul(tokens));
        assert_eq!(Some(x.len()), expected, "x must be {tokens} x {heads} x {head_dim}");
        let token_len = heads * head_dim;
        let tokens_per_task = rows_per_task(token_len);
        with_isa!(self.0, isa => {
            let run_part = |((x, cos), sin)| isa.vectorize(Rope { x, heads, head_dim, cos, sin });
            if worth_dividing(x.len()) {
                let angles = cos.par_chunks(tokens_per_task * half).zip(sin.par_chunks(tokens_per_task * half));
                let parts = x.par_chunks_mut(tokens_per_task * token_len).zip(angles);
                parts.for_each(|(x, (cos, sin))| run_part(((x, cos), sin)));
            } else {
                run_part(((x, cos), sin));
            }
        });
    }

    /// Causal attention over a paged KV cache; `out` is `[tokens, heads, head_dim]` like the queries. Scores,
    /// softmax and sums are in fp32. The result is rounded, and with AMX also scaled queries and e^(score - largest):
    /// what its products take is bf16.
    ///
    /// # Panics
    /// If the arguments contradict one another, or a block table names a block that the pool does not have.
    pub fn attention(&self, args: Attention<'_>, out: &mut [bf16]) {
        with_isa!(self.0, isa => attention(isa, args, out));
    }

    /// ln(sum(e^x)), within about 1e-6 of the sum, whatever the range of the logits. Minus infinity where there
    /// are none; NaN where one is NaN.
    pub fn log_sum_exp(&self, logits: &[f32]) -> f32 {
        let mut out = 0.0;
        with_isa!(self.0, isa => isa.vectorize(LogSumExp { x: logits, out: &mut out }));
        out
    }
}

/// Whether an elementwise operation on this many elements is worth dividing among threads.
fn worth_dividing(elements: usize) -> bool {
    elements > GRAIN && rayon::current_num_threads() > 1
}

fn rows_per_task(width: usize) -> usize {
    (GRAIN / width).max(1)
}

fn check_rows(name: &str, len: usize, of: &str, width: usize) {
    assert!(width > 0, "{of} must not be empty");
    assert!(len.is_multiple_of(width), "{name} must be whole rows of {width} elements, not {len} in all");
}

fn check_same(name: &str, len: usize, other: &str, expected: usize) {
    assert!(len == expected, "{name} has {len} elements, but {other} has {expected}");
}
