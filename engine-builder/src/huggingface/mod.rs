//! Models as Hugging Face Transformers stores them.

pub mod config;
pub mod hub;
pub(crate) mod source;
pub mod weights;
