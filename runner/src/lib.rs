//! Runs engines: executors behind one contract, in-flight batching, tokenization, sampling, `run-engine` and
//! `bench-engine`.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`executor`] | the contract: requests, responses, [`Executor`](executor::Executor) |
//! | [`inflight`] | the contract over a CPU model: the owner thread, the sampler |
//! | [`cpu_model`] | the decoder on the CPU: mapped weights, KV cache, forward pass |
//! | [`tokenizer`], [`detokenizer`] | text to ids, and ids to text as they arrive |
//! | [`guide`] | what an output must look like: JSON schemas, regexes and grammars, as masks over tokens |
//! | [`stop_strings`] | stop strings that span tokens |
//! | [`end_ids`] | which tokens end a sequence |
//! | [`chat`] | chat templates |
//! | [`generation`] | prompts in, text out: all of the above together |
//! | [`engine`] | an engine directory, opened: executor, tokenizer, chat template, end ids |
//! | [`doctor`] | whether this machine can run a TensorRT engine |
//! | [`session`] | an executor that the threads of a host share |
//! | [`cli`] | the `run-engine` program |
//! | [`mod@bench`] | the `bench-engine` program |

pub mod cpu_model;
pub mod doctor;
pub mod engine;
pub mod executor;
pub mod generation;
pub mod inflight;
mod outbox;
pub mod session;
