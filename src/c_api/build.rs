//! Building engines.

use std::ffi::c_void;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use engine_builder::BuildError;
use engine_builder::build::BuildFailure;
use engine_builder::lora::LoraRequest;
use engine_builder::memory_plan::LimitRequest;
use engine_builder::network::options::ResidualDtype;
use engine_builder::progress::{Interrupt, Progress};
use engine_builder::settings::{Compiler, GpuSettings, PluginLog, Settings, Task};
use engine_format::{EngineDir, FormatError, Target};

use super::entry::{entry, entry_in_forks};
use super::fork;
use super::logits::UserData;
use super::options::{self, Options};
use super::pointers::{optional_text, text};
use super::status::{
    Failure, TRTLLM_STATUS_BUSY, TRTLLM_STATUS_CANCELLED, TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_FILES,
    TRTLLM_STATUS_SYSTEM, TRTLLM_STATUS_UNAVAILABLE, trtllm_status,
};
use super::strings::{CBool, trtllm_str};

/// How far a long task is. The library fills it; later versions may make it longer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_progress {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// What is being done, or was done last, for example `writing rank0.weights`; empty before the first task.
    pub task: trtllm_str,
    /// Bytes of the task that are done; thousandths of each rank's engine while TensorRT compiles. Goes up until another task
    /// begins.
    pub done_bytes: u64,
    /// The whole task, in the same unit.
    pub total_bytes: u64,
    /// Where there is something to say beside that: a sentence for the user. Else empty.
    pub note: trtllm_str,
}

/// Told how far a task is, a few times for every hundred megabytes: on any thread, but never twice at the same time. Returns 0
/// to go on; anything else stops the task, which then leaves nothing behind. The pointer is valid during the call. It must not
/// unwind: no C++ exception may leave it.
pub type trtllm_progress_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, progress: *const trtllm_progress) -> i32>;

/// What to build. Fill it with `trtllm_init_build_options`, give `model`, and `output` or `checkpoint` or both.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_build_options {
    /// `sizeof(trtllm_build_options)`.
    pub struct_size: usize,
    /// The model: a directory, an `org/name` of the Hugging Face hub, or a TensorRT-LLM checkpoint that this library wrote.
    /// Default: none.
    pub model: trtllm_str,
    /// The engine directory to make. It appears whole or not at all. Default: none.
    pub output: trtllm_str,
    /// The TensorRT-LLM checkpoint directory to make. Default: none.
    pub checkpoint: trtllm_str,
    /// The target: `none` for the CPU, `auto`, or the name of a GPU, for example `a100`. Empty: a GPU that is here, else the
    /// CPU. Default: none.
    pub gpu: trtllm_str,
    /// Tensor-parallel size; 0 for the model's, or 1. Default: 0.
    pub tp_size: usize,
    /// Pipeline-parallel size; 0 for the model's, or 1. Default: 0.
    pub pp_size: usize,
    /// Tokens of the longest sequence; 0 for the library's choice. Default: 0.
    pub max_seq_len: usize,
    /// Sequences in one iteration; 0 for the library's choice. Default: 0.
    pub max_batch_size: usize,
    /// Tokens in one iteration; 0 for the library's choice. Default: 0.
    pub max_num_tokens: usize,
    /// Told how far the build is, and asked whether to go on; NULL for nobody. Default: none.
    pub on_progress: trtllm_progress_callback,
    /// Given to `on_progress`. Default: none.
    pub user_data: *mut c_void,
    /// Whether outputs that are there already are replaced. Default: false.
    pub force: CBool,
    /// Whether the model may be fetched from the Hugging Face hub. Default: false.
    pub download: CBool,
    /// GPU engines: logits of every token of a prompt can be had. TensorRT-LLM then reuses no KV-cache block of any request.
    /// Default: false.
    pub gather_context_logits: CBool,
    /// GPU engines: logits of generated tokens can be had. Default: false.
    pub gather_generation_logits: CBool,
    /// GPU engines: matrix products by TensorRT-LLM's Gemm plugin. Default: false.
    pub gemm_plugin: CBool,
    /// GPU engines: who compiles, `tensorrt` or `trtllm-build`; empty for the first. Default: none.
    pub compiler: trtllm_str,
    /// GPU engines: a file that keeps what TensorRT measures, for the next build; empty for none. Default: none.
    pub timing_cache: trtllm_str,
    /// GPU engines: beams of a sequence; 0 for one. Default: 0.
    pub max_beam_width: usize,
    /// GPU engines: tokens of the iteration that tactics are chosen for, in one optimization profile; 0 for several profiles, between
    /// the runtime's split points. Default: 0.
    pub opt_num_tokens: usize,
    /// GPU engines: ranks that are compiled at the same time; 0 for one. Default: 0.
    pub workers: usize,
    /// Whether weights may be infinite or NaN, or too large for bfloat16. Without, a model that has such weights is refused with
    /// `TRTLLM_STATUS_INVALID_FILES`, and the first one is named. Default: false.
    pub allow_non_finite: CBool,
    /// GPU engines: type of the residual stream, `float32` or `bfloat16`; empty for the first. Default: none.
    pub residual_dtype: trtllm_str,
    /// What a CPU engine's matrices are stored as: `bf16`, `int8` or `int4`; empty for the first. Default: none.
    pub weights: trtllm_str,
}

// SAFETY: `repr(C)`, begins with its size, and holds numbers, bytes, raw pointers and nullable functions only.
unsafe impl Options for trtllm_build_options {
    const FIRST_SIZE: usize = 136;

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            model: trtllm_str::EMPTY,
            output: trtllm_str::EMPTY,
            checkpoint: trtllm_str::EMPTY,
            gpu: trtllm_str::EMPTY,
            tp_size: 0,
            pp_size: 0,
            max_seq_len: 0,
            max_batch_size: 0,
            max_num_tokens: 0,
            on_progress: None,
            user_data: std::ptr::null_mut(),
            force: CBool::FALSE,
            download: CBool::FALSE,
            gather_context_logits: CBool::FALSE,
            gather_generation_logits: CBool::FALSE,
            gemm_plugin: CBool::FALSE,
            compiler: trtllm_str::EMPTY,
            timing_cache: trtllm_str::EMPTY,
            max_beam_width: 0,
            opt_num_tokens: 0,
            workers: 0,
            allow_non_finite: CBool::FALSE,
            residual_dtype: trtllm_str::EMPTY,
            weights: trtllm_str::EMPTY,
        }
    }
}

/// Writes the default options to `options`, a struct of `struct_size` bytes: `sizeof(trtllm_build_options)`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_init_build_options(
    options: *mut trtllm_build_options,
    struct_size: usize,
) -> trtllm_status {
    // SAFETY: as the caller promises.
    entry_in_forks(|| unsafe { options::write(options, struct_size, &trtllm_build_options::defaults(), "options") })
}

/// The settings that options ask for.
///
/// # Safety
/// As [`optional_text`], for each text.
pub(super) unsafe fn settings(options: &trtllm_build_options) -> Result<Settings, Failure> {
    // SAFETY: as the caller promises.
    let (model, output, checkpoint, gpu, compiler, timing_cache, residual_dtype, weights) = unsafe {
        let path = |value, name| optional_text(value, name).map(|text| text.filter(|text| !text.is_empty()));
        (
            path(options.model, "model")?.ok_or_else(|| Failure::argument("model is empty: name one"))?,
            path(options.output, "output")?.map(PathBuf::from),
            path(options.checkpoint, "checkpoint")?.map(PathBuf::from),
            path(options.gpu, "gpu")?,
            path(options.compiler, "compiler")?,
            path(options.timing_cache, "timing_cache")?.map(PathBuf::from),
            path(options.residual_dtype, "residual_dtype")?,
            path(options.weights, "weights")?,
        )
    };
    let compiler = match compiler {
        None | Some("tensorrt") => Compiler::TensorRt,
        Some("trtllm-build") => Compiler::TrtllmBuild,
        Some(other) => {
            return Err(Failure::argument(format!("compiler `{other}` is neither tensorrt nor trtllm-build")));
        }
    };
    let residual_dtype = match residual_dtype {
        None | Some("float32") => ResidualDtype::Float32,
        Some("bfloat16") => ResidualDtype::Bfloat16,
        Some(other) => {
            return Err(Failure::argument(format!("residual_dtype `{other}` is neither float32 nor bfloat16")));
        }
    };
    let weights = weights.map(|name| name.parse().map_err(|error| Failure::argument(format!("weights: {error}"))));
    let chosen = |number: usize| (number > 0).then_some(number);
    let target = gpu.map(|name| name.parse::<Target>().map_err(|error| Failure::argument(format!("gpu: {error}"))));
    Ok(Settings {
        model: model.into(),
        tokenizer: None,
        download: options.download.get(),
        target: target.transpose()?,
        tp_size: chosen(options.tp_size),
        pp_size: chosen(options.pp_size),
        limits: LimitRequest {
            max_seq_len: chosen(options.max_seq_len),
            max_batch_size: chosen(options.max_batch_size),
            max_num_tokens: chosen(options.max_num_tokens),
        },
        weights: weights.transpose()?.unwrap_or_default(),
        gpu: GpuSettings {
            compiler,
            workers: chosen(options.workers),
            max_beam_width: chosen(options.max_beam_width),
            opt_num_tokens: chosen(options.opt_num_tokens),
            gather_context_logits: options.gather_context_logits.get(),
            gather_generation_logits: options.gather_generation_logits.get(),
            gemm_plugin: options.gemm_plugin.get(),
            residual_dtype,
            lora: LoraRequest::default(),
            timing_cache,
            plugin_log: PluginLog::StandardOutput,
            network: None,
        },
        task: match (output, &checkpoint) {
            (Some(output), _) => Task::Engine(output),
            (None, Some(_)) => Task::Checkpoint,
            (None, None) => Task::Plan,
        },
        checkpoint,
        force: options.force.get(),
        allow_non_finite: options.allow_non_finite.get(),
        threads: None,
    })
}

/// Builds what `options` ask for; it returns when that is done, which may take minutes.
///
/// Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` for options that contradict each other or the model,
/// `TRTLLM_STATUS_INVALID_FILES` for an invalid model or an output that exists, `TRTLLM_STATUS_UNAVAILABLE` for a
/// target that this machine cannot build (the message has the command that finishes the work elsewhere) or whose memory is too
/// small,
/// `TRTLLM_STATUS_BUSY` for a GPU while this process has a TensorRT engine open,
/// `TRTLLM_STATUS_CANCELLED` when `on_progress` stopped it, `TRTLLM_STATUS_SYSTEM`, also when another build is writing there. After
/// an error the output is as it was.
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_build_engine(options: *const trtllm_build_options) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises, for the options and their texts.
        let (options, settings) = unsafe {
            let options = options::read(options, "options")?;
            (options, settings(&options)?)
        };
        if settings.task == Task::Plan {
            return Err(Failure::argument("there is nothing to build: set output, or checkpoint, or both"));
        }
        fork::watch()?;
        let watcher = Watcher::new(options.on_progress, UserData::new(options.user_data));
        engine_builder::build::build(&settings, &watcher, &watcher.interrupt).map_err(|error| cannot_build(&error))?;
        Ok(())
    })
}

/// A build's failure, as a status.
pub(super) fn cannot_build(failure: &BuildFailure) -> Failure {
    let status = match failure {
        BuildFailure::Settings(_) => TRTLLM_STATUS_INVALID_ARGUMENT,
        BuildFailure::Machine { .. } | BuildFailure::Memory { .. } => TRTLLM_STATUS_UNAVAILABLE,
        BuildFailure::Build(BuildError::Interrupted) => TRTLLM_STATUS_CANCELLED,
        BuildFailure::Build(BuildError::Busy { .. }) => TRTLLM_STATUS_BUSY,
        BuildFailure::Build(error) if error.is_disk_full() => TRTLLM_STATUS_SYSTEM,
        BuildFailure::Build(BuildError::TensorRt { .. } | BuildError::TrtllmBuild { .. }) => TRTLLM_STATUS_SYSTEM,
        BuildFailure::Build(BuildError::Pool(_) | BuildError::Thread(_)) => TRTLLM_STATUS_SYSTEM,
        BuildFailure::Build(
            BuildError::Hub { .. } | BuildError::Format(FormatError::Io { .. } | FormatError::Busy { .. }),
        ) => TRTLLM_STATUS_SYSTEM,
        _ => TRTLLM_STATUS_INVALID_FILES,
    };
    let mut failure_text = Failure::from_error(status, failure);
    if let BuildFailure::Machine { details, commands, .. } = failure {
        let lines = details.iter().map(|detail| format!("\n  {detail}"));
        let commands = commands.iter().map(|command| format!("\non a machine that has it: {command}"));
        failure_text.message.extend(lines.chain(commands));
    }
    failure_text
}

/// Compares every weight of an engine directory with its hash; the rest is compared whenever it is opened. It reads the whole
/// engine.
///
/// Errors: `TRTLLM_STATUS_INVALID_FILES` for an invalid engine, `TRTLLM_STATUS_CANCELLED` when `on_progress`, which
/// may be NULL, stopped it. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_verify_engine(
    path: trtllm_str,
    on_progress: trtllm_progress_callback,
    user_data: *mut c_void,
) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises.
        let path = unsafe { text(path, "path") }?;
        let broken = |error: engine_format::FormatError| Failure::from_error(TRTLLM_STATUS_INVALID_FILES, &error);
        let engine = EngineDir::open(Path::new(path)).map_err(broken)?;
        let watcher = Watcher::new(on_progress, UserData::new(user_data));
        let total = engine.weights().map_err(broken)?.tensors().map(|entry| entry.bytes as u64).sum();
        watcher.begin("verifying", total);
        let advance = |bytes| {
            watcher.advance(bytes);
            if watcher.interrupt.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let result = engine.verify(advance).map_err(broken)?;
        watcher.end();
        if result.is_break() {
            return Err(Failure::new(TRTLLM_STATUS_CANCELLED, "the callback stopped it"));
        }
        Ok(())
    })
}

/// Brings progress to a callback, and its wish to stop back.
pub(super) struct Watcher {
    on_progress: trtllm_progress_callback,
    user_data: UserData,
    pub(super) interrupt: Interrupt,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    task: String,
    done: u64,
    total: u64,
}

impl Watcher {
    pub(super) fn new(on_progress: trtllm_progress_callback, user_data: UserData) -> Self {
        Self { on_progress, user_data, interrupt: Interrupt::new(), state: Mutex::default() }
    }

    /// Changes the state and tells of it; the lock keeps calls apart.
    fn tell(&self, note: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let Some(on_progress) = self.on_progress else { return };
        let progress = trtllm_progress {
            struct_size: size_of::<trtllm_progress>(),
            task: trtllm_str::of(&state.task),
            done_bytes: state.done,
            total_bytes: state.total,
            note: trtllm_str::of(note),
        };
        // SAFETY: the host promises a function of this type that does not unwind; the progress is valid during the call.
        if unsafe { on_progress(self.user_data.get(), &progress) } != 0 {
            self.interrupt.set();
        }
    }
}

impl Progress for Watcher {
    fn begin(&self, what: &str, total_bytes: u64) {
        self.tell("", |state| *state = State { task: what.to_owned(), done: 0, total: total_bytes });
    }

    fn begin_steps(&self, what: &str, steps: u64) {
        self.begin(what, steps);
    }

    fn advance(&self, done: u64) {
        self.tell("", |state| state.done = state.done.saturating_add(done));
    }

    /// Nothing to tell: whoever shows how far the task is goes on showing it.
    fn end(&self) {}

    fn note(&self, text: &str) {
        self.tell(text, |_| ());
    }

    fn detail(&self, text: &str) {
        self.tell(text, |_| ());
    }
}
