//! A build from beginning to end, as the program and the C ABI ask for it: settings in, checkpoint and engine out.
//!
//! ```no_run
//! use engine_builder::build::build;
//! use engine_builder::progress::{Interrupt, Quiet};
//! use engine_builder::settings::{Settings, Task};
//! use engine_format::Target;
//!
//! let mut settings = Settings::new("assets/demo-model", Task::Engine("engine".into()));
//! settings.target = Some(Target::Cpu);
//! let built = build(&settings, &Quiet, &Interrupt::new())?;
//! assert_eq!(built.target, Some(Target::Cpu));
//! # Ok::<(), engine_builder::build::BuildFailure>(())
//! ```
#![forbid(unsafe_code)]

mod gpu;
mod print_network;

use std::path::{Path, PathBuf};

use engine_format::manifest::Limits;
use engine_format::target::GPUS;
use engine_format::{Mapping, ModelConfig, Target};

use crate::checkpoint::write::{CheckpointRequest, write_checkpoint};
use crate::command;
use crate::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use crate::error::BuildError;
use crate::huggingface::hub::{self, Need};
use crate::machine;
use crate::memory_plan::{Executor, MemoryPlan, Place, cpu_limits};
use crate::output::Written;
use crate::progress::{Interrupt, Progress};
use crate::settings::{Settings, SettingsError, Task};
use crate::source::{Outline, Source, SourceFormat};
use crate::units;
use system::Pool;
use system::pool::processors;

/// Why nothing, or not everything, was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildFailure {
    /// Settings that contradict each other or the model.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The model is invalid, or an output cannot be written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The engine would not run on the GPU: too little memory.
    #[error("an engine for `{target}` does not fit {device}: it {problem}")]
    Memory {
        /// The target.
        target: Target,
        /// The GPU.
        device: String,
        /// What is missing and what to do, as the end of a sentence.
        problem: String,
    },
    /// The machine lacks what the target needs.
    #[error("this machine cannot build an engine for `{target}`: {reason}")]
    Machine {
        /// The target.
        target: Target,
        /// What is missing, as the end of a sentence.
        reason: String,
        /// Further lines: what was tried.
        details: Vec<String>,
        /// Commands that finish the work elsewhere: ours, then TensorRT-LLM's own.
        commands: Vec<String>,
    },
}

impl From<engine_format::FormatError> for BuildFailure {
    fn from(error: engine_format::FormatError) -> Self {
        Self::Build(error.into())
    }
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The target; `None` for a checkpoint without one.
    pub target: Option<Target>,
    /// The checkpoint, if one was asked for.
    pub checkpoint: Option<Written>,
    /// The engine and its limits, if one was asked for.
    pub engine: Option<(Written, Limits)>,
    /// Commands for a shell that go on from here: ours, then TensorRT-LLM's own.
    pub next: Vec<String>,
}

/// Memory plans of one model.
#[derive(Debug, Clone)]
pub struct Plans {
    /// The model.
    pub config: ModelConfig,
    /// What it is stored as.
    pub format: SourceFormat,
    /// One for each target that was asked for, at least one.
    pub plans: Vec<MemoryPlan>,
}

/// Builds what `settings` ask for, on threads of its own, which have ended when it returns; with [`Task::Plan`], nothing.
///
/// # Errors
/// [`BuildFailure`]. An output that is not finished is as it was before.
pub fn build(settings: &Settings, progress: &dyn Progress, interrupt: &Interrupt) -> Result<Built, BuildFailure> {
    settings.validate()?;
    if settings.task == Task::Plan {
        return Ok(Built { target: settings.target, checkpoint: None, engine: None, next: Vec::new() });
    }
    let pool = Pool::new("build", settings.threads.unwrap_or_else(processors)).map_err(BuildError::from)?;
    pool.install(|| run(settings.clone(), Builder { progress, interrupt }))
}

fn run(mut settings: Settings, builder: Builder<'_>) -> Result<Built, BuildFailure> {
    match settings.task.clone() {
        Task::Network => {
            print_network::run(&builder, &settings)?;
            Ok(Built { target: settings.target, checkpoint: None, engine: None, next: Vec::new() })
        }
        Task::Plan => Ok(Built { target: settings.target, checkpoint: None, engine: None, next: Vec::new() }),
        Task::Checkpoint => {
            settings.check_outputs()?;
            let (source, mapping) = builder.open_model(&settings)?;
            let checkpoint = builder.checkpoint(&settings, &source, mapping)?;
            let path = settings.checkpoint.as_deref();
            let next = path.map(|path| command::after_checkpoint(&settings, mapping, path)).unwrap_or_default();
            Ok(Built { target: settings.target, checkpoint, engine: None, next })
        }
        Task::Engine(output) => {
            let target = builder.choose_target(&mut settings)?;
            settings.check_outputs()?;
            match target {
                Target::Cpu => builder.cpu_engine(&settings, &output),
                Target::Auto | Target::Gpu(_) => builder.gpu_engine(&settings, &output),
            }
        }
    }
}

/// Plans the memory of what `settings` ask for, on their target, or on every target where they name none.
///
/// # Errors
/// [`BuildFailure`]. A model that does not fit is none.
pub fn plan(settings: &Settings, progress: &dyn Progress, interrupt: &Interrupt) -> Result<Plans, BuildFailure> {
    settings.validate()?;
    let model = Builder { progress, interrupt }.find_model(settings, Need::Config)?;
    let Outline { config, mapping, format } = Outline::read(&model)?;
    settings.validate_for(&config, mapping)?;
    let mapping = settings.mapping(&config, mapping)?;
    // What a build would refuse, before its plan is believed.
    settings.gpu.lora.options(&config, mapping)?;
    let plan = |place: Place| {
        // The CPU engine is one rank, however the GPUs share the model.
        let mapping = match place.executor {
            Executor::Cpu => Mapping::SINGLE,
            Executor::TensorRtLlm => mapping,
        };
        MemoryPlan::new(&config, mapping, place, settings.engine_request())
    };
    let plans = places(settings, progress).into_iter().map(plan).collect();
    Ok(Plans { config, format, plans })
}

/// A model in a few words.
pub fn summary(config: &ModelConfig) -> String {
    format!(
        "{}, {}, {}",
        config.architecture.name(),
        units::counted(config.num_hidden_layers as u64, "layer"),
        units::counted(config.parameters(), "parameter")
    )
}

/// Where to plan for.
fn places(settings: &Settings, progress: &dyn Progress) -> Vec<Place> {
    let auto = || {
        let (place, reason) = machine::place_of_auto(&trtllm_sys::probe());
        if let Some(reason) = reason {
            progress.note(&format!("auto: {reason}, so the plan is for the CPU (none)"));
        }
        place
    };
    match settings.target {
        Some(Target::Cpu) => vec![machine::place_of_cpu()],
        Some(Target::Auto) => vec![auto()],
        Some(Target::Gpu(gpu)) => vec![machine::place_of_gpu(gpu)],
        None => GPUS.iter().map(machine::place_of_gpu).chain([auto(), machine::place_of_cpu()]).collect(),
    }
}

struct Builder<'a> {
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
}

impl Builder<'_> {
    /// The target of an engine: as asked, else `auto` where it can be built, else `none`; says which and why.
    fn choose_target(&self, settings: &mut Settings) -> Result<Target, BuildFailure> {
        if let Some(target) = settings.target {
            return Ok(target);
        }
        let support = trtllm_sys::probe();
        let obstacle = match machine::devices_for(None, &support).and_then(|_| machine::check_library(&support)) {
            Ok(()) => {
                self.progress.note("building for this machine's GPU (target auto): a GPU and TensorRT-LLM are here");
                settings.target = Some(Target::Auto);
                settings.validate()?;
                return Ok(Target::Auto);
            }
            Err(obstacle) => obstacle,
        };
        self.progress.note(&format!("building for this machine's CPU (target none): {}", obstacle.reason));
        for detail in &obstacle.details {
            self.progress.detail(&format!("  {detail}"));
        }
        settings.target = Some(Target::Cpu);
        settings.validate()?;
        Ok(Target::Cpu)
    }

    fn find_model(&self, settings: &Settings, need: Need) -> Result<PathBuf, BuildFailure> {
        let model = hub::resolve(&settings.model, need, settings.download, self.progress, self.interrupt)?;
        self.progress.detail(&format!("model directory: {}", model.display()));
        Ok(model)
    }

    /// Opens the model and works out how it is split.
    fn open_model(&self, settings: &Settings) -> Result<(Source, Mapping), BuildFailure> {
        let model = self.find_model(settings, Need::Everything)?;
        let source = Source::open_with(&model, settings.tokenizer.as_deref())?;
        settings.validate_for(source.config(), source.mapping())?;
        let mapping = settings.mapping(source.config(), source.mapping())?;
        for warning in source.warnings() {
            self.progress.note(&format!("warning: {warning}"));
        }
        self.progress.note(&format!(
            "model: {} ({}), {}: {}",
            settings.model.display(),
            summary(source.config()),
            units::bytes(source.total_bytes()),
            source.format(),
        ));
        Ok((source, mapping))
    }

    /// Writes the checkpoint if one was asked for, and says where.
    fn checkpoint(
        &self,
        settings: &Settings,
        source: &Source,
        mapping: Mapping,
    ) -> Result<Option<Written>, BuildFailure> {
        let Some(path) = &settings.checkpoint else {
            return Ok(None);
        };
        let Settings { force, allow_non_finite, .. } = *settings;
        let request = CheckpointRequest { output: path, mapping, force, allow_non_finite };
        let written = write_checkpoint(source, &request, self.progress, self.interrupt)?;
        let ranks = mapping.world_size();
        let what = match ranks {
            1 => "TensorRT-LLM checkpoint".to_owned(),
            _ => format!("TensorRT-LLM checkpoint of {ranks} ranks"),
        };
        self.progress.note(&wrote(&what, path, written));
        Ok(Some(written))
    }

    fn cpu_engine(&self, settings: &Settings, output: &Path) -> Result<Built, BuildFailure> {
        let (source, mapping) = self.open_model(settings)?;
        let limits = cpu_limits(source.config(), settings.limits);
        let checkpoint = self.checkpoint(settings, &source, mapping)?;
        let Settings { force, allow_non_finite, weights, .. } = *settings;
        let (output_dir, model) = (output.to_owned(), settings.model.to_string_lossy().into_owned());
        let request = CpuEngineRequest { output: output_dir, force, allow_non_finite, limits, weights, model };
        let written = build_cpu_engine(&source, &request, self.progress, self.interrupt)?;
        self.progress.note(&wrote("CPU engine", output, written));
        self.progress.note(&format!(
            "weights: {weights}; limits: max_seq_len {}, max_batch_size {}, max_num_tokens {}",
            limits.max_seq_len, limits.max_batch_size, limits.max_num_tokens
        ));
        let engine = Some((written, limits));
        Ok(Built { target: settings.target, checkpoint, engine, next: vec![command::run(output)] })
    }
}

fn wrote(what: &str, path: &Path, written: Written) -> String {
    format!(
        "wrote the {what} `{}`: {} in {}, {}, {}",
        path.display(),
        units::bytes(written.bytes),
        units::counted(written.files as u64, "file"),
        units::seconds(written.elapsed),
        units::rate(written.bytes, written.elapsed)
    )
}
