//! An engine for a GPU: whether it can be built here is found out before anything is converted, then checkpoint, network, plan.

use std::path::{Path, PathBuf};

use engine_format::lora::LoraModule;
use engine_format::target::Gpu;
use engine_format::{Mapping, ModelConfig, Target};
use trtllm_sys::gpu::{GpuBuilding, Severity};
use trtllm_sys::{Device, GpuLibrary, GpuSupport, loader};

use super::print_network::{networks, options, write};
use super::{BuildFailure, Builder, Built, wrote};
use crate::checkpoint::write::{CheckpointRequest, write_checkpoint};
use crate::command;
use crate::compile::gpu::{Compile, GpuEngineRequest, build_gpu_engine};
use crate::compile::tensorrt::TensorRt;
use crate::compile::trtllm_build;
use crate::error::{BuildError, Result};
use crate::huggingface::hub::Need;
use crate::machine::{self, Obstacle};
use crate::memory_plan::{MemoryPlan, Place};
use crate::network::{NetworkOptions, Release};
use crate::settings::{Compiler, PluginLog, Settings};
use crate::source::{Outline, Source};
use crate::units;

/// What this machine builds with.
struct Machine {
    /// The GPUs of the kind that the engine is for, at least one.
    devices: Vec<Device>,
    /// The shim; not needed by `trtllm-build`.
    library: Option<GpuLibrary>,
    /// `trtllm-build`, where that is the compiler.
    program: PathBuf,
}

impl Builder<'_> {
    /// Builds the engine in `output`.
    pub(super) fn gpu_engine(&self, settings: &Settings, output: &Path) -> Result<Built, BuildFailure> {
        let support = trtllm_sys::probe();
        let settings = &resolve_auto(settings.clone(), &support);
        let gpu = match settings.target {
            Some(Target::Gpu(gpu)) => Some(gpu),
            _ => None,
        };
        let target = settings.target.unwrap_or(Target::Auto);
        let machine = match machine(settings, gpu, &support) {
            Ok(machine) => machine,
            Err(obstacle) => return Err(self.cannot_here(settings, target, obstacle)),
        };
        // From here on no engine can be opened in this process, so that the work below is not in vain.
        let _building = machine.library.as_ref().map(begin).transpose()?;
        let outline = Outline::read(&self.find_model(settings, Need::Everything)?)?;
        let (config, source_mapping) = (outline.config, outline.mapping);
        settings.validate_for(&config, source_mapping)?;
        let mapping = settings.mapping(&config, source_mapping)?;
        let device = &machine.devices[0];
        let place = Place { memory_bytes: device.memory_bytes, ..place_of(gpu, device) };
        let plan = MemoryPlan::new(&config, mapping, place, settings.engine_request());
        if !plan.fits() {
            return Err(BuildFailure::Memory { target, device: device.name.clone(), problem: plan.verdict() });
        }
        let version = machine.library.as_ref().map(|library| library.version().to_owned()).unwrap_or_default();
        let release = Release::of_version(&version).unwrap_or(Release::V1_2);
        let lora = settings.gpu.lora.options(&config, mapping)?;
        let mut options = NetworkOptions { lora, ..options(settings, release, plan.limits) };
        self.explain(&config, &plan, settings, device);
        if let Some(lora) = lora {
            let modules: Vec<_> = lora.modules.iter().map(LoraModule::name).collect();
            let text = format!("LoRA adapters of rank {} at most may change {}", lora.max_rank, modules.join(", "));
            self.progress.note(&text);
        }

        let (source, mapping) = self.open_model(settings)?;
        // The checkpoints that this program writes have gate behind fc.
        options.fused_mlp = source.mapping() != Some(mapping) || source.has_fused_mlp(mapping)?;
        if !options.fused_mlp {
            self.progress
                .note("`mlp.gate` does not follow `mlp.fc` in the checkpoint, so each has a product of its own");
        }
        let networks = networks(&config, mapping, options)?;
        write(self, settings, &networks)?;
        let written = self.checkpoint(settings, &source, mapping)?;
        let (checkpoint, _temporary) = self.rank_files(settings, source, mapping, output)?;
        let workers = settings.gpu.workers.unwrap_or(1);
        let devices: Vec<_> = machine.devices.iter().map(|device| device.index).collect();
        let compile = match &machine.library {
            Some(library) => {
                let timing_cache = settings.gpu.timing_cache.as_deref();
                Compile::TensorRt(TensorRt { library, devices: &devices, workers, timing_cache }, &networks)
            }
            None => Compile::TrtllmBuild(machine.program.clone(), workers),
        };
        let request = GpuEngineRequest {
            output,
            force: settings.force,
            model: &settings.model.to_string_lossy(),
            target: target.name(),
            tensorrt_llm: &version,
            tensorrt: machine.library.as_ref().and_then(GpuLibrary::tensorrt_version),
            device: &device.name,
            options,
            mapping,
        };
        let engine = build_gpu_engine(&checkpoint, &compile, &request, self.progress, self.interrupt)?;
        self.progress.note(&wrote(&format!("TensorRT engine for {}", device.name), output, engine));
        Ok(Built {
            target: settings.target,
            checkpoint: written,
            engine: Some((engine, plan.limits)),
            next: vec![command::run(output)],
        })
    }

    /// What can be done here towards an engine that cannot be built here.
    fn cannot_here(&self, settings: &Settings, target: Target, obstacle: Obstacle) -> BuildFailure {
        if let Err(failure) = self.towards_gpu_engine(settings, &obstacle.reason) {
            return failure;
        }
        BuildFailure::Machine {
            target,
            reason: obstacle.reason,
            details: obstacle.details,
            commands: command::finish(settings, settings.checkpoint.as_deref()),
        }
    }

    fn towards_gpu_engine(&self, settings: &Settings, reason: &str) -> Result<(), BuildFailure> {
        if settings.checkpoint.is_some() {
            self.progress
                .note(&format!("only the checkpoint is written, this machine cannot build the engine: {reason}"));
            let (source, mapping) = self.open_model(settings)?;
            self.checkpoint(settings, &source, mapping)?;
        } else if !settings.download {
            // Nobody wants 17 GB fetched to read that there is no GPU; a model that is here is checked all the same.
            let Outline { config, mapping, .. } = Outline::read(&self.find_model(settings, Need::Everything)?)?;
            settings.validate_for(&config, mapping)?;
            settings.mapping(&config, mapping)?;
        }
        Ok(())
    }

    /// Says which limits the engine has, and why.
    fn explain(&self, config: &ModelConfig, plan: &MemoryPlan, settings: &Settings, device: &Device) {
        let (limits, asked) = (plan.limits, settings.limits);
        let why = |given: Option<usize>, why: String| if given.is_some() { "as asked".to_owned() } else { why };
        let seq_len = match limits.max_seq_len == config.max_position_embeddings {
            true => "the model's max_position_embeddings".to_owned(),
            false => "the longest sequence that fits".to_owned(),
        };
        let batch = "their logits take at most 1/32 of the memory that is left".to_owned();
        self.progress.note(&format!(
            "limits on {} ({}): max_seq_len {} ({}), max_batch_size {} ({}), max_num_tokens {} ({})",
            device.name,
            units::bytes(device.memory_bytes),
            limits.max_seq_len,
            why(asked.max_seq_len, seq_len),
            limits.max_batch_size,
            why(asked.max_batch_size, batch),
            limits.max_num_tokens,
            why(asked.max_num_tokens, "TensorRT-LLM's default".to_owned())
        ));
        self.progress.note(&format!(
            "memory of a rank: {} weights, {} activations (an estimate), {} KV cache; shorter sequences share it, so a run may hold more of them than the plan says",
            units::bytes(plan.weights_bytes),
            units::bytes(plan.activation_bytes),
            units::bytes(plan.kv_cache_bytes)
        ));
        let ranges: Vec<_> = plan.token_ranges.iter().map(|[least, _, most]| format!("{least} to {most}")).collect();
        self.progress.note(&format!("optimization profiles, by the tokens of a step: {}", ranges.join(", ")));
        if settings.gpu.gather_context_logits {
            self.progress.note(&plan.context_logits_note());
        }
        if device.is_mig == Some(true) {
            self.progress
                .note("this GPU is cut into instances (MIG), each with less memory than that: give limits yourself");
        }
    }

    /// The source as each rank's file: itself where it is one, else the checkpoint that was written, or one beside the output
    /// that goes when the engine is there.
    fn rank_files(
        &self,
        settings: &Settings,
        source: Source,
        mapping: Mapping,
        output: &Path,
    ) -> Result<(Source, Option<Temporary>)> {
        if source.mapping() == Some(mapping) {
            // Nothing is converted, so nobody else looks at the weights.
            source.note_non_finite().finish(settings.allow_non_finite, self.progress)?;
            return Ok((source, None));
        }
        if let Some(path) = &settings.checkpoint {
            return Ok((Source::open(path)?, None));
        }
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let path = output.with_file_name(format!(".{name}.checkpoint-{}", std::process::id()));
        let temporary = Temporary(path.clone());
        self.progress.note("writing the TensorRT-LLM checkpoint that TensorRT reads; it goes when the engine is there");
        let allow_non_finite = settings.allow_non_finite;
        let request = CheckpointRequest { output: &path, mapping, force: true, allow_non_finite };
        write_checkpoint(&source, &request, self.progress, self.interrupt)?;
        Ok((Source::open(&path)?, Some(temporary)))
    }
}

/// Begins a build with `library`.
fn begin(library: &GpuLibrary) -> Result<GpuBuilding> {
    library.begin_build().map_err(|error| BuildError::Busy { problem: error.to_string() })
}

/// A folder that goes when its user does.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What this machine builds with, or what stands in the way.
fn machine(settings: &Settings, gpu: Option<&Gpu>, support: &GpuSupport) -> std::result::Result<Machine, Obstacle> {
    let devices = machine::devices_for(gpu, support)?;
    match settings.gpu.compiler {
        Compiler::TrtllmBuild => match trtllm_build::find() {
            Some(program) => Ok(Machine { devices, library: None, program }),
            None => Err(Obstacle::plain(format!(
                "`{}` is not in PATH; it comes with TensorRT-LLM's Python package",
                trtllm_build::PROGRAM
            ))),
        },
        Compiler::TensorRt => {
            machine::check_library(support)?;
            let library = loader::open().map_err(|error| Obstacle::plain(error.to_string()))?;
            match settings.gpu.plugin_log {
                PluginLog::StandardOutput => {}
                PluginLog::Everything(write) => library.capture_log(move |logged| write(logged.text)),
                PluginLog::Errors(write) => library.capture_log(move |logged| {
                    if logged.severity == Severity::Error {
                        write(logged.text);
                    }
                }),
            }
            Ok(Machine { devices, library: Some(library), program: PathBuf::new() })
        }
    }
}

fn place_of(gpu: Option<&'static Gpu>, device: &Device) -> Place {
    match gpu {
        Some(gpu) => machine::place_of_gpu(gpu),
        None => machine::place_of_device(device),
    }
}

/// `auto` by the name of the GPU that is here, so that the command for another machine says which.
fn resolve_auto(mut settings: Settings, support: &GpuSupport) -> Settings {
    if settings.target == Some(Target::Auto)
        && let Ok(devices) = &support.devices
        && let Some(gpu) = devices.iter().find_map(machine::target_of)
    {
        settings.target = Some(Target::Gpu(gpu));
    }
    settings
}
