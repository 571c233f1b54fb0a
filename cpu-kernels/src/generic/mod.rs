//! Each algorithm once, over any instruction set.

#![forbid(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod exp;
pub(crate) mod log_sum_exp;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod sampling;
