//! The kernels beside the limits of the machine they run on: `cargo bench -p cpu-kernels`.
//!
//! Rows named `limit/...` are what the hardware allows with the same number of threads; divide by them.
//! `TRTLLM_CPU_ISA` chooses the instruction set and `RAYON_NUM_THREADS` the threads.

use std::hint::black_box;
use std::time::Duration;

use cpu_kernels::{Attention, AttentionSequence, Kernels, PackedMatrix, bf16, packed};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// More than any cache: 1 GiB.
const LARGE: usize = 1 << 30;

/// Eight parts of a piece side by side: one stream alone leaves a core's prefetcher room to spare.
fn read(piece: &[u64]) -> u64 {
    const STREAMS: usize = 8;
    let len = piece.len() / STREAMS;
    let streams: [&[u64]; STREAMS] = std::array::from_fn(|i| &piece[i * len..][..len]);
    let mut sums = [0; STREAMS];
    for line in 0..len / 8 {
        for (sum, stream) in sums.iter_mut().zip(streams) {
            *sum ^= stream[line * 8..][..8].iter().fold(0, |a, b| a ^ b);
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

fn memory_read(c: &mut Criterion) {
    const PIECE: usize = 8 << 20;
    let data = vec![1_u64; LARGE / 8];
    let mut group = c.benchmark_group("limit");
    group.throughput(Throughput::Bytes(LARGE as u64));
    group.bench_function("memory_read", |b| {
        b.iter(|| data.par_chunks(PIECE / 8).map(read).reduce(|| 0, |a, b| a ^ b));
    });
    group.finish();
}

/// Multiply-adds on registers alone, in as many independent sums as hide their latency.
#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;

    pub(crate) const SUMS: usize = 16;

    /// # Safety
    /// The CPU must have AVX-512 F and BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) fn bf16_pairs(rounds: usize) -> f32 {
        // SAFETY: both are 64 bytes without invalid patterns.
        let ones: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(std::hint::black_box(0x3f80_3f80))) };
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, ones);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
}

#[cfg(target_arch = "x86_64")]
fn arithmetic(c: &mut Criterion) {
    if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("avx512bf16") {
        return;
    }
    const ROUNDS: usize = 1 << 20;
    let threads = rayon::current_num_threads();
    let operations = threads * ROUNDS * peak::SUMS * 16 * 2 * 2;
    let mut group = c.benchmark_group("limit");
    group.throughput(Throughput::Elements(operations as u64));
    group.bench_function("vdpbf16ps", |b| {
        b.iter(|| {
            // SAFETY: detected above.
            let run = |_| unsafe { peak::bf16_pairs(black_box(ROUNDS)) };
            (0..threads).into_par_iter().with_max_len(1).map(run).sum::<f32>()
        });
    });
    group.finish();
}

#[cfg(not(target_arch = "x86_64"))]
fn arithmetic(_: &mut Criterion) {}

fn gemm(c: &mut Criterion, kernels: Kernels) {
    let mut group = c.benchmark_group("gemm");
    for (m, n, k) in [(1, 4096, 4096), (1, 131_072, 4096), (8, 4096, 4096), (32, 4096, 4096), (512, 4096, 4096)] {
        // One row is measured in bytes of weights, from memory: as many copies as the caches cannot hold.
        let bytes = n * k * 2;
        let copies = if m == 1 { LARGE.div_ceil(bytes) } else { 1 };
        let data = vec![bf16::ONE; copies * n * k];
        let a = vec![bf16::ONE; m * k];
        let mut out = vec![0.0; m * n];
        group.throughput(if m == 1 {
            Throughput::Bytes(bytes as u64)
        } else {
            Throughput::Elements((2 * m * n * k) as u64)
        });
        let mut weights = data.chunks_exact(n * k).cycle();
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |b| {
            b.iter(|| {
                let weight = weights.next().and_then(|data| PackedMatrix::new(data, n, k).ok());
                weight.map(|weight| kernels.gemm(&a, weight, &mut out))
            });
        });
    }
    group.finish();
}

fn pack(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack");
    for k in [4096, 4097] {
        let rows = vec![bf16::ONE; 4096 * k];
        let Some(len) = packed::packed_len(4096, k) else {
            continue;
        };
        let mut out = vec![bf16::ZERO; len];
        group.throughput(Throughput::Bytes(2 * rows.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("4096x{k}, one thread")), |b| {
            b.iter(|| packed::pack_panels(black_box(&rows), k, &mut out));
        });
    }
    group.finish();
}

/// The heads of an 8B model.
fn attention(c: &mut Criterion, kernels: Kernels) {
    const HEADS: usize = 32;
    const KV_HEADS: usize = 8;
    const HEAD_DIM: usize = 128;
    const TOKENS_PER_BLOCK: usize = 64;
    let mut group = c.benchmark_group("attention");
    for (name, sequences, tokens, start) in
        [("context 512", 1, 512, 0), ("generation, 1 of 4096", 1, 1, 4095), ("generation, 16 of 1024", 16, 1, 1023)]
    {
        let blocks_each = usize::div_ceil(start + tokens, TOKENS_PER_BLOCK);
        let table: Vec<u32> = (0..(sequences * blocks_each) as u32).collect();
        let parts: Vec<AttentionSequence<'_>> =
            table.chunks_exact(blocks_each).map(|blocks| AttentionSequence { tokens, start, blocks }).collect();
        let cache = vec![bf16::ONE; table.len() * KV_HEADS * TOKENS_PER_BLOCK * HEAD_DIM];
        let q = vec![0.5; sequences * tokens * HEADS * HEAD_DIM];
        let mut out = vec![bf16::ZERO; q.len()];
        let args = Attention {
            q: &q,
            keys: &cache,
            values: &cache,
            sequences: &parts,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            tokens_per_block: TOKENS_PER_BLOCK,
            scale: 0.088,
            sliding_window: None,
        };
        let seen = if tokens == 1 { start + 1 } else { tokens * (tokens + 1) / 2 };
        group.throughput(if tokens == 1 {
            Throughput::Bytes((sequences * seen * KV_HEADS * HEAD_DIM * 2 * 2) as u64)
        } else {
            Throughput::Elements((sequences * seen * HEADS * HEAD_DIM * 2 * 2) as u64)
        });
        group.bench_function(name, |b| b.iter(|| kernels.attention(args, &mut out)));
    }
    group.finish();
}

fn elementwise(c: &mut Criterion, kernels: Kernels) {
    const ROWS: usize = 32;
    const WIDTH: usize = 4096;
    let x = vec![1.0; ROWS * WIDTH];
    let weight = vec![bf16::ONE; WIDTH];
    let mut out = vec![bf16::ZERO; x.len()];
    let mut group = c.benchmark_group("elementwise");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("rms_norm 32x4096", |b| b.iter(|| kernels.rms_norm(&x, &weight, 1e-5, &mut out)));
    group.bench_function("swiglu 32x4096", |b| b.iter(|| kernels.swiglu(&x, &x, &mut out)));
    group.bench_function("log_sum_exp 131072", |b| b.iter(|| kernels.log_sum_exp(&x)));
    group.finish();
}

fn all(c: &mut Criterion) {
    memory_read(c);
    arithmetic(c);
    pack(c);
    match Kernels::detect() {
        Ok(kernels) => {
            gemm(c, kernels);
            attention(c, kernels);
            elementwise(c, kernels);
        }
        Err(error) => panic!("{error}"),
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = all
}
criterion_main!(benches);
