//! The two operations that are worth dividing with care, divided among the threads of the caller's rayon pool.

#![forbid(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod gemm;
