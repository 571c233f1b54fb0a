//! Invalid models: an error that names the file and the tensor, and nothing left behind.

use std::fs;
use std::path::Path;

use engine_builder::{BuildError, Source};
use engine_format::EngineDir;
use safetensors::Dtype;
use serde_json::json;

use crate::support::{Model, Tensor, build, entries};

const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

/// Writes the model that `prepare` makes of a tiny one, changes its directory with `damage`, and checks that building
/// fails with every one of `words` in the message and leaves nothing.
fn refused(prepare: impl Fn(&mut Model), damage: impl Fn(&Path), words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let mut model = Model::tiny();
    prepare(&mut model);
    model.write(&path);
    damage(&path);
    refused_at(dir.path(), words);
}

fn refused_at(dir: &Path, words: &[&str]) {
    let error = build(&dir.join("model"), &dir.join("out")).unwrap_err();
    assert!(matches!(error, BuildError::Format(_)), "{error:?}");
    let error = error.to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert_eq!(entries(dir), ["model"]);
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let file = path.join("model.safetensors");
    let mut content = fs::read(&file).unwrap();
    change(&mut content);
    fs::write(&file, content).unwrap();
}

/// Changes the text of a safetensors header, whose length may not change.
fn edit_header(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    edit(path, |content| {
        let place =
            content.windows(from.len()).position(|window| window == from.as_bytes()).expect("the header has this text");
        content[place..place + to.len()].copy_from_slice(to.as_bytes());
    });
}

fn as_it_is(_: &mut Model) {}
fn untouched(_: &Path) {}

#[test]
fn damaged_safetensors_files() {
    let words = &["model.safetensors", "damaged"][..];
    let damages: [fn(&mut Vec<u8>); 8] = [
        |content| content.truncate(0),
        |content| content.truncate(7),
        |content| content.truncate(100),
        |content| {
            content.pop();
        },
        |content| content.push(0),
        |content| content[..8].copy_from_slice(&u64::MAX.to_le_bytes()),
        |content| content[..8].copy_from_slice(&0u64.to_le_bytes()),
        |content| content[8] = b'[',
    ];
    for damage in damages {
        refused(as_it_is, |path| edit(path, damage), words);
    }
}

#[test]
fn lying_headers() {
    let words = &["model.safetensors", "damaged"][..];
    // The first tensor in the file is one of [50, 24] bfloat16: 2400 bytes.
    let lies = [
        ("\"data_offsets\":[0,2400]", "\"data_offsets\":[0,2402]"),
        ("\"data_offsets\":[0,2400]", "\"data_offsets\":[2,2400]"),
        ("\"data_offsets\":[2400,4800]", "\"data_offsets\":[2398,4800]"),
        ("\"data_offsets\":[2400,4800]", "\"data_offsets\":[4800,2400]"),
        ("\"shape\":[50,24]", "\"shape\":[50,25]"),
        ("\"dtype\":\"BF16\"", "\"dtype\":\"BF61\""),
    ];
    for (from, to) in lies {
        refused(as_it_is, |path| edit_header(path, from, to), words);
    }
}

#[test]
fn missing_files() {
    let remove = |name: &'static str| move |path: &Path| fs::remove_file(path.join(name)).unwrap();
    refused(as_it_is, remove("config.json"), &["config.json", "missing"]);
    refused(as_it_is, remove("model.safetensors"), &["model.safetensors", "missing"]);
    let text = |path: &Path| fs::write(path.join("config.json"), "{ not json").unwrap();
    refused(as_it_is, text, &["config.json", "not valid JSON"]);
    let list = |path: &Path| fs::write(path.join("config.json"), "[]").unwrap();
    refused(as_it_is, list, &["config.json"]);
    let error = Source::open(Path::new("no/such/model")).unwrap_err().to_string();
    assert!(error.contains("no/such/model"), "{error}");
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";

#[test]
fn files_that_are_something_else_are_recognised() {
    let put =
        |name: &'static str, content: &'static str| move |path: &Path| fs::write(path.join(name), content).unwrap();
    for name in ["config.json", "model.safetensors"] {
        refused(as_it_is, put(name, POINTER), &[name, "Git LFS pointer", "git lfs pull"]);
        refused(as_it_is, put(name, "<!DOCTYPE html>\n<title>Log in"), &[name, "HTML page"]);
        refused(as_it_is, put(name, "GGUF\u{3}"), &[name, "GGUF"]);
        refused(as_it_is, put(name, "PK\u{3}\u{4}"), &[name, "Zip"]);
    }
}

#[test]
fn directories_that_are_something_else_are_recognised() {
    let holds = |names: &'static [&'static str]| {
        move |path: &Path| {
            fs::remove_file(path.join("model.safetensors")).unwrap();
            fs::remove_file(path.join("config.json")).unwrap();
            for name in names {
                fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
                fs::write(path.join(name), "").unwrap();
            }
        }
    };
    let cases: [(&[&str], &[&str]); 5] = [
        (&["refs/main", "snapshots/abc/config.json"], &["cache", "snapshots/abc`"]),
        (&["adapter_config.json"], &["LoRA adapter", "give the adapter to requests"]),
        (&["consolidated.safetensors", "params.json"], &["Mistral's own format"]),
        (&["consolidated.00.pth", "params.json"], &["Meta's own format"]),
        (&["inner/config.json"], &["the model may be `", "model/inner`"]),
    ];
    for (names, words) in cases {
        refused(as_it_is, holds(names), &[&["config.json` is missing"], words].concat());
    }
    let only_pickled = |path: &Path| {
        fs::rename(path.join("model.safetensors"), path.join("pytorch_model-00001-of-00001.bin")).unwrap();
    };
    refused(
        as_it_is,
        only_pickled,
        &["model.safetensors` is missing", "pytorch_model-00001-of-00001.bin", "save_pretrained"],
    );
}

#[test]
fn an_engine_is_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let (model, engine) = (dir.path().join("model"), dir.path().join("engine"));
    Model::tiny().write(&model);
    build(&model, &engine).unwrap();
    let error = Source::open(&engine).unwrap_err().to_string();
    assert!(error.contains("it is an engine: run it with `run-engine --engine"), "{error}");
}

#[test]
fn tensors_under_other_names_are_recognised() {
    let renamed = |rename: fn(&str) -> String| {
        move |model: &mut Model| {
            let tensors = std::mem::take(&mut model.tensors);
            model.tensors = tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        }
    };
    type Rename = fn(&str) -> String;
    let prefixes: [(Rename, &str); 5] = [
        (|name| format!("language_model.{name}"), "`language_model.`: it is that of a model of text and images"),
        (|name| format!("base_model.model.{name}"), "merge_and_unload"),
        (|name| format!("module.{name}"), "model.module"),
        (|name| format!("_orig_mod.{name}"), "torch.compile"),
        (|name| format!("other.{name}"), "begin with `other.`"),
    ];
    for (rename, words) in prefixes {
        refused(renamed(rename), untouched, &["is missing", words]);
    }
    let inner = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
    refused(renamed(inner), untouched, &["model.embed_tokens.weight", "lack `model.`"]);
    let only_the_head = |model: &mut Model| {
        model.config["tie_word_embeddings"] = true.into();
        model.tensors.remove("model.embed_tokens.weight");
    };
    refused(only_the_head, untouched, &["model.embed_tokens.weight", "only `lm_head.weight` is here"]);
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    Model::tiny().write_shards(&path);
    Source::open(&path).unwrap();
    let second = path.join("model-00002-of-00002.safetensors");
    let index = path.join("model.safetensors.index.json");
    let original = fs::read_to_string(&index).unwrap();

    fs::write(&index, original.replace("00002-of", "00003-of")).unwrap();
    refused_at(dir.path(), &["model-00003-of-00002.safetensors", "missing"]);
    fs::write(&index, original.replace("model-00002-of", "../00002-of")).unwrap();
    refused_at(dir.path(), &["index.json", "weight_map"]);
    fs::write(&index, "{}").unwrap();
    refused_at(dir.path(), &["index.json", "weight_map"]);
    fs::write(&index, original.replace("lm_head", "no_head")).unwrap();
    refused_at(dir.path(), &["no_head.weight", "missing"]);
    fs::write(&index, &original).unwrap();
    let content = fs::read(&second).unwrap();
    fs::write(&second, &content[..content.len() / 2]).unwrap();
    refused_at(dir.path(), &["model-00002-of-00002.safetensors", "damaged"]);
    fs::copy(path.join("model-00001-of-00002.safetensors"), &second).unwrap();
    refused_at(dir.path(), &["another shard"]);
    fs::remove_file(&second).unwrap();
    refused_at(dir.path(), &["model-00002-of-00002.safetensors", "missing"]);
}

#[test]
fn missing_and_unknown_tensors() {
    let without = |name: &'static str| {
        move |model: &mut Model| {
            model.tensors.remove(name).unwrap();
        }
    };
    refused(without(QUERY), untouched, &[QUERY, "missing"]);
    let advice = &["lm_head.weight", "missing", "tie_word_embeddings"][..];
    refused(without("lm_head.weight"), untouched, advice);
    let with = |name: &'static str, shape: &'static [usize]| {
        move |model: &mut Model| {
            let tensor = Tensor::new(Dtype::BF16, shape);
            model.tensors.insert(name.to_owned(), tensor);
        }
    };
    let words = |name| ["unknown", "model.safetensors", name];
    let bias = "model.layers.0.self_attn.q_proj.bias";
    refused(with(bias, &[40]), untouched, &words(bias));
    let layer = "model.layers.2.input_layernorm.weight";
    refused(with(layer, &[24]), untouched, &words(layer));
    let biased = |model: &mut Model| {
        model.config["architectures"] = json!(["LlamaForCausalLM"]);
        model.config["attention_bias"] = true.into();
    };
    refused(biased, untouched, &["proj.bias", "missing"]);
}

#[test]
fn harmless_tensors_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::tiny();
    let frequencies = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
    model.tensors.insert(frequencies, Tensor::new(Dtype::F64, &[5]));
    model.config["tie_word_embeddings"] = true.into();
    let embedding = &model.tensors["model.embed_tokens.weight"];
    let mut head = Tensor::new(Dtype::BF16, &embedding.shape);
    head.bytes.clone_from(&embedding.bytes);
    model.tensors.insert("lm_head.weight".to_owned(), head);
    model.write(&dir.path().join("model"));
    build(&dir.path().join("model"), &dir.path().join("out")).unwrap();
    assert!(EngineDir::open(&dir.path().join("out")).unwrap().config().tie_word_embeddings);
}

#[test]
fn a_stored_head_that_is_not_the_embedding_is_used_whatever_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::tiny();
    model.config["tie_word_embeddings"] = true.into();
    let shape = model.tensors["model.embed_tokens.weight"].shape.clone();
    let mut head = Tensor::new(Dtype::BF16, &shape);
    head.bytes.reverse();
    assert_ne!(head.bytes, model.tensors["model.embed_tokens.weight"].bytes);
    model.tensors.insert("lm_head.weight".to_owned(), head);
    model.write(&dir.path().join("model"));
    build(&dir.path().join("model"), &dir.path().join("out")).unwrap();
    assert!(!EngineDir::open(&dir.path().join("out")).unwrap().config().tie_word_embeddings);
    let wrong = |model: &mut Model| {
        model.config["tie_word_embeddings"] = true.into();
        model.tensors.insert("lm_head.weight".to_owned(), Tensor::new(Dtype::BF16, &[98, 24]));
    };
    refused(wrong, untouched, &["lm_head.weight", "[98, 24]"]);
}

#[test]
fn wrong_shapes_and_types() {
    let change = |name: &'static str, dtype: Dtype, shape: &'static [usize]| {
        move |model: &mut Model| {
            model.tensors.insert(name.to_owned(), Tensor::new(dtype, shape));
        }
    };
    let words = [QUERY, "model.safetensors", "[24, 40]", "[40, 24]"];
    refused(change(QUERY, Dtype::BF16, &[24, 40]), untouched, &words);
    refused(change(QUERY, Dtype::BF16, &[960]), untouched, &[QUERY, "[960]"]);
    refused(change(QUERY, Dtype::BF16, &[]), untouched, &[QUERY, "[]"]);
    refused(change("model.norm.weight", Dtype::BF16, &[24, 1]), untouched, &["model.norm.weight"]);
    for dtype in [Dtype::F64, Dtype::I8, Dtype::F8_E4M3, Dtype::I64] {
        refused(change(QUERY, dtype, &[40, 24]), untouched, &[QUERY, "BF16, F16, F32"]);
    }
    let vocabulary = |model: &mut Model| model.config["vocab_size"] = 51.into();
    refused(vocabulary, untouched, &["model.embed_tokens.weight", "[51, 24]"]);
}

#[test]
fn configurations_that_are_refused_leave_nothing() {
    for (field, value) in [
        ("architectures", json!(["FalconForCausalLM"])),
        ("hidden_act", json!("gelu")),
        ("num_hidden_layers", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("quantization_config", json!({ "quant_method": "awq" })),
        ("rope_scaling", json!({ "rope_type": "longrope" })),
    ] {
        let change = |model: &mut Model| model.config[field] = value.clone();
        refused(change, untouched, &["config.json", field]);
    }
}
