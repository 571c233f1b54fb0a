//! Fetching a model from the hub into the local cache, through the crate hf-hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use engine_format::engine_dir::is_companion;
use engine_format::safetensors_dir::{INDEX_FILE, SINGLE_FILE};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};

use super::{Hub, Need, shards};
use crate::error::{BuildError, Result};
use crate::huggingface::config::CONFIG_FILE;
use crate::progress::{Interrupt, Progress};

/// Fetches what is needed of a model of `hub` into the cache: the configuration, the tokenizer's files and the weights, or the
/// first of them. The snapshot's directory.
///
/// # Errors
/// [`BuildError::Hub`], [`BuildError::Interrupted`].
pub(super) fn download(
    hub: &Hub,
    model: &str,
    need: Need,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let failed = |file: &str, problem: String| BuildError::Hub {
        model: model.to_owned(),
        file: file.to_owned(),
        endpoint: hub.endpoint.clone(),
        problem,
    };
    // The library makes links relative to the cache, which takes an absolute path.
    let cache = std::path::absolute(&hub.cache).map_err(|error| failed("the list of files", error.to_string()))?;
    let api = ApiBuilder::new()
        .with_cache_dir(cache)
        .with_endpoint(hub.endpoint.clone())
        .with_token(hub.token.clone())
        .with_progress(false)
        .with_retries(3)
        .build()
        .map_err(|error| failed("the list of files", explain(&error)))?;
    let listed = api.model(model.to_owned()).info();
    let listed = listed.map_err(|error| failed("the list of files", explain(&error)))?;
    let has = |name: &str| listed.siblings.iter().any(|file| file.rfilename == name);
    let fetch = |name: &str| fetch(&api, model, name, progress, interrupt, &failed);

    let config = fetch(CONFIG_FILE)?;
    let snapshot = config
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| failed(CONFIG_FILE, "the cache has no place for it".into()))?;
    if need == Need::Config {
        return Ok(snapshot);
    }
    let weights = if has(INDEX_FILE) {
        shards(&fetch(INDEX_FILE)?)?
    } else if has(SINGLE_FILE) {
        BTreeSet::from([SINGLE_FILE.to_owned()])
    } else {
        let problem = format!("the model has neither `{SINGLE_FILE}` nor `{INDEX_FILE}`");
        return Err(failed(SINGLE_FILE, problem));
    };
    let companions = listed.siblings.iter().map(|file| file.rfilename.as_str()).filter(|name| is_companion(name));
    for name in companions.chain(weights.iter().map(String::as_str)) {
        if fetch(name)? != snapshot.join(name) {
            let problem = "the model changed on the server meanwhile; try again".to_owned();
            return Err(failed(name, problem));
        }
    }
    Ok(snapshot)
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
    let fetch = move || {
        let reporter = Reporter { events: events.clone(), started: false };
        let result = repository.download_with_progress(&file, reporter);
        let _ = events.send(Event::Done(result));
    };
    let no_thread = |error| failed(name, format!("no thread can be started: {error}"));
    system::threads::spawn("trtllm-fetch", fetch).map_err(no_thread)?;
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
        "check the network, or copy the model's directory here and name that as the `model`"
    } else {
        return text;
    };
    format!("{text} ({advice})")
}
