//! The `build-engine` program: arguments become settings, settings become library calls.
//!
//! Memory plans go to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod command;
mod failure;
mod machine;
mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, Target};
use trtllm_sys::GpuSupport;

use crate::checkpoint::write::write_checkpoint;
use crate::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use crate::huggingface::hub;
use crate::memory_plan::cpu_limits;
use crate::output::Written;
use crate::progress::Interrupt;
use crate::report::{self, Report};
use crate::settings::{Settings, Task, read_config};
use crate::source::Source;
use args::Args;
use failure::Failure;

/// Runs the program on this process's arguments and says with which code it ends.
pub fn main() -> ExitCode {
    let args = Args::parse();
    engine_format::mmap::report_file_size_limit_as_error();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let report = Report::new(args.verbosity());
    let mut settings = args.settings();
    settings.validate()?;
    let interrupt = Interrupt::new();
    let handle = interrupt.handle();
    ctrlc::set_handler(move || handle.set()).map_err(Failure::Signals)?;
    if let Some(threads) = args.threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().map_err(Failure::Threads)?;
    }
    match settings.task.clone() {
        Task::Plan => {
            let model = find_model(&settings, &report, &interrupt)?;
            plan::print(&settings, &model, args.plan_format(), &report)
        }
        Task::Checkpoint => {
            settings.check_outputs()?;
            let (source, mapping) = open_model(&settings, &report, &interrupt)?;
            let path = write_checkpoint_of(&settings, &source, mapping, &report, &interrupt)?;
            if let Some(path) = path {
                report.note(&next(&command::after_checkpoint(&settings, mapping, &path)));
            }
            Ok(())
        }
        Task::Engine(output) => {
            let target = choose_target(&mut settings, &report)?;
            settings.check_outputs()?;
            match target {
                Target::Cpu => cpu_engine(&settings, &output, &report, &interrupt),
                Target::Auto | Target::Gpu(_) => gpu_engine(settings, &report, &interrupt),
            }
        }
    }
}

/// The target of an engine: as asked, else `auto` where it can be built, else `none`; says which and why.
fn choose_target(settings: &mut Settings, report: &Report) -> Result<Target, Failure> {
    if let Some(target) = settings.target {
        return Ok(target);
    }
    let obstacle = machine::obstacle(None, &trtllm_sys::probe());
    report.note(&format!("building for this machine's CPU (--gpu none): {}", obstacle.reason));
    for detail in &obstacle.details {
        report.detail(&format!("  {detail}"));
    }
    settings.target = Some(Target::Cpu);
    settings.validate()?;
    Ok(Target::Cpu)
}

fn find_model(settings: &Settings, report: &Report, interrupt: &Interrupt) -> Result<PathBuf, Failure> {
    let model = hub::resolve(&settings.model, settings.download, report, interrupt)?;
    report.detail(&format!("model directory: {}", model.display()));
    Ok(model)
}

/// Opens the model and works out how it is split.
fn open_model(settings: &Settings, report: &Report, interrupt: &Interrupt) -> Result<(Source, Mapping), Failure> {
    let source = Source::open(&find_model(settings, report, interrupt)?)?;
    settings.validate_for(source.config())?;
    let mapping = settings.mapping(source.config(), source.mapping())?;
    report.note(&format!(
        "model: {} ({}), {} in {}",
        settings.model,
        summary(source.config()),
        report::bytes(source.total_bytes()),
        source.dtype()?.name(),
    ));
    Ok((source, mapping))
}

/// A model in a few words.
fn summary(config: &ModelConfig) -> String {
    format!(
        "{}, {} layers, {} parameters",
        config.architecture.name(),
        config.num_hidden_layers,
        report::count(config.parameters())
    )
}

/// Writes the checkpoint if one was asked for, and says where.
fn write_checkpoint_of(
    settings: &Settings,
    source: &Source,
    mapping: Mapping,
    report: &Report,
    interrupt: &Interrupt,
) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = &settings.checkpoint else {
        return Ok(None);
    };
    let written = write_checkpoint(source, mapping, path, settings.force, report, interrupt)?;
    let ranks = mapping.world_size();
    let what = match ranks {
        1 => "TensorRT-LLM checkpoint".to_owned(),
        _ => format!("TensorRT-LLM checkpoint of {ranks} ranks"),
    };
    report.note(&wrote(&what, path, written));
    Ok(Some(path.clone()))
}

fn cpu_engine(settings: &Settings, output: &Path, report: &Report, interrupt: &Interrupt) -> Result<(), Failure> {
    let (source, mapping) = open_model(settings, report, interrupt)?;
    let limits = cpu_limits(source.config(), settings.limits);
    write_checkpoint_of(settings, &source, mapping, report, interrupt)?;
    let request =
        CpuEngineRequest { output: output.to_owned(), force: settings.force, limits, model: settings.model.clone() };
    let written = build_cpu_engine(&source, &request, report, interrupt)?;
    report.note(&wrote("CPU engine", output, written));
    report.note(&limits_line(limits));
    report.note(&next(&[command::run(output)]));
    Ok(())
}

/// What can be done here towards a GPU engine: whether this machine can build one is found out before anything is
/// converted, and it cannot in this version.
fn gpu_engine(settings: Settings, report: &Report, interrupt: &Interrupt) -> Result<(), Failure> {
    let support = trtllm_sys::probe();
    let settings = resolve_auto(settings, &support);
    let gpu = match settings.target {
        Some(Target::Gpu(gpu)) => Some(gpu),
        _ => None,
    };
    let obstacle = machine::obstacle(gpu, &support);
    // Nobody wants 17 GB fetched to read that there is no GPU; a model that is here is checked all the same.
    if settings.checkpoint.is_none() && !settings.download {
        let model = find_model(&settings, report, interrupt)?;
        let (config, mapping) = read_config(&model)?;
        settings.validate_for(&config)?;
        settings.mapping(&config, mapping)?;
    }
    let checkpoint = match &settings.checkpoint {
        Some(_) => {
            report.note(&format!(
                "only the checkpoint is written, this machine cannot build the engine: {}",
                obstacle.reason
            ));
            let (source, mapping) = open_model(&settings, report, interrupt)?;
            write_checkpoint_of(&settings, &source, mapping, report, interrupt)?
        }
        None => None,
    };
    Err(Failure::Machine {
        target: settings.target.unwrap_or(Target::Auto),
        reason: obstacle.reason,
        details: obstacle.details,
        commands: command::finish(&settings, checkpoint.as_deref()),
    })
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

fn wrote(what: &str, path: &Path, written: Written) -> String {
    format!(
        "wrote the {what} `{}`: {} in {} files, {}, {}",
        path.display(),
        report::bytes(written.bytes),
        written.files,
        report::seconds(written.elapsed),
        report::rate(written.bytes, written.elapsed)
    )
}

fn limits_line(limits: Limits) -> String {
    format!(
        "limits: max_seq_len {}, max_batch_size {}, max_num_tokens {}",
        limits.max_seq_len, limits.max_batch_size, limits.max_num_tokens
    )
}

fn next(commands: &[String]) -> String {
    format!("next:\n  {}", commands.join("\n  or, with TensorRT-LLM's own tool:\n  "))
}
