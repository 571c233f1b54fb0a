//! NeMo models: the same engines as from safetensors, and what is refused.

use std::fs;
use std::path::Path;

use engine_builder::source::Outline;
use engine_builder::{Source, nemo};
use safetensors::SafeTensors;

use crate::nemo_file::{NemoFile, Tensor, checkpoint, tar, zip};
use crate::support::{build, fixture};

fn weights_of(model: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let engine = dir.path().join("engine");
    build(model, &engine).unwrap();
    fs::read(engine.join("rank0.weights")).unwrap()
}

#[test]
fn engines_are_the_same_bytes_as_from_safetensors() {
    for (name, file) in
        [("mistral-gqa", "mistral-gqa.nemo"), ("mistral-window", "mistral-window.nemo"), ("llama-tied", "llama-tied")]
    {
        let (original, path) = (fixture("parity").join(name), fixture("nemo").join(file));
        let (expected, source) = (Source::open(&original).unwrap(), Source::open(&path).unwrap());
        let mut config = source.config().clone();
        config.architecture = expected.config().architecture;
        assert_eq!(&config, expected.config(), "{name}");
        assert!(weights_of(&path) == weights_of(&original), "{name}");
    }
}

/// The demo model as an archive whose embedding and head are filled up to a multiple of 1000 rows.
fn demo() -> NemoFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model");
    let content = fs::read(folder.join("model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&content).unwrap();
    let (hidden, groups, head) = (256, 2, 64);
    let rows = |name: &str| stored.tensor(name).unwrap().data().to_vec();
    let mut file = NemoFile::tiny();
    file.tensors.clear();
    let mut put = |name: &str, columns: usize, bytes: Vec<u8>| {
        let count = bytes.len() / 2 / columns;
        let shape = if columns == 1 { vec![count] } else { vec![count, columns] };
        let name = format!("model.module.{name}");
        file.tensors.push(Tensor { name, shape, class: "BFloat16Storage", bytes });
    };
    for (name, of) in [("embedding.word_embeddings", "model.embed_tokens"), ("output_layer", "lm_head")] {
        let mut bytes = rows(&format!("{of}.weight"));
        bytes.resize(3000 * hidden * 2, 0);
        put(&format!("{name}.weight"), hidden, bytes);
    }
    put("decoder.final_layernorm.weight", 1, rows("model.norm.weight"));
    for layer in 0..5 {
        let of = |name: &str| rows(&format!("model.layers.{layer}.{name}.weight"));
        let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|name| of(&format!("self_attn.{name}")));
        let mut fused = Vec::new();
        for group in 0..groups {
            for part in [&q, &k, &v] {
                let length = part.len() / groups;
                assert_eq!(length % (head * hidden * 2), 0);
                fused.extend(&part[group * length..][..length]);
            }
        }
        let name = |name: &str| format!("decoder.layers.{layer}.{name}");
        put(&name("self_attention.linear_qkv.weight"), hidden, fused);
        put(&name("self_attention.linear_qkv.layer_norm_weight"), 1, of("input_layernorm"));
        put(&name("self_attention.linear_proj.weight"), 6 * head, of("self_attn.o_proj"));
        put(&name("mlp.linear_fc1.weight"), hidden, [of("mlp.gate_proj"), of("mlp.up_proj")].concat());
        put(&name("mlp.linear_fc1.layer_norm_weight"), 1, of("post_attention_layernorm"));
        put(&name("mlp.linear_fc2.weight"), 704, of("mlp.down_proj"));
    }
    for (key, value) in [
        ("num_layers", "5"),
        ("hidden_size", "256"),
        ("ffn_hidden_size", "704"),
        ("num_attention_heads", "6"),
        ("num_query_groups", "2"),
        ("kv_channels", "64"),
        ("max_position_embeddings", "1024"),
        ("rotary_base", "1000000.0"),
        ("make_vocab_size_divisible_by", "1000"),
    ] {
        file.set(key, value);
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let content = fs::read(folder.join(name)).unwrap();
        file.others.push((format!("./{}_{name}", "0123456789abcdef".repeat(2)), content));
    }
    file
}

#[test]
fn the_demo_model_is_the_same_bytes_and_keeps_its_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let (path, engine) = (dir.path().join("demo.nemo"), dir.path().join("engine"));
    let mut file = demo();
    file.write(&path);
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model");
    build(&path, &engine).unwrap();
    assert!(fs::read(engine.join("rank0.weights")).unwrap() == weights_of(&original));
    let same = |name: &str| fs::read(engine.join(name)).unwrap() == fs::read(original.join(name)).unwrap();
    assert!(same("tokenizer.json") && same("tokenizer_config.json"));

    // Without a tokenizer all rows are kept; one that is given cuts them again.
    file.others.clear();
    file.write(&path);
    let source = Source::open(&path).unwrap();
    assert_eq!(source.config().vocab_size, 3000);
    let warnings = source.warnings().join("\n");
    assert!(warnings.contains("holds no `tokenizer.json`") && warnings.contains("`tokenizer`"), "{warnings}");
    assert_eq!(Source::open_with(&path, Some(&original)).unwrap().config().vocab_size, 2560);
}

#[test]
fn a_dry_run_names_format_version_and_types() {
    let format = |name: &str| Outline::read(&fixture("nemo").join(name)).unwrap().format.to_string();
    assert_eq!(format("mistral-gqa.nemo"), "NeMo 2.0.0, tensors: 15 of bfloat16");
    assert_eq!(format("llama-tied"), "NeMo 2.0.0, tensors: 14 of bfloat16");
}

/// Opens what `change` makes of a small model, and expects an error with `words`.
fn refused(change: impl FnOnce(&mut NemoFile), words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    let mut file = NemoFile::tiny();
    change(&mut file);
    file.write(&path);
    refused_at(&path, words);
}

fn refused_at(path: &Path, words: &[&str]) {
    let error = Source::open(path).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "{error:?} lacks {word:?}"));
}

#[test]
fn settings_of_other_decoders_are_refused_by_name() {
    let path = tempfile::tempdir().unwrap();
    NemoFile::tiny().write(&path.path().join("m.nemo"));
    Source::open(&path.path().join("m.nemo")).unwrap();
    Source::open(path.path()).unwrap();
    for (key, value) in [
        ("normalization", "layernorm1p"),
        ("activation", "gelu"),
        ("position_embedding_type", "learned_absolute"),
        ("bias", "true"),
        ("rotary_percentage", "0.5"),
        ("mcore_gpt", "false"),
        ("num_moe_experts", "8"),
        ("layernorm_zero_centered_gamma", "true"),
        ("virtual_pipeline_model_parallel_size", "2"),
        ("rotary_interleaved", "true"),
        ("peft", "{a: 1}"),
    ] {
        refused(|file| file.set(key, value), &["m.nemo/model_config.yaml", key, "not supported"]);
    }
    for (key, value) in [
        ("window_size", "[64, 64]"),
        ("kv_channels", "7"),
        ("num_layers", "many"),
        ("tensor_model_parallel_size", "2"),
        ("layernorm_epsilon", "0"),
        ("rotary_base", ".inf"),
    ] {
        refused(|file| file.set(key, value), &["m.nemo"]);
    }
    refused(|file| file.settings.retain(|(key, _)| key != "normalization"), &["normalization", "`layernorm`"]);
    refused(|file| file.settings.retain(|(key, _)| key != "hidden_size"), &["hidden_size", "is missing"]);
}

#[test]
fn tensors_of_other_models_are_refused_by_name() {
    let renamed = |from: &'static str, to: &'static str| {
        move |file: &mut NemoFile| {
            let tensor = file.tensors.iter_mut().find(|tensor| tensor.name.contains(from)).unwrap();
            tensor.name = tensor.name.replace(from, to);
        }
    };
    refused(renamed("decoder.final_layernorm", "language_model.encoder.final_layernorm"), &["before Megatron-core"]);
    refused(renamed("model.output_layer", "model.model_0.output_layer"), &["model_0.output_layer", "virtual pipeline"]);
    refused(renamed("linear_fc2", "experts.local_experts.0.linear_fc2"), &["mixture of experts"]);
    refused(renamed("linear_fc2", "lora_fc2"), &["adapter"]);
    refused(renamed("linear_fc2", "linear_fc3"), &["tensor `decoder.layers.0.mlp.linear_fc2.weight` is missing"]);
    let twice = |file: &mut NemoFile| {
        let mut tensor = file.tensors[0].clone();
        tensor.name = tensor.name.replace("model.", "module.");
        file.tensors.push(tensor);
    };
    refused(twice, &["embedding.word_embeddings.weight", "twice"]);
    let unknown = |file: &mut NemoFile| {
        let mut tensor = file.tensors[0].clone();
        tensor.name = "model.decoder.extra.weight".into();
        file.tensors.push(tensor);
    };
    refused(unknown, &["decoder.extra.weight"]);
    refused(|file| file.tensor("linear_proj.weight").shape = vec![16, 32], &["linear_proj.weight", "[32, 16]"]);
    refused(|file| file.tensor("linear_proj.weight").class = "ByteStorage", &["linear_proj.weight", "ByteStorage"]);
    refused(
        |file| file.tensor("linear_proj.weight").shape = vec![33, 16],
        &["linear_proj.weight", "outside its storage"],
    );
    refused(|file| file.tensors.clear(), &["embedding.word_embeddings.weight` is missing"]);
}

#[test]
fn archives_that_play_tricks_are_refused() {
    for name in ["../evil", "a/../../evil", "a//b", "."] {
        // No writer of archives takes such a name: it is put into the bytes.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.nemo");
        let mut file = NemoFile::tiny();
        file.others.push(("q".repeat(name.len()), vec![1]));
        let mut bytes = tar(&file.members());
        let at = (0..bytes.len())
            .step_by(512)
            .find(|&at| bytes[at..].starts_with("q".repeat(name.len()).as_bytes()))
            .unwrap();
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        fix_checksum(&mut bytes[at..at + 512]);
        fs::write(&path, &bytes).unwrap();
        refused_at(&path, &["m.nemo", "no place inside an archive"]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.nemo");
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
        let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        archive.append_link(&mut header, "model_weights.ckpt", "/etc/passwd").unwrap();
        archive.into_inner().unwrap();
        refused_at(&path, &["m.nemo", "model_weights.ckpt", "not supported"]);
    }
    let whole = tar(&NemoFile::tiny().members());
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused_at(&path, &["m.nemo", "ends inside its member `model_weights.ckpt`"]);
    for content in [b"".as_slice(), b"no archive", &[0; 2048]] {
        fs::write(&path, content).unwrap();
        refused_at(&path, &["m.nemo", "no tar archive, as NeMo writes"]);
    }
    fs::write(&path, b"\x1f\x8b\x08\0").unwrap();
    refused_at(&path, &["m.nemo", "gzip", "`gunzip -c FILE > PLAIN.nemo`"]);
    refused(|file| file.others.push(("model_config.yaml".into(), Vec::new())), &["model_config.yaml` is there twice"]);
}

/// Puts the sum of a header's bytes where tar has it.
fn fix_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[test]
fn long_names_and_several_archives() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = NemoFile::tiny();
    file.others.push((format!("{}/{}", "d".repeat(90), "n".repeat(120)), vec![1; 600]));
    file.write(&dir.path().join("m.nemo"));
    Source::open(&dir.path().join("m.nemo")).unwrap();
    file.write(&dir.path().join("n.nemo"));
    refused_at(dir.path(), &["m.nemo", "n.nemo", "name one of them"]);
}

/// What a pickle alone says, in a checkpoint.
fn pickled(pickle: &[u8]) -> String {
    let file = zip(&[("m/data.pkl".to_owned(), pickle.to_vec())]);
    match nemo::torch::tensors(Path::new("m.ckpt"), &file, |_| false) {
        Ok(tensors) => format!("{} tensors", tensors.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn hostile_pickles_are_refused_and_run_nothing() {
    let cases: [(&[u8], &str); 20] = [
        (b"\x80\x02}.", "0 tensors"),
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "`os.system`"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "`builtins.eval`"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "`torch.storage._load_from_bytes`"),
        (b"\x80\x02ctorch\nload\n.", "`torch.load`"),
        (b"\x80\x02\x82\x01.", "EXT1 at byte 2"),
        (b"\x80\x02(S'ls'\nios\nsystem\n.", "STRING at byte 3"),
        (b"\x80\x02(ios\nsystem\n.", "INST at byte 3"),
        (b"\x80\x02(cos\nsystem\no.", "`os.system`"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02\xf0.", "0xf0 at byte 2"),
        (b"\x80\x06}.", "`6`, which is not supported (supported: 2 to 5)"),
        (b"}.", "does not begin with its protocol"),
        (b"\x80\x02}", "ends inside a value"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "ends inside a value"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "ends inside a value"),
        (b"\x80\x02h\x05.", "not there"),
        (b"\x80\x02.", "stack is empty"),
        (b"\x80\x02}(X\x01\0\0\0au.", "no value"),
        (b"\x80\x02}X\x01\0\0\0aNs.", "tensor `a` is no tensor"),
    ];
    for (pickle, expected) in cases {
        let found = pickled(pickle);
        assert!(found.contains(expected), "{pickle:?}: {found:?} lacks {expected:?}");
    }
    // As deep as it is long, and a dictionary that holds itself.
    let mut deep = b"\x80\x02".to_vec();
    deep.extend([b']'; 100_000]);
    deep.extend([b'a'; 99_999]);
    deep.push(b'.');
    assert!(pickled(&deep).contains("no dictionary of tensors"));
    assert!(pickled(b"\x80\x02}q\0X\x01\0\0\0ah\0s.").contains("tensor `a` is no tensor"));
    let endless = [b"\x80\x02".as_slice(), &vec![b'N'; nemo::pickle::MAX_OPCODES + 1]].concat();
    assert!(pickled(&endless).contains("opcodes"));
}

#[test]
fn damaged_checkpoints_are_refused() {
    let path = Path::new("m.ckpt");
    let whole = checkpoint(&NemoFile::tiny().tensors);
    let read = |bytes: &[u8]| nemo::torch::tensors(path, bytes, |_| false);
    assert_eq!(read(&whole).unwrap().len(), 9);
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    // Every byte that is no weight, changed: never a panic, and never a tensor outside the file.
    let directory = whole.len() - 1200..whole.len();
    for at in (0..1600).chain(directory) {
        for change in [0xff, 1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            for tensor in read(&bytes).unwrap_or_default().values() {
                assert!(tensor.range.end <= bytes.len());
                assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>() * tensor.dtype.size());
            }
        }
    }
    let compressed = |bytes: &mut Vec<u8>| {
        let at = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[at + 10] = 8;
    };
    let mut bytes = whole.clone();
    compressed(&mut bytes);
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("m/data.pkl") && error.contains("method 8"), "{error}");
    assert!(read(b"\x80\x02\x8a\x0al\xfc").unwrap_err().to_string().contains("before 1.6"));
    let twice = zip(&[("m/data.pkl".into(), vec![]), ("m/data.pkl".into(), vec![])]);
    assert!(read(&twice).unwrap_err().to_string().contains("twice"));
    let big = zip(&[("m/data.pkl".into(), b"\x80\x02}.".to_vec()), ("m/byteorder".into(), b"big".to_vec())]);
    assert!(read(&big).unwrap_err().to_string().contains("byteorder"));
    assert!(read(&zip(&[])).unwrap_err().to_string().contains("no checkpoint of PyTorch"));
}
