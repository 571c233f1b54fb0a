//! `--network FILE`: the TensorRT networks of a model, one file for each rank.

use std::path::{Path, PathBuf};

use engine_format::target::GPUS;
use engine_format::{FormatError, Mapping, ModelConfig, Target, staging};

use super::{BuildFailure, Builder};
use crate::error::Result;
use crate::huggingface::hub::Need;
use crate::machine;
use crate::memory_plan::MemoryPlan;
use crate::network::print::{Format, print};
use crate::network::validate::validate;
use crate::network::{NetworkOptions, RankNetwork, Release, decoder};
use crate::settings::Settings;
use crate::source::Outline;

/// Prints what was asked for, without weights.
pub(super) fn run(builder: &Builder<'_>, settings: &Settings) -> Result<(), BuildFailure> {
    let Outline { config, mapping, .. } = Outline::read(&builder.find_model(settings, Need::Config)?)?;
    settings.validate_for(&config, mapping)?;
    let mapping = settings.mapping(&config, mapping)?;
    let place = match settings.target {
        Some(Target::Gpu(gpu)) => machine::place_of_gpu(gpu),
        _ => {
            let (place, reason) = machine::place_of_auto(&trtllm_sys::probe());
            let any = &GPUS[0];
            if let Some(reason) = &reason {
                builder
                    .progress
                    .note(&format!("{reason}, so limits are chosen for {}, unless a target is named", any.product));
            }
            if reason.is_some() { machine::place_of_gpu(any) } else { place }
        }
    };
    let plan = MemoryPlan::new(&config, mapping, place, settings.engine_request());
    let lora = settings.gpu.lora.options(&config, mapping)?;
    let options = NetworkOptions { lora, ..options(settings, Release::V1_2, plan.limits) };
    let networks = networks(&config, mapping, options)?;
    write(builder, settings, &networks)
}

/// What the settings ask of a network.
pub(super) fn options(
    settings: &Settings,
    release: Release,
    limits: engine_format::manifest::Limits,
) -> NetworkOptions {
    NetworkOptions {
        max_beam_width: settings.gpu.max_beam_width.unwrap_or(1),
        opt_num_tokens: settings.gpu.opt_num_tokens,
        gather_context_logits: settings.gpu.gather_context_logits,
        gather_generation_logits: settings.gpu.gather_generation_logits,
        gemm_plugin: settings.gpu.gemm_plugin,
        residual_dtype: settings.gpu.residual_dtype,
        ..NetworkOptions::new(release, limits)
    }
}

/// The networks of every rank, checked as far as that needs no weights but their shapes.
pub(super) fn networks(config: &ModelConfig, mapping: Mapping, options: NetworkOptions) -> Result<Vec<RankNetwork>> {
    let networks = decoder(config, mapping, options)?;
    for network in &networks {
        let (pp_rank, tp_rank) = (network.rank / mapping.tp_size, network.rank % mapping.tp_size);
        let first_layer = mapping.layers(config, pp_rank).start;
        let weights = mapping.weights(config, pp_rank);
        let shape = |name: &str| {
            let weight = weights.iter().find(|weight| weight.name(first_layer) == name)?;
            Some(mapping.shard(config, *weight, tp_rank).shape)
        };
        validate(&network.graph, options.release, shape)?;
    }
    Ok(networks)
}

/// Writes the networks where the settings say, if they do.
pub(super) fn write(builder: &Builder<'_>, settings: &Settings, networks: &[RankNetwork]) -> Result<(), BuildFailure> {
    let Some(path) = &settings.gpu.network else { return Ok(()) };
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Format::Json,
        Some("dot" | "gv") => Format::Dot,
        _ => Format::Text,
    };
    for network in networks {
        let text = print(&network.graph, format);
        if path == Path::new("-") {
            builder.progress.output(&text).map_err(FormatError::io("write", path))?;
            continue;
        }
        let path = match networks.len() {
            1 => path.clone(),
            _ => of_rank(path, network.rank),
        };
        staging::write_file(&path, text.as_bytes())?;
        let graph = &network.graph;
        builder.progress.note(&format!(
            "wrote the TensorRT network `{}`: {} inputs, {} nodes",
            path.display(),
            graph.inputs.len(),
            graph.nodes.len()
        ));
    }
    Ok(())
}

/// `network.json` of rank 1 is `network.rank1.json`.
fn of_rank(path: &Path, rank: usize) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(format!("rank{rank}.{}", extension.to_string_lossy())),
        None => path.with_extension(format!("rank{rank}")),
    }
}
