//! Models as Hugging Face Transformers stores them.

pub mod config;
pub mod hub;
pub mod weights;
