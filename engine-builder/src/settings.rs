//! What a build is asked to do, resolved and checked as far as that needs no machine and no weights.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use engine_format::manifest::MANIFEST_FILE;
use engine_format::staging::StagedDir;
use engine_format::{FormatError, Mapping, ModelConfig, Target, WeightType};

use crate::checkpoint::write::MARKER;
use crate::error::Result;
use crate::lora::LoraRequest;
use crate::memory_plan::{EngineRequest, LimitRequest};
use crate::network::options::ResidualDtype;
use system::pool::MAX_THREADS;

/// What one run of `build-engine` does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model, as the user named it.
    pub model: PathBuf,
    /// A directory whose tokenizer, chat template and end ids count instead of the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Whether the model may be fetched from the Hugging Face hub.
    pub download: bool,
    /// The target; `None` when it is to be chosen.
    pub target: Option<Target>,
    /// Tensor-parallel size, if it was given.
    pub tp_size: Option<usize>,
    /// Pipeline-parallel size, if it was given.
    pub pp_size: Option<usize>,
    /// Limits, where they were given.
    pub limits: LimitRequest,
    /// What a CPU engine's matrices are stored as.
    pub weights: WeightType,
    /// What else is asked of a GPU engine.
    pub gpu: GpuSettings,
    /// Where to write a TensorRT-LLM checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Whether outputs that are there already are replaced.
    pub force: bool,
    /// Whether weights may be infinite or NaN, and weights of fp32 too large for bfloat16.
    pub allow_non_finite: bool,
    /// Threads that convert weights; `None` for one for each logical processor that the process may use.
    pub threads: Option<usize>,
    /// What to make.
    pub task: Task,
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// The memory plan, and nothing else.
    Plan,
    /// The checkpoint, and no engine.
    Checkpoint,
    /// The engine, in this directory.
    Engine(PathBuf),
    /// The TensorRT network, printed, and no engine.
    Network,
}

/// Who compiles a network for a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compiler {
    /// TensorRT, through `libtrtllm_gpu.so`.
    #[default]
    TensorRt,
    /// TensorRT-LLM's own program `trtllm-build`, which is Python.
    TrtllmBuild,
}

/// Where the lines go that TensorRT-LLM's plugins write to C++'s standard output.
#[derive(Debug, Clone, Copy, Default)]
pub enum PluginLog {
    /// There: the streams are the host's, and stay as they are.
    #[default]
    StandardOutput,
    /// To this function, errors only.
    Errors(fn(&str)),
    /// To this function, all of them.
    Everything(fn(&str)),
}

/// What is asked of a GPU engine, beside its limits.
#[derive(Debug, Clone, Default)]
pub struct GpuSettings {
    /// Who compiles.
    pub compiler: Compiler,
    /// Ranks that are compiled at the same time; absent: one.
    pub workers: Option<usize>,
    /// Beams at most; absent: one.
    pub max_beam_width: Option<usize>,
    /// Tokens of the step that tactics are chosen for, in one optimization profile; absent: several profiles.
    pub opt_num_tokens: Option<usize>,
    /// Logits of every token of the prompt.
    pub gather_context_logits: bool,
    /// Logits of generated tokens.
    pub gather_generation_logits: bool,
    /// Matrix products by TensorRT-LLM's Gemm plugin.
    pub gemm_plugin: bool,
    /// Type of the residual stream.
    pub residual_dtype: ResidualDtype,
    /// LoRA adapters that the engine is to take.
    pub lora: LoraRequest,
    /// What TensorRT measured, kept for the next build.
    pub timing_cache: Option<PathBuf>,
    /// What becomes of TensorRT-LLM's own lines.
    pub plugin_log: PluginLog,
    /// Where to print the network: `-` for standard output; the format by the file's extension.
    pub network: Option<PathBuf>,
}

impl GpuSettings {
    /// The first field that was given and means nothing for a CPU engine.
    fn given(&self) -> Option<&'static str> {
        let Self { compiler, workers, max_beam_width, opt_num_tokens, timing_cache, network, .. } = self;
        let fields = [
            (*compiler != Compiler::TensorRt, "compiler"),
            (workers.is_some(), "workers"),
            (max_beam_width.is_some(), "max_beam_width"),
            (opt_num_tokens.is_some(), "opt_num_tokens"),
            (self.gather_context_logits, "gather_context_logits"),
            (self.gather_generation_logits, "gather_generation_logits"),
            (self.gemm_plugin, "gemm_plugin"),
            (self.residual_dtype != ResidualDtype::default(), "residual_dtype"),
            (!self.lora.dirs.is_empty(), "lora_dir"),
            (self.lora.max_rank.is_some(), "max_lora_rank"),
            (!self.lora.target_modules.is_empty(), "lora_target_modules"),
            (timing_cache.is_some(), "timing_cache"),
            (network.is_some(), "network"),
        ];
        fields.into_iter().find(|(given, _)| *given).map(|(_, field)| field)
    }
}

/// Settings that contradict each other or the model. Messages name them as the fields of [`Settings`] and of the C ABI, between
/// backticks; the program makes flags of these names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A download was asked for, of a build without the feature `download`.
    #[error(
        "`download`: this build cannot fetch models (its feature `download` is off): copy the model here and name its directory"
    )]
    NoDownload,
    /// More than one rank was asked for on the CPU.
    #[error(
        "the CPU engine is one rank: `tp_size` {tp_size} and `pp_size` {pp_size} need a GPU target, or `checkpoint` without `output`"
    )]
    SplitOnCpu {
        /// Tensor-parallel size.
        tp_size: usize,
        /// Pipeline-parallel size.
        pp_size: usize,
    },
    /// Longer sequences than the model has positions for.
    #[error(
        "`max_seq_len` {given} is more than the model's max_position_embeddings, {positions}: give at most {positions}"
    )]
    TooLong {
        /// The length asked for.
        given: usize,
        /// The model's positions.
        positions: usize,
    },
    /// A way to split the model that does not work out.
    #[error("cannot split the model with `tp_size` {tp_size}, `pp_size` {pp_size}: {problem}")]
    Split {
        /// Tensor-parallel size.
        tp_size: usize,
        /// Pipeline-parallel size.
        pp_size: usize,
        /// What does not divide, or is zero.
        problem: String,
    },
    /// Fewer tokens than sequences in one step.
    #[error(
        "`max_num_tokens` {tokens} is less than `max_batch_size` {batch}: a step has at least one token of each sequence"
    )]
    TooFewTokens {
        /// `max_num_tokens`.
        tokens: usize,
        /// `max_batch_size`.
        batch: usize,
    },
    /// Something of our network that upstream's does not have.
    #[error("`{field}` applies to the compiler `tensorrt` only: TensorRT-LLM's own program makes its own network")]
    OnlyTensorRt {
        /// The setting, by the name of its field.
        field: &'static str,
    },
    /// LoRA adapters, a rank or modules that do not go with each other, the model or its split.
    #[error("{0}")]
    Lora(String),
    /// Something that only a GPU engine has.
    #[error("`{field}` applies to TensorRT engines only: add a GPU target, for example `gpu` h100")]
    OnlyGpu {
        /// The setting, by the name of its field.
        field: &'static str,
    },
    /// Something that only a CPU engine has.
    #[error("`weights` {0} applies to CPU engines only, all else is bf16: leave it out, or build with `gpu` none")]
    OnlyCpu(WeightType),
    /// No thread, or more than are worth it.
    #[error("threads must be from 1 to {MAX_THREADS}, not {0}")]
    Threads(usize),
    /// The checkpoint and the engine were given the same directory.
    #[error("`checkpoint` and `output` are the same directory, `{path}`: give two", path = .0.display())]
    SameDirectory(PathBuf),
}

impl Settings {
    /// Everything left open but what to make, and of which model.
    pub fn new(model: impl Into<PathBuf>, task: Task) -> Self {
        Self {
            model: model.into(),
            tokenizer: None,
            download: false,
            target: None,
            tp_size: None,
            pp_size: None,
            limits: LimitRequest::default(),
            weights: WeightType::default(),
            gpu: GpuSettings::default(),
            checkpoint: None,
            force: false,
            allow_non_finite: false,
            threads: None,
            task,
        }
    }

    /// Checks everything that contradicts itself whatever the model is.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.download && !cfg!(feature = "download") {
            return Err(SettingsError::NoDownload);
        }
        if let Some(threads) = self.threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
            return Err(SettingsError::Threads(threads));
        }
        let (tp_size, pp_size) = (self.tp_size.unwrap_or(1), self.pp_size.unwrap_or(1));
        let one_rank = (tp_size, pp_size) == (1, 1);
        if self.target == Some(Target::Cpu) && !one_rank && self.task != Task::Checkpoint {
            return Err(SettingsError::SplitOnCpu { tp_size, pp_size });
        }
        if self.target == Some(Target::Cpu)
            && let Some(field) = self.gpu.given()
        {
            return Err(SettingsError::OnlyGpu { field });
        }
        if self.gpu.compiler == Compiler::TrtllmBuild && self.gpu.residual_dtype != ResidualDtype::default() {
            return Err(SettingsError::OnlyTensorRt { field: "residual_dtype" });
        }
        let for_gpu = matches!(self.target, Some(Target::Auto | Target::Gpu(_)));
        if self.weights != WeightType::Bf16 && (for_gpu || matches!(self.task, Task::Checkpoint | Task::Network)) {
            return Err(SettingsError::OnlyCpu(self.weights));
        }
        if let (Some(tokens), Some(batch)) = (self.limits.max_num_tokens, self.limits.max_batch_size)
            && tokens < batch
        {
            return Err(SettingsError::TooFewTokens { tokens, batch });
        }
        if let (Some(checkpoint), Task::Engine(output)) = (&self.checkpoint, &self.task)
            && (checkpoint == output || std::path::absolute(checkpoint).ok() == std::path::absolute(output).ok())
        {
            return Err(SettingsError::SameDirectory(output.clone()));
        }
        Ok(())
    }

    /// Checks the settings against the model.
    ///
    /// # Errors
    /// [`SettingsError::TooLong`], [`SettingsError::Split`].
    pub fn validate_for(&self, config: &ModelConfig, source: Option<Mapping>) -> Result<(), SettingsError> {
        let positions = config.max_position_embeddings;
        if let Some(given) = self.limits.max_seq_len.filter(|&given| given > positions) {
            return Err(SettingsError::TooLong { given, positions });
        }
        // How a source is split that nobody wants split otherwise is the source's fault.
        match self.split(source).validate(config) {
            Err(FormatError::Mapping { tp_size, pp_size, problem }) if self.tp_size.or(self.pp_size).is_some() => {
                Err(SettingsError::Split { tp_size, pp_size, problem })
            }
            _ => Ok(()),
        }
    }

    fn split(&self, source: Option<Mapping>) -> Mapping {
        let source = source.unwrap_or(Mapping::SINGLE);
        Mapping { tp_size: self.tp_size.unwrap_or(source.tp_size), pp_size: self.pp_size.unwrap_or(source.pp_size) }
    }

    /// How the model is split: as asked, else as the source is, else not at all.
    ///
    /// # Errors
    /// [`engine_format::FormatError::Mapping`] when the model cannot be split that way.
    pub fn mapping(&self, config: &ModelConfig, source: Option<Mapping>) -> Result<Mapping> {
        let mapping = self.split(source);
        mapping.validate(config)?;
        Ok(mapping)
    }

    /// What the memory of the engine depends on.
    pub fn engine_request(&self) -> EngineRequest {
        EngineRequest {
            limits: self.limits,
            max_beam_width: self.gpu.max_beam_width.unwrap_or(1),
            opt_num_tokens: self.gpu.opt_num_tokens,
            gather_context_logits: self.gpu.gather_context_logits,
            weights: self.weights,
        }
    }

    /// Checks that every output can be put into its place, before anything is read.
    ///
    /// # Errors
    /// [`engine_format::FormatError::Exists`].
    pub fn check_outputs(&self) -> Result<()> {
        if let Some(path) = &self.checkpoint {
            check_output(path, self.force, MARKER)?;
        }
        if let Task::Engine(path) = &self.task {
            check_output(path, self.force, MANIFEST_FILE)?;
        }
        Ok(())
    }
}

/// What [`StagedDir`] would refuse, found out now; nothing stays behind.
fn check_output(path: &Path, force: bool, marker: &str) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        StagedDir::create(path, force, marker)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(task: Task) -> Settings {
        Settings { target: Some(Target::Cpu), ..Settings::new("model", task) }
    }

    #[test]
    fn ranks_on_the_cpu_are_refused_unless_only_a_checkpoint_is_written() {
        let mut split = settings(Task::Engine("out".into()));
        assert_eq!(split.validate(), Ok(()));
        split.tp_size = Some(2);
        assert!(matches!(split.validate(), Err(SettingsError::SplitOnCpu { tp_size: 2, pp_size: 1 })));
        split.task = Task::Checkpoint;
        assert_eq!(split.validate(), Ok(()));
    }

    #[test]
    fn quantized_weights_are_for_cpu_engines() {
        let mut quantized = settings(Task::Engine("out".into()));
        quantized.weights = WeightType::Int8;
        assert_eq!(quantized.validate(), Ok(()));
        for (target, task) in [
            (Some(Target::Auto), Task::Engine("out".into())),
            (Some(Target::Auto), Task::Plan),
            (Some(Target::Cpu), Task::Checkpoint),
            (None, Task::Network),
        ] {
            let settings = Settings { target, task, ..quantized.clone() };
            assert_eq!(settings.validate(), Err(SettingsError::OnlyCpu(WeightType::Int8)), "{settings:?}");
        }
    }

    #[test]
    fn threads_have_bounds() {
        for (threads, accepted) in [(0, false), (1, true), (1024, true), (1025, false), (usize::MAX, false)] {
            let settings = Settings { threads: Some(threads), ..settings(Task::Plan) };
            let expected = if accepted { Ok(()) } else { Err(SettingsError::Threads(threads)) };
            assert_eq!(settings.validate(), expected);
        }
    }

    #[test]
    fn two_spellings_of_one_directory_are_one_directory() {
        let mut both = settings(Task::Engine("./out".into()));
        both.checkpoint = Some("out".into());
        assert!(matches!(both.validate(), Err(SettingsError::SameDirectory(_))));
        both.checkpoint = Some("out2".into());
        assert_eq!(both.validate(), Ok(()));
    }

    #[test]
    fn a_step_has_a_token_for_each_sequence() {
        let mut few = settings(Task::Plan);
        few.limits.max_batch_size = Some(9);
        few.limits.max_num_tokens = Some(8);
        assert!(matches!(few.validate(), Err(SettingsError::TooFewTokens { .. })));
        few.limits.max_num_tokens = Some(9);
        assert_eq!(few.validate(), Ok(()));
    }
}
