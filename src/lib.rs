//! Hugging Face checkpoints of the Mistral and Llama families to engines, and the executors that run them.
//!
//! This is the façade: the crates under one name, and the C ABI over them ([`c_api`]). The programs
//! `build-engine`, `run-engine` and `bench-engine` are in the crate `programs`, over the same crates.
//!
//! ```no_run
//! use std::path::Path;
//! use trtllm::engine_format::EngineDir;
//! use trtllm::runner::executor::{Executor, ExecutorConfig, Request, RequestSpec, Response};
//! use trtllm::runner::inflight::CpuExecutor;
//!
//! let engine = EngineDir::open(Path::new("engine"))?;
//! let executor = CpuExecutor::open(&engine, &ExecutorConfig::default())?;
//! let spec = RequestSpec::new(vec![1, 2, 3], 16);
//! executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size())?)?;
//! loop {
//!     for response in executor.await_responses(None) {
//!         if let Response::Result(result) = &response {
//!             println!("{:?}", result.output_token_ids);
//!         }
//!         if response.is_final() {
//!             return Ok(());
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

pub mod c_api;

pub use engine_builder;
pub use engine_format;
pub use runner;
pub use text;
pub use trtllm_sys;
