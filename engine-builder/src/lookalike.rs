//! What people give as a model that is none: recognised for what it is, with the next step.

use std::fs;
use std::path::Path;

use engine_format::manifest::MANIFEST_FILE;
use engine_format::safetensors_dir::SINGLE_FILE;
use engine_format::{ForeignFile, FormatError};

use crate::huggingface::config::CONFIG_FILE;

/// What `path` is instead of a model directory with `config.json` and safetensors files, and what to do; the end of a sentence
/// about it. `None` where it is not known.
pub(crate) fn describe(path: &Path) -> Option<String> {
    if path.is_file() {
        return Some(file(path));
    }
    let mut names: Vec<_> =
        fs::read_dir(path).ok()?.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    let has = |name: &str| names.iter().any(|other| other == name);
    let first = |start: &str, end: &str| names.iter().find(|name| name.starts_with(start) && name.ends_with(end));
    let shown = |name: &str| path.join(name).display().to_string();
    if has(MANIFEST_FILE) {
        return Some(format!(
            "it is an engine: run it with `run-engine --engine {}`, or give the model that it was built from",
            path.display()
        ));
    }
    if has("snapshots") {
        let snapshots = path.join("snapshots");
        let snapshot = fs::read_dir(&snapshots).ok()?.flatten().next()?;
        return Some(format!("it is a model's folder in the Hugging Face cache: give `{}`", snapshot.path().display()));
    }
    if has("adapter_config.json") {
        return Some("it is a LoRA adapter: build the model that it adapts, and give the adapter to requests".into());
    }
    if let Some(name) = first("pytorch_model", ".bin").or_else(|| first("pytorch_model", ".bin.index.json")) {
        return Some(format!(
            "it holds `{name}`, PyTorch's pickled weights: convert them with Transformers, `{CONVERT}`"
        ));
    }
    if has("params.json") && first("consolidated", "").is_some() {
        let whose = if first("consolidated", ".pth").is_some() { "Meta's" } else { "Mistral's" };
        return Some(format!(
            "it is in {whose} own format (`params.json`): download the files of Transformers' format (`{CONFIG_FILE}`, `{SINGLE_FILE}` or its shards, `tokenizer.json`) from the same repository"
        ));
    }
    let mut inner = names.iter().filter(|name| path.join(name).join(CONFIG_FILE).is_file());
    match (inner.next(), inner.next()) {
        (Some(name), None) if !has(CONFIG_FILE) => Some(format!("the model may be `{}`", shown(name))),
        _ => None,
    }
}

/// The error of a model directory that lacks a file, with what the directory is instead.
pub(crate) fn explain(dir: &Path, error: FormatError) -> FormatError {
    match error {
        FormatError::Missing { path, hint } => FormatError::Missing { path, hint: describe(dir).unwrap_or(hint) },
        other => other,
    }
}

/// Python that loads a model in any format that Transformers reads and saves it as safetensors.
const CONVERT: &str = "AutoModelForCausalLM.from_pretrained(\"…\").save_pretrained(\"…\")";

fn file(path: &Path) -> String {
    const GIVE: &str = "give the directory that holds `config.json` and the safetensors files";
    let mut start = [0; 512];
    let read = fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start)).unwrap_or(0);
    match ForeignFile::recognise(&start[..read]) {
        Some(foreign) => {
            let (what, advice) = foreign.describe();
            format!("it is {what}: {advice}")
        }
        None => format!("it is a file; {GIVE}"),
    }
}
