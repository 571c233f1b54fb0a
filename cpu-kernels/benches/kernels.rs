//! The kernels beside the limits of the machine they run on: `cargo bench -p cpu-kernels`.
//!
//! Rows named `limit/...` are what the hardware allows with the same number of threads; divide by them.
//! `TRTLLM_CPU_ISA` chooses the instruction set and `RAYON_NUM_THREADS` the threads.

use std::hint::black_box;
use std::time::Duration;

use cpu_kernels::{
    Attention, AttentionSequence, Kernels, KvDtype, KvLayout, PackedMatrix, Quantization, bf16, limits, packed,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// More than any cache: 1 GiB.
const LARGE: usize = 1 << 30;

fn limit(c: &mut Criterion, kernels: Kernels) {
    const ROUNDS: usize = 1 << 18;
    let data = vec![1_u64; LARGE / 8];
    let mut group = c.benchmark_group("limit");
    group.throughput(Throughput::Bytes(LARGE as u64));
    group.bench_function("memory_read", |b| b.iter(|| limits::read(&data)));
    group.throughput(Throughput::Elements(limits::multiply_adds(kernels, ROUNDS)));
    let name = format!("multiply-adds, {}", kernels.isa());
    group.bench_function(name, |b| b.iter(|| limits::multiply_adds(kernels, black_box(ROUNDS))));
    group.throughput(Throughput::Elements(limits::code_multiply_adds(kernels, ROUNDS)));
    let name = format!("multiply-adds of codes, {}", kernels.isa());
    group.bench_function(name, |b| b.iter(|| limits::code_multiply_adds(kernels, black_box(ROUNDS))));
    group.finish();
}

/// Rows, columns and inputs of the matrix products.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 4096, 4096),
    (1, 131_072, 4096),
    (8, 4096, 4096),
    (16, 4096, 4096),
    (32, 4096, 4096),
    (64, 4096, 4096),
    (512, 4096, 4096),
    (2048, 1536, 1536),
    (2048, 8640, 1536),
    (2048, 1536, 8640),
];

/// The matrix product over weights of one type; `quantization` is `None` for bf16.
fn gemm(c: &mut Criterion, kernels: Kernels, quantization: Option<Quantization>) {
    let name = quantization.map_or("bf16", Quantization::name);
    let mut group = c.benchmark_group(format!("gemm {name}"));
    for (m, n, k) in SHAPES {
        let bytes = match quantization {
            None => packed::packed_len(n, k).map(|len| 2 * len),
            Some(quantization) => quantization.packed_bytes(n, k),
        };
        let Some(bytes) = bytes else { continue };
        // Few rows are measured in bytes of weights, from memory: as many copies as the caches cannot hold.
        let copies = if m <= 64 { LARGE.div_ceil(bytes) } else { 1 };
        let data = vec![bf16::ONE; copies * bytes / 2];
        let a = vec![bf16::ONE; m * k];
        let mut out = vec![0.0; m * n];
        group.throughput(if m == 1 {
            Throughput::Bytes(bytes as u64)
        } else {
            Throughput::Elements((2 * m * n * k) as u64)
        });
        let mut weights = data.chunks_exact(bytes / 2).cycle();
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |b| {
            b.iter(|| {
                let weight = weights.next().and_then(|data| match quantization {
                    None => PackedMatrix::new(data, n, k).ok(),
                    Some(quantization) => {
                        let bytes: &[u8] = bytemuck::cast_slice(data);
                        PackedMatrix::quantized(quantization, bytes, n, k).ok()
                    }
                });
                weight.map(|weight| kernels.gemm(&a, weight, &mut out))
            });
        });
    }
    group.finish();
}

fn pack(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack");
    for k in [4096, 4097] {
        let rows: Vec<bf16> = (0..4096 * k).map(|i| bf16::from_f32((i % 251) as f32 / 100.0 - 1.25)).collect();
        group.throughput(Throughput::Bytes(2 * rows.len() as u64));
        if let Some(len) = packed::packed_len(4096, k) {
            let mut out = vec![bf16::ZERO; len];
            group.bench_function(BenchmarkId::from_parameter(format!("bf16, 4096x{k}, one thread")), |b| {
                b.iter(|| packed::pack_panels(black_box(&rows), k, &mut out));
            });
        }
        for quantization in Quantization::ALL {
            let Some(bytes) = quantization.packed_bytes(4096, k) else { continue };
            let mut out = vec![0; bytes];
            let name = format!("{}, 4096x{k}, one thread", quantization.name());
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| quantization.pack(black_box(&rows), k, &mut out));
            });
        }
    }
    group.finish();
}

/// The heads of an 8B model.
const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const TOKENS_PER_BLOCK: usize = 32;

/// Generation is measured in bytes of keys and values, context in operations. What one query reads lies in blocks that are
/// scattered over the pool, and every call takes another sequence's, so that no cache holds them.
fn attention(c: &mut Criterion, kernels: Kernels, dtype: KvDtype) {
    let mut group = c.benchmark_group(match dtype {
        KvDtype::Bf16 => "attention",
        KvDtype::Int8 => "attention, int8",
    });
    for (name, sequences, tokens, start) in [
        ("context, 512", 1, 512, 0),
        ("context, last 2048 of 8192", 1, 2048, 6144),
        ("generation, 1 of 1024", 1, 1, 1023),
        ("generation, 1 of 4096", 1, 1, 4095),
        ("generation, 1 of 16384", 1, 1, 16383),
        ("generation, 1 of 32768", 1, 1, 32767),
        ("generation, 16 of 1024", 16, 1, 1023),
    ] {
        let end: usize = start + tokens;
        let blocks_each = end.div_ceil(TOKENS_PER_BLOCK);
        let layout = KvLayout { head_dim: HEAD_DIM, tokens_per_block: TOKENS_PER_BLOCK, dtype };
        let block = KV_HEADS * layout.page_len();
        let turns =
            if tokens == 1 { (LARGE / (2 * size_of::<bf16>() * block * blocks_each * sequences)).max(1) } else { 1 };
        let blocks = turns * sequences * blocks_each;
        // A step that shares no factor with the number of blocks visits each of them once.
        let step = (blocks / 2 + 1..).find(|step| gcd(*step, blocks) == 1).unwrap_or(1);
        let table: Vec<u32> = (0..blocks).map(|i| (i * step % blocks) as u32).collect();
        let parts: Vec<AttentionSequence<'_>> =
            table.chunks_exact(blocks_each).map(|blocks| AttentionSequence { tokens, start, blocks }).collect();
        let cache = vec![bf16::ONE; blocks * block];
        let q = vec![0.5; sequences * tokens * HEADS * HEAD_DIM];
        let mut out = vec![bf16::ZERO; q.len()];
        let args = Attention {
            q: &q,
            keys: &cache,
            values: &cache,
            sequences: &[],
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            tokens_per_block: TOKENS_PER_BLOCK,
            dtype,
            scale: 0.088,
            sliding_window: None,
        };
        let seen = if tokens == 1 { end } else { tokens * start + tokens * (tokens + 1) / 2 };
        group.throughput(if tokens == 1 {
            Throughput::Bytes((sequences * seen * block / TOKENS_PER_BLOCK * 2 * 2) as u64)
        } else {
            Throughput::Elements((sequences * seen * HEADS * HEAD_DIM * 2 * 2) as u64)
        });
        let mut turn = parts.chunks_exact(sequences).cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                let sequences = turn.next().unwrap_or_default();
                kernels.attention(Attention { sequences, ..args }, &mut out);
            });
        });
    }
    group.finish();
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
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
    pack(c);
    match Kernels::detect() {
        Ok(kernels) => {
            limit(c, kernels);
            gemm(c, kernels, None);
            for quantization in Quantization::ALL {
                gemm(c, kernels, Some(quantization));
            }
            attention(c, kernels, KvDtype::Bf16);
            attention(c, kernels, KvDtype::Int8);
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
