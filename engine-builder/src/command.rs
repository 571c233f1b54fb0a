//! Commands that the program suggests, ready to be pasted into a shell.

use std::path::{Path, PathBuf};

use engine_format::engine_dir::TOKENIZER_FILE;
use engine_format::{Mapping, Target};

use crate::network::options::ResidualDtype;
use crate::settings::{Compiler, Settings, Task};
use engine_format::rebuild::quote;

/// The command that runs the engine in `output`.
pub(crate) fn run(output: &Path) -> String {
    let (program, engine) = (beside_this_program("run-engine"), quote(&output.to_string_lossy()));
    if output.join(TOKENIZER_FILE).is_file() {
        format!("{program} --engine {engine} --prompt \"Complete the paragraph: our solar system is\"")
    } else {
        // Without a tokenizer an engine takes and gives ids.
        format!("{program} --engine {engine} --prompt-ids 1,2,3 --format json")
    }
}

/// How to call another of our programs: by its name alone, or by its path where this one was called by its path.
fn beside_this_program(name: &str) -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    match called.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => quote(&folder.join(name).to_string_lossy()),
        None => name.to_owned(),
    }
}

/// The command that builds what `settings` ask for, from the checkpoint where there is one (which has its split in it).
fn build(settings: &Settings, checkpoint: Option<&Path>) -> String {
    let model = match checkpoint {
        Some(path) => path,
        None => &settings.model,
    };
    let mut words = vec!["build-engine".to_owned(), "--model".to_owned(), quote(&model.to_string_lossy())];
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.to_owned(), value]);
        }
    };
    let number = |value: Option<usize>| value.map(|value| value.to_string());
    option(
        "--tokenizer",
        settings.tokenizer.as_ref().filter(|_| checkpoint.is_none()).map(|path| quote(&path.to_string_lossy())),
    );
    option("--gpu", settings.target.map(|target| target.name().to_owned()));
    if checkpoint.is_none() {
        option("--tp-size", number(settings.tp_size));
        option("--pp-size", number(settings.pp_size));
    }
    option("--max-seq-len", number(settings.limits.max_seq_len));
    option("--max-batch-size", number(settings.limits.max_batch_size));
    option("--max-num-tokens", number(settings.limits.max_num_tokens));
    let gpu = &settings.gpu;
    option("--max-beam-width", number(gpu.max_beam_width));
    option("--opt-num-tokens", number(gpu.opt_num_tokens));
    option("--workers", number(gpu.workers));
    option("--timing-cache", gpu.timing_cache.as_ref().map(|path| quote(&path.to_string_lossy())));
    for dir in &gpu.lora.dirs {
        option("--lora-dir", Some(quote(&dir.to_string_lossy())));
    }
    option("--max-lora-rank", number(gpu.lora.max_rank));
    let modules: Vec<_> = gpu.lora.target_modules.iter().map(|module| module.name()).collect();
    option("--lora-target-modules", (!modules.is_empty()).then(|| modules.join(",")));
    option("--output", Some(quote(&output(settings))));
    let flags = [
        (gpu.gather_context_logits, "--gather-context-logits"),
        (gpu.gather_generation_logits, "--gather-generation-logits"),
        (gpu.gemm_plugin, "--gemm-plugin"),
        (gpu.residual_dtype == ResidualDtype::Bfloat16, "--residual-dtype bfloat16"),
        (gpu.compiler == Compiler::TrtllmBuild, "--compiler trtllm-build"),
    ];
    words.extend(flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned()));
    words.join(" ")
}

/// The commands that finish a GPU engine elsewhere: ours, and TensorRT-LLM's own where there is a checkpoint for it.
pub(crate) fn finish(settings: &Settings, checkpoint: Option<&Path>) -> Vec<String> {
    let theirs = checkpoint.map(|checkpoint| trtllm_build(settings, checkpoint));
    [build(settings, checkpoint)].into_iter().chain(theirs).collect()
}

/// The commands that make an engine of a checkpoint which was all that was asked for.
pub(crate) fn after_checkpoint(settings: &Settings, mapping: Mapping, checkpoint: &Path) -> Vec<String> {
    match settings.target {
        Some(Target::Gpu(_) | Target::Auto) => finish(settings, Some(checkpoint)),
        _ if mapping == Mapping::SINGLE => vec![build(settings, Some(checkpoint))],
        // The CPU engine is one rank, and no GPU was named.
        _ => vec![trtllm_build(settings, checkpoint)],
    }
}

/// TensorRT-LLM's own command for a checkpoint.
fn trtllm_build(settings: &Settings, checkpoint: &Path) -> String {
    let mut command = format!(
        "trtllm-build --checkpoint_dir {} --output_dir {}",
        quote(&checkpoint.to_string_lossy()),
        quote(&output(settings))
    );
    let limits = [
        ("--max_seq_len", settings.limits.max_seq_len),
        ("--max_batch_size", settings.limits.max_batch_size),
        ("--max_num_tokens", settings.limits.max_num_tokens),
        ("--max_beam_width", settings.gpu.max_beam_width),
        ("--opt_num_tokens", settings.gpu.opt_num_tokens),
        ("--workers", settings.gpu.workers),
    ];
    for (name, value) in limits {
        if let Some(value) = value {
            command.push_str(&format!(" {name} {value}"));
        }
    }
    if settings.gpu.opt_num_tokens.is_none() && settings.limits.max_num_tokens.is_none_or(|tokens| tokens > 64) {
        command.push_str(" --multiple_profiles enable");
    }
    command
}

fn output(settings: &Settings) -> String {
    match (&settings.task, settings.target) {
        (Task::Engine(output), _) => output.to_string_lossy().into_owned(),
        (_, Some(Target::Gpu(gpu))) => format!("engine-{}", gpu.name),
        _ => "engine".to_owned(),
    }
}
