//! `engine.json`: who made an engine, from what, for what, with which limits, and a BLAKE3 hash of everything in it.
//!
//! The file ends with a hash of itself: its own bytes with the 64 digits of that hash replaced by zeros.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::engine_dir::is_companion;
use crate::error::{FormatError, Result};
use crate::json::MAX_TOKENS;
use crate::rebuild::Rebuild;

/// Name of the manifest inside an engine directory.
pub const MANIFEST_FILE: &str = "engine.json";

/// The version of the engine directory that this program writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// The release of TensorRT-LLM whose checkpoint and `config.json` schema is written.
pub const TENSORRT_LLM_SCHEMA: &str = "1.2.1";

const SELF_HASH: &str = "\"self_blake3\": \"";
const HASH_DIGITS: usize = 64;

/// Content of `engine.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u64,
    /// The program that built the engine, with its version.
    pub created_by: String,
    /// The target that it was built for, as `--gpu` names it.
    pub target: String,
    /// The model that it was built from, as the user named it.
    pub model: String,
    /// Versions of the libraries that took part (`tensorrt_llm_schema`, …).
    pub versions: BTreeMap<String, String>,
    /// Limits that a run may lower but not raise.
    pub limits: Limits,
    /// Sliding attention window in tokens; null for full attention.
    pub attention_window: Option<usize>,
    /// Every other file of the directory.
    pub files: BTreeMap<String, FileRecord>,
    /// BLAKE3 of each weight tensor's bytes in the weights file, by TensorRT-LLM's name.
    pub tensors: BTreeMap<String, String>,
}

/// Limits of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tokens of one sequence, prompt included.
    pub max_seq_len: usize,
    /// Sequences in one step.
    pub max_batch_size: usize,
    /// Tokens in one step.
    pub max_num_tokens: usize,
}

/// Size and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file, in hexadecimal.
    pub blake3: String,
    /// For the weights file: BLAKE3 of its head, which is checked at every open; the whole file's only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_blake3: Option<String>,
}

impl FileRecord {
    /// The record of a file with this content.
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, blake3: hash(content), head_blake3: None }
    }
}

/// BLAKE3 in hexadecimal.
pub fn hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

impl Manifest {
    /// What the matrices of a CPU engine are stored as, as it was recorded; `None` of engines older than the choice.
    pub fn weights(&self) -> Option<&str> {
        self.versions.get("weights").map(String::as_str)
    }

    /// The file's bytes, ending with the hash of themselves.
    ///
    /// # Errors
    /// [`FormatError::Json`], which these types cannot cause.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let json = |source| FormatError::Json { path: path.to_owned(), source };
        let mut text = serde_json::to_string_pretty(self).map_err(json)?;
        text.truncate(text.strip_suffix("\n}").map_or(text.len(), str::len));
        let tail = format!(",\n  {SELF_HASH}{}\"\n}}\n", "0".repeat(HASH_DIGITS));
        text.push_str(&tail);
        let digits = hash(text.as_bytes());
        let start = text.len() - tail.len() + tail.find('0').unwrap_or(0);
        text.replace_range(start..start + HASH_DIGITS, &digits);
        Ok(text.into_bytes())
    }

    /// Parses and checks `bytes`, the content of the file at `path`.
    ///
    /// # Errors
    /// [`FormatError::Version`] first, then [`FormatError::Hash`], then [`FormatError::Json`], then
    /// [`FormatError::Field`] for a limit that nothing can run under or a file outside the directory.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let json = |source| FormatError::Json { path: path.to_owned(), source };
        let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        let version = value.get("format_version").and_then(serde_json::Value::as_u64);
        match version {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                let text = |pointer| value.pointer(pointer).and_then(serde_json::Value::as_str);
                let rebuild = Rebuild::new(path, text("/model"), text("/target"), text("/versions/weights"));
                return Err(FormatError::Version { path: path.to_owned(), found, expected: FORMAT_VERSION, rebuild });
            }
            None => {
                return Err(FormatError::field(path, "format_version", "is missing or not a whole number"));
            }
        }
        let changed = || FormatError::Hash { path: path.to_owned(), what: "the file".into() };
        let marker = bytes.windows(SELF_HASH.len()).rposition(|window| window == SELF_HASH.as_bytes());
        let start = marker.ok_or_else(changed)? + SELF_HASH.len();
        let stored = bytes.get(start..start + HASH_DIGITS).ok_or_else(changed)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..start]).update(&[b'0'; HASH_DIGITS]).update(&bytes[start + HASH_DIGITS..]);
        if hasher.finalize().to_hex().as_bytes() != stored {
            return Err(changed());
        }
        if let Some(object) = value.as_object_mut() {
            object.remove("self_blake3");
        }
        let manifest: Self = serde_json::from_value(value).map_err(json)?;
        manifest.validate(path)?;
        Ok(manifest)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let Limits { max_seq_len, max_batch_size, max_num_tokens } = self.limits;
        let limits =
            [("max_seq_len", max_seq_len), ("max_batch_size", max_batch_size), ("max_num_tokens", max_num_tokens)];
        if let Some((name, _)) = limits.into_iter().find(|&(_, limit)| limit == 0) {
            return Err(FormatError::field(path, format!("limits.{name}"), "must be at least 1, not 0"));
        }
        if max_seq_len > MAX_TOKENS {
            let problem = format!("must be at most {MAX_TOKENS}, not {max_seq_len}");
            return Err(FormatError::field(path, "limits.max_seq_len", problem));
        }
        // The files are opened and hashed: an engine may not send its reader elsewhere, to a device that never ends, say.
        let is_plain_name = |name: &str| {
            let mut components = Path::new(name).components();
            matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        };
        match self.files.keys().find(|name| !is_plain_name(name) && !is_companion(name)) {
            None => Ok(()),
            Some(name) => Err(FormatError::field(path, "files", format!("lists `{name}`, not a file beside it"))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            created_by: "build-engine 0.1.0".into(),
            target: "none".into(),
            model: "model".into(),
            versions: BTreeMap::new(),
            limits: Limits { max_seq_len: 64, max_batch_size: 4, max_num_tokens: 32 },
            attention_window: Some(16),
            files: BTreeMap::from([("config.json".to_owned(), FileRecord::of(b"{}"))]),
            tensors: BTreeMap::new(),
        }
    }

    #[test]
    fn a_manifest_round_trips() {
        let path = Path::new("engine.json");
        let bytes = sample().to_bytes(path).unwrap();
        assert_eq!(Manifest::from_bytes(path, &bytes).unwrap(), sample());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let path = Path::new("engine.json");
        let bytes = sample().to_bytes(path).unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(Manifest::from_bytes(path, &changed).is_err(), "byte {position} changed unnoticed");
        }
    }

    #[test]
    fn another_version_says_so_first() {
        let path = Path::new("engine.json");
        let mut manifest = sample();
        manifest.format_version = 7;
        let error = Manifest::from_bytes(path, &manifest.to_bytes(path).unwrap()).unwrap_err();
        assert!(matches!(error, FormatError::Version { found: 7, .. }), "{error}");
        let edited = String::from_utf8(sample().to_bytes(path).unwrap())
            .unwrap()
            .replace("\"format_version\": 1", "\"format_version\": 2");
        let error = Manifest::from_bytes(path, edited.as_bytes()).unwrap_err();
        assert!(matches!(error, FormatError::Version { found: 2, .. }), "{error}");
    }
    #[test]
    fn limits_that_nothing_runs_under_are_refused() {
        let path = Path::new("engine.json");
        let check = |change: fn(&mut Manifest), words: &[&str]| {
            let mut manifest = sample();
            change(&mut manifest);
            let error = Manifest::from_bytes(path, &manifest.to_bytes(path).unwrap()).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        check(|manifest| manifest.limits.max_num_tokens = 0, &["limits.max_num_tokens", "at least 1"]);
        check(|manifest| manifest.limits.max_batch_size = 0, &["limits.max_batch_size", "at least 1"]);
        check(|manifest| manifest.limits.max_seq_len = 1 << 31, &["limits.max_seq_len", "at most"]);
    }

    #[test]
    fn files_elsewhere_are_refused() {
        let path = Path::new("engine.json");
        for name in [
            "../config.json",
            "/dev/zero",
            "a/b",
            "..",
            ".",
            "",
            "config.json/",
            "additional_chat_templates/../x.jinja",
        ] {
            let mut manifest = sample();
            manifest.files.insert(name.to_owned(), FileRecord::of(b""));
            let error = Manifest::from_bytes(path, &manifest.to_bytes(path).unwrap()).unwrap_err().to_string();
            assert!(error.contains("`files`") && error.contains(name), "{error}");
        }
    }
}
