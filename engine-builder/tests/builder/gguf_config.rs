//! What the metadata of GGUF files says of a model, and files that are refused.

use std::fs;
use std::path::Path;

use engine_builder::gguf::container::Container;
use engine_builder::{BuildError, Source};
use engine_format::Architecture;
use engine_format::rope::RopeScaling;

use crate::gguf_file::{GgufFile, Tensor, Value as Field};
use crate::support::fixture;

/// Writes the file and opens it.
fn open(file: &GgufFile) -> Result<Source, BuildError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    file.write(&path);
    Source::open(&path)
}

fn changed(change: impl FnOnce(&mut GgufFile)) -> GgufFile {
    let mut file = GgufFile::tiny();
    change(&mut file);
    file
}

fn refused(change: impl FnOnce(&mut GgufFile), words: &[&str]) {
    let error = open(&changed(change)).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("m.gguf"), "{error:?} does not name the file; {words:?}");
    words.iter().for_each(|word| assert!(error.contains(word), "{error:?} lacks {word:?}"));
}

#[test]
fn the_configuration_is_that_of_the_metadata() {
    let config = |change: fn(&mut GgufFile)| open(&changed(change)).unwrap().config().clone();
    let plain = config(|_| {});
    assert_eq!((plain.architecture, plain.vocab_size, plain.tie_word_embeddings), (Architecture::Llama, 40, true));
    assert_eq!((plain.num_attention_heads, plain.num_key_value_heads, plain.head_size), (2, 1, 8));
    assert_eq!((plain.norm_epsilon, plain.rope.theta, plain.sliding_window), (1e-5, 10_000.0, None));
    let untied = config(|file| file.tensors.push(Tensor::f32("output.weight", &[32, 40])));
    assert!(!untied.tie_word_embeddings);
    let biased = config(|file| {
        for (name, size) in [("attn_q", 16), ("attn_k", 8), ("attn_v", 8), ("attn_output", 32)] {
            file.tensors.push(Tensor::f32(&format!("blk.0.{name}.bias"), &[size]));
        }
    });
    assert!(biased.attention_bias);
    let newer = config(|file| {
        for (key, _) in &mut file.pairs {
            *key = key.replace("llama.", "mistral3.");
        }
        file.set("general.architecture", "mistral3".into());
        file.set("mistral3.attention.sliding_window", Field::U32(16));
        file.set("mistral3.rope.freq_base", Field::F32(1e6));
        file.set("mistral3.attention.head_count_kv", Field::U32s(vec![1]));
    });
    assert_eq!((newer.architecture, newer.sliding_window, newer.rope.theta), (Architecture::Mistral, Some(16), 1e6));
    let linear = config(|file| file.set("llama.rope.scaling.factor", Field::F32(4.0)));
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 4.0 });
    let none = config(|file| {
        file.set("llama.rope.scaling.factor", Field::F32(4.0));
        file.set("llama.rope.scaling.type", "none".into());
    });
    assert_eq!(none.rope.scaling, RopeScaling::None);
}

/// The factors that llama.cpp's converter writes for Llama 3.1: theta 5e5, factor 8, heads of 128.
fn llama3_factors(theta: f64, head_size: usize) -> Vec<u8> {
    let factor = |pair: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf((2 * pair) as f64 / head_size as f64);
        let smooth = (8192.0 / wavelength - 1.0) / 3.0;
        if wavelength < 2048.0 {
            1.0
        } else if wavelength > 8192.0 {
            8.0
        } else {
            1.0 / ((1.0 - smooth) / 8.0 + smooth)
        }
    };
    (0..head_size / 2).flat_map(|pair| (factor(pair) as f32).to_le_bytes()).collect()
}

#[test]
fn factors_of_frequencies_are_llama_3s_or_refused() {
    let with_factors = |bytes: Vec<u8>| {
        move |file: &mut GgufFile| {
            file.set("llama.rope.freq_base", Field::F32(5e5));
            let extents = vec![bytes.len() as u64 / 4];
            file.tensors.push(Tensor { name: "rope_freqs.weight".into(), extents, kind: 0, bytes });
        }
    };
    let source = open(&changed(with_factors(llama3_factors(5e5, 8)))).unwrap();
    let RopeScaling::Llama3 { factor, original_max_position_embeddings, .. } = source.config().rope.scaling else {
        panic!("{:?}", source.config().rope);
    };
    assert_eq!((factor, original_max_position_embeddings), (8.0, 8192));
    let ones: Vec<u8> = [1.0f32; 4].iter().flat_map(|one| one.to_le_bytes()).collect();
    assert_eq!(open(&changed(with_factors(ones))).unwrap().config().rope.scaling, RopeScaling::None);
    let mut other = llama3_factors(5e5, 8);
    other[4..8].copy_from_slice(&1.5f32.to_le_bytes());
    refused(with_factors(other), &["rope_freqs.weight", "Llama 3"]);
    refused(with_factors(llama3_factors(5e5, 16)), &["rope_freqs.weight", "each pair"]);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let set = |key: &'static str, value: Field| move |file: &mut GgufFile| file.set(key, value);
    refused(set("general.architecture", "qwen2".into()), &["general.architecture", "qwen2", "llama, mistral3"]);
    refused(|file| file.remove("general.architecture"), &["general.architecture", "missing"]);
    for key in ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"] {
        refused(|file| file.remove(&format!("llama.{key}")), &[key, "missing"]);
    }
    refused(|file| file.remove("llama.attention.layer_norm_rms_epsilon"), &["layer_norm_rms_epsilon", "missing"]);
    refused(set("llama.expert_count", Field::U32(8)), &["llama.expert_count", "`8`"]);
    refused(set("llama.rope.scaling.type", "yarn".into()), &["llama.rope.scaling.type", "yarn", "none, linear"]);
    refused(set("llama.attention.clamp_kqv", Field::F32(8.0)), &["llama.attention.clamp_kqv"]);
    refused(set("llama.rope.dimension_count", Field::U32(4)), &["llama.rope.dimension_count", "`4`"]);
    refused(set("llama.attention.value_length", Field::U32(16)), &["llama.attention.value_length"]);
    refused(set("llama.vocab_size", Field::U32(41)), &["llama.vocab_size", "token_embd.weight", "41", "40"]);
    refused(set("tokenizer.ggml.tokens", Field::Texts(vec!["a".into()])), &["tokenizer.ggml.tokens", "token_embd"]);
    refused(set("llama.attention.head_count_kv", Field::U32s(vec![1, 2])), &["head_count_kv", "[1,2]"]);
    refused(set("llama.block_count", Field::U32(2)), &["blk.1.attn_norm.weight", "missing"]);
    refused(set("llama.feed_forward_length", Field::U32(40)), &["blk.0.ffn_gate.weight", "[48, 32]", "[40, 32]"]);
    refused(set("llama.rope.freq_base", Field::F32(f32::NAN)), &["llama.rope.freq_base", "NaN"]);
    refused(set("llama.embedding_length", "32".into()), &["llama.embedding_length", "whole number"]);
    let add = |name: &'static str| move |file: &mut GgufFile| file.tensors.push(Tensor::f32(name, &[32]));
    refused(add("blk.0.attn_q_norm.weight"), &["blk.0.attn_q_norm.weight", "unknown"]);
    refused(|file| file.tensors.truncate(10), &["blk.0.ffn_down.weight", "missing"]);
    refused(|file| file.tensor("blk.0.ffn_up.weight").kind = 10, &["blk.0.ffn_up.weight", "Q2_K", "IQ4_NL"]);
    refused(|file| file.tensor("blk.0.ffn_up.weight").kind = 99, &["blk.0.ffn_up.weight", "number 99"]);
    refused(|file| file.tensor("blk.0.ffn_norm.weight").kind = 2, &["blk.0.ffn_norm.weight", "vector", "Q4_0"]);
    refused(
        |file| file.tensor("blk.0.attn_output.weight").kind = 2,
        &["blk.0.attn_output.weight", "16", "whole blocks"],
    );
}

#[test]
fn files_that_are_damaged_are_refused() {
    refused(|file| file.tensors[3].extents = vec![64], &["is damaged", "overlap"]);
    refused(|file| file.tensors[10].bytes.truncate(4), &["blk.0.ffn_down.weight", "outside the file"]);
    refused(|file| file.tensors[3].name = "blk.0.attn_norm.weight".into(), &["blk.0.attn_norm.weight", "twice"]);
    refused(|file| file.tensors[0].extents = vec![32, 1 << 40], &["token_embd.weight", "extent"]);
    refused(|file| file.tensors[0].extents = vec![1 << 20, 1 << 20, 1 << 20, 1 << 20], &["token_embd.weight", "large"]);
    refused(|file| file.tensors[0].extents = vec![2; 5], &["token_embd.weight", "5 extents"]);
    refused(|file| file.tensors[0].extents = vec![0], &["token_embd.weight", "extent"]);
    refused(|file| file.pairs.push(("llama.block_count".into(), Field::U32(1))), &["llama.block_count", "twice"]);
    refused(|file| file.set("general.alignment", Field::U32(24)), &["general.alignment", "power of two", "24"]);
    let whole = GgufFile::tiny().bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let opened = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Source::open(&path).map(|_| ()).map_err(|error| error.to_string())
    };
    opened(&whole).unwrap();
    // Every cut through the head, and some through the data.
    for length in (4..1500).step_by(7).chain((1500..whole.len()).step_by(997)) {
        let error = opened(&whole[..length]).unwrap_err();
        assert!(error.contains("m.gguf"), "{length}: {error}");
    }
    let with = |place: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        opened(&file).unwrap_err()
    };
    for (place, bytes, word) in [
        (4, &[1, 0, 0, 0][..], "version"),
        (4, &[0, 0, 0, 3], "big-endian"),
        (8, &[255; 8], "number of tensors"),
        (16, &[255; 8], "number of keys"),
        (24, &[255; 8], "a key is"),
        (32, &[255], "UTF-8"),
        (52, &[77], "type 77"),
        (56, &[255; 8], "the value of `general.architecture`"),
    ] {
        let error = with(place, bytes);
        assert!(error.contains(word), "{error:?} lacks {word:?}");
    }
}

#[test]
fn arrays_ask_for_no_more_than_there_is() {
    let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0k".to_vec();
    let array = |file: &mut Vec<u8>, of: u32, count: u64| {
        file.extend(of.to_le_bytes());
        file.extend(count.to_le_bytes());
    };
    file.extend(9u32.to_le_bytes());
    let parse = |file: &[u8]| Container::parse(Path::new("m.gguf"), file).map(|_| ()).map_err(|e| e.to_string());
    let mut huge = file.clone();
    array(&mut huge, 0, u64::MAX);
    assert!(parse(&huge).unwrap_err().contains("ends inside the value of `k`"));
    let mut many = file.clone();
    array(&mut many, 0, 5 << 20);
    many.resize(many.len() + (5 << 20), 0);
    assert!(parse(&many).unwrap_err().contains("at most 4194304"));
    let mut deep = file;
    (0..3).for_each(|_| array(&mut deep, 9, 1));
    deep.extend([0; 64]);
    assert!(parse(&deep).unwrap_err().contains("inside each other"));
}

#[test]
fn tokenizers_that_contradict_themselves_are_refused() {
    let with = |change: fn(&mut GgufFile)| {
        move |file: &mut GgufFile| {
            file.set("tokenizer.ggml.model", "gpt2".into());
            file.set("tokenizer.ggml.pre", "gpt-2".into());
            file.set("tokenizer.ggml.tokens", Field::Texts((0..40).map(|id| format!("t{id}")).collect()));
            file.set("tokenizer.ggml.merges", Field::Texts(Vec::new()));
            change(file);
        }
    };
    open(&changed(with(|_| {}))).unwrap();
    let key = "tokenizer.ggml.token_type";
    refused(with(|file| file.set("tokenizer.ggml.token_type", Field::U32s(vec![1; 39]))), &[key, "39", "40"]);
    refused(with(|file| file.set("tokenizer.ggml.token_type", Field::U32s(vec![7; 40]))), &[key, "has 7"]);
    refused(with(|file| file.set("tokenizer.ggml.eos_token_id", Field::U32(40))), &["eos_token_id", "40"]);
    refused(with(|file| file.set("tokenizer.ggml.add_bos_token", Field::U32(1))), &["add_bos_token", "true or false"]);
    refused(with(|file| file.set("tokenizer.ggml.tokens", Field::Texts(vec!["t".into(); 40]))), &["tokens 0 and 1"]);
    refused(with(|file| file.set("tokenizer.ggml.merges", Field::Texts(vec!["t1 t9".into()]))), &["merges", "t1 t9"]);
    refused(with(|file| file.set("tokenizer.ggml.model", "llama".into())), &["tokenizer.ggml.scores", "missing"]);
}

#[test]
fn files_with_changed_bytes_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for name in ["sentencepiece", "llama3"] {
        let whole = fs::read(fixture("gguf").join(format!("{name}.gguf"))).unwrap();
        // The data of the tensors, which may be anything, is the last quarter.
        let head = whole.len() / 4 * 3;
        for _ in 0..100 {
            let mut file = whole.clone();
            for _ in 0..1 + random(3) {
                file[random(head)] = random(256) as u8;
            }
            fs::write(&path, file).unwrap();
            refused += u32::from(Source::open(&path).is_err());
        }
    }
    assert!((20..200).contains(&refused), "{refused} were refused");
}
