//! The recorded network against Transformers, by the fixtures in `fixtures/parity`.

use std::path::Path;

use serde_json::Value;
use trtllm::engine_format::{Mapping, ModelConfig};

use crate::common::{fixture, parity_fixtures, program, run};
use crate::interpreter::Arithmetic;
use crate::plan::Plan;
use crate::stand_in::{prefix, shim};
use crate::step::{Model, Part};

/// Largest difference to Transformers' fp32 log-probabilities, in fp32.
pub(crate) const FP32_BAR: f64 = 1e-4;

struct Reference {
    config: ModelConfig,
    json: Value,
    prompts: Vec<Vec<u32>>,
    /// Of each prompt, `[positions, vocab]`.
    log_probs: Vec<Vec<f32>>,
}

impl Reference {
    fn read(name: &str) -> Self {
        let dir = fixture("parity").join(name);
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ids = |prompt: &Value| -> Vec<u32> {
            prompt["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let prompts: Vec<_> = json["prompts"].as_array().unwrap().iter().map(ids).collect();
        let read = |prompt| {
            let tensor = tensors.tensor(&format!("prompts.{prompt}.log_probs")).unwrap();
            tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let log_probs = (0..prompts.len()).map(read).collect();
        let config = engine_builder::Outline::read(&dir).unwrap().config;
        Self { config, json, prompts, log_probs }
    }

    fn bar(&self, figure: &str) -> f64 {
        self.json["hf_bf16"][figure].as_f64().unwrap()
    }

    /// Differences of a row of logits to what Transformers has after `position` of `prompt`.
    fn differences(&self, prompt: usize, position: usize, logits: &[f32]) -> impl Iterator<Item = f64> {
        let vocab = self.config.vocab_size;
        let logits = &logits[..vocab];
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
        let expected = &self.log_probs[prompt][position * vocab..(position + 1) * vocab];
        let pairs = logits.iter().zip(expected);
        pairs.map(move |(&logit, &expected)| (f64::from(logit - most) - total.ln() - f64::from(expected)).abs())
    }
}

/// Builds with the stand-ins for TensorRT, TensorRT-LLM and the driver, and reads what was recorded.
pub(crate) fn plans(name: &str, mapping: Mapping, more: &[&str]) -> Vec<Plan> {
    plans_of(&fixture("parity").join(name), mapping, more)
}

fn plans_of(model: &Path, mapping: Mapping, more: &[&str]) -> Vec<Plan> {
    let dir = tempfile::tempdir().unwrap();
    let engine = dir.path().join("engine");
    let mut command = program("build-engine");
    command.env("TRTLLM_GPU_LIB", shim()).env("LD_LIBRARY_PATH", prefix().join("lib/cuda"));
    command.arg("--model").arg(model).arg("--output").arg(&engine).args(["--gpu", "a100"]);
    command.args(["--tp-size", &mapping.tp_size.to_string(), "--pp-size", &mapping.pp_size.to_string()]);
    let output = run(command.args(more));
    assert_eq!(output.code, 0, "{}: {}", model.display(), output.stderr);
    let read = |rank: usize| Plan::read(&Path::new(&engine).join(format!("rank{rank}.engine")));
    (0..mapping.world_size()).map(read).collect()
}

fn model(name: &str, reference: &Reference, mapping: Mapping, arithmetic: Arithmetic, more: &[&str]) -> Model {
    Model::new(plans(name, mapping, more), mapping.tp_size, reference.config.sliding_window, arithmetic)
}

/// Mean and maximum over every position of every prompt, each prompt in one context step.
fn errors(name: &str, reference: &Reference, mapping: Mapping, arithmetic: Arithmetic, residual: &str) -> (f64, f64) {
    let options = ["--gather-context-logits", "--residual-dtype", residual];
    let mut model = model(name, reference, mapping, arithmetic, &options);
    let (mut sum, mut count, mut max) = (0.0, 0, 0.0f64);
    for (prompt, tokens) in reference.prompts.iter().enumerate() {
        let part = Part { sequence: prompt, tokens: tokens.clone(), past: 0, is_context: true };
        for (position, row) in model.step(&[part]).iter().enumerate() {
            for error in reference.differences(prompt, position, row) {
                assert!(error.is_finite(), "{name}: a log-probability is not finite");
                (sum, count, max) = (sum + error, count + 1, max.max(error));
            }
        }
    }
    assert!(count > 1000);
    (sum / f64::from(count), max)
}

/// The splits that a model takes, the one rank first.
fn splits(config: &ModelConfig) -> Vec<Mapping> {
    let splits = [(1, 1), (2, 1), (1, 2), (2, 2)].map(|(tp_size, pp_size)| Mapping { tp_size, pp_size });
    let takes = |mapping: &Mapping| {
        mapping.validate(config).is_ok() && mapping.padded_vocab_size(config).is_multiple_of(mapping.world_size())
    };
    splits.into_iter().filter(takes).collect()
}

#[test]
fn fp32_is_within_1e_4_of_transformers_on_every_split() {
    let mut tried = [0; 4];
    for name in parity_fixtures() {
        let reference = Reference::read(&name);
        for mapping in splits(&reference.config) {
            let (mean, max) = errors(&name, &reference, mapping, Arithmetic::Fp32, "float32");
            println!("{name}, tp {} pp {}: fp32 mean {mean:.2e}, max {max:.2e}", mapping.tp_size, mapping.pp_size);
            assert!(max <= FP32_BAR, "{name}, {mapping:?}: {max}");
            tried[mapping.tp_size - 1 + 2 * (mapping.pp_size - 1)] += 1;
        }
    }
    assert!(tried.iter().all(|&count| count >= 3), "{tried:?}");
}

#[test]
fn bf16_is_within_transformers_own_error_on_each_split() {
    let mut over = Vec::new();
    for name in parity_fixtures() {
        let reference = Reference::read(&name);
        let (mean_bar, max_bar) = (reference.bar("mean_abs_error"), 1.25 * reference.bar("max_abs_error"));
        for mapping in splits(&reference.config) {
            let (mean, max) = errors(&name, &reference, mapping, Arithmetic::Bf16, "float32");
            // Both splits together round twice more than Transformers' one rank does: that is measured, and in fp32 held to the bar.
            let is_both = mapping.tp_size > 1 && mapping.pp_size > 1;
            let split = format!("{name}, tp {} pp {}", mapping.tp_size, mapping.pp_size);
            println!("{split}: bf16 mean {mean:.4} of {mean_bar:.4}, max {max:.4} of {max_bar:.4}");
            if !is_both && (mean > mean_bar || max > max_bar) {
                over.push(format!("{split}: mean {mean} of {mean_bar}, max {max} of {max_bar}"));
            }
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

/// In fp32 the network is the same; in bf16 it rounds the stream twice in each layer, which the table in `docs/network.md` shows.
#[test]
fn a_bf16_residual_stream_is_the_same_network_with_more_rounding() {
    let (mut narrow_sum, mut wide_sum) = (0.0, 0.0);
    for name in parity_fixtures() {
        let reference = Reference::read(&name);
        for mapping in splits(&reference.config).into_iter().filter(|mapping| mapping.world_size() <= 2) {
            let split = format!("{name}, tp {} pp {}", mapping.tp_size, mapping.pp_size);
            if mapping == Mapping::SINGLE {
                let (_, max) = errors(&name, &reference, mapping, Arithmetic::Fp32, "bfloat16");
                assert!(max <= FP32_BAR, "{split}: {max}");
            }
            let (mean, max) = errors(&name, &reference, mapping, Arithmetic::Bf16, "bfloat16");
            let (mean_bar, max_bar) = (reference.bar("mean_abs_error"), 1.25 * reference.bar("max_abs_error"));
            println!("{split}: bf16 stream, mean {mean:.4} of {mean_bar:.4}, max {max:.4} of {max_bar:.4}");
            // Partial sums of two ranks, each rounded, and a rounded stream are together a little more than Transformers' one rank has.
            let slack = if mapping.tp_size > 1 { 1.05 } else { 1.0 };
            assert!(
                mean <= mean_bar * slack && max <= max_bar * slack,
                "{split}: {mean} of {mean_bar}, {max} of {max_bar}"
            );
            if mapping == Mapping::SINGLE {
                narrow_sum += mean;
                wide_sum += errors(&name, &reference, mapping, Arithmetic::Bf16, "float32").0;
            }
        }
    }
    assert!(narrow_sum > wide_sum, "{narrow_sum} of bf16, {wide_sum} of fp32");
}

/// A checkpoint's tensors in the order of their names backwards: gate no longer follows fc.
fn turn_round(checkpoint: &Path, ranks: usize) {
    for rank in 0..ranks {
        let path = checkpoint.join(format!("rank{rank}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names = tensors.names();
        names.sort_unstable();
        let (mut head, mut data) = (serde_json::Map::new(), Vec::new());
        for name in names.into_iter().rev() {
            let tensor = tensors.tensor(name).unwrap();
            let start = data.len();
            data.extend_from_slice(tensor.data());
            let entry =
                serde_json::json!({ "dtype": "BF16", "shape": tensor.shape(), "data_offsets": [start, data.len()] });
            head.insert(name.to_owned(), entry);
        }
        let mut head = Value::Object(head).to_string();
        head.push_str(&" ".repeat(head.len().next_multiple_of(8) - head.len()));
        std::fs::write(&path, [&(head.len() as u64).to_le_bytes(), head.as_bytes(), &data].concat()).unwrap();
    }
}

#[test]
fn one_product_of_both_neighbours_is_the_same_as_two() {
    let name = "mistral-gqa";
    let reference = Reference::read(name);
    for (tp_size, pp_size) in [(1, 1), (2, 1), (1, 2)] {
        let mapping = Mapping { tp_size, pp_size };
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("checkpoint");
        let mut command = program("build-engine");
        command.arg("--model").arg(fixture("parity").join(name)).args(["--checkpoint-only", "--gpu", "a100"]);
        command.args(["--tp-size", &tp_size.to_string(), "--pp-size", &pp_size.to_string(), "--checkpoint"]);
        assert_eq!(run(command.arg(&checkpoint)).code, 0);
        let logits = |model: &Path| {
            let plans = plans_of(model, mapping, &[]);
            let products = |part: &str| {
                let layers = plans.iter().flat_map(|plan| &plan.layers);
                let of_part =
                    |layer: &&crate::plan::Layer| layer.kind == "MatrixMultiply" && layer.name().ends_with(part);
                layers.filter(of_part).count()
            };
            let counts = [products("mlp.fused_fc"), products("mlp.fc"), products("mlp.gate")];
            let mut model = Model::new(plans, tp_size, reference.config.sliding_window, Arithmetic::Bf16);
            let tokens = reference.prompts[2].clone();
            (counts, model.step(&[Part { sequence: 0, tokens, past: 0, is_context: true }]))
        };
        let layers = reference.config.num_hidden_layers * tp_size;
        let (counts, neighbours) = logits(&checkpoint);
        assert_eq!(counts, [layers, 0, 0]);
        turn_round(&checkpoint, mapping.world_size());
        let (counts, apart) = logits(&checkpoint);
        assert_eq!(counts, [0, layers, layers]);
        assert!(neighbours == apart, "tp {tp_size} pp {pp_size}");
    }
}

/// A prompt on its way: context in chunks, then the rest token by token, as if it were generated.
struct Progress {
    prompt: usize,
    chunks: Vec<usize>,
    past: usize,
    /// The step in which it begins.
    start: usize,
}

#[test]
fn chunks_generation_and_mixed_batches_agree_with_transformers() {
    for name in parity_fixtures() {
        let reference = Reference::read(&name);
        for mapping in splits(&reference.config) {
            let mut model = model(&name, &reference, mapping, Arithmetic::Fp32, &[]);
            let mut requests: Vec<_> = reference
                .prompts
                .iter()
                .enumerate()
                .map(|(prompt, tokens)| {
                    // A third, another third, and then one by one.
                    let third = tokens.len().div_ceil(3);
                    let chunks = if third * 2 < tokens.len() { vec![third, third] } else { vec![third] };
                    Progress { prompt, chunks, past: 0, start: prompt }
                })
                .collect();
            let (mut mixed, mut max) = (0, 0.0f64);
            for step in 0.. {
                let mut parts = Vec::new();
                for request in &mut requests {
                    let tokens = &reference.prompts[request.prompt];
                    if request.start > step || request.past == tokens.len() {
                        continue;
                    }
                    let is_context = !request.chunks.is_empty();
                    let count = if is_context { request.chunks.remove(0) } else { 1 };
                    let past = request.past;
                    request.past += count;
                    parts.push(Part {
                        sequence: request.prompt,
                        tokens: tokens[past..past + count].to_vec(),
                        past,
                        is_context,
                    });
                }
                if parts.is_empty() && requests.iter().all(|request| request.start <= step) {
                    break;
                }
                if parts.is_empty() {
                    continue;
                }
                parts.sort_by_key(|part| !part.is_context);
                mixed += usize::from(parts[0].is_context && !parts[parts.len() - 1].is_context);
                let rows = model.step(&parts);
                assert_eq!(rows.len(), parts.len());
                for (part, row) in parts.iter().zip(&rows) {
                    let position = part.past + part.tokens.len() - 1;
                    let worst = reference.differences(part.sequence, position, row).fold(0.0, f64::max);
                    max = max.max(worst);
                    assert!(
                        worst <= FP32_BAR,
                        "{name}, {mapping:?}, prompt {}, position {position}: {worst}",
                        part.sequence
                    );
                }
            }
            assert!(mixed > 0, "{name}: no step had both phases");
            println!("{name}, tp {} pp {}: {mixed} mixed steps, max {max:.2e}", mapping.tp_size, mapping.pp_size);
        }
    }
}

#[test]
fn the_gemm_plugin_is_the_same_product() {
    let (name, mapping) = ("mistral-gqa", Mapping::SINGLE);
    let reference = Reference::read(name);
    let mut logits = [&[][..], &["--gemm-plugin"]].map(|more| {
        let mut model = model(name, &reference, mapping, Arithmetic::Bf16, more);
        model.step(&[Part { sequence: 0, tokens: reference.prompts[2].clone(), past: 0, is_context: true }])
    });
    let [plain, plugin] = &mut logits;
    assert_eq!(plain, plugin);
}

/// A different network has different numbers: what is compared above can fail.
#[test]
fn a_network_with_another_weight_is_noticed() {
    let (name, mapping) = ("mistral-gqa", Mapping::SINGLE);
    let reference = Reference::read(name);
    let mut plans = plans(name, mapping, &[]);
    let norm = plans[0].layers.iter_mut().find(|layer| layer.json["of"] == "transformer.ln_f.weight").unwrap();
    let crate::plan::Data::Floats(gamma) = &mut norm.constant.as_mut().unwrap().data else { panic!() };
    gamma[0] *= 1.01;
    let mut model = Model::new(plans, 1, reference.config.sliding_window, Arithmetic::Fp32);
    let tokens = reference.prompts[2].clone();
    let position = tokens.len() - 1;
    let rows = model.step(&[Part { sequence: 0, tokens, past: 0, is_context: true }]);
    assert!(reference.differences(2, position, &rows[0]).fold(0.0, f64::max) > FP32_BAR);
}
