//! What `--model` names: a directory, or a model of the Hugging Face hub, in the local cache or fetched into it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use engine_format::engine_dir::COMPANION_FILES;
use engine_format::json;
use engine_format::safetensors_dir::{INDEX_FILE, SINGLE_FILE};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};

use super::config::CONFIG_FILE;
use crate::error::{BuildError, Result};
use crate::progress::{Interrupt, Progress};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Finds the directory that `model` names: itself, or `org/name` in the local Hugging Face cache. With `download`, what
/// the cache lacks is fetched into it.
///
/// # Errors
/// [`BuildError::NoModel`] that says what was tried, [`BuildError::Hub`], [`BuildError::Interrupted`].
pub fn resolve(model: &str, download: bool, progress: &dyn Progress, interrupt: &Interrupt) -> Result<PathBuf> {
    Hub::from_env().resolve(model, download, progress, interrupt)
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
}

impl Hub {
    /// The places that the Hugging Face libraries use: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in
    /// `XDG_CACHE_HOME/huggingface`, else in `~/.cache/huggingface`; `HF_ENDPOINT`; `HF_TOKEN`, else the file `token`
    /// beside the cache.
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
        let saved_token = || std::fs::read_to_string(home.join("token")).ok();
        let token = text("HF_TOKEN").or_else(saved_token);
        Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
        }
    }

    /// As the function [`resolve`].
    ///
    /// # Errors
    /// As the function [`resolve`].
    pub fn resolve(
        &self,
        model: &str,
        download: bool,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        let nothing = |tried: String| BuildError::NoModel { model: model.to_owned(), tried };
        if path.exists() {
            return Err(nothing(
                "it is a file; give the directory that holds `config.json` and the safetensors files".into(),
            ));
        }
        if !is_model_id(model) {
            return Err(nothing(
                "there is no such directory, and it is not an `org/name` of the Hugging Face hub".into(),
            ));
        }
        let cached = self.cached(model);
        if let Some(snapshot) = cached.as_deref().filter(|snapshot| is_complete(snapshot)) {
            return Ok(snapshot.to_owned());
        }
        if download {
            return self.download(model, progress, interrupt);
        }
        let cache = self.cache.display();
        Err(nothing(match cached {
            Some(_) => format!(
                "there is no such directory, and the Hugging Face cache `{cache}` holds only a part of it; add `--download` to fetch the rest"
            ),
            None => format!(
                "there is no such directory, and it is not in the Hugging Face cache `{cache}`; add `--download` to fetch it"
            ),
        }))
    }

    /// The snapshot that the cache's branch `main` of the model points to.
    fn cached(&self, model: &str) -> Option<PathBuf> {
        let repository = self.cache.join(format!("models--{}", model.replace('/', "--")));
        let revision = std::fs::read_to_string(repository.join("refs/main")).ok()?;
        let snapshot = repository.join("snapshots").join(revision.trim());
        snapshot.is_dir().then_some(snapshot)
    }

    fn download(&self, model: &str, progress: &dyn Progress, interrupt: &Interrupt) -> Result<PathBuf> {
        let failed = |file: &str, problem: String| BuildError::Hub {
            model: model.to_owned(),
            file: file.to_owned(),
            endpoint: self.endpoint.clone(),
            problem,
        };
        // The library makes links relative to the cache, which takes an absolute path.
        let cache = std::path::absolute(&self.cache).map_err(|error| failed("the list of files", error.to_string()))?;
        let api = ApiBuilder::new()
            .with_cache_dir(cache)
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(3)
            .build()
            .map_err(|error| failed("the list of files", explain(&error)))?;
        let listed = api.model(model.to_owned()).info();
        let listed = listed.map_err(|error| failed("the list of files", explain(&error)))?;
        let has = |name: &str| listed.siblings.iter().any(|file| file.rfilename == name);
        let fetch = |name: &str| fetch(&api, model, name, progress, interrupt, &failed);

        let config = fetch(CONFIG_FILE)?;
        let weights = if has(INDEX_FILE) {
            shards(&fetch(INDEX_FILE)?)?
        } else if has(SINGLE_FILE) {
            BTreeSet::from([SINGLE_FILE.to_owned()])
        } else {
            let problem = format!("the model has neither `{SINGLE_FILE}` nor `{INDEX_FILE}`");
            return Err(failed(SINGLE_FILE, problem));
        };
        let companions = COMPANION_FILES.into_iter().filter(|name| has(name));
        for name in companions.chain(weights.iter().map(String::as_str)) {
            if fetch(name)?.parent() != config.parent() {
                let problem = "the model changed on the server meanwhile; try again".to_owned();
                return Err(failed(name, problem));
            }
        }
        let snapshot = config.parent();
        snapshot.map(Path::to_owned).ok_or_else(|| failed(CONFIG_FILE, "the cache has no place for it".into()))
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

/// What a download reports from its thread.
enum Event {
    Size(u64),
    Bytes(u64),
    Done(Result<PathBuf, ApiError>),
}

/// Passes what the library says on.
struct Reporter {
    events: Sender<Event>,
    started: bool,
}

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _filename: &str) {
        // Called again for every retry.
        if !self.started {
            self.started = true;
            let _ = self.events.send(Event::Size(size as u64));
        }
    }

    fn update(&mut self, size: usize) {
        let _ = self.events.send(Event::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}

/// Fetches one file into the cache unless it is there. The download runs in a thread of its own, which is left behind
/// when the user interrupts; the library goes on from the partial file the next time.
fn fetch(
    api: &Api,
    model: &str,
    name: &str,
    progress: &dyn Progress,
    interrupt: &Interrupt,
    failed: &dyn Fn(&str, String) -> BuildError,
) -> Result<PathBuf> {
    interrupt.check()?;
    let repository = api.model(model.to_owned());
    let (events, reports) = mpsc::channel();
    let file = name.to_owned();
    std::thread::spawn(move || {
        let reporter = Reporter { events: events.clone(), started: false };
        let result = repository.download_with_progress(&file, reporter);
        let _ = events.send(Event::Done(result));
    });
    let mut size = None;
    let result = loop {
        match reports.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Size(bytes)) => {
                size = Some(bytes);
                progress.begin(&format!("downloading {name}"), bytes);
            }
            Ok(Event::Bytes(bytes)) => progress.advance(bytes),
            Ok(Event::Done(result)) => break result.map_err(|error| failed(name, explain(&error))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Err(failed(name, "the download stopped unexpectedly".into()));
            }
        }
        if let Err(interrupted) = interrupt.check() {
            break Err(interrupted);
        }
    };
    if size.is_some() {
        progress.end();
    }
    let path = result?;
    // The library does not notice a connection that ends early.
    let found = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if let Some(expected) = size.filter(|&size| size != found) {
        let _ = std::fs::canonicalize(&path).and_then(std::fs::remove_file);
        let _ = std::fs::remove_file(&path);
        let problem = format!("it ended after {found} of {expected} bytes; try again");
        return Err(failed(name, problem));
    }
    Ok(path)
}

/// The library's error as a sentence with advice.
fn explain(error: &ApiError) -> String {
    let text = error.to_string();
    let advice = if text.contains("401") || text.contains("403") {
        "the model does not exist, or is not public: accept its licence on its page and set HF_TOKEN to a token of yours"
    } else if text.contains("404") {
        "the server has no such model or file"
    } else if matches!(error, ApiError::RequestError(_)) {
        "check the network, or copy the model's directory here and name it with --model"
    } else {
        return text;
    };
    format!("{text} ({advice})")
}
