//! What this machine can do at best: the figures that a measured speed is divided by.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::any_instruction_set::with_isa;
use crate::instruction_set::InstructionSet;
use crate::kernels::Kernels;
use crate::quantized::Quantization;

/// What is read to measure bandwidth, in bytes: more than caches hold.
const READ_BYTES: usize = 512 << 20;

/// Repetitions; the best counts, because what else runs on the machine can only slow a measurement down.
const TURNS: usize = 5;

/// How long one turn of multiply-adds should take.
const TURN: Duration = Duration::from_millis(10);

/// What all threads of a pool can do together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineLimits {
    /// Bytes read from memory in a second.
    pub read_bytes_per_second: f64,
    /// Multiplications and additions in a second, with the instruction that the matrix product of the instruction
    /// set rests on, operands and sums in registers.
    pub matrix_flops_per_second: f64,
}

impl MachineLimits {
    /// Measures for about 0.3 seconds, on the threads of the rayon pool that the call runs in. Takes 512 MiB of
    /// memory while it lasts.
    pub fn measure(kernels: Kernels, quantization: Option<Quantization>) -> MachineLimits {
        let data: Vec<u64> = (0..READ_BYTES / 8).into_par_iter().map(|i| i as u64).collect();
        let reading = shortest(|| {
            black_box(read(&data));
        });
        drop(data);
        MachineLimits {
            read_bytes_per_second: READ_BYTES as f64 / reading.as_secs_f64(),
            matrix_flops_per_second: most_a_second(|rounds| match quantization {
                None => multiply_adds(kernels, rounds),
                Some(_) => code_multiply_adds(kernels, rounds),
            }),
        }
    }
}

/// The most operations a second of `work`, which is told how many rounds to do and returns how many operations that was.
fn most_a_second(work: impl Fn(usize) -> u64) -> f64 {
    // Rounds enough for a turn are found by doubling, which also wakes the processor up.
    let mut rounds = 1 << 10;
    let operations = loop {
        let started = Instant::now();
        let operations = work(rounds);
        if started.elapsed() >= TURN || rounds >= 1 << 40 {
            break operations;
        }
        rounds *= 2;
    };
    let working = shortest(|| {
        work(rounds);
    });
    operations as f64 / working.as_secs_f64()
}

/// The shortest of [`TURNS`] turns.
fn shortest(work: impl Fn()) -> Duration {
    let turn = || {
        let started = Instant::now();
        work();
        started.elapsed().max(Duration::from_nanos(1))
    };
    (1..TURNS).fold(turn(), |shortest, _| shortest.min(turn()))
}

/// Reads `data` once with all threads, but for a rest of less than 512 bytes. What is returned depends on every
/// element that was read, so that none can be left out.
pub fn read(data: &[u64]) -> u64 {
    const PIECE: usize = 1 << 20;
    data.par_chunks(PIECE).map(read_piece).reduce(|| 0, |a, b| a ^ b)
}

/// Eight parts of a piece side by side: one stream alone leaves a core's prefetcher room to spare.
fn read_piece(piece: &[u64]) -> u64 {
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

/// Has every thread do this many rounds of multiply-adds on registers; returns how many multiplications and additions
/// that was for all of them together.
pub fn multiply_adds(kernels: Kernels, rounds: usize) -> u64 {
    let per_thread = rayon::broadcast(|_| with_isa!(kernels.0, isa => isa.multiply_adds(rounds)));
    per_thread.into_iter().sum()
}

/// The same of products of codes.
pub fn code_multiply_adds(kernels: Kernels, rounds: usize) -> u64 {
    let per_thread = rayon::broadcast(|_| with_isa!(kernels.0, isa => isa.code_multiply_adds(rounds)));
    per_thread.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::kernels_here;

    #[test]
    fn all_threads_work_and_are_counted() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for kernels in kernels_here("all_threads_work_and_are_counted") {
            let alone = with_isa!(kernels.0, isa => isa.multiply_adds(100));
            assert!(alone >= 100 * 16 && alone.is_multiple_of(100), "{alone}");
            assert_eq!(pool.install(|| multiply_adds(kernels, 100)), 3 * alone);
            let codes_alone = with_isa!(kernels.0, isa => isa.code_multiply_adds(100));
            assert!(codes_alone >= 100 * 32 && codes_alone.is_multiple_of(100), "{codes_alone}");
            assert_eq!(pool.install(|| code_multiply_adds(kernels, 100)), 3 * codes_alone);
        }
    }

    #[test]
    fn every_element_is_read() {
        let mut data = vec![0; (3 << 20) + 64];
        for i in [0, 1 << 20, (3 << 20) + 63] {
            data[i] = 5;
            assert_eq!(read(&data), 5, "{i}");
            data[i] = 0;
        }
    }

    #[test]
    fn limits_are_plausible() {
        for kernels in kernels_here("limits_are_plausible") {
            for quantization in [None, Some(Quantization::Int8)] {
                let limits = MachineLimits::measure(kernels, quantization);
                // A machine outside of these has broken clocks, or the loops were optimized away.
                assert!((1e7..1e13).contains(&limits.read_bytes_per_second), "{limits:?}");
                assert!((1e7..1e16).contains(&limits.matrix_flops_per_second), "{limits:?}");
            }
        }
    }
}
