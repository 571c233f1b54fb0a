//! What multiplies codes, as fast as it goes: VPDPBUSD, or VPMADDUBSW and what makes sums of 32 bits of it.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Independent sums, as many as hide the latency and as there are registers for.
const SUMS: usize = 12;

/// Stamps out a loop over [`SUMS`] registers of `$lanes` sums; `$add` is `$sum` with four products of `$ones` more in each lane.
macro_rules! multiply_adds {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $splat:ident, |$sum:ident, $ones:ident| $add:expr) => {
        /// See [`crate::instruction_set::InstructionSet::code_multiply_adds`].
        #[target_feature(enable = $features)]
        pub(super) fn $name(rounds: usize) -> u64 {
            let $ones = $splat(black_box(0x0101_0101));
            let mut sums = [$zero(); SUMS];
            for _ in 0..rounds {
                for sum in &mut sums {
                    let $sum = *sum;
                    *sum = $add;
                }
            }
            black_box(sums);
            // Four products a lane, a product and its addition being two.
            (rounds * SUMS * $lanes * 4 * 2) as u64
        }
    };
}

multiply_adds!(avx512_vnni, "avx512f,avx512vnni", 16, _mm512_setzero_si512, _mm512_set1_epi32, |sum, ones| {
    _mm512_dpbusd_epi32(sum, ones, ones)
});
multiply_adds!(avx_vnni, "avx2,avxvnni", 8, _mm256_setzero_si256, _mm256_set1_epi32, |sum, ones| {
    _mm256_dpbusd_avx_epi32(sum, ones, ones)
});
multiply_adds!(avx2, "avx2", 8, _mm256_setzero_si256, _mm256_set1_epi32, |sum, ones| {
    // The sum takes part in what is multiplied, so that nothing can be taken out of the loop.
    let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(sum, ones), ones);
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones))
});
