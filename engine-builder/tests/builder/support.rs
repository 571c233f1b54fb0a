//! Fixtures, tiny models made on the spot, and what the tests look at afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use engine_builder::checkpoint::write::CheckpointRequest;
use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::{BuildError, Source};
use engine_format::Mapping;
use engine_format::manifest::Limits;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// A directory of the repository's fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// Every directory inside a fixture folder, sorted.
pub(crate) fn fixtures(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(fixture(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

pub(crate) const LIMITS: Limits = Limits { max_seq_len: 64, max_batch_size: 4, max_num_tokens: 32 };

pub(crate) fn request(output: &Path) -> CpuEngineRequest {
    CpuEngineRequest {
        output: output.to_owned(),
        force: false,
        allow_non_finite: false,
        limits: LIMITS,
        weights: engine_format::WeightType::Bf16,
        model: "a model".into(),
    }
}

pub(crate) fn checkpoint_request(output: &Path) -> CheckpointRequest<'_> {
    CheckpointRequest { output, mapping: Mapping::SINGLE, force: false, allow_non_finite: false }
}

/// Opens the model and builds its CPU engine.
pub(crate) fn build(model: &Path, output: &Path) -> Result<(), BuildError> {
    let source = Source::open(model)?;
    build_cpu_engine(&source, &request(output), &Quiet, &Interrupt::new()).map(|_| ())
}

/// Names of everything in a directory, hidden or not.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The smallest tokenizer that a run can open.
pub(crate) const TOKENIZER: &str =
    r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

/// One stored tensor.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of this type and shape, with bytes that differ from place to place.
    pub(crate) fn new(dtype: Dtype, shape: &[usize]) -> Self {
        let size = dtype.bitsize() / 8;
        let length = shape.iter().product::<usize>() * size;
        let bytes = (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8 & 0x3f).collect();
        Self { dtype, shape: shape.to_vec(), bytes }
    }
}

/// A Hugging Face model that tests change before they write it.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Model {
    /// A tiny Mistral with two layers; sizes that are no multiples of 16, heads that do not add up to the hidden size.
    pub(crate) fn tiny() -> Self {
        let config = json!({
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "hidden_act": "silu",
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": null,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "vocab_size": 50,
        });
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![50, 24]),
            ("model.norm.weight".to_owned(), vec![24]),
            ("lm_head.weight".to_owned(), vec![50, 24]),
        ];
        for layer in 0..2 {
            let of_layer: [(&str, &[usize]); 9] = [
                ("input_layernorm", &[24]),
                ("post_attention_layernorm", &[24]),
                ("self_attn.q_proj", &[40, 24]),
                ("self_attn.k_proj", &[20, 24]),
                ("self_attn.v_proj", &[20, 24]),
                ("self_attn.o_proj", &[24, 40]),
                ("mlp.gate_proj", &[40, 24]),
                ("mlp.up_proj", &[40, 24]),
                ("mlp.down_proj", &[24, 40]),
            ];
            for (name, shape) in of_layer {
                let name = format!("model.layers.{layer}.{name}.weight");
                shapes.push((name, shape.to_vec()));
            }
        }
        let tensors = shapes.into_iter().map(|(name, shape)| (name, Tensor::new(Dtype::BF16, &shape))).collect();
        Self { config, tensors }
    }

    /// The same with larger matrices, some of them fp32: tens of megabytes, so that a build takes several blocks, and
    /// tensors take several pieces and end in panels that are not full.
    pub(crate) fn large() -> Self {
        let mut model = Self::tiny();
        for (field, value) in [("hidden_size", 1100), ("intermediate_size", 2200), ("vocab_size", 5001)] {
            model.config[field] = value.into();
        }
        for (name, tensor) in &mut model.tensors {
            let replace = |size: &usize| match size {
                24 => 1100,
                50 => 5001,
                other => *other,
            };
            let mut shape: Vec<_> = tensor.shape.iter().map(replace).collect();
            if name.contains("gate_proj") || name.contains("up_proj") {
                shape = vec![2200, 1100];
            } else if name.contains("down_proj") {
                shape = vec![1100, 2200];
            }
            let is_fp32 = name.contains("q_proj") || name.contains("up_proj");
            *tensor = Tensor::new(if is_fp32 { Dtype::F32 } else { Dtype::BF16 }, &shape);
        }
        model
    }

    /// Writes `config.json` and `model.safetensors` into the new directory `dir`.
    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        write_safetensors(&dir.join("model.safetensors"), &self.tensors);
    }

    /// Writes the model as two shards with an index.
    pub(crate) fn write_shards(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        let mut weight_map = serde_json::Map::new();
        let half = self.tensors.len() / 2;
        let (mut first, mut second) = (self.tensors.clone(), self.tensors.clone());
        for (index, name) in self.tensors.keys().enumerate() {
            let file = format!("model-0000{}-of-00002.safetensors", 1 + index / half.max(1) % 2);
            if file.starts_with("model-00001") {
                second.remove(name);
            } else {
                first.remove(name);
            }
            weight_map.insert(name.clone(), file.into());
        }
        write_safetensors(&dir.join("model-00001-of-00002.safetensors"), &first);
        write_safetensors(&dir.join("model-00002-of-00002.safetensors"), &second);
        let index = json!({ "metadata": {}, "weight_map": weight_map });
        fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

/// Writes a safetensors file with the library.
pub(crate) fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}
