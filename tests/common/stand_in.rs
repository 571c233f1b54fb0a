//! TensorRT-LLM's stand-in: the library, and engines that it takes. Beside `common` in each test that needs it.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test binary uses some of these")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use trtllm::engine_format::engine_dir::config_json;
use trtllm::engine_format::manifest::Limits;
use trtllm::engine_format::{EngineDir, Mapping};
use trtllm::runner::executor::ExecutorConfig;
use trtllm::runner::executor::tensorrt_llm::{GuideTokenizer, OpenError, TensorRtLlmExecutor};
use trtllm::text::tokenizer::LazyTokenizer;
use trtllm::trtllm_sys::gpu::{GpuLibrary, GpuTokenizer};

/// The folder that stands for TensorRT-LLM's, built if it is not yet.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(build)
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/build-stand-in")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// The shim over the stand-in.
pub fn shim() -> PathBuf {
    prefix().join("lib/libtrtllm_gpu.so")
}

pub fn library() -> GpuLibrary {
    GpuLibrary::open(&shim()).unwrap()
}

/// An engine directory that the stand-in takes, as `trtllm-build` writes one, without weights.
pub struct StandInEngine {
    dir: TempDir,
}

impl StandInEngine {
    /// Of the model of `fixture`, told what `settings` (lines of `stand-in.conf`) say.
    pub fn new(fixture: &str, settings: &str) -> Self {
        Self::with_ranks(fixture, settings, Mapping { tp_size: 1, pp_size: 1 })
    }

    /// The same, of several ranks.
    pub fn with_ranks(fixture: &str, settings: &str, mapping: Mapping) -> Self {
        let model = crate::common::fixture(fixture);
        let source = engine_builder::source::Source::open(&model).unwrap();
        let limits = Limits { max_seq_len: 512, max_batch_size: 64, max_num_tokens: 256 };
        let mut config = config_json(source.config(), mapping, limits);
        let build = &mut config["build_config"];
        build["max_beam_width"] = 4.into();
        build["gather_context_logits"] = true.into();
        build["gather_generation_logits"] = true.into();
        build["plugin_config"]["lora_plugin"] = "bfloat16".into();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
        write("config.json", config.to_string().as_bytes());
        for rank in 0..mapping.world_size() {
            write(&format!("rank{rank}.engine"), b"no engine: a stand-in for one");
        }
        write("stand-in.conf", format!("vocab_size {}\n{settings}", source.config().vocab_size).as_bytes());
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            if let Ok(content) = std::fs::read(model.join(name)) {
                write(name, &content);
            }
        }
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Changes `config.json`.
    pub fn edit(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path().join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    pub fn try_open(&self, config: &ExecutorConfig) -> Result<TensorRtLlmExecutor, OpenError> {
        let tokenizer = GuideTokenizer {
            text: LazyTokenizer::of(self.path()),
            gpu: GpuTokenizer {
                tokenizer_json: "{}".into(),
                vocabulary: vec!["a".into(), "b".into()],
                stop_token_ids: vec![1],
            },
        };
        TensorRtLlmExecutor::open(&EngineDir::open(self.path()).unwrap(), config, Some(tokenizer), &library())
    }

    pub fn open(&self, config: &ExecutorConfig) -> TensorRtLlmExecutor {
        self.try_open(config).unwrap()
    }
}
