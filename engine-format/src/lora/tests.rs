//! Adapters are made here, written with the `safetensors` crate, and checked against values computed in another way.

use std::collections::BTreeMap;

use half::f16;
use proptest::prelude::*;
use safetensors::tensor::{Dtype as Stored, TensorView as Written};
use serde_json::{Value, json};

use super::*;
use crate::model_config::Architecture;
use crate::rope::{Rope, RopeScaling};

/// Three layers; queries are 8 wide, keys and values 4, the MLP 12.
fn model() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: 8,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_size: 2,
        intermediate_size: 12,
        vocab_size: 16,
        max_position_embeddings: 32,
        norm_epsilon: 1e-5,
        attention_bias: false,
        tie_word_embeddings: false,
        sliding_window: None,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None },
    }
}

/// An adapter before it is written: every value of every tensor in fp32.
struct Fixture {
    config: Value,
    dtype: Stored,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Values that differ from element to element, some of them not exact in bfloat16.
fn values(length: usize, seed: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 37 + seed * 101) % 1009) as f32 / 311.0 - 1.5).collect()
}

impl Fixture {
    fn new(rank: usize, alpha: f64) -> Self {
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "somebody/model", "target_modules": ["q_proj"], "modules_to_save": null,
            "use_dora": false, "use_rslora": false, "fan_in_fan_out": false, "init_lora_weights": true,
            "rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {}, "layers_to_transform": null,
        });
        Self { config, dtype: Stored::F32, tensors: BTreeMap::new() }
    }

    fn adapt(mut self, layer: usize, module: &str, [outputs, inputs]: [usize; 2], rank: usize) -> Self {
        let seed = self.tensors.len();
        self.put(&name(layer, module, 'A'), &[rank, inputs], values(rank * inputs, seed));
        self.put(&name(layer, module, 'B'), &[outputs, rank], values(outputs * rank, seed + 1));
        self
    }

    fn put(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.insert(name.to_owned(), (shape.to_vec(), values));
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// The value of an element after it was stored.
    fn stored(&self, name: &str, index: usize) -> f32 {
        let value = self.tensors[name].1[index];
        match self.dtype {
            Stored::F16 => f16::from_f32(value).to_f32(),
            Stored::BF16 => bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("adapter_config.json"), self.config.to_string()).unwrap();
        let bytes = |value: &f32| match self.dtype {
            Stored::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            Stored::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            Stored::F64 => f64::from(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = (self.tensors.iter())
            .map(|(name, (shape, values))| (name.clone(), shape.clone(), values.iter().flat_map(bytes).collect()))
            .collect();
        let views =
            data.iter().map(|(name, shape, data)| (name, Written::new(self.dtype, shape.clone(), data).unwrap()));
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(dir.path().join("adapter_model.safetensors"), file).unwrap();
        dir
    }

    fn open(&self) -> Result<LoraAdapter> {
        LoraAdapter::open(self.write().path(), &model())
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let error = self.open().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

fn name(layer: usize, module: &str, half: char) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{half}.weight")
}

/// One projection of layer 1, rank 2.
fn small() -> Fixture {
    Fixture::new(2, 4.0).adapt(1, "self_attn.q_proj", [8, 8], 2)
}

/// Every projection, several ranks, out of order.
fn large(dtype: Stored) -> Fixture {
    let mut fixture = Fixture::new(2, 3.0)
        .adapt(2, "mlp.up_proj", [12, 8], 2)
        .adapt(2, "mlp.down_proj", [8, 12], 3)
        .adapt(0, "mlp.gate_proj", [12, 8], 2)
        .adapt(0, "self_attn.o_proj", [8, 8], 2)
        .adapt(0, "self_attn.v_proj", [4, 8], 1)
        .adapt(1, "self_attn.k_proj", [4, 8], 2)
        .adapt(0, "self_attn.q_proj", [8, 8], 2)
        .with("rank_pattern", json!({"down_proj": 3, "model.layers.0.self_attn.v_proj": 1}))
        .with("alpha_pattern", json!({"^model.layers.1.self_attn.k_proj": 5, "self_attn.o_proj": 7.5}));
    fixture.dtype = dtype;
    fixture
}

#[test]
fn every_element_is_where_tensorrt_llm_looks_for_it() {
    // Layer, projection, id, inputs, outputs, rank, alpha, in the order of the rows.
    let rows = [
        (0, "self_attn.q_proj", 1, 8, 8, 2, 3.0),
        (0, "self_attn.v_proj", 3, 8, 4, 1, 3.0),
        (0, "self_attn.o_proj", 4, 8, 8, 2, 7.5),
        (0, "mlp.gate_proj", 5, 8, 12, 2, 3.0),
        (1, "self_attn.k_proj", 2, 8, 4, 2, 5.0),
        (2, "mlp.down_proj", 6, 12, 8, 3, 3.0),
        (2, "mlp.up_proj", 7, 8, 12, 2, 3.0),
    ];
    for dtype in [Stored::F32, Stored::F16, Stored::BF16] {
        for stabilized in [false, true] {
            let fixture = large(dtype).with("use_rslora", json!(stabilized));
            let adapter = fixture.open().unwrap();
            assert_eq!((adapter.rows, adapter.columns), (7, 3 * (12 + 8)));
            assert_eq!(adapter.weights.len(), adapter.rows * adapter.columns);
            assert_eq!(adapter.config.len(), adapter.rows);
            for (index, (layer, module, id, inputs, outputs, rank, alpha)) in rows.into_iter().enumerate() {
                assert_eq!(adapter.config[index], [id, layer as i32, rank as i32, 0]);
                let scaling = if stabilized { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
                for column in 0..adapter.columns {
                    let expected = if column < rank * inputs {
                        let (r, input) = (column / inputs, column % inputs);
                        fixture.stored(&name(layer, module, 'A'), r * inputs + input)
                    } else if column < rank * (inputs + outputs) {
                        let (output, r) = ((column - rank * inputs) / rank, (column - rank * inputs) % rank);
                        scaling as f32 * fixture.stored(&name(layer, module, 'B'), output * rank + r)
                    } else {
                        0.0
                    };
                    let found = adapter.weights[index * adapter.columns + column];
                    assert_eq!(found, bf16::from_f32(expected).to_bits(), "{module} of layer {layer}, column {column}");
                }
            }
        }
    }
}

#[test]
fn the_first_pattern_that_matches_holds() {
    let fixture = small()
        .with("alpha_pattern", json!({"k_proj": 1, "proj": 2, "^q_proj": 3, "q_proj": 8, "1.self_attn.q_proj": 9}));
    let peft = PeftConfig::parse(Path::new(CONFIG_FILE), &fixture.config).unwrap();
    assert_eq!(peft.scaling("model.layers.1.self_attn.q_proj"), 4.0);
    assert_eq!(peft.scaling("model.layers.1.self_attn.k_proj"), 0.5);
    assert_eq!(peft.scaling("model.layers.1.mlp.up_proj"), 2.0);
}

#[test]
fn what_a_request_cannot_express_is_refused_by_name() {
    for (field, value) in [
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("peft_type", json!("ADALORA")),
        ("peft_type", Value::Null),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!(3)),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["mlp.experts.down_proj"])),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("alora_invocation_tokens", json!([5])),
        ("arrow_config", json!({"top_k": 2})),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({"nblocks": 2})),
        ("monteclora_config", json!({"samples": 2})),
        ("kasa_config", json!({"beta": 1e-4})),
        ("r", Value::Null),
        ("r", json!(0)),
        ("r", json!(-2)),
        ("r", json!(1u64 << 40)),
        ("lora_alpha", Value::Null),
        ("lora_alpha", json!(-1)),
        ("lora_alpha", json!(1e300)),
        ("use_rslora", json!("yes")),
        ("rank_pattern", json!([2])),
        ("rank_pattern.q_proj", json!({"q_proj": 0})),
        ("alpha_pattern.q_proj", json!({"q_proj": "much"})),
        ("rank_pattern.layers.[01].q_proj", json!({"layers.[01].q_proj": 4})),
        ("alpha_pattern.", json!({"": 4})),
    ] {
        let key = field.split('.').next().unwrap();
        small().with(key, value).refused(&["adapter_config.json", &format!("`{field}`")]);
    }
}

#[test]
fn tensors_without_a_place_are_named() {
    let (path, (a, b)) =
        ("adapter_model.safetensors", (name(1, "self_attn.q_proj", 'A'), name(1, "self_attn.q_proj", 'B')));
    for stranger in [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.weight",
    ] {
        let mut fixture = small();
        fixture.put(stranger, &[2, 8], values(16, 0));
        fixture.refused(&[path, &format!("`{stranger}`"), "the embedding or the head"]);
    }
    for stranger in [
        name(3, "self_attn.q_proj", 'A'),
        name(0, "self_attn.qkv_proj", 'A'),
        name(0, "block_sparse_moe.gate", 'B'),
        name(0, "self_attn.q_proj", 'C'),
        "base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight".into(),
        "base_model.model.model.layers.1.self_attn.q_proj.lora_B.bias".into(),
        "base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector".into(),
        "model.layers.0.self_attn.q_proj.lora_A.weight".into(),
        "base_model.model.model.norm.weight".into(),
    ] {
        let mut fixture = small();
        fixture.put(&stranger, &[2, 8], values(16, 0));
        fixture.refused(&[path, &format!("`{stranger}`"), "self_attn.q_proj", "layers 0 to 2"]);
    }
    for (kept, lost) in [(&a, &b), (&b, &a)] {
        let mut fixture = small();
        fixture.tensors.remove(lost);
        fixture.refused(&[path, &format!("`{lost}` is missing")]);
        assert!(fixture.tensors.contains_key(kept));
    }
    Fixture::new(2, 4.0).refused(&[path, "no tensor"]);
}

#[test]
fn shapes_and_values_are_checked() {
    let (a, b) = (name(1, "self_attn.q_proj", 'A'), name(1, "self_attn.q_proj", 'B'));
    for (tensor, shape, expected) in [
        (&a, vec![2, 7], "[2, 8]"),
        (&a, vec![3, 8], "[2, 8]"),
        (&a, vec![8, 2], "[2, 8]"),
        (&a, vec![16], "[2, 8]"),
        (&b, vec![4, 2], "[8, 2]"),
        (&b, vec![2, 8], "[8, 2]"),
    ] {
        let mut fixture = small();
        let length = shape.iter().product();
        fixture.put(tensor, &shape, values(length, 0));
        fixture.refused(&["adapter_model.safetensors", &format!("`{tensor}`"), expected]);
    }
    small().with("rank_pattern", json!({"q_proj": 4})).refused(&[&a, "[4, 8]"]);
    for (tensor, value) in [(&a, f32::NAN), (&b, f32::INFINITY), (&b, f32::MAX / 2.0)] {
        let mut fixture = small().with("lora_alpha", json!(64));
        fixture.tensors.get_mut(tensor).unwrap().1[5] = value;
        fixture.refused(&[&format!("`{tensor}`"), "finite"]);
    }
    let mut fixture = small();
    fixture.dtype = Stored::F64;
    fixture.refused(&[&a, "F64"]);
}

#[test]
fn the_output_of_attention_is_refused_where_tensorrt_llm_would_misread_it() {
    let wide = ModelConfig { head_size: 4, ..model() };
    let fixture = Fixture::new(2, 4.0).adapt(0, "self_attn.o_proj", [8, 16], 2);
    let error = LoraAdapter::open(fixture.write().path(), &wide).unwrap_err().to_string();
    assert!(error.contains("self_attn.o_proj.lora_A.weight") && error.contains("(16)"), "{error}");
    let fixture = Fixture::new(2, 4.0).adapt(0, "self_attn.q_proj", [16, 8], 2);
    assert_eq!(LoraAdapter::open(fixture.write().path(), &wide).unwrap().columns, 2 * (16 + 8));
}

#[test]
fn files_that_are_missing_or_damaged_are_named() {
    let open = |path: &Path| LoraAdapter::open(path, &model()).unwrap_err().to_string();
    let dir = small().write();
    let weights = dir.path().join(WEIGHTS_FILE);
    let bytes = std::fs::read(&weights).unwrap();
    assert!(open(&weights).contains("is a file, not a directory"));
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert!(open(dir.path()).contains("adapter_model.safetensors` is damaged"));
    std::fs::remove_file(&weights).unwrap();
    assert!(open(dir.path()).contains("adapter_model.safetensors` is missing"));
    let config = dir.path().join(CONFIG_FILE);
    for content in ["[]", "{", "\"LORA\""] {
        std::fs::write(&config, content).unwrap();
        assert!(open(dir.path()).contains("adapter_config.json"));
    }
    std::fs::remove_file(&config).unwrap();
    assert!(open(dir.path()).contains("adapter_config.json` is missing"));
}

proptest! {
    /// What the runtime computes of a row is PEFT's `scaling * B (A x)`, but for the rounding of A and B.
    #[test]
    fn a_row_does_what_the_adapter_does(
        rank in 1usize..6,
        alpha in 0.5f64..40.0,
        stabilized: bool,
        a in proptest::collection::vec(-1.0f32..1.0, 5 * 8),
        b in proptest::collection::vec(-1.0f32..1.0, 12 * 5),
        x in proptest::collection::vec(-4.0f64..4.0, 8),
    ) {
        let (outputs, inputs) = (12, 8);
        let mut fixture = Fixture::new(rank, alpha).with("use_rslora", json!(stabilized));
        fixture.put(&name(2, "mlp.gate_proj", 'A'), &[rank, inputs], a[..rank * inputs].to_vec());
        fixture.put(&name(2, "mlp.gate_proj", 'B'), &[outputs, rank], b[..outputs * rank].to_vec());
        let adapter = fixture.open().unwrap();
        let row: Vec<f64> = adapter.weights.iter().map(|&bits| bf16::from_bits(bits).to_f64()).collect();
        let scaling = alpha / if stabilized { (rank as f64).sqrt() } else { rank as f64 };
        for output in 0..outputs {
            let (mut found, mut expected, mut size) = (0.0, 0.0, 0.0);
            for r in 0..rank {
                for input in 0..inputs {
                    found += row[rank * inputs + output * rank + r] * row[r * inputs + input] * x[input];
                    let term = scaling * f64::from(b[output * rank + r]) * f64::from(a[r * inputs + input]) * x[input];
                    expected += term;
                    size += term.abs();
                }
            }
            // Two factors, each within 2^-8 of its value; the rest covers the product of both errors and rounding in fp32.
            prop_assert!((found - expected).abs() <= size * 2.01 / 256.0 + 1e-30, "{found} {expected}");
        }
    }
}
