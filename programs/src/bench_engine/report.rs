//! What is printed: the figures of every load, the engine, the workload and the machine.

use runner::executor::KvCacheDtype;
use serde::Serialize;

use super::endpoint::{EndpointFacts, EndpointFigures};
use super::percentiles::Percentiles;

/// Everything that a run of the program found out; what `--format json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub subject: Subject,
    pub workload: WorkloadFacts,
    /// One for each load.
    pub runs: Vec<RunReport>,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Subject {
    /// An engine in this process, and the machine.
    Engine { engine: EngineFacts, machine: MachineFacts },
    /// A server, as a client sees it.
    Endpoint { endpoint: EndpointFacts },
}

/// The engine and how it was run.
#[derive(Debug, Serialize)]
pub(super) struct EngineFacts {
    pub path: String,
    pub architecture: &'static str,
    pub parameters: u64,
    pub isa: String,
    /// The instructions that multiply the codes of a CPU engine's weights; `None` where no weights are codes.
    pub code_instructions: Option<&'static str>,
    /// Both of these in words.
    #[serde(skip)]
    pub kernels: String,
    pub threads: usize,
    pub max_batch_size: usize,
    pub max_num_tokens: usize,
    pub max_seq_len: usize,
    pub kv_cache_tokens: usize,
    pub kv_cache_bytes: usize,
    /// What a CPU engine's cache stores keys and values as.
    pub kv_cache_dtype: Option<KvCacheDtype>,
    /// Weights that one step reads: all but the embedding's table.
    pub step_weight_bytes: f64,
    /// From the program's start to an engine that takes requests.
    pub start_up_seconds: f64,
}

/// What was asked.
#[derive(Debug, Serialize)]
pub(super) struct WorkloadFacts {
    pub requests: usize,
    pub source: String,
    /// `None` where a server counts them and did not answer every prompt.
    pub prompt_tokens: Option<usize>,
    pub output_tokens: usize,
    pub shared_prefix_len: usize,
    pub temperature: f32,
    pub top_p: f32,
    /// The flags about choosing tokens, as they were typed.
    pub sampling: Vec<String>,
    /// Whether the prompts went through the chat template.
    pub chat: bool,
    pub seed: u64,
}

/// The machine's limits, and the memory of this process before they were measured.
#[derive(Debug, Serialize)]
pub(super) struct MachineFacts {
    /// The processor's name, or the GPU's.
    pub processor: Option<String>,
    pub read_bytes_per_second: f64,
    /// Of products with weights of the engine's type.
    pub matrix_flops_per_second: f64,
    pub peak_resident_bytes: Option<u64>,
    pub anonymous_bytes: Option<u64>,
}

/// One load's figures. Latencies are in seconds.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    pub load: String,
    pub arrivals: Option<&'static str>,
    pub rate: Option<f64>,
    pub concurrency: Option<usize>,
    /// From the first arrival to the last token.
    pub seconds: f64,
    pub requests_per_second: f64,
    pub output_tokens_per_second: f64,
    /// Prompts and outputs together.
    pub total_tokens_per_second: f64,
    /// From a request's arrival.
    pub time_to_first_token: Option<Percentiles>,
    /// A request's time from first to last token, divided by the tokens after the first.
    pub time_per_output_token: Option<Percentiles>,
    /// Between one token and the next of a request.
    pub inter_token_latency: Option<Percentiles>,
    /// From a request's arrival to its last token.
    pub request_latency: Option<Percentiles>,
    #[serde(flatten)]
    pub seen: Seen,
}

/// What else was seen of a run.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Seen {
    /// An executor's statistics.
    Executor(ExecutorFigures),
    /// A server's answers.
    Endpoint(EndpointFigures),
}

/// Figures from an executor's statistics.
#[derive(Debug, Serialize)]
pub(super) struct ExecutorFigures {
    pub kv_cache: KvCacheFacts,
    pub iterations: usize,
    /// Sequences of an iteration.
    pub mean_batch_size: f64,
    pub paused_requests: usize,
    /// Iterations that only process prompts.
    pub context: Option<Phase>,
    /// Iterations that only generate.
    pub generation: Option<Phase>,
    /// Of all iterations: the time that the machine would need at its limits, by the time that the model took.
    pub share_of_machine: Option<f64>,
    /// Of all iterations.
    pub overhead: Option<Overhead>,
    /// Of the iterations that only generate.
    pub generation_overhead: Option<Overhead>,
}

/// Occupancy of the KV cache, weighted by the iterations' time.
#[derive(Debug, Serialize)]
pub(super) struct KvCacheFacts {
    pub max_num_blocks: usize,
    pub tokens_per_block: usize,
    pub mean_occupancy: f64,
    pub peak_occupancy: f64,
    /// Tokens that the blocks in use have room for.
    pub mean_tokens: f64,
    pub peak_tokens: usize,
    /// Share of the prompts' blocks that were found in the cache.
    pub hit_rate: f64,
}

/// Iterations of one kind, and the model's part of their time.
#[derive(Debug, Serialize)]
pub(super) struct Phase {
    pub iterations: usize,
    pub tokens: usize,
    pub model_seconds: f64,
    pub tokens_per_second: f64,
    pub bytes_per_second: f64,
    pub flops_per_second: f64,
    pub share_of_read_bandwidth: f64,
    pub share_of_matrix_peak: f64,
}

/// What iterations spend besides the model, as shares of their time.
#[derive(Debug, Serialize)]
pub(super) struct Overhead {
    /// Scheduling, sampling and delivery, inside the executor.
    pub outside_model: f64,
    /// Turning ids into text, in the client's thread; 0 without a tokenizer.
    pub detokenization: f64,
}
