//! The directory of a TensorRT engine: what is in it beside the engines, whoever compiled them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine_format::build_config::engine_file;
use engine_format::checkpoint::CONFIG_FILE;
use engine_format::engine_dir::config_json;
use engine_format::lora::LoraModule;
use engine_format::manifest::{FORMAT_VERSION, FileRecord, MANIFEST_FILE, Manifest};
use engine_format::staging::StagedDir;
use engine_format::{BuildConfig, FormatError, Mapping};
use rayon::prelude::*;
use serde_json::json;

use super::tensorrt::TensorRt;
use super::trtllm_build;
use crate::error::Result;
use crate::network::{NetworkOptions, RankNetwork};
use crate::output::{Written, check_free_space, pretty};
use crate::progress::{Interrupt, Progress};
use crate::source::Source;

/// What to build, and where.
pub(crate) struct GpuEngineRequest<'a> {
    pub(crate) output: &'a Path,
    pub(crate) force: bool,
    /// The model, as the user named it, for the record.
    pub(crate) model: &'a str,
    /// The target, as `--gpu` names it.
    pub(crate) target: &'a str,
    /// The version of TensorRT-LLM that will run the engine; empty where it is not known.
    pub(crate) tensorrt_llm: &'a str,
    /// The version of TensorRT that compiles, where it is known.
    pub(crate) tensorrt: Option<String>,
    /// The GPU that it is compiled on.
    pub(crate) device: &'a str,
    pub(crate) options: NetworkOptions,
    pub(crate) mapping: Mapping,
}

/// Who compiles.
pub(crate) enum Compile<'a> {
    /// TensorRT, these networks.
    TensorRt(TensorRt<'a>, &'a [RankNetwork]),
    /// TensorRT-LLM's program.
    TrtllmBuild(PathBuf, usize),
}

/// Builds the engine of `checkpoint`, which is split as the request says.
///
/// # Errors
/// What the compiler said, an output that exists or does not fit, an interrupt. Then the output is as it was.
pub(crate) fn build_gpu_engine(
    checkpoint: &Source,
    compile: &Compile<'_>,
    request: &GpuEngineRequest<'_>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Written> {
    let start = Instant::now();
    let staged = StagedDir::create(request.output, request.force, MANIFEST_FILE)?;
    check_free_space(request.output, staged.path(), checkpoint.total_bytes())?;
    let ranks = request.mapping.world_size();
    let mut files = BTreeMap::new();
    match compile {
        Compile::TensorRt(tensorrt, networks) => {
            let folder = staged.path();
            let records = tensorrt.compile(checkpoint, request.mapping, networks, folder, progress, interrupt)?;
            files.extend(records.into_iter().enumerate().map(|(rank, record)| (engine_file(rank), record)));
            staged.write(CONFIG_FILE, &config(checkpoint, request))?;
        }
        Compile::TrtllmBuild(program, workers) => {
            let (from, to) = (checkpoint.path(), staged.path());
            trtllm_build::run(program, from, to, &request.options, *workers, progress, interrupt)?;
            for rank in 0..ranks {
                let name = engine_file(rank);
                files.insert(name.clone(), record_of(&staged.path().join(&name))?);
            }
        }
    }
    files.insert(CONFIG_FILE.to_owned(), record_of(&staged.path().join(CONFIG_FILE))?);
    for (name, content) in checkpoint.companions() {
        staged.write(name, content)?;
        files.insert(name.clone(), FileRecord::of(content));
    }
    let manifest = manifest(checkpoint, request, compile, staged.path(), files)?;
    let path = staged.path().join(MANIFEST_FILE);
    let bytes = manifest.to_bytes(&path)?;
    staged.write(MANIFEST_FILE, &bytes)?;
    interrupt.check()?;
    staged.commit()?;
    Ok(Written {
        files: manifest.files.len() + 1,
        bytes: manifest.files.values().map(|record| record.bytes).sum::<u64>() + bytes.len() as u64,
        elapsed: start.elapsed(),
    })
}

/// `config.json` as TensorRT-LLM's C++ reads it.
fn config(checkpoint: &Source, request: &GpuEngineRequest<'_>) -> Vec<u8> {
    let options = &request.options;
    let mut config = config_json(checkpoint.config(), request.mapping, options.limits);
    config["version"] = json!(request.tensorrt_llm);
    let dtype = |enabled: bool| enabled.then_some("bfloat16");
    let build = &mut config["build_config"];
    build["max_num_tokens"] = json!(options.max_num_tokens());
    build["opt_num_tokens"] = json!(options.opt_num_tokens);
    build["max_beam_width"] = json!(options.max_beam_width);
    build["gather_context_logits"] = json!(options.gather_context_logits);
    build["gather_generation_logits"] = json!(options.gather_generation_logits);
    build["plugin_config"]["gemm_plugin"] = json!(dtype(options.gemm_plugin));
    build["plugin_config"]["nccl_plugin"] = json!(dtype(request.mapping.world_size() > 1));
    build["plugin_config"]["multiple_profiles"] = json!(options.opt_num_tokens.is_none());
    if let Some(lora) = options.lora {
        let modules: Vec<_> = lora.modules.iter().map(LoraModule::name).collect();
        build["lora_config"] =
            json!({ "lora_dir": [], "max_lora_rank": lora.max_rank, "lora_target_modules": modules });
        build["plugin_config"]["lora_plugin"] = json!("bfloat16");
    }
    // What the network has in place of upstream's defaults.
    build["plugin_config"]["use_fused_mlp"] = json!(options.fused_mlp);
    pretty(&config)
}

fn manifest(
    checkpoint: &Source,
    request: &GpuEngineRequest<'_>,
    compile: &Compile<'_>,
    folder: &Path,
    files: BTreeMap<String, FileRecord>,
) -> Result<Manifest> {
    let program = format!("build-engine {}", env!("CARGO_PKG_VERSION"));
    let mut versions = BTreeMap::from([
        ("trtllm".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("gpu".to_owned(), request.device.to_owned()),
    ]);
    // The program's own where it compiled, which no library of ours has told.
    let tensorrt_llm = match request.tensorrt_llm {
        "" => BuildConfig::read(folder)?.version,
        version => version.to_owned(),
    };
    versions.insert("tensorrt_llm".to_owned(), tensorrt_llm);
    versions.extend(request.tensorrt.clone().map(|version| ("tensorrt".to_owned(), version)));
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        created_by: match compile {
            Compile::TensorRt(..) => program,
            Compile::TrtllmBuild(..) => format!("{program} through {}", trtllm_build::PROGRAM),
        },
        target: request.target.to_owned(),
        model: request.model.to_owned(),
        versions,
        limits: engine_format::manifest::Limits {
            max_num_tokens: request.options.max_num_tokens(),
            ..request.options.limits
        },
        attention_window: checkpoint.config().sliding_window,
        files,
        tensors: tensors(checkpoint, request.mapping)?,
    })
}

/// BLAKE3 of each weight that the engines were made of; with several ranks, names begin with `rank{R}/`.
fn tensors(checkpoint: &Source, mapping: Mapping) -> Result<BTreeMap<String, String>> {
    let config = checkpoint.config();
    let mut weights = Vec::new();
    for pp_rank in 0..mapping.pp_size {
        let first_layer = mapping.layers(config, pp_rank).start;
        for tp_rank in 0..mapping.tp_size {
            let rank = mapping.rank(pp_rank, tp_rank);
            weights.extend(mapping.weights(config, pp_rank).into_iter().map(|weight| (rank, weight.name(first_layer))));
        }
    }
    let hash = |(rank, name): (usize, String)| {
        let view = checkpoint.rank_tensor(mapping, rank, &name)?;
        let bytes = view.as_ref().and_then(|view| view.as_bf16(0..view.row_count())).unwrap_or_default();
        let digits = blake3::hash(bytemuck::cast_slice(bytes)).to_hex().to_string();
        let name = if mapping.world_size() == 1 { name } else { format!("rank{rank}/{name}") };
        Ok((name, digits))
    };
    weights.into_par_iter().map(hash).collect()
}

/// Size and hash of the file at `path`.
fn record_of(path: &Path) -> Result<FileRecord> {
    let io = |error| FormatError::io("read", path)(error);
    let mut file = std::fs::File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
    Ok(FileRecord { bytes, blake3: hasher.finalize().to_hex().to_string(), head_blake3: None })
}
