//! Attention against f64 without pages or blocks, and the same bits however a sequence is chunked, paged or batched.

mod common;

use common::{BF16_ROUNDING, F32_ROUNDING, Random, TINY, on_every_isa, panic_of, with_threads};
use cpu_kernels::{Attention, AttentionSequence, Isa, Kernels, KvDtype, KvLayout, bf16};

on_every_isa!(
    against_f64,
    what_eight_bits_hold_exactly_costs_nothing,
    large_scores,
    the_same_bits_in_any_chunks_and_pages,
    the_same_bits_in_any_batch,
    the_same_bits_whoever_computes_the_parts,
    only_visible_keys_are_read,
    values_of_zero_have_no_sign,
    arguments_are_checked,
);

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    dtype: KvDtype,
}

const DTYPES: [KvDtype; 2] = [KvDtype::Bf16, KvDtype::Int8];

impl Shape {
    fn layout(self, tokens_per_block: usize) -> KvLayout {
        KvLayout { head_dim: self.head_dim, tokens_per_block, dtype: self.dtype }
    }

    fn with(self, dtype: KvDtype) -> Shape {
        Shape { dtype, ..self }
    }
}

/// One sequence: queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`.
struct Sequence {
    q: Vec<f32>,
    keys: Vec<bf16>,
    values: Vec<bf16>,
    tokens: usize,
}

impl Sequence {
    fn random(shape: Shape, tokens: usize, seed: u64, scale: f32) -> Sequence {
        let mut random = Random(seed);
        Sequence {
            q: random.f32s(tokens * shape.heads * shape.head_dim, scale),
            keys: random.bf16s(tokens * shape.kv_heads * shape.head_dim, scale),
            values: random.bf16s(tokens * shape.kv_heads * shape.head_dim, 1.0),
            tokens,
        }
    }
}

/// Keys or values `[tokens, heads, head_dim]` that are codes times a power of two, another for each 32 elements, of which the first is
/// the largest.
fn exact_in_eight_bits(tokens: usize, heads: usize, head_dim: usize, seed: u64) -> Vec<bf16> {
    let mut random = Random(seed);
    let mut block = || {
        let scale = 1.0 / (64 << (random.next() % 3)) as f32;
        let mut code = |place: usize| if place == 0 { 127.0 } else { (random.next() % 255) as f32 - 127.0 };
        std::array::from_fn::<_, 32, _>(|place| bf16::from_f32(code(place) * scale))
    };
    (0..tokens * heads)
        .flat_map(|_| (0..head_dim.div_ceil(32)).flat_map(|_| block()).take(head_dim).collect::<Vec<_>>())
        .collect()
}

/// A pool in which nothing but what `add` wrote is a number.
struct Pool {
    keys: Vec<bf16>,
    values: Vec<bf16>,
    free: Vec<u32>,
    tokens_per_block: usize,
}

impl Pool {
    fn new(shape: Shape, tokens_per_block: usize, blocks: usize) -> Pool {
        let len = blocks * shape.kv_heads * shape.layout(tokens_per_block).page_len();
        // In an order that no code could assume.
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        let mut random = Random(blocks as u64);
        for i in (1..blocks).rev() {
            free.swap(i, random.next() as usize % (i + 1));
        }
        Pool { keys: vec![bf16::NAN; len], values: vec![bf16::NAN; len], free, tokens_per_block }
    }

    /// Stores the first `tokens` tokens and returns the block table.
    fn add(&mut self, shape: Shape, sequence: &Sequence, tokens: usize) -> Vec<u32> {
        let (d, size) = (shape.head_dim, self.tokens_per_block);
        let table = self.free.split_off(self.free.len() - tokens.div_ceil(size));
        for token in 0..tokens {
            for head in 0..shape.kv_heads {
                let block = table[token / size] as usize;
                let layout = shape.layout(size);
                let page = (block * shape.kv_heads + head) * layout.page_len();
                let from = (token * shape.kv_heads + head) * d;
                let widened = |token: &[bf16]| token[from..][..d].iter().map(|x| x.to_f32()).collect::<Vec<_>>();
                let page = page..page + layout.page_len();
                layout.store_key(&mut self.keys[page.clone()], token % size, &widened(&sequence.keys));
                layout.store_value(&mut self.values[page], token % size, &widened(&sequence.values));
            }
        }
        table
    }

    fn attend(&self, kernels: Kernels, shape: Shape, q: &[f32], sequences: &[AttentionSequence<'_>]) -> Vec<bf16> {
        let mut out = vec![bf16::NAN; q.len()];
        kernels.attention(self.arguments(shape, q, sequences), &mut out);
        out
    }

    fn arguments<'a>(&'a self, shape: Shape, q: &'a [f32], sequences: &'a [AttentionSequence<'a>]) -> Attention<'a> {
        Attention {
            q,
            keys: &self.keys,
            values: &self.values,
            sequences,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            tokens_per_block: self.tokens_per_block,
            dtype: shape.dtype,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            sliding_window: shape.window,
        }
    }
}

/// Computes a sequence in chunks of `chunk` tokens, each stored just before it is attended to.
fn chunked(kernels: Kernels, shape: Shape, sequence: &Sequence, chunk: usize, tokens_per_block: usize) -> Vec<bf16> {
    let mut out = Vec::new();
    for start in (0..sequence.tokens).step_by(chunk) {
        let end = sequence.tokens.min(start + chunk);
        let mut pool = Pool::new(shape, tokens_per_block, end.div_ceil(tokens_per_block) + 3);
        let blocks = pool.add(shape, sequence, end);
        let token = shape.heads * shape.head_dim;
        let part = AttentionSequence { tokens: end - start, start, blocks: &blocks };
        out.extend(pool.attend(kernels, shape, &sequence.q[start * token..end * token], &[part]));
    }
    out
}

/// Compares what the last tokens of a sequence gave, as many as `out` has.
fn check(kernels: Kernels, shape: Shape, sequence: &Sequence, out: &[bf16]) {
    let Shape { heads, kv_heads, head_dim: d, window, dtype } = shape;
    let scale = f64::from(1.0 / (d as f32).sqrt());
    // On AMX a query is the sum of two bf16: what is left of it is less than 2^-18 of it.
    let query_error = if kernels.isa() == Isa::Amx { (BF16_ROUNDING / 2.0).powi(2) } else { 0.0 };
    let first_token = sequence.tokens - out.len() / (heads * d);
    for token in first_token..sequence.tokens {
        let first = window.map_or(0, |window| (token + 1).saturating_sub(window));
        for head in 0..heads {
            let q: Vec<f64> = sequence.q[(token * heads + head) * d..][..d].iter().map(|q| f64::from(*q)).collect();
            let offset = |key: usize| (key * kv_heads + head * kv_heads / heads) * d;
            let mut score_error = 0.0_f64;
            let scores: Vec<f64> = (first..=token)
                .map(|key| {
                    let products = q.iter().zip(&sequence.keys[offset(key)..]).map(|(q, k)| *q * k.to_f64());
                    let (sum, magnitudes) = products.fold((0.0, 0.0), |(s, m), x| (s + x, m + x.abs()));
                    // The query is scaled, then d products are rounded and added.
                    let rounded = ((2 * d + 2) as f64 * F32_ROUNDING + query_error) * magnitudes * scale;
                    let key = &sequence.keys[offset(key)..][..d];
                    let off: f64 = q.iter().zip(half_scales(key, dtype)).map(|(q, off)| q.abs() * off).sum();
                    score_error = score_error.max(rounded + off * scale);
                    sum * scale
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            // What the values are off by, in the mean of their weights.
            let mut off = vec![0.0; d];
            for (weight, key) in weights.iter().zip(first..) {
                let value = &sequence.values[offset(key)..][..d];
                off.iter_mut().zip(half_scales(value, dtype)).for_each(|(off, half)| *off += weight / total * half);
            }
            for i in 0..d {
                let terms =
                    weights.iter().zip(first..).map(|(w, key)| w / total * sequence.values[offset(key) + i].to_f64());
                let (expected, magnitudes) = terms.fold((0.0, 0.0), |(s, m), x: f64| (s + x, m + x.abs()));
                // Weights are off by the error of two scores each (their own and the largest), exponentials by 3
                // units twice, each block fades the sums once, each key adds two roundings to sum and total.
                let keys = scores.len() as f64;
                let roundings = 20.0 + 6.0 * (keys / 32.0 + 2.0) + 3.0 * keys.min(64.0) + keys / 8.0;
                // A weight that is rounded to bf16 is off by half a unit, and so is its share of the sum.
                let rounds_weights = matches!(kernels.isa(), Isa::Amx | Isa::Avx512);
                let weight_error = if rounds_weights { BF16_ROUNDING } else { 0.0 };
                // e^x is off by more than x where x is large.
                let score_error = if dtype == KvDtype::Int8 { score_error.exp_m1() } else { score_error };
                let relative = 4.0 * score_error + 2.0 * roundings * F32_ROUNDING + weight_error;
                let of_codes = off[i] * (1.0 + relative) * 1.01;
                let bound =
                    of_codes + relative * magnitudes.max(expected.abs()) + BF16_ROUNDING * expected.abs() * 1.01 + TINY;
                let found = out[((token - first_token) * heads + head) * d + i].to_f64();
                assert!(
                    (found - expected).abs() <= bound,
                    "token {token} of {}, head {head}, element {i}: {found}, expected {expected} within {bound}",
                    sequence.tokens
                );
            }
        }
    }
}

/// Half of the scale of each element: what eight bits are off by at most.
fn half_scales(token: &[bf16], dtype: KvDtype) -> impl Iterator<Item = f64> {
    token.chunks(32).flat_map(move |block| {
        let largest = block.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
        let half = if dtype == KvDtype::Int8 { largest / 254.0 * (1.0 + 1.01 * BF16_ROUNDING) } else { 0.0 };
        block.iter().map(move |_| half)
    })
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> Shape {
    Shape { heads, kv_heads, head_dim, window, dtype: KvDtype::Bf16 }
}

fn against_f64(kernels: Kernels) {
    let shapes = [
        shape(1, 1, 2, None),
        shape(4, 2, 12, None),
        shape(8, 2, 16, Some(5)),
        shape(3, 3, 64, None),
        shape(6, 1, 80, Some(40)),
        shape(5, 1, 96, None),
        shape(4, 1, 128, Some(1)),
        shape(128, 1, 34, None),
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        for tokens in [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 150] {
            let sequence = Sequence::random(shape, tokens, seed as u64, 2.0);
            for shape in DTYPES.map(|dtype| shape.with(dtype)) {
                check(kernels, shape, &sequence, &chunked(kernels, shape, &sequence, tokens, 16));
            }
        }
    }
}

/// Keys and values in eight bits that lose nothing there are held to the bound of those in bf16.
fn what_eight_bits_hold_exactly_costs_nothing(kernels: Kernels) {
    for (shape, tokens) in [(shape(4, 2, 20, None), 90), (shape(3, 1, 64, Some(37)), 150), (shape(6, 2, 128, None), 70)]
    {
        let Shape { kv_heads, head_dim, .. } = shape;
        let sequence = Sequence {
            keys: exact_in_eight_bits(tokens, kv_heads, head_dim, 1),
            values: exact_in_eight_bits(tokens, kv_heads, head_dim, 2),
            ..Sequence::random(shape, tokens, 3, 2.0)
        };
        check(kernels, shape, &sequence, &chunked(kernels, shape.with(KvDtype::Int8), &sequence, tokens, 16));
    }
}

/// Scores of hundreds: softmax is nearly a choice, and e^score alone would overflow.
fn large_scores(kernels: Kernels) {
    let shape = shape(2, 1, 64, None);
    let sequence = Sequence::random(shape, 100, 9, 12.0);
    check(kernels, shape, &sequence, &chunked(kernels, shape, &sequence, 100, 16));
}

fn the_same_bits_in_any_chunks_and_pages(kernels: Kernels) {
    for (shape, tokens) in [
        (shape(4, 2, 20, None), 130),
        (shape(3, 1, 64, Some(37)), 150),
        (shape(8, 8, 16, Some(64)), 170),
        (shape(6, 2, 128, None), 70),
        (shape(4, 2, 20, None).with(KvDtype::Int8), 130),
        (shape(3, 1, 64, Some(37)).with(KvDtype::Int8), 150),
        (shape(6, 2, 128, None).with(KvDtype::Int8), 70),
    ] {
        let sequence = Sequence::random(shape, tokens, tokens as u64, 2.0);
        let whole = chunked(kernels, shape, &sequence, tokens, 32);
        check(kernels, shape, &sequence, &whole);
        for (chunk, tokens_per_block) in
            [(1, 32), (1, 7), (7, 16), (32, 64), (33, 1), (64, 128), (tokens - 1, 5), (tokens, 1000)]
        {
            let parts = chunked(kernels, shape, &sequence, chunk, tokens_per_block);
            assert!(whole == parts, "chunks of {chunk} tokens, blocks of {tokens_per_block}");
        }
    }
}

fn the_same_bits_in_any_batch(kernels: Kernels) {
    for dtype in DTYPES {
        the_same_bits_in_any_batch_in(kernels, dtype);
    }
}

fn the_same_bits_in_any_batch_in(kernels: Kernels, dtype: KvDtype) {
    let shape = shape(8, 2, 32, Some(50)).with(dtype);
    let lengths = [(90, 89), (1, 0), (64, 0), (200, 120), (33, 32), (40, 40), (70, 3)];
    let sequences: Vec<Sequence> =
        lengths.iter().enumerate().map(|(i, (tokens, _))| Sequence::random(shape, *tokens, i as u64, 2.0)).collect();
    let mut pool = Pool::new(shape, 16, 60);
    let tables: Vec<Vec<u32>> = sequences.iter().map(|s| pool.add(shape, s, s.tokens)).collect();
    let token = shape.heads * shape.head_dim;
    let (mut q, mut parts, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for ((sequence, blocks), (tokens, start)) in sequences.iter().zip(&tables).zip(lengths) {
        let new_queries = &sequence.q[start * token..];
        let part = AttentionSequence { tokens: tokens - start, start, blocks };
        alone.extend(with_threads(1, || pool.attend(kernels, shape, new_queries, &[part])));
        q.extend_from_slice(new_queries);
        parts.push(part);
    }
    for threads in [1, 2, 7] {
        assert!(alone == with_threads(threads, || pool.attend(kernels, shape, &q, &parts)), "{threads} threads");
    }
}

/// Keys are cut into parts of 1024. Few queries have a task for each of them, many do not, and alone they have one thread.
fn the_same_bits_whoever_computes_the_parts(kernels: Kernels) {
    const TOKENS: usize = 2080;
    for (shape, tokens_per_block) in [
        (shape(2, 1, 32, None), 32),
        (shape(3, 1, 20, Some(1500)), 48),
        (shape(2, 1, 64, None).with(KvDtype::Int8), 32),
    ] {
        let sequence = Sequence::random(shape, TOKENS, 7, 2.0);
        let mut pool = Pool::new(shape, tokens_per_block, TOKENS / tokens_per_block + 3);
        let blocks = pool.add(shape, &sequence, TOKENS);
        let token = shape.heads * shape.head_dim;
        let span = |tokens, start| AttentionSequence { tokens, start, blocks: &blocks };
        let attend = |threads, tokens, start: usize| {
            let q = &sequence.q[start * token..][..tokens * token];
            with_threads(threads, || pool.attend(kernels, shape, q, &[span(tokens, start)]))
        };
        // The first queries see no key of the third part.
        let first = 2048 - 20;
        let whole = attend(1, TOKENS - first, first);
        check(kernels, shape, &sequence, &whole);
        for (threads, tokens) in [(2, TOKENS - first), (64, 1), (1, 1), (7, 33)] {
            for start in [first, (first + TOKENS - tokens) / 2, TOKENS - tokens] {
                let expected = &whole[(start - first) * token..][..tokens * token];
                assert!(attend(threads, tokens, start) == expected, "{tokens} tokens from {start}, {threads} threads");
            }
        }
    }
}

/// The rest of the pool is NaN, which would spread; block ids before the window are wild.
fn only_visible_keys_are_read(kernels: Kernels) {
    for dtype in DTYPES {
        only_visible_keys_are_read_in(kernels, dtype);
    }
}

fn only_visible_keys_are_read_in(kernels: Kernels, dtype: KvDtype) {
    let shape = shape(2, 1, 16, Some(20)).with(dtype);
    let sequence = Sequence::random(shape, 100, 4, 1.0);
    let mut pool = Pool::new(shape, 8, 20);
    let mut blocks = pool.add(shape, &sequence, 100);
    let q = &sequence.q[90 * 32..];
    let part = AttentionSequence { tokens: 10, start: 90, blocks: &blocks };
    let expected = pool.attend(kernels, shape, q, &[part]);
    assert!(expected.iter().all(|x| x.is_finite()));
    // The first visible position is 71, in block 8.
    blocks[..8].fill(u32::MAX);
    let part = AttentionSequence { tokens: 10, start: 90, blocks: &blocks };
    assert!(expected == pool.attend(kernels, shape, q, &[part]));
}

/// Negative zeros among values must not give a sign that depends on which unseen keys share a block.
fn values_of_zero_have_no_sign(kernels: Kernels) {
    for dtype in DTYPES {
        values_of_zero_have_no_sign_in(kernels, dtype);
    }
}

fn values_of_zero_have_no_sign_in(kernels: Kernels, dtype: KvDtype) {
    let shape = shape(1, 1, 8, None).with(dtype);
    let mut sequence = Sequence::random(shape, 40, 4, 1.0);
    sequence.values.fill(bf16::from_f32(-0.0));
    for chunk in [1, 3, 40] {
        let out = chunked(kernels, shape, &sequence, chunk, 16);
        assert!(out.iter().all(|x| x.to_bits() == 0), "chunks of {chunk}");
    }
}

fn arguments_are_checked(kernels: Kernels) {
    for dtype in DTYPES {
        arguments_are_checked_in(kernels, dtype);
    }
}

fn arguments_are_checked_in(kernels: Kernels, dtype: KvDtype) {
    let shape = shape(4, 2, 8, None).with(dtype);
    let sequence = Sequence::random(shape, 20, 4, 1.0);
    let mut pool = Pool::new(shape, 8, 4);
    let blocks = pool.add(shape, &sequence, 20);
    let whole = [AttentionSequence { tokens: 20, start: 0, blocks: &blocks }];
    let good = pool.arguments(shape, &sequence.q, &whole);
    let message = |args: Attention<'_>| {
        let mut out = vec![bf16::ZERO; sequence.q.len()];
        panic_of(|| kernels.attention(args, &mut out))
    };
    let with = |sequence| [sequence; 1];
    let far = with(AttentionSequence { tokens: 20, start: 5, blocks: &blocks });
    let endless = with(AttentionSequence { tokens: 20, start: usize::MAX, blocks: &blocks });
    let wild = with(AttentionSequence { tokens: 20, start: 0, blocks: &[0, 4, 1] });
    let short = with(AttentionSequence { tokens: 19, start: 0, blocks: &blocks });
    let short_q = &sequence.q[1..];
    for (args, expected) in [
        (Attention { sequences: &far, ..good }, "sequence 0 ends at position 25: that takes 4 blocks, not 3"),
        (Attention { sequences: &endless, ..good }, "leaves no room"),
        (Attention { sequences: &wild, ..good }, "sequence 0 names block 4 of a pool of 4"),
        (Attention { sequences: &short, ..good }, "q must hold the tokens"),
        (Attention { q: short_q, ..good }, "q must hold the tokens"),
        (Attention { keys: &pool.keys[1..], ..good }, "keys must be whole blocks"),
        (Attention { values: &pool.values[1..], ..good }, "keys and values"),
        (Attention { heads: 5, ..good }, "5 query heads cannot share 2 KV heads"),
        (Attention { kv_heads: 0, ..good }, "needs heads"),
        (Attention { head_dim: 7, ..good }, "head_dim must be even"),
        (Attention { tokens_per_block: 0, ..good }, "tokens_per_block"),
        (Attention { sliding_window: Some(0), ..good }, "sliding window"),
        (Attention { tokens_per_block: usize::MAX, ..good }, "more than memory can hold"),
    ] {
        let message = message(args);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let message = panic_of(|| kernels.attention(good, &mut [bf16::ZERO; 3]));
    assert!(message.contains("out must be as long as q"), "{message}");
    kernels.attention(Attention { q: &[], sequences: &[], ..good }, &mut []);
}
