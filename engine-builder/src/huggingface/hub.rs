//! What `--model` names: a directory, or a model of the Hugging Face hub, in the local cache or fetched into it.

#[cfg(feature = "download")]
mod download;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use engine_format::json;
use engine_format::safetensors_dir::{INDEX_FILE, SINGLE_FILE};

use super::config::CONFIG_FILE;
use crate::error::{BuildError, Result};
use crate::lookalike;
use crate::progress::{Interrupt, Progress};
use crate::source::Kind;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Finds the directory that `model` names: itself, or `org/name` in the local Hugging Face cache. With `download`, what
/// the cache lacks is fetched into it.
///
/// # Errors
/// [`BuildError::NoModel`] that says what was tried, [`BuildError::Hub`], [`BuildError::Interrupted`].
pub fn resolve(
    model: &Path,
    need: Need,
    download: bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    Hub::from_env().resolve(model, need, download, progress, interrupt)
}

/// What of a model of the hub is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `config.json`: a plan is made of it alone.
    Config,
    /// All that a build reads.
    Everything,
}

/// A server of models and the local cache of what it served. Not `Debug`, so that no log ever shows the token.
#[derive(Clone)]
pub struct Hub {
    /// The cache directory, which holds `models--org--name` directories.
    pub cache: PathBuf,
    /// The server.
    pub endpoint: String,
    /// What to show the server for models that are not public.
    pub token: Option<String>,
    /// Whether the server may not be asked.
    pub offline: bool,
}

impl Hub {
    /// The places that the Hugging Face libraries use: `HF_HUB_CACHE` (or, by its older name, `HUGGINGFACE_HUB_CACHE`), else
    /// `hub` in `HF_HOME`, else in `XDG_CACHE_HOME/huggingface`, else in `~/.cache/huggingface`; `HF_ENDPOINT`; `HF_TOKEN`, else
    /// the file `token` beside the cache. `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` set to 1, ON, YES or TRUE forbid to ask
    /// the server.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = variable("HF_HOME").map_or_else(
            || {
                let caches = variable("XDG_CACHE_HOME")
                    .map_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache"), PathBuf::from);
                caches.join("huggingface")
            },
            PathBuf::from,
        );
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let is_on =
            |name| text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()));
        let saved_token = || std::fs::read_to_string(home.join("token")).ok();
        let token = text("HF_TOKEN").or_else(saved_token);
        Self {
            cache: variable("HF_HUB_CACHE")
                .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
                .map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_on),
        }
    }

    /// As the function [`resolve`].
    ///
    /// # Errors
    /// As the function [`resolve`].
    pub fn resolve(
        &self,
        model: &Path,
        need: Need,
        download: bool,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<PathBuf> {
        if model.is_dir() || Kind::of_single_file(model)?.is_some() {
            return Ok(model.to_owned());
        }
        let nothing = |tried: String| BuildError::NoModel { model: model.to_owned(), tried };
        if let Some(what) = lookalike::describe(model) {
            return Err(nothing(what));
        }
        let Some(model) = model.to_str().filter(|model| is_model_id(model)) else {
            return Err(nothing(
                "there is no such file or directory, and it is not an `org/name` of the Hugging Face hub".into(),
            ));
        };
        let cached = self.cached(model);
        let suffices = |snapshot: &Path| match need {
            Need::Config => snapshot.join(CONFIG_FILE).is_file(),
            Need::Everything => is_complete(snapshot),
        };
        if let Some(snapshot) = cached.as_deref().filter(|snapshot| suffices(snapshot)) {
            return Ok(snapshot.to_owned());
        }
        if download && self.offline {
            return Err(nothing(
                "it is not whole in the Hugging Face cache, and HF_HUB_OFFLINE forbids to fetch it".into(),
            ));
        }
        if download {
            #[cfg(feature = "download")]
            return download::download(self, model, need, progress, interrupt);
            #[cfg(not(feature = "download"))]
            let _ = (progress, interrupt);
            #[cfg(not(feature = "download"))]
            return Err(nothing("it is not in the Hugging Face cache, and this build cannot fetch models".into()));
        }
        let cache = self.cache.display();
        Err(nothing(match cached {
            Some(_) => format!(
                "there is no such file or directory, and the Hugging Face cache `{cache}` holds only a part of it; set `download` to fetch the rest"
            ),
            None => format!(
                "there is no such file or directory, and it is not in the Hugging Face cache `{cache}`; set `download` to fetch it"
            ),
        }))
    }

    /// The snapshot that the cache's branch `main` of the model points to. Where the cache knows no branches, as when it was
    /// copied or a revision was fetched by its hash: a whole snapshot, the latest of several.
    fn cached(&self, model: &str) -> Option<PathBuf> {
        let repository = self.cache.join(format!("models--{}", model.replace('/', "--")));
        let snapshots = repository.join("snapshots");
        if let Ok(revision) = std::fs::read_to_string(repository.join("refs/main")) {
            let snapshot = snapshots.join(revision.trim());
            return snapshot.is_dir().then_some(snapshot);
        }
        let found = std::fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path());
        let age =
            |snapshot: &PathBuf| (is_complete(snapshot), std::fs::metadata(snapshot).and_then(|m| m.modified()).ok());
        found.filter(|snapshot| snapshot.is_dir()).max_by_key(age)
    }
}

/// Whether the text can be an `org/name` of the hub.
fn is_model_id(model: &str) -> bool {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !name.is_empty() && name.len() <= 96 && !name.starts_with('.') && name.chars().all(allowed)
    };
    model.split_once('/').is_some_and(|(organisation, name)| is_name(organisation) && is_name(name))
}

/// Whether a snapshot has what a build needs; links to files that are not there count as absent.
fn is_complete(snapshot: &Path) -> bool {
    let has = |name: &str| snapshot.join(name).is_file();
    let index = snapshot.join(INDEX_FILE);
    has(CONFIG_FILE)
        && if index.is_file() {
            shards(&index).is_ok_and(|names| names.iter().all(|name| has(name)))
        } else {
            has(SINGLE_FILE)
        }
}

/// The shards that an index names, as far as they are plain file names: the rest is refused when the model is opened.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let value = json::read_file(index, "")?;
    let files = value.get("weight_map").and_then(|map| map.as_object());
    let names = files.into_iter().flat_map(|map| map.values());
    Ok(names
        .filter_map(|name| name.as_str())
        .filter(|name| !name.contains('/') && name.ends_with(".safetensors"))
        .map(str::to_owned)
        .collect())
}
