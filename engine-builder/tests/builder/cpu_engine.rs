//! CPU engines: every weight is read back and compared with the source's own bytes, rounded here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cpu_kernels::{PackedMatrix, Quantization};
use engine_builder::BuildError;
use engine_builder::Source;
use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine, weights_bytes};
use engine_builder::progress::{Interrupt, Quiet};
use engine_format::manifest::{Limits, hash};
use engine_format::weights_file::{Layout, WeightsFile};
use engine_format::{EngineDir, FormatError, WeightType, bf16};
use half::f16;
use safetensors::{Dtype, SafeTensors};

use crate::support::{LIMITS, Model, build, entries, fixtures, request};

/// Every tensor of a model directory, rounded to bfloat16.
fn read_model(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<bf16>)> {
    let mut tensors = BTreeMap::new();
    for file in entries(dir) {
        if !file.ends_with(".safetensors") || file.starts_with("reference") {
            continue;
        }
        let content = fs::read(dir.join(file)).unwrap();
        for (name, view) in SafeTensors::deserialize(&content).unwrap().iter() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect(),
                Dtype::F16 => {
                    data.chunks_exact(2).map(|b| bf16::from_f32(f16::from_le_bytes([b[0], b[1]]).to_f32())).collect()
                }
                Dtype::F32 => {
                    data.chunks_exact(4).map(|b| bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
                }
                other => panic!("{other:?}"),
            };
            tensors.insert(name.to_owned(), (view.shape().to_vec(), values));
        }
    }
    tensors
}

/// The rows that the engine has to hold under TensorRT-LLM's `name`.
fn expected(name: &str, tied: bool, model: &BTreeMap<String, (Vec<usize>, Vec<bf16>)>) -> (Vec<usize>, Vec<bf16>) {
    let sources: Vec<String> = match name {
        "transformer.vocab_embedding.weight" => vec!["model.embed_tokens.weight".into()],
        "transformer.ln_f.weight" => vec!["model.norm.weight".into()],
        "lm_head.weight" if tied => vec!["model.embed_tokens.weight".into()],
        "lm_head.weight" => vec!["lm_head.weight".into()],
        _ => {
            let mut words = name.splitn(4, '.').skip(2);
            let (layer, rest) = (words.next().unwrap(), words.next().unwrap());
            let (module, kind) = rest.rsplit_once('.').unwrap();
            let modules: &[&str] = match module {
                "input_layernorm" => &["input_layernorm"],
                "post_layernorm" => &["post_attention_layernorm"],
                "attention.qkv" => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                "attention.q" => &["self_attn.q_proj"],
                "attention.k" => &["self_attn.k_proj"],
                "attention.v" => &["self_attn.v_proj"],
                "attention.dense" => &["self_attn.o_proj"],
                "mlp.fc" => &["mlp.gate_proj"],
                "mlp.gate" => &["mlp.up_proj"],
                "mlp.proj" => &["mlp.down_proj"],
                other => panic!("{other}"),
            };
            let full = |module: &&str| format!("model.layers.{layer}.{module}.{kind}");
            modules.iter().map(full).collect()
        }
    };
    let mut shape = model[&sources[0]].0.clone();
    shape[0] = sources.iter().map(|source| model[source].0[0]).sum();
    let values = sources.iter().flat_map(|source| model[source].1.clone());
    (shape, values.collect())
}

fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Builds the model's engine and compares every weight; the names that the engine stores.
fn check(model: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("engine");
    build(model, &output).unwrap();
    let engine = EngineDir::open(&output).unwrap();
    assert!(engine.verify(|_| std::ops::ControlFlow::Continue(())).unwrap().is_continue());
    let weights = engine.weights().unwrap();
    let source = read_model(model);
    let tied = engine.config().tie_word_embeddings;
    let mut names = Vec::new();
    for entry in weights.tensors() {
        let (shape, values) = expected(&entry.name, tied, &source);
        assert_eq!(entry.shape, shape, "{}", entry.name);
        let stored: Vec<bf16> =
            weights.bytes_of(entry).chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect();
        match entry.layout {
            Layout::RowMajor => assert_eq!(bits(&stored), bits(&values), "{}", entry.name),
            Layout::Panels => {
                let packed = PackedMatrix::new(&stored, shape[0], shape[1]).unwrap();
                let mut row = vec![bf16::ZERO; shape[1]];
                for (index, values) in values.chunks_exact(shape[1]).enumerate() {
                    packed.row(index, &mut row);
                    assert_eq!(bits(&row), bits(values), "{} row {index}", entry.name);
                }
                let sum = |values: &[bf16]| values.iter().filter(|v| v.to_bits() != 0).count();
                assert_eq!(sum(&stored), sum(&values), "{} has padding", entry.name);
            }
            Layout::PanelsInt8 | Layout::PanelsInt4 => panic!("{} is not bf16", entry.name),
        }
        names.push(entry.name.clone());
    }
    names
}

#[test]
fn every_weight_of_every_fixture_reads_back() {
    for model in fixtures("parity") {
        let names = check(&model);
        let config = Source::open(&model).unwrap().config().clone();
        let per_layer = if config.attention_bias { 9 } else { 7 };
        let outside = if config.tie_word_embeddings { 2 } else { 3 };
        assert_eq!(names.len(), outside + per_layer * config.num_hidden_layers, "{model:?}");
    }
}

#[test]
fn large_tensors_are_cut_and_rows_cross_parts() {
    let dir = tempfile::tempdir().unwrap();
    Model::large().write_shards(dir.path());
    assert_eq!(check(dir.path()).len(), 17);
}

/// Matrices are packed as the kernels do it, whatever pieces they are written in; everything else stays as it is. The models have two
/// layers, so that all down projections are of the first or the last.
#[test]
fn quantized_weights_are_what_the_kernels_make_of_them() {
    let large = tempfile::tempdir().unwrap();
    Model::large().write_shards(large.path());
    let tied = fixtures("parity").into_iter().find(|model| Source::open(model).unwrap().config().tie_word_embeddings);
    for model in [large.path().to_owned(), tied.unwrap()] {
        for (weights, in_layers) in [(WeightType::Int8, Layout::PanelsInt8), (WeightType::Int4, Layout::PanelsInt4)] {
            let dir = tempfile::tempdir().unwrap();
            let output = dir.path().join("engine");
            let source = Source::open(&model).unwrap();
            let request = CpuEngineRequest { weights, ..request(&output) };
            build_cpu_engine(&source, &request, &Quiet, &Interrupt::new()).unwrap();
            let engine = EngineDir::open(&output).unwrap();
            assert!(engine.verify(|_| std::ops::ControlFlow::Continue(())).unwrap().is_continue());
            assert_eq!(engine.manifest().versions["weights"], weights.name());
            let (file, model) = (engine.weights().unwrap(), read_model(&model));
            assert_eq!(file.weight_type(), weights);
            let size = fs::metadata(output.join("rank0.weights")).unwrap().len();
            assert_eq!(weights_bytes(source.config(), &output, weights).unwrap(), size);
            let of_layer = if weights == WeightType::Int4 { 9 } else { 7 };
            let biases = if source.config().attention_bias { 2 } else { 0 };
            let outside = if source.config().tie_word_embeddings { 2 } else { 3 };
            assert_eq!(file.tensors().count(), outside + 2 * (of_layer + biases), "{weights}");
            for entry in file.tensors() {
                let (shape, values) = expected(&entry.name, source.config().tie_word_embeddings, &model);
                assert_eq!(entry.shape, shape, "{}", entry.name);
                let quantization = match entry.layout {
                    Layout::RowMajor => None,
                    Layout::Panels => panic!("{} is not quantized", entry.name),
                    Layout::PanelsInt8 => Some(Quantization::Int8),
                    Layout::PanelsInt4 => Some(Quantization::Int4),
                };
                if shape.len() == 2 && entry.name != "transformer.vocab_embedding.weight" {
                    let exact = ["lm_head.weight", "attention.v.weight", "mlp.proj.weight"];
                    let exact = exact.iter().any(|name| entry.name.ends_with(name));
                    assert_eq!(entry.layout, if exact { Layout::PanelsInt8 } else { in_layers }, "{}", entry.name);
                }
                let stored = file.bytes_of(entry);
                match quantization {
                    None => {
                        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                        assert_eq!(stored, values, "{}", entry.name);
                    }
                    Some(quantization) => {
                        let mut packed = vec![0; quantization.packed_bytes(shape[0], shape[1]).unwrap()];
                        quantization.pack(&values, shape[1], &mut packed);
                        assert!(stored == packed, "{}", entry.name);
                    }
                }
            }
        }
    }
}

#[test]
fn the_record_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (dir.path().join("model"), dir.path().join("deep/engine"));
    let mut tiny = Model::tiny();
    tiny.config["sliding_window"] = 32.into();
    tiny.write(&model);
    fs::write(model.join("tokenizer.json"), crate::support::TOKENIZER).unwrap();
    fs::write(model.join("generation_config.json"), "{}").unwrap();
    fs::write(model.join("README.md"), "stays").unwrap();
    let source = Source::open(&model).unwrap();
    let written = build_cpu_engine(&source, &request(&output), &Quiet, &Interrupt::new()).unwrap();
    assert_eq!(
        entries(&output),
        ["config.json", "engine.json", "generation_config.json", "rank0.weights", "tokenizer.json"]
    );
    let sizes = entries(&output).into_iter();
    let sizes = sizes.map(|name| fs::metadata(output.join(name)).unwrap().len());
    assert_eq!((written.files, written.bytes), (5, sizes.sum()));
    let engine = EngineDir::open(&output).unwrap();
    let manifest = engine.manifest();
    assert_eq!(manifest.limits, LIMITS);
    assert_eq!(manifest.attention_window, Some(32));
    assert_eq!((manifest.target.as_str(), manifest.model.as_str()), ("none", "a model"));
    assert_eq!(manifest.versions["source_dtype"], "bfloat16");
    assert_eq!(manifest.versions["weights"], "bf16");
    assert_eq!(engine.config(), source.config());
    let weights = fs::read(output.join("rank0.weights")).unwrap();
    assert_eq!(manifest.files["rank0.weights"].blake3, hash(&weights));
    assert_eq!(weights_bytes(source.config(), &output, WeightType::Bf16).unwrap(), weights.len() as u64);
    let file = WeightsFile::open(&output.join("rank0.weights")).unwrap();
    assert_eq!(manifest.tensors.len(), file.tensors().count());
    for entry in file.tensors() {
        assert_eq!(manifest.tensors[&entry.name], hash(file.bytes_of(entry)), "{}", entry.name);
    }
}

#[test]
fn an_engine_is_replaced_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (dir.path().join("model"), dir.path().join("engine"));
    Model::tiny().write(&model);
    build(&model, &output).unwrap();
    let error = build(&model, &output).unwrap_err();
    assert!(matches!(&error, BuildError::Format(FormatError::Exists { .. })), "{error}");
    let mut forced = request(&output);
    forced.force = true;
    forced.limits = Limits { max_seq_len: 7, ..LIMITS };
    let source = Source::open(&model).unwrap();
    build_cpu_engine(&source, &forced, &Quiet, &Interrupt::new()).unwrap();
    assert_eq!(EngineDir::open(&output).unwrap().manifest().limits.max_seq_len, 7);
    // A directory of something else is not replaced even then.
    forced.output = model.clone();
    let error = build_cpu_engine(&source, &forced, &Quiet, &Interrupt::new()).unwrap_err();
    assert!(error.to_string().contains("model"), "{error}");
    assert_eq!(entries(dir.path()), ["engine", "model"]);
}
