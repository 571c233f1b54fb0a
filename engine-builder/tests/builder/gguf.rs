//! GGUF files: what the Python package `gguf` and the tokenizers that they were made of say (`fixtures/gguf`), and how they are found.

use std::fs;
use std::path::Path;

use engine_builder::compile::cpu::build_cpu_engine;
use engine_builder::gguf::container::{Container, ElementType};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::source::Outline;
use engine_builder::{PartView, Source};
use engine_format::{Part, Weight, bf16};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::gguf_file::{GgufFile, Value as Field};
use crate::support::{build, fixture, request};

fn recorded(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture("gguf").join(format!("{name}.json"))).unwrap()).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A part of a weight, and the tensor that it is in these files.
fn stored_name(weight: Weight, part: Part) -> String {
    let name = match (weight, part) {
        (Weight::Embedding, _) => return "token_embd.weight".into(),
        (Weight::LmHead, _) => return "output.weight".into(),
        (Weight::FinalNorm, _) => return "output_norm.weight".into(),
        (Weight::Qkv(_), Part::Query) => "attn_q",
        (Weight::Qkv(_), Part::Key) => "attn_k",
        (Weight::Qkv(_), _) => "attn_v",
        (Weight::Dense(_), _) => "attn_output",
        (Weight::InputNorm(_), _) => "attn_norm",
        (Weight::PostNorm(_), _) => "ffn_norm",
        (Weight::MlpFc(_), _) => "ffn_gate",
        (Weight::MlpGate(_), _) => "ffn_up",
        (Weight::MlpProj(_), _) => "ffn_down",
        other => panic!("{other:?}"),
    };
    format!("blk.{}.{name}.weight", weight.layer().unwrap())
}

pub(crate) fn all_rows(view: &PartView<'_>) -> Vec<bf16> {
    let mut rows = vec![bf16::ZERO; view.row_count() * view.column_count()];
    view.convert(0..view.row_count(), 0..view.column_count(), &mut rows);
    rows
}

#[test]
fn every_type_is_decoded_bit_for_bit_as_the_python_package_does() {
    let (path, expected) = (fixture("gguf").join("types.gguf"), &recorded("types")["tensors"]);
    let file = fs::read(&path).unwrap();
    let container = Container::parse(&path, &file).unwrap();
    let mut kinds = Vec::new();
    for (name, tensor) in &container.tensors {
        let bytes = &file[tensor.range.clone()];
        let numbers: Vec<f32> = match tensor.element {
            ElementType::Plain(dtype) => dtype.values(bytes).collect(),
            ElementType::Blocks(block) => {
                kinds.push(block.name());
                let mut numbers = vec![0.0; bytes.len() / block.bytes() * block.len()];
                for (bytes, out) in bytes.chunks(block.bytes()).zip(numbers.chunks_mut(block.len())) {
                    block.decode(bytes, out);
                }
                numbers
            }
        };
        assert_eq!(expected[name]["shape"], serde_json::json!(tensor.shape), "{name}");
        assert_eq!(expected[name]["f32"], digest(bytemuck::cast_slice(&numbers)), "{name}");
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 9, "{kinds:?}");

    let source = Source::open(&path).unwrap();
    let mut seen = 0;
    for weight in Weight::all(source.config()) {
        for &part in weight.parts() {
            let (view, name) = (source.part(weight, part).unwrap(), stored_name(weight, part));
            assert_eq!(expected[&name]["bf16"], digest(bytemuck::cast_slice(&all_rows(&view))), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, expected.as_object().unwrap().len());
}

#[test]
fn some_rows_and_columns_are_those_of_the_whole() {
    let source = Source::open(&fixture("gguf").join("types.gguf")).unwrap();
    for (weight, part) in [(Weight::Qkv(0), Part::Query), (Weight::Qkv(1), Part::Key), (Weight::MlpFc(1), Part::Whole)]
    {
        let view = source.part(weight, part).unwrap();
        let (whole, columns) = (all_rows(&view), view.column_count());
        for (rows, wanted) in [(3..9, 0..columns), (5..6, 31..33), (1..7, 100..100), (2..16, 17..columns)] {
            let mut some = vec![bf16::ZERO; rows.len() * wanted.len()];
            let later = view.clone().rows(1..view.row_count());
            later.convert(rows.start - 1..rows.end - 1, wanted.clone(), &mut some);
            let expected = rows.clone().flat_map(|row| &whole[row * columns..][wanted.clone()]);
            assert!(some.iter().eq(expected), "{weight:?} {part:?} {rows:?} {wanted:?}");
        }
    }
}

#[test]
fn an_engine_is_that_of_the_same_numbers_as_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, other) = (dir.path().join("engine"), dir.path().join("other"));
    build(&fixture("gguf").join("types.gguf"), &engine).unwrap();
    let source = Source::open(&fixture("gguf").join("types.gguf")).unwrap();
    let checkpoint = dir.path().join("checkpoint");
    let request = crate::support::checkpoint_request(&checkpoint);
    engine_builder::checkpoint::write::write_checkpoint(&source, &request, &Quiet, &Interrupt::new()).unwrap();
    build(&checkpoint, &other).unwrap();
    let weights = |engine: &Path| fs::read(engine.join("rank0.weights")).unwrap();
    assert!(weights(&engine) == weights(&other));
    let manifest: Value = serde_json::from_slice(&fs::read(engine.join("engine.json")).unwrap()).unwrap();
    assert_eq!(manifest["versions"]["source_dtype"], "Q6_K");
}

#[test]
fn tokenizers_give_the_ids_of_those_that_they_were_made_of() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gpt2", "smollm", "llama3", "tekken", "sentencepiece"] {
        let engine = dir.path().join(name);
        build(&fixture("gguf").join(format!("{name}.gguf")), &engine).unwrap();
        let tokenizer = text::tokenizer::Tokenizer::open(&engine).unwrap();
        let recorded = recorded(name);
        assert_eq!(recorded["vocab_size"], tokenizer.vocab_size());
        for case in recorded["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(serde_json::json!(ids), case["ids"], "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), [&[1], ids.as_slice()].concat());
            let decoded = tokenizer.decode(&ids, false).unwrap();
            assert_eq!(decoded.strip_prefix(' ').unwrap_or(&decoded), text.strip_prefix(' ').unwrap_or(text), "{name}");
        }
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
        let generation: Value =
            serde_json::from_slice(&fs::read(engine.join("generation_config.json")).unwrap()).unwrap();
        assert_eq!(generation["eos_token_id"], serde_json::json!([2]));
        let template = fs::read_to_string(engine.join("chat_template.jinja")).unwrap();
        assert!(template.contains("message['content']"));
    }
}

/// A model in two parts, as `llama-gguf-split` writes them.
fn parts(dir: &Path) -> [GgufFile; 2] {
    let mut first = GgufFile::tiny();
    let mut second = GgufFile { pairs: Vec::new(), tensors: first.tensors.split_off(5) };
    for (number, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.set("split.no", Field::U32(number as u32));
        part.set("split.count", Field::U32(2));
        part.set("split.tensors.count", Field::U32(11));
    }
    write_parts(dir, [&first, &second]);
    [first, second]
}

fn write_parts(dir: &Path, parts: [&GgufFile; 2]) {
    for (number, part) in parts.into_iter().enumerate() {
        part.write(&dir.join(format!("m-0000{}-of-00002.gguf", number + 1)));
    }
}

#[test]
fn a_model_may_be_a_directory_or_come_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    GgufFile::tiny().write(&path("m.gguf"));
    let engine = |model: &Path, name: &str| {
        build(model, &path(name)).unwrap();
        fs::read(path(name).join("rank0.weights")).unwrap()
    };
    let whole = engine(&path("m.gguf"), "whole");
    fs::create_dir(path("split")).unwrap();
    let [first, second] = parts(&path("split"));
    for (name, model) in [("a", "split"), ("b", "split/m-00001-of-00002.gguf"), ("c", "split/m-00002-of-00002.gguf")] {
        assert!(engine(&path(model), name) == whole, "{model}");
    }
    let fails = |words: &[&str]| {
        let error = Source::open(&path("split")).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "{error:?} lacks {word:?}"));
    };
    write_parts(&path("split"), [&second, &first]);
    fails(&["m-00001-of-00002.gguf", "split.no", "part 1 of 2"]);
    write_parts(
        &path("split"),
        [&first, &{
            let mut twice = second.clone();
            twice.tensors.push(first.tensors[0].clone());
            twice
        }],
    );
    fails(&["m-00002-of-00002.gguf", "token_embd.weight", "another part"]);
    let mut fewer = second.clone();
    fewer.tensors.pop();
    write_parts(&path("split"), [&first, &fewer]);
    fails(&["split.tensors.count", "10 tensors"]);
    fs::remove_file(path("split/m-00002-of-00002.gguf")).unwrap();
    fails(&["m-00002-of-00002.gguf` is missing", "2 parts"]);
    fs::create_dir(path("two")).unwrap();
    ["a.gguf", "b.gguf"].iter().for_each(|name| GgufFile::tiny().write(&path("two").join(name)));
    let error = Source::open(&path("two")).unwrap_err().to_string();
    assert!(error.contains("a.gguf") && error.contains("b.gguf") && error.contains("name one"), "{error}");
}

#[test]
fn a_dry_run_names_format_version_and_types() {
    let outline = Outline::read(&fixture("gguf").join("types.gguf")).unwrap();
    let format = outline.format.to_string();
    assert!(format.starts_with("GGUF version 3, architecture llama, tensors: 3 of Q6_K, 2 of Q8_0, "), "{format}");
    for kind in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "float16", "bfloat16"] {
        assert!(format.contains(kind), "{format} lacks {kind}");
    }
}

#[test]
fn a_tokenizer_that_is_not_known_is_named_and_another_may_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = GgufFile::tiny();
    let tokens: Vec<String> = (0..40).map(|id| format!("t{id}")).collect();
    file.set("tokenizer.ggml.model", "gpt2".into());
    file.set("tokenizer.ggml.pre", "brand-new".into());
    file.set("tokenizer.ggml.tokens", Field::Texts(tokens));
    file.set("tokenizer.ggml.eos_token_id", Field::U32(7));
    file.set("tokenizer.ggml.eot_token_id", Field::U32(9));
    let path = dir.path().join("m.gguf");
    file.write(&path);
    let source = Source::open(&path).unwrap();
    assert!(
        source.warnings().iter().any(|text| text.contains("brand-new") && text.contains("`tokenizer`")),
        "{:?}",
        source.warnings()
    );
    let engine = dir.path().join("engine");
    build_cpu_engine(&source, &request(&engine), &Quiet, &Interrupt::new()).unwrap();
    assert!(!engine.join("tokenizer.json").exists());
    let ends = |engine: &Path| -> Value {
        serde_json::from_slice::<Value>(&fs::read(engine.join("generation_config.json")).unwrap()).unwrap()["eos_token_id"].clone()
    };
    assert_eq!(ends(&engine), serde_json::json!([7, 9]));

    let given = dir.path().join("tokenizer");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("tokenizer.json"), crate::support::TOKENIZER).unwrap();
    fs::write(given.join("tokenizer_config.json"), r#"{"eos_token": "a"}"#).unwrap();
    let source = Source::open_with(&path, Some(&given)).unwrap();
    assert!(source.warnings().is_empty(), "{:?}", source.warnings());
    let engine = dir.path().join("other");
    build_cpu_engine(&source, &request(&engine), &Quiet, &Interrupt::new()).unwrap();
    assert_eq!(ends(&engine), serde_json::json!([0]));
    assert!(engine.join("tokenizer.json").is_file());
}
