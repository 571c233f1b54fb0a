//! Runs engines: executors behind one contract, in-flight batching, the CPU model, sessions that make text of tokens.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`executor`] | the contract: requests, responses, [`Executor`](executor::Executor); TensorRT-LLM's executor |
//! | `logits` | what a model's raw logits must be |
//! | [`mod@model`] | what in-flight batching needs of a model |
//! | [`inflight`] | the contract over a model: scheduler, KV cache, sampler, the owner thread |
//! | [`cpu_model`] | the decoder on the CPU: mapped weights, KV cache, forward pass |
//! | [`scripted_model`] | a stand-in for a model, for tests and load tests |
//! | [`doctor`] | whether this machine can run a TensorRT engine |
//! | [`engine`] | an engine directory, opened: executor, tokenizer, chat template, end ids |
//! | [`session`] | an executor that the threads of a host share: the one place where responses become outputs |
//! | [`generation_options`] | what can be asked of a completion, at the level of text |
//! | [`request_builder`] | prompts and options to requests |

mod contained;
pub mod cpu_model;
pub mod doctor;
pub mod engine;
pub mod executor;
pub mod generation_options;
pub mod inflight;
mod logits;
pub mod model;
pub mod request_builder;
pub mod scripted_model;
pub mod session;
