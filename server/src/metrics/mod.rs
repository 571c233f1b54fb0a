//! What is counted, and its text for Prometheus. Counting costs an atomic addition; nothing here waits for the executor.

mod names;
mod registry;

pub use names::{Facts, Format, iterations, render};
pub use registry::{Counter, Histogram, Metrics, reason};
