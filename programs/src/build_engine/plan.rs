//! `--dry-run`: memory plans on stdout.

use std::io::{self, Write};

use engine_format::ModelConfig;
use serde_json::{Value, json};

use super::failure::Failure;
use super::flags::PlanFormat;
use super::options::as_flags;
use engine_builder::SourceFormat;
use engine_builder::build::{Plans, summary};
use engine_builder::memory_plan::{Executor, MemoryPlan};
use engine_builder::settings::Settings;
use engine_builder::units::{bytes, count, counted};

/// Prints the plan for the target that was asked for, or for every target.
pub(crate) fn print(settings: &Settings, plans: &Plans, format: PlanFormat) -> Result<(), Failure> {
    let Plans { config, format: source, plans } = plans;
    let header = format!(
        "model           {}\n                {}\nformat          {source}\n",
        settings.model.display(),
        summary(config)
    );
    let text = match (format, plans.as_slice()) {
        (PlanFormat::Json, plans) => plans.iter().map(|plan| format!("{}\n", to_json(plan, source))).collect(),
        (PlanFormat::Text, [plan]) => one(header, config, plan),
        (PlanFormat::Text, plans) => table(header, plans),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read the plan has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::Stdout),
    }
}

/// Everything about one target.
fn one(header: String, config: &ModelConfig, plan: &MemoryPlan) -> String {
    let mut text = header;
    let mut row = |name: &str, value: String| text.push_str(&format!("{name:<15} {value}\n"));
    let (place, limits, mapping) = (&plan.place, plan.limits, plan.mapping);
    row("target", format!("{}: {}", place.target, place.description));
    row("memory", format!("{} ({})", bytes(place.memory_bytes), place.source));
    if mapping.world_size() > 1 {
        row(
            "split",
            format!(
                "tp_size {}, pp_size {}; figures are for the rank that needs most",
                mapping.tp_size, mapping.pp_size
            ),
        );
    }
    row("max_seq_len", limits.max_seq_len.to_string());
    row("max_batch_size", limits.max_batch_size.to_string());
    row("max_num_tokens", limits.max_num_tokens.to_string());
    if !plan.token_ranges.is_empty() {
        let ranges: Vec<_> =
            plan.token_ranges.iter().map(|[least, best, most]| format!("{least}-{most}, best {best}")).collect();
        row("profiles", format!("{} (tokens of a step)", ranges.join("; ")));
    }
    row("", String::new());
    row("weights", format!("{} ({})", bytes(plan.weights_bytes), plan.weight_type));
    row("activations", format!("{} (an estimate)", bytes(plan.activation_bytes)));
    if plan.context_logits_engine_bytes > 0 {
        let (engine, runtime) = (plan.context_logits_engine_bytes, plan.context_logits_runtime_bytes);
        row("context logits", format!("{} in the engine, {} in the runtime", bytes(engine), bytes(runtime)));
    }
    row("reserve", format!("{} (an allowance for the runtime)", bytes(plan.reserve_bytes)));
    row(
        "KV cache",
        format!(
            "{} (90 % of what is left): {} of {}",
            bytes(plan.kv_cache_bytes),
            counted(plan.kv_cache_tokens(), "token"),
            counted(plan.kv_bytes_per_token, "byte")
        ),
    );
    row("", String::new());
    row("tokens each", "sequences that fit at once".into());
    for (length, sequences) in &plan.sequences_by_length {
        row(&format!("{:>11}", count(*length)), count(*sequences));
    }
    if let Some(window) = config.sliding_window {
        let window = counted(window as u64, "token");
        row(
            "",
            match place.executor {
                Executor::TensorRtLlm => format!("(a sequence keeps its window of {window})"),
                Executor::Cpu => {
                    format!("(a sequence keeps its window of {window}, and the chunk of its prompt that is computed)")
                }
            },
        );
    }
    row("", String::new());
    row("verdict", as_flags(&plan.verdict()));
    if plan.context_logits_engine_bytes > 0 {
        row("note", as_flags(&plan.context_logits_note()));
    }
    // A row without text is a line without blanks.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A line for each target.
fn table(header: String, plans: &[MemoryPlan]) -> String {
    let heads = [
        "target",
        "memory",
        "tp x pp",
        "weights",
        "activations",
        "KV/token",
        "KV tokens",
        "max_seq_len",
        "max_batch_size",
        "fits at once",
    ];
    let rows: Vec<[String; 10]> = plans
        .iter()
        .map(|plan| {
            [
                plan.place.target.clone(),
                bytes(plan.place.memory_bytes),
                format!("{} x {}", plan.mapping.tp_size, plan.mapping.pp_size),
                bytes(plan.weights_bytes),
                bytes(plan.activation_bytes),
                format!("{} B", count(plan.kv_bytes_per_token)),
                count(plan.kv_cache_tokens()),
                count(plan.limits.max_seq_len as u64),
                count(plan.limits.max_batch_size as u64),
                if plan.fits() {
                    format!("{} x {}", count(plan.largest_batch), count(plan.limits.max_seq_len as u64))
                } else {
                    "no".to_owned()
                },
            ]
        })
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heads[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = header;
    text.push('\n');
    text.push_str(&line(&heads.map(str::to_owned)));
    for row in &rows {
        text.push_str(&line(row));
    }
    let lacking: Vec<_> = plans.iter().filter(|plan| !plan.fits()).collect();
    if !lacking.is_empty() {
        text.push('\n');
    }
    for plan in lacking {
        text.push_str(&format!("{} {}\n", plan.place.target, as_flags(&plan.verdict())));
    }
    text.push_str("\nDetails of a target, and where its figures are from: --dry-run --gpu TARGET\n");
    text
}

fn to_json(plan: &MemoryPlan, source: &SourceFormat) -> Value {
    let tensors: serde_json::Map<_, _> =
        source.types.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count))).collect();
    let lengths: Vec<_> = plan
        .sequences_by_length
        .iter()
        .map(|(seq_len, sequences)| json!({ "seq_len": seq_len, "sequences": sequences }))
        .collect();
    json!({
        "source": { "format": source.name, "version": source.version, "tensors": tensors },
        "target": plan.place.target,
        "product": plan.place.description,
        "memory_bytes": plan.place.memory_bytes,
        "memory_source": plan.place.source,
        "tp_size": plan.mapping.tp_size,
        "pp_size": plan.mapping.pp_size,
        "weights": plan.weight_type.name(),
        "weights_bytes": plan.weights_bytes,
        "activation_bytes": plan.activation_bytes,
        "context_logits_engine_bytes": plan.context_logits_engine_bytes,
        "context_logits_runtime_bytes": plan.context_logits_runtime_bytes,
        "reserve_bytes": plan.reserve_bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_cache_bytes": plan.kv_cache_bytes,
        "kv_cache_tokens": plan.kv_cache_tokens(),
        "limits": plan.limits,
        "token_ranges": plan.token_ranges,
        "fits": plan.fits(),
        "missing_bytes": plan.missing_bytes,
        "largest_batch": plan.largest_batch,
        "longest_sequence": plan.longest_sequence,
        "sequences_by_length": lengths,
        "smallest_tp_size": plan.smallest_tp_size,
    })
}
