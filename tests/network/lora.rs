//! LoRA in the recorded network against PEFT, by the adapters in `fixtures/lora`.

use serde_json::Value;
use trtllm::engine_format::{LoraAdapter, Mapping};

use crate::common::fixture;
use crate::interpreter::Arithmetic;
use crate::numbers::{FP32_BAR, plans};
use crate::step::{Model, Part};

/// The largest difference of a row of logits, as log-probabilities, to `expected`.
fn difference(logits: &[f32], expected: &[f32]) -> f64 {
    let logits = &logits[..expected.len()];
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    let pairs = logits.iter().zip(expected);
    pairs
        .map(|(&logit, &expected)| (f64::from(logit - most) - total.ln() - f64::from(expected)).abs())
        .fold(0.0, f64::max)
}

/// In one step a request with the adapter and one without it; all of the prompt but its last token as context, that one as generated.
#[test]
fn adapters_are_what_peft_computes_beside_requests_without() {
    let model = "mistral-gqa";
    let config = engine_builder::Outline::read(&fixture("parity").join(model)).unwrap().config;
    for name in ["all-projections", "query-and-value"] {
        let dir = fixture("lora").join(name);
        let adapter = LoraAdapter::open(&dir, &config).unwrap();
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (tp_size, pp_size) in [(1, 1), (2, 1), (1, 2)] {
            let mapping = Mapping { tp_size, pp_size };
            let options = ["--gather-context-logits", "--lora-dir", &dir.to_string_lossy()];
            let mut network = Model::new(plans(model, mapping, &options), tp_size, None, Arithmetic::Fp32);
            network.adapt(&adapter, &[0, 2]);
            for (index, prompt) in json["prompts"].as_array().unwrap().iter().enumerate() {
                let ids: Vec<u32> =
                    prompt["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
                let expected = |with: &str| -> Vec<f32> {
                    let tensor = tensors.tensor(&format!("prompts.{index}.{with}")).unwrap();
                    tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
                };
                let (past, last) = ids.split_at(ids.len() - 1);
                let sequences = [2 * index, 2 * index + 1];
                let part = |sequence, tokens: &[u32], past, is_context| Part {
                    sequence,
                    tokens: tokens.to_vec(),
                    past,
                    is_context,
                };
                let context = network.step(&sequences.map(|sequence| part(sequence, past, 0, true)));
                let generated = network.step(&sequences.map(|sequence| part(sequence, last, past.len(), false)));
                let mut worst = [0.0f64; 2];
                for (which, expected) in ["log_probs", "without"].map(expected).iter().enumerate() {
                    let rows = context[which * past.len()..][..past.len()].iter().chain([&generated[which]]);
                    for (row, expected) in rows.zip(expected.chunks_exact(config.vocab_size)) {
                        worst[which] = worst[which].max(difference(row, expected));
                    }
                }
                println!(
                    "{name}, tp {tp_size} pp {pp_size}, prompt {index}: {:.2e} with, {:.2e} without",
                    worst[0], worst[1]
                );
                assert!(worst.iter().all(|&worst| worst <= FP32_BAR), "{name}, {mapping:?}: {worst:?}");
            }
        }
    }
}
