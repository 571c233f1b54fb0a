//! Ways from a model to an engine.

pub mod cpu;
