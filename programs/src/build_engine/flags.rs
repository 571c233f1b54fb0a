//! What can be typed. Filling these in touches nothing but the text; `settings` is what it means.

use std::path::PathBuf;

use ::args::number::whole;
use clap::{Parser, ValueEnum};
use engine_format::lora::LoraModule;
use engine_format::{Target, WeightType};

use super::report::{self, Verbosity};
use engine_builder::lora::LoraRequest;
use engine_builder::memory_plan::LimitRequest;
use engine_builder::network::options::ResidualDtype;
use engine_builder::settings::{Compiler, GpuSettings, PluginLog, Settings, Task};

/// Largest number of tokens, sequences or ranks that can be asked for; larger ones are typing errors.
const MOST: u64 = 1 << 30;

const GPU_ENGINES: &str = "GPU engines";

const AFTER_HELP: &str = "\
Examples:
  build-engine --model assets/demo-model --gpu none --output demo-engine
  build-engine --model org/name --dry-run
  build-engine --model DIR --gpu h100 --tp-size 2 --checkpoint ckpt --checkpoint-only
  build-engine --model DIR --gpu h100 --network network.txt

Exit codes: 0 done; 2 bad input or usage; 3 the machine lacks what was asked for; 1 anything else; 130 interrupted";

fn positive(text: &str) -> Result<usize, String> {
    whole(1..=MOST)(text)
}

/// Build an engine from a Hugging Face model, for this machine's CPU or for a GPU
#[derive(Debug, Parser)]
#[command(name = "build-engine", version, after_help = AFTER_HELP, allow_negative_numbers = true)]
pub(crate) struct Args {
    /// The model: a directory, `org/name` of the local Hugging Face cache, a GGUF file, a NeMo archive, or a checkpoint that this program wrote
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,

    /// What to build for: none (the CPU), auto (the GPU that is here), a100, a100-40gb, h100, h200, l40, l40s, b200,
    /// gb200 or rtx-pro-6000 [default: auto where a GPU and TensorRT-LLM are, else none]
    #[arg(long, value_name = "TARGET")]
    gpu: Option<Target>,

    /// The engine directory to make
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint_only",
        required_unless_present_any = ["dry_run", "checkpoint_only", "network"])]
    output: Option<PathBuf>,

    /// Write the model as a TensorRT-LLM checkpoint into this directory too
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,

    /// Write the checkpoint and no engine; needs no GPU whatever the target
    #[arg(long, requires = "checkpoint")]
    checkpoint_only: bool,

    /// Ranks that share each layer (tensor parallelism) [default: 1, or what the checkpoint has]
    #[arg(long, value_name = "N", value_parser = positive)]
    tp_size: Option<usize>,

    /// Groups of consecutive layers (pipeline parallelism) [default: 1, or what the checkpoint has]
    #[arg(long, value_name = "N", value_parser = positive)]
    pp_size: Option<usize>,

    /// What a CPU engine's matrices are stored as: bf16; int8, eight bits with a scale for each 32; int4, four bits with a
    /// scale and a minimum for each 32, and the head and a few other matrices in int8
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    weights: WeightType,

    /// Most tokens of a sequence, prompt included [default: the model's max_position_embeddings]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_seq_len: Option<usize>,

    /// Most sequences in one step [default: 64 on the CPU; on a GPU at most 2048, by its memory]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_batch_size: Option<usize>,

    /// Most tokens in one step [default: 2048 on the CPU, 8192 on a GPU]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_num_tokens: Option<usize>,

    /// Most beams of one request [default: 1]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = GPU_ENGINES)]
    max_beam_width: Option<usize>,

    /// Tokens of a step that TensorRT optimizes for, in one optimization profile [default: several profiles]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = GPU_ENGINES)]
    opt_num_tokens: Option<usize>,

    /// Keep logits of prompt tokens, for `run-engine --prompt-logprobs`: no request reuses KV-cache blocks then
    #[arg(long, help_heading = GPU_ENGINES)]
    gather_context_logits: bool,

    /// Let a run ask for the logits of generated tokens
    #[arg(long, help_heading = GPU_ENGINES)]
    gather_generation_logits: bool,

    /// Multiply matrices with TensorRT-LLM's Gemm plugin instead of TensorRT's own kernels
    #[arg(long, help_heading = GPU_ENGINES)]
    gemm_plugin: bool,

    /// Type of the residual stream; bfloat16 is TensorRT-LLM's own: less accurate, and a little faster with long prompts
    #[arg(long, value_name = "TYPE", value_enum, default_value = "float32", help_heading = GPU_ENGINES)]
    residual_dtype: ResidualType,

    /// Make an engine that takes this LoRA adapter, a directory that PEFT wrote; may be repeated. Rank and modules are the
    /// adapters' unless they are given; adapters still come with requests
    #[arg(long, value_name = "DIR", help_heading = GPU_ENGINES)]
    lora_dir: Vec<PathBuf>,

    /// Largest rank of LoRA adapters [default: that of --lora-dir, or 64]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = GPU_ENGINES)]
    max_lora_rank: Option<usize>,

    /// What LoRA adapters may change: attn_q, attn_k, attn_v, attn_dense, mlp_h_to_4h, mlp_4h_to_h, mlp_gate, with commas
    /// between [default: what --lora-dir changes, or all]
    #[arg(long, value_name = "MODULES", value_delimiter = ',', help_heading = GPU_ENGINES)]
    lora_target_modules: Vec<LoraModule>,

    /// Who compiles: TensorRT through libtrtllm_gpu.so, or TensorRT-LLM's own program trtllm-build
    #[arg(long, value_name = "COMPILER", value_enum, default_value = "tensorrt", help_heading = GPU_ENGINES)]
    compiler: CompilerName,

    /// Ranks compiled at the same time, each on its own GPU if there are enough [default: 1]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = GPU_ENGINES)]
    workers: Option<usize>,

    /// File that keeps TensorRT's measurements for later builds
    #[arg(long, value_name = "FILE", help_heading = GPU_ENGINES)]
    timing_cache: Option<PathBuf>,

    /// Print the TensorRT network to FILE: text, `.json` or `.dot`; `-` for standard output. Needs no GPU, weights or
    /// --output
    #[arg(long, value_name = "FILE", help_heading = GPU_ENGINES)]
    network: Option<PathBuf>,

    /// Print what fits on the target (on every target without --gpu) and build nothing
    #[arg(long)]
    dry_run: bool,

    /// How --dry-run prints: a table, or one JSON object a line for each target
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", requires = "dry_run")]
    format: PlanFormat,

    /// Replace outputs that are there already
    #[arg(long)]
    force: bool,

    /// Build although weights are infinite or NaN, or too large for bfloat16; the first one is named
    #[arg(long)]
    allow_non_finite: bool,

    /// Take tokenizer, chat template and end ids of this directory instead of the model's own
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// Fetch the model from the Hugging Face hub if it is not in the local cache
    #[arg(long)]
    download: bool,

    /// Threads that convert weights, at most 1024 [default: one for each logical CPU that this process may use]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=1024))]
    threads: Option<usize>,

    /// Show details
    #[arg(short, long)]
    verbose: bool,

    /// Show errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

/// Type of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ResidualType {
    Float32,
    Bfloat16,
}

/// Who compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompilerName {
    Tensorrt,
    TrtllmBuild,
}

/// How a memory plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    Text,
    Json,
}

impl Args {
    /// What was asked for.
    pub(crate) fn settings(&self) -> Settings {
        let task = match (&self.output, self.dry_run) {
            (_, true) => Task::Plan,
            (Some(output), false) => Task::Engine(output.clone()),
            (None, false) if self.network.is_some() && !self.checkpoint_only => Task::Network,
            (None, false) => Task::Checkpoint,
        };
        Settings {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            download: self.download,
            target: self.gpu,
            tp_size: self.tp_size,
            pp_size: self.pp_size,
            limits: LimitRequest {
                max_seq_len: self.max_seq_len,
                max_batch_size: self.max_batch_size,
                max_num_tokens: self.max_num_tokens,
            },
            weights: self.weights,
            gpu: GpuSettings {
                compiler: match self.compiler {
                    CompilerName::Tensorrt => Compiler::TensorRt,
                    CompilerName::TrtllmBuild => Compiler::TrtllmBuild,
                },
                workers: self.workers,
                max_beam_width: self.max_beam_width,
                opt_num_tokens: self.opt_num_tokens,
                gather_context_logits: self.gather_context_logits,
                gather_generation_logits: self.gather_generation_logits,
                gemm_plugin: self.gemm_plugin,
                residual_dtype: match self.residual_dtype {
                    ResidualType::Float32 => ResidualDtype::Float32,
                    ResidualType::Bfloat16 => ResidualDtype::Bfloat16,
                },
                lora: LoraRequest {
                    dirs: self.lora_dir.clone(),
                    max_rank: self.max_lora_rank,
                    target_modules: self.lora_target_modules.clone(),
                },
                timing_cache: self.timing_cache.clone(),
                plugin_log: match self.verbose {
                    true => PluginLog::Everything(report::line),
                    false => PluginLog::Errors(report::line),
                },
                network: self.network.clone(),
            },
            checkpoint: self.checkpoint.clone(),
            force: self.force,
            allow_non_finite: self.allow_non_finite,
            threads: self.threads,
            task,
        }
    }

    /// How the plan is printed.
    pub(crate) fn plan_format(&self) -> PlanFormat {
        self.format
    }

    /// How much is said.
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_target() {
        let help = Args::command().render_long_help().to_string();
        for name in Target::names().split(", ") {
            assert!(help.contains(name), "{name}");
        }
    }
}
