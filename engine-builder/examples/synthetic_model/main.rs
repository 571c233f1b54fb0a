//! Writes a model of a real one's shape with seeded random weights, as Hugging Face safetensors in several shards.
//!
//! ```text
//! cargo run --release -p engine-builder --example synthetic_model -- minitron-8b DIR [LAYERS]
//! ```
//!
//! For measurements of builds and runs: the shape is true, the text means nothing. Weights are uniform with a standard
//! deviation of 0.02 (norms are 1), in bfloat16, a function of seed, tensor and position only. Memory is bounded by one
//! chunk a thread.

#![allow(clippy::print_stderr, reason = "a program")]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use engine_builder::huggingface;
use engine_format::{ModelConfig, Weight, bf16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

const PRESETS: [(&str, &str); 2] =
    [("minitron-8b", include_str!("minitron-8b.json")), ("minitron-0.9b", include_str!("minitron-0.9b.json"))];
const SHARD_BYTES: usize = 5_000_000_000;
const CHUNK: usize = 4 << 20;
const SEED: u64 = 20_241_123;

/// A tensor of the model, under Transformers' name.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    is_norm: bool,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<bf16>()
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (preset, output, layers) = (arguments.next(), arguments.next(), arguments.next());
    let usage = "usage: synthetic_model PRESET DIR [LAYERS] (PRESET: minitron-8b, minitron-0.9b)";
    let preset = preset.and_then(|preset| preset.into_string().ok()).context(usage)?;
    let output = output.context(usage)?;
    let output = Path::new(&output);
    let (_, text) = PRESETS.into_iter().find(|(name, _)| *name == preset).context(usage)?;
    let mut value: Value = serde_json::from_str(text)?;
    if let Some(layers) = layers {
        let layers: usize = layers.to_str().and_then(|layers| layers.parse().ok()).context(usage)?;
        value["num_hidden_layers"] = layers.into();
    }
    let config = huggingface::config::parse(Path::new("config.json"), &value)?;
    ensure!(!output.exists(), "`{}` exists already", output.display());
    std::fs::create_dir_all(output)?;

    let mut shards: Vec<Vec<Tensor>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors(&config) {
        if bytes > 0 && bytes + tensor.bytes() > SHARD_BYTES {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let mut weight_map = Map::new();
    let mut seed = SEED;
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        eprintln!("{name}: {:.1} GB", shard.iter().map(Tensor::bytes).sum::<usize>() as f64 / 1e9);
        write_shard(&output.join(&name), shard, &mut seed)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
    }
    let index = json!({ "metadata": {}, "weight_map": weight_map });
    std::fs::write(output.join("model.safetensors.index.json"), serde_json::to_vec_pretty(&index)?)?;
    std::fs::write(output.join("config.json"), serde_json::to_vec_pretty(&value)?)?;
    let generation = json!({ "bos_token_id": 1, "eos_token_id": 2 });
    std::fs::write(output.join("generation_config.json"), serde_json::to_vec_pretty(&generation)?)?;
    Ok(())
}

/// Every tensor in Transformers' names and shapes.
fn tensors(config: &ModelConfig) -> Vec<Tensor> {
    let parts =
        Weight::all(config).into_iter().flat_map(|weight| weight.parts().iter().map(move |&part| (weight, part)));
    parts
        .filter_map(|(weight, part)| {
            let shape = weight.part_shape(part, config);
            Some(Tensor { name: huggingface::weights::name(weight, part)?, is_norm: shape.len() == 1, shape })
        })
        .collect()
}

fn write_shard(path: &Path, tensors: &[Tensor], seed: &mut u64) -> Result<()> {
    let mut header = Map::new();
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes();
        let entry = json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).with_context(|| format!("cannot create `{}`", path.display()))?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut chunks = vec![vec![bf16::ONE; CHUNK]; 2 * rayon::current_num_threads()];
    for tensor in tensors {
        let elements = tensor.bytes() / size_of::<bf16>();
        let starts: Vec<usize> = (0..elements).step_by(CHUNK).collect();
        *seed += 1;
        for group in starts.chunks(chunks.len()) {
            if !tensor.is_norm {
                let fills = chunks.par_iter_mut().zip(group);
                fills.for_each(|(chunk, &start)| fill(chunk, seed.wrapping_mul(1 << 40) + start as u64));
            }
            for (chunk, &start) in chunks.iter_mut().zip(group) {
                let chunk = &mut chunk[..CHUNK.min(elements - start)];
                if tensor.is_norm {
                    chunk.fill(bf16::ONE);
                }
                let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
                file.write_all(&bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
            }
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Uniform numbers from a counter: the SplitMix64 finalizer (Steele, Lea, Flood 2014), four from each 64 bits.
fn fill(chunk: &mut [bf16], counter: u64) {
    let scale = 0.02 * 3f32.sqrt() / 32_768.0;
    for (index, values) in chunk.chunks_mut(4).enumerate() {
        let mut x = (counter + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        for (lane, value) in values.iter_mut().enumerate() {
            let lane = (x >> (16 * lane)) as u16 as i16;
            *value = engine_format::dtype::round_to_bf16(f32::from(lane) * scale);
        }
    }
}
