//! Each algorithm once, over any instruction set's vectors: a [`crate::simd::Task`] each.
//!
//! All but attention read and write each element once or twice, so their speed is that of memory or the caches.

#![forbid(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod attention_products;
pub(crate) mod elementwise;
pub(crate) mod exp;
pub(crate) mod key_block;
pub(crate) mod log_sum_exp;
pub(crate) mod multiply_adds;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod sampling;
