//! Running the program, and models for it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

/// A directory of the repository's fixtures, as text for an argument.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name);
    path.to_str().unwrap().to_owned()
}

/// The program, on a machine without GPU or shim as far as it can see, and without anybody's Hugging Face cache.
pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_build-engine"));
    command
        .current_dir(dir)
        .env("HF_HOME", dir.join("no-hub"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .env("TRTLLM_GPU_LIB", dir.join("no-shim.so"));
    command
}

/// What a run said and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// Checks the exit code and that stderr has every one of `words`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in {self:#?}");
        }
        self
    }
}

/// Runs the program inside `dir`.
pub(crate) fn run<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Run {
    program(dir).args(args).output().unwrap().into()
}

/// The names in a directory, hidden ones too, sorted.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A Mistral configuration of 256 MiB of weights, more or less.
pub(crate) fn large_config() -> serde_json::Value {
    json!({
        "architectures": ["MistralForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 16_384,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": null,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": false,
    })
}

/// Writes the model of [`large_config`] as a file with holes: all of its weights are zero and take no room.
pub(crate) fn write_large_model(dir: &Path) -> PathBuf {
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), large_config().to_string()).unwrap();
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![16_384, 1024]),
        ("model.norm.weight".to_owned(), vec![1024]),
        ("lm_head.weight".to_owned(), vec![16_384, 1024]),
    ];
    for layer in 0..6 {
        let shapes: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[1024]),
            ("post_attention_layernorm", &[1024]),
            ("self_attn.q_proj", &[1024, 1024]),
            ("self_attn.k_proj", &[512, 1024]),
            ("self_attn.v_proj", &[512, 1024]),
            ("self_attn.o_proj", &[1024, 1024]),
            ("mlp.gate_proj", &[4096, 1024]),
            ("mlp.up_proj", &[4096, 1024]),
            ("mlp.down_proj", &[1024, 4096]),
        ];
        for (name, shape) in shapes {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        }
    }
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + 2 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend(&header);
    let path = model.join("model.safetensors");
    fs::write(&path, &head).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((head.len() + offset) as u64).unwrap();
    model
}
