//! An engine directory: `engine.json`, `config.json`, the engine file of each rank, and the tokenizer's files.
//!
//! Source of `config.json`'s schema: TensorRT-LLM 1.x, `builder.py` (`BuildConfig`, `PluginConfig`) for what is written,
//! `runtime/gptJsonConfig.cpp` for what its C++ reads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::build_config::{self, BuildConfig, engine_file};
use crate::checkpoint::{self, CONFIG_FILE};
use crate::error::{FormatError, Result};
use crate::json::{self, Object};
use crate::manifest::{FORMAT_VERSION, FileRecord, Limits, MANIFEST_FILE, Manifest, TENSORRT_LLM_SCHEMA, hash};
use crate::model_config::ModelConfig;
use crate::rebuild::Rebuild;
use crate::shard::Mapping;
use crate::target::Target;
use crate::weights_file::{WEIGHTS_FILE, WeightsFile};

/// The tokenizer's file, without which an engine takes and gives token ids only.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// The target of an engine directory that was not made by `build-engine`.
pub const FOREIGN_TARGET: &str = "tensorrt-llm";

/// The file whose `eos_token_id` says which tokens end a sequence.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// Files that travel with a model from its source into checkpoints and engines, where the source has them.
pub const COMPANION_FILES: [&str; 7] = [
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION_CONFIG_FILE,
];

/// The folder of the chat templates that are not the default, `NAME.jinja` each; it travels with the model too.
pub const CHAT_TEMPLATES_DIR: &str = "additional_chat_templates";

/// Whether a file travels with its model, by its path inside the model's directory.
pub fn is_companion(path: &str) -> bool {
    let template = path.strip_prefix(CHAT_TEMPLATES_DIR).and_then(|rest| rest.strip_prefix('/'));
    let is_template = |name: &str| name.len() > ".jinja".len() && name.ends_with(".jinja") && !name.contains('/');
    COMPANION_FILES.contains(&path) || template.is_some_and(is_template)
}

/// The companions that a model or engine directory has, by their paths inside it, with their contents.
///
/// # Errors
/// [`FormatError::Io`] for one that is there and cannot be read.
pub fn read_companions(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names: Vec<String> = COMPANION_FILES.map(str::to_owned).into();
    let folder = dir.join(CHAT_TEMPLATES_DIR);
    if folder.exists() {
        for entry in std::fs::read_dir(&folder).map_err(FormatError::io("read", &folder))? {
            let name = entry.map_err(FormatError::io("read", &folder))?.file_name();
            names.extend(name.to_str().map(|name| format!("{CHAT_TEMPLATES_DIR}/{name}")));
        }
    }
    names.retain(|name| is_companion(name));
    names.sort_unstable();
    let mut files = Vec::new();
    for name in names {
        let path = dir.join(&name);
        match std::fs::read(&path) {
            Ok(content) => files.push((name, content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FormatError::io("read", &path)(error)),
        }
    }
    Ok(files)
}

/// The engine's `config.json`: upstream's schema with the limits in upstream's places.
pub fn config_json(config: &ModelConfig, mapping: Mapping, limits: Limits) -> Value {
    json!({
        "version": TENSORRT_LLM_SCHEMA,
        "pretrained_config": checkpoint::to_json(config, mapping),
        "build_config": {
            "max_input_len": limits.max_seq_len,
            "max_seq_len": limits.max_seq_len,
            "max_batch_size": limits.max_batch_size,
            "max_beam_width": 1,
            "max_num_tokens": limits.max_num_tokens,
            "max_prompt_embedding_table_size": 0,
            "kv_cache_type": "PAGED",
            "gather_context_logits": false,
            "gather_generation_logits": false,
            "strongly_typed": true,
            "max_draft_len": 0,
            "speculative_decoding_mode": 1,
            "use_mrope": false,
            "lora_config": {},
            "plugin_config": {
                "dtype": "bfloat16",
                "gpt_attention_plugin": "bfloat16",
                "gemm_plugin": null,
                "lora_plugin": null,
                "context_fmha": true,
                "paged_kv_cache": true,
                "remove_input_padding": true,
                "tokens_per_block": 32,
                "use_paged_context_fmha": true,
                "manage_weights": false,
            },
        },
    })
}

/// Bytes that [`EngineDir::verify`] reads between two reports of progress.
const VERIFY_CHUNK: usize = 16 << 20;

/// An opened and checked engine directory.
#[derive(Debug)]
pub struct EngineDir {
    path: PathBuf,
    manifest: Manifest,
    config: ModelConfig,
    build_config: Option<BuildConfig>,
}

impl EngineDir {
    /// Opens the directory and checks its version, the size of every file, and the hash of everything but weight data
    /// (see [`EngineDir::verify`] for that) and TensorRT's engines. A directory that `trtllm-build` wrote has no manifest: it
    /// is taken as it is, with [`FOREIGN_TARGET`] for a target.
    ///
    /// # Errors
    /// A missing, resized or changed file, by name; another version; an invalid configuration.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest_path = path.join(MANIFEST_FILE);
        let hint = || "`build-engine --model MODEL --output DIR` makes an engine directory".to_owned();
        if path.is_file() {
            return Err(FormatError::NotADirectory { path: path.to_owned(), hint: hint() });
        }
        if !path.is_dir() {
            return Err(FormatError::Missing { path: path.to_owned(), hint: hint() });
        }
        let manifest = match std::fs::read(&manifest_path) {
            Ok(bytes) => Manifest::from_bytes(&manifest_path, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && build_config::is_engine(path) => {
                foreign_manifest(path)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(FormatError::Missing {
                    path: manifest_path,
                    hint: "the directory is not an engine; `build-engine --model MODEL --output DIR` makes one".into(),
                });
            }
            Err(error) => return Err(FormatError::io("read", &manifest_path)(error)),
        };
        for (name, record) in &manifest.files {
            check_file(&path.join(name), record).map_err(|error| with_model(error, &manifest))?;
        }
        let config_path = path.join(CONFIG_FILE);
        if !manifest.files.contains_key(CONFIG_FILE) {
            return Err(FormatError::damaged(&manifest_path, format!("it does not list `{CONFIG_FILE}`")));
        }
        let value = json::read_file(&config_path, "")?;
        let root = Object::root(&config_path, &value)?;
        let pretrained = root.object("pretrained_config")?;
        let pretrained = pretrained.ok_or_else(|| root.error("pretrained_config", "is missing"))?;
        let (config, _) = checkpoint::from_json(&pretrained)?;
        let build_config = (manifest.target != Target::Cpu.name()).then(|| BuildConfig::read(path)).transpose()?;
        Ok(Self { path: path.to_owned(), manifest, config, build_config })
    }

    /// Whether a TensorRT engine has the file of every rank.
    ///
    /// # Errors
    /// [`FormatError::Missing`] with the first that is not there.
    pub fn check_ranks(&self) -> Result<()> {
        for rank in 0..self.build_config.as_ref().map_or(0, |build| build.world_size) {
            let engine = self.path.join(engine_file(rank));
            if !engine.is_file() {
                let hint = "`config.json` describes an engine, but this rank's part of it is not there: copy the engine directory again or build it again";
                return Err(FormatError::Missing { path: engine, hint: hint.into() });
            }
        }
        Ok(())
    }

    /// What a TensorRT engine was built for; `None` for a CPU engine.
    pub fn build_config(&self) -> Option<&BuildConfig> {
        self.build_config.as_ref()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model that the engine runs.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether the engine was built with companion file `name`.
    pub fn has_file(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    /// Maps the CPU engine's weights.
    ///
    /// # Errors
    /// [`FormatError::Missing`] when the engine is not a CPU engine; see [`WeightsFile::open`].
    pub fn weights(&self) -> Result<WeightsFile> {
        let path = self.path.join(WEIGHTS_FILE);
        if !self.has_file(WEIGHTS_FILE) {
            let hint = format!("the engine was built for `{}`, not for the CPU", self.manifest.target);
            return Err(FormatError::Missing { path, hint });
        }
        WeightsFile::open(&path)
    }

    /// Reads every weight once and checks it against its hash; `progress` is called with the bytes read since its last
    /// call, and can break the reading off, which is then said.
    ///
    /// # Errors
    /// [`FormatError::Hash`] that names the first tensor which changed.
    pub fn verify(&self, mut progress: impl FnMut(u64) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let weights = self.weights()?;
        let (file, bytes) = (weights.file(), weights.file().bytes());
        let changed = |what: &str| FormatError::Hash { path: file.path().to_owned(), what: what.to_owned() };
        let mut entries: Vec<_> = weights.tensors().collect();
        entries.sort_by_key(|entry| entry.offset);
        // The zeros between tensors are in the whole file's hash only.
        let mut whole = blake3::Hasher::new();
        let mut position = 0;
        for entry in entries {
            whole.update(&bytes[position..entry.offset]);
            let mut tensor = blake3::Hasher::new();
            for chunk in weights.bytes_of(entry).chunks(VERIFY_CHUNK) {
                tensor.update(chunk);
                whole.update(chunk);
                if let Some(start) = file.offset_of(chunk) {
                    file.release(start..start + chunk.len());
                }
                if progress(chunk.len() as u64).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let recorded = self.manifest.tensors.get(&entry.name).map(String::as_str);
            if recorded != Some(tensor.finalize().to_hex().as_str()) {
                return Err(changed(&format!("tensor `{}`", entry.name)));
            }
            position = entry.offset + entry.bytes;
        }
        whole.update(&bytes[position..]);
        let recorded = self.manifest.files.get(WEIGHTS_FILE).map(|record| record.blake3.as_str());
        if recorded == Some(whole.finalize().to_hex().as_str()) {
            Ok(ControlFlow::Continue(()))
        } else {
            Err(changed("the file"))
        }
    }
}

/// The manifest that a directory of `trtllm-build`'s would have, as far as the directory tells.
fn foreign_manifest(dir: &Path) -> Result<Manifest> {
    let build = BuildConfig::read(dir)?;
    let config = dir.join(CONFIG_FILE);
    let config = std::fs::read(&config).map_err(FormatError::io("read", &config))?;
    let files = read_companions(dir)?.into_iter().chain([(CONFIG_FILE.to_owned(), config)]);
    let files = files.map(|(name, content)| (name, FileRecord::of(&content))).collect();
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        created_by: "trtllm-build".to_owned(),
        target: FOREIGN_TARGET.to_owned(),
        model: String::new(),
        versions: BTreeMap::from([("tensorrt_llm".to_owned(), build.version)]),
        limits: build.limits,
        attention_window: None,
        files,
        tensors: BTreeMap::new(),
    })
}

/// Tells an error about the version of an engine's file what the engine was built from, which the file does not know.
fn with_model(error: FormatError, manifest: &Manifest) -> FormatError {
    match error {
        FormatError::Version { path, found, expected, .. } => {
            let rebuild = Rebuild::new(&path, Some(&manifest.model), Some(&manifest.target), manifest.weights());
            FormatError::Version { path, found, expected, rebuild }
        }
        other => other,
    }
}

/// Checks one file's size and hash; of the weights file only its head's.
fn check_file(path: &Path, record: &FileRecord) -> Result<()> {
    let hint = || "`engine.json` lists it: copy the engine directory again or build it again".to_owned();
    let found = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(FormatError::Missing { path: path.to_owned(), hint: hint() });
        }
        Err(error) => return Err(FormatError::io("read", path)(error)),
    };
    if found != record.bytes {
        return Err(FormatError::FileSize { path: path.to_owned(), expected: record.bytes, found });
    }
    // TensorRT checks its engines, which are gigabytes long, when it loads them.
    if path.extension().is_some_and(|extension| extension == "engine") {
        return Ok(());
    }
    let (matches, what) = match &record.head_blake3 {
        Some(head_hash) => (*head_hash == hash(WeightsFile::open(path)?.head()), "the header"),
        None => {
            let content = std::fs::read(path).map_err(FormatError::io("read", path))?;
            (record.blake3 == hash(&content), "the file")
        }
    };
    if matches { Ok(()) } else { Err(FormatError::Hash { path: path.to_owned(), what: what.into() }) }
}
