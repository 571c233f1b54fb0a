//! An engine in this process, measured with its own statistics.
//!
//! Every load gets an executor of its own, so that none finds what another left in the KV cache, and one request to
//! warm up.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cpu_kernels::limits::MachineLimits;
use cpu_kernels::{Kernels, Quantization};
use engine_format::{EngineDir, Target};
use indicatif::ProgressBar;

use crate::engine::{Closing, describe};
use crate::format::counted;
use crate::memory::{memory, processor};
use crate::prompts;
use args::exit::{Failure, input, say};
use args::{Interrupt, SamplingArgs};
use runner::engine::{Engine, OpenError, Running, check_target};
use runner::executor::{Executor, ExecutorConfig, Request};
use runner::inflight::CpuExecutorFacts;
use runner::request_builder::RequestBuilder;
use text::tokenizer::Tokenizer;

use super::cost::ModelCost;
use super::drive::{Run, drive, warm_up};
use super::flags::{Args, WorkloadArgs};
use super::load::{self, Load};
use super::report::{EngineFacts, MachineFacts, Report, Subject, WorkloadFacts};
use super::requests::{self, Asked};
use super::summary::summarize;
use super::workload::Material;
use super::{Measured, figures, progress_bar};

/// Iterations whose statistics wait to be taken; the client takes them with every response.
const STATISTICS: usize = 1 << 20;

/// Puts the engine in `path` under the loads. `None` in a process that serves another's rank.
pub(super) fn measure(
    args: &Args,
    path: &Path,
    loads: &[Load],
    interrupt: &Interrupt,
    began: Instant,
) -> Result<Option<Measured>, Failure> {
    let dir = EngineDir::open(path).map_err(OpenError::from)?;
    check_target(&dir).map_err(Failure::from)?;
    let config = args.executor.config().map_err(input)?;
    args.executor.check(&config, dir.manifest().limits).map_err(input)?;
    let config = ExecutorConfig { iter_stats_max_iterations: STATISTICS, ..config };
    let mut engine = Engine::start_with_text(dir, &config).map_err(Failure::from)?;
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(None);
    }
    let tokenizer = engine.tokenizer().cloned();
    let tokenizer = tokenizer.as_ref().and_then(|tokenizer| tokenizer.get().ok());
    let start_up_seconds = began.elapsed().as_secs_f64();
    if !args.quiet {
        describe(&engine, &config);
    }
    let executor = engine.executor();
    let workload = Workload::new(&args.workload, &args.sampling, &engine, executor.as_ref()).map_err(input)?;
    if !args.quiet && workload.scores_prompts() {
        say("note: prompts with `prompt_logprobs` are computed whole, so none of their blocks comes from the cache");
    }
    drop(executor);
    let facts = engine_facts(&engine, start_up_seconds);

    let bar = progress_bar(args.quiet, loads.len() * workload.requests.len());
    let mut runs: Vec<Run> = Vec::new();
    for &load in loads {
        if !runs.is_empty() {
            engine.restart(&config).map_err(Failure::from)?;
        }
        let executor = engine.executor();
        let _closing = Closing(executor.clone());
        let watched = executor.clone();
        interrupt.watch(move || watched.cancel_all());
        bar.set_message(load.label());
        let run = under(executor.as_ref(), tokenizer, &workload, load, args.workload.seed, &bar);
        if interrupt.happened() {
            return Err(Failure::Interrupted);
        }
        runs.push(run.map_err(Failure::Other)?);
    }
    bar.finish_and_clear();
    // Measured last: it takes memory that is not the engine's.
    let memory = memory();
    let limits = match engine.running() {
        Running::Cpu(_) => measure_limits(facts.threads, engine.dir()).map_err(Failure::Other)?,
        Running::TensorRtLlm(_) => gpu_limits(engine.dir()),
    };

    let mut cost = ModelCost::of_engine(engine.dir()).map_err(|error| Failure::Other(error.into()))?;
    if facts.kv_cache_tokens > 0 {
        cost = cost.with_kv_bytes_per_token(facts.kv_cache_bytes as f64 / facts.kv_cache_tokens as f64);
    }
    let machine = MachineFacts {
        processor: machine_name(&engine),
        read_bytes_per_second: limits.read_bytes_per_second,
        matrix_flops_per_second: limits.matrix_flops_per_second,
        peak_resident_bytes: memory.map(|(peak, _)| peak * 1024),
        anonymous_bytes: memory.map(|(_, anonymous)| anonymous * 1024),
    };
    let report = Report {
        subject: Subject::Engine { engine: facts, machine },
        workload: workload.facts,
        runs: loads.iter().zip(&runs).map(|(load, run)| summarize(*load, run, &cost, &limits)).collect(),
    };
    Ok(Some(Measured { occupancy: Some(figures::occupancy(loads, &runs)), report, failure: None }))
}

/// What the engine is asked.
#[derive(Debug)]
struct Workload {
    /// In order of arrival.
    requests: Vec<Request>,
    /// As long as the longest request, but of other ids.
    warm_up: Request,
    facts: WorkloadFacts,
}

impl Workload {
    /// Makes the requests.
    ///
    /// # Errors
    /// Lengths that the engine does not allow, prompts that are invalid.
    fn new(args: &WorkloadArgs, sampling: &SamplingArgs, engine: &Engine, executor: &dyn Executor) -> Result<Self> {
        let builder = RequestBuilder::new(engine, executor);
        let material = Material::Ids { vocab_size: executor.vocab_size(), end_ids: engine.end_ids().to_vec() };
        let build = |asked: &Asked| {
            let built = builder.build(&asked.prompt, &asked.options).map_err(prompts::refused);
            asked.blame(built.map(|submission| submission.request))
        };
        let asked = requests::asked(args, sampling, &material)?;
        let requests = asked.iter().map(build).collect::<Result<Vec<_>>>()?;
        for (index, request) in requests.iter().enumerate() {
            let spec = request.spec();
            ensure!(
                !request.is_shortened(),
                "request {index}: a prompt of {} leaves room for {} of output, fewer than asked for (max_seq_len {})",
                counted(spec.input_token_ids.len(), "token"),
                spec.max_tokens,
                executor.limits().max_seq_len
            );
        }
        let prompt_tokens = |request: &Request| request.spec().input_token_ids.len();
        let output_tokens = |request: &Request| request.spec().max_tokens;
        let longest = requests.iter().map(prompt_tokens).max().unwrap_or(1);
        let shortest = requests.iter().map(output_tokens).min().unwrap_or(1);
        let warm_up = build(&requests::warm_up(args, sampling, &material, longest, shortest)?)?;
        let facts = WorkloadFacts {
            prompt_tokens: Some(requests.iter().map(prompt_tokens).sum()),
            output_tokens: requests.iter().map(output_tokens).sum(),
            ..requests::facts(args, sampling, requests.len())
        };
        Ok(Self { requests, warm_up, facts })
    }

    /// Whether a prompt's own log-probabilities are asked for.
    fn scores_prompts(&self) -> bool {
        self.requests.iter().any(|request| request.spec().output.return_prompt_log_probs)
    }
}

fn under(
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    workload: &Workload,
    load: Load,
    seed: u64,
    bar: &ProgressBar,
) -> Result<Run> {
    let pace = load::pace(load, workload.requests.len(), seed);
    warm_up(executor, workload.warm_up.clone()).context("the warm-up failed")?;
    Ok(drive(executor, tokenizer, &workload.requests, &pace, || bar.inc(1))?)
}

/// Of products with the engine's type of weights.
fn measure_limits(threads: usize, dir: &EngineDir) -> Result<MachineLimits> {
    let kernels = Kernels::detect()?;
    let weights = dir.manifest().weights();
    let quantization = Quantization::ALL.into_iter().find(|quantization| Some(quantization.name()) == weights);
    let pool = system::Pool::new("limits", threads)?;
    Ok(pool.install(|| MachineLimits::measure(kernels, quantization)))
}

/// What the data sheet of the engine's GPU says; nothing of one that is not known.
fn gpu_limits(dir: &EngineDir) -> MachineLimits {
    let target = dir.manifest().target.parse();
    let bandwidth = if let Ok(Target::Gpu(gpu)) = target { gpu.bandwidth as f64 } else { 0.0 };
    MachineLimits { read_bytes_per_second: bandwidth, matrix_flops_per_second: 0.0 }
}

fn engine_facts(engine: &Engine, start_up_seconds: f64) -> EngineFacts {
    let (config, limits) = (engine.dir().config(), engine.executor().limits());
    let (isa, cpu) = match engine.running() {
        Running::Cpu(executor) => (executor.facts().isa.to_string(), Some(executor.facts())),
        Running::TensorRtLlm(executor) => (format!("TensorRT-LLM {}", executor.facts().version), None),
    };
    EngineFacts {
        path: engine.dir().path().display().to_string(),
        architecture: config.architecture.name(),
        parameters: config.parameters(),
        kernels: cpu.map_or_else(|| isa.clone(), CpuExecutorFacts::kernels),
        isa,
        code_instructions: cpu.and_then(|facts| facts.code_instructions),
        threads: cpu.map_or(0, |facts| facts.threads),
        max_batch_size: limits.max_batch_size,
        max_num_tokens: limits.max_num_tokens,
        max_seq_len: limits.max_seq_len,
        kv_cache_tokens: cpu.map_or(0, |facts| facts.kv_cache_tokens),
        kv_cache_bytes: cpu.map_or(0, |facts| facts.kv_cache_bytes),
        kv_cache_dtype: cpu.map(|facts| facts.kv_cache_dtype),
        // The engine runs, so its weights file was read once already.
        step_weight_bytes: ModelCost::of_engine(engine.dir()).unwrap_or_else(|_| ModelCost::new(config)).step_bytes(),
        start_up_seconds,
    }
}

/// The processor, or the GPU that the engine was built for.
fn machine_name(engine: &Engine) -> Option<String> {
    match engine.running() {
        Running::Cpu(_) => processor(),
        Running::TensorRtLlm(_) => Some(engine.dir().manifest().target.clone()),
    }
}
