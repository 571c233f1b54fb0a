//! Models by name: the local cache, and a server that this test runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use engine_builder::huggingface::hub::{Hub, Need};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::{BuildError, Source};

use crate::support::{Model, entries};

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

fn hub(cache: &Path, endpoint: &str) -> Hub {
    Hub { cache: cache.to_owned(), endpoint: endpoint.to_owned(), token: Some("secret".to_owned()), offline: false }
}

fn resolve(hub: &Hub, model: &str, download: bool) -> Result<std::path::PathBuf, BuildError> {
    hub.resolve(Path::new(model), Need::Everything, download, &Quiet, &Interrupt::new())
}

#[test]
fn a_directory_is_itself_and_anything_else_says_what_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let offline = hub(&cache, "http://127.0.0.1:9");
    let path = dir.path().to_str().unwrap();
    assert_eq!(resolve(&offline, path, false).unwrap(), dir.path());
    fs::write(dir.path().join("file"), "").unwrap();
    let file = dir.path().join("file");
    let cases = [
        (file.to_str().unwrap(), "it is a file"),
        ("no/such/dir", "no such file or directory"),
        ("nothing", "no such file or directory"),
        ("../up", "no such file or directory"),
        ("org/model", "`download`"),
    ];
    for (model, word) in cases {
        let error = resolve(&offline, model, false).unwrap_err();
        assert!(matches!(error, BuildError::NoModel { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(word) && error.contains(model), "{error}");
    }
    let error = resolve(&offline, "org/model", true).unwrap_err();
    assert!(matches!(error, BuildError::Hub { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
}

#[test]
fn a_cached_model_is_found_and_a_partial_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("models--org--name");
    let snapshot = repository.join("snapshots").join(REVISION);
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), REVISION).unwrap();
    Model::tiny().write_shards(&snapshot);
    let offline = hub(dir.path(), "http://127.0.0.1:9");
    assert_eq!(resolve(&offline, "org/name", false).unwrap(), snapshot);
    assert_eq!(resolve(&offline, "org/name", true).unwrap(), snapshot);
    fs::remove_file(snapshot.join("model-00002-of-00002.safetensors")).unwrap();
    let error = resolve(&offline, "org/name", false).unwrap_err().to_string();
    assert!(error.contains("only a part") && error.contains("`download`"), "{error}");
}

#[test]
fn a_snapshot_without_branches_is_found_the_whole_and_latest_one() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("models--org--name/snapshots");
    let there = hub(dir.path(), "http://127.0.0.1:9");
    Model::tiny().write_shards(&snapshots.join("old"));
    assert_eq!(resolve(&there, "org/name", false).unwrap(), snapshots.join("old"));
    Model::tiny().write_shards(&snapshots.join("new"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::open(snapshots.join("new")).unwrap().set_modified(later).unwrap();
    assert_eq!(resolve(&there, "org/name", false).unwrap(), snapshots.join("new"));
    fs::remove_file(snapshots.join("new/config.json")).unwrap();
    assert_eq!(resolve(&there, "org/name", false).unwrap(), snapshots.join("old"));
}

#[test]
fn offline_the_server_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let offline = Hub { offline: true, ..hub(dir.path(), "http://127.0.0.1:9") };
    let error = resolve(&offline, "org/name", true).unwrap_err();
    assert!(matches!(error, BuildError::NoModel { .. }) && error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

/// Serves `files` of `org/name` as the hub does, until the process ends; `cut` names a file whose body is cut short.
fn serve(files: BTreeMap<String, Vec<u8>>, cut: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, files) = (stream.unwrap(), files.clone());
            std::thread::spawn(move || answer(stream, &files, cut));
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, cut: Option<&str>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let mut range = None;
    let mut is_authorized = false;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(bounds) = line.strip_prefix("range: bytes=") {
            let (first, last) = bounds.split_once('-').unwrap();
            range = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().ok()));
        }
        is_authorized |= line == "authorization: bearer secret";
    }
    let prefix = "/org/name/resolve/main/";
    let (status, headers, body) = if !is_authorized {
        ("401 Unauthorized", String::new(), Vec::new())
    } else if path.starts_with("/api/models/org/name") {
        let names: Vec<_> = files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
        let list = format!("{{\"siblings\":[{}],\"sha\":\"{REVISION}\"}}", names.join(","));
        ("200 OK", String::new(), list.into_bytes())
    } else if let Some((name, content)) = path.strip_prefix(prefix).and_then(|name| files.get_key_value(name)) {
        let (first, last) = range.unwrap();
        let end = last.map_or(content.len(), |last| last + 1).min(content.len());
        let mut body = content[first.min(end)..end].to_vec();
        let headers = format!(
            "etag: \"{}\"\r\nx-repo-commit: {REVISION}\r\ncontent-range: bytes {first}-{}/{}\r\n",
            name.replace('.', "-"),
            end.saturating_sub(1),
            content.len()
        );
        if last.is_none() && cut == Some(name.as_str()) {
            body.truncate(body.len() / 2);
        }
        ("206 Partial Content", headers, body)
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn model_files() -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    Model::tiny().write_shards(dir.path());
    fs::write(dir.path().join("tokenizer.json"), crate::support::TOKENIZER).unwrap();
    let templates = dir.path().join("additional_chat_templates");
    fs::create_dir(&templates).unwrap();
    fs::write(templates.join("rag.jinja"), "{{ messages }}").unwrap();
    fs::write(dir.path().join("consolidated.safetensors"), "not wanted").unwrap();
    fs::write(dir.path().join("README.md"), "not wanted").unwrap();
    let read = |name: String| (name.clone(), fs::read(dir.path().join(&name)).unwrap());
    let names = entries(dir.path()).into_iter().filter(|name| name != "additional_chat_templates");
    names.chain(["additional_chat_templates/rag.jinja".to_owned()]).map(read).collect()
}

#[test]
fn a_model_is_downloaded_once_and_only_what_a_build_needs() {
    let endpoint = serve(model_files(), None);
    let dir = tempfile::tempdir().unwrap();
    let path = resolve(&hub(dir.path(), &endpoint), "org/name", true).unwrap();
    assert_eq!(
        entries(&path),
        [
            "additional_chat_templates",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json"
        ]
    );
    assert_eq!(entries(&path.join("additional_chat_templates")), ["rag.jinja"]);
    Source::open(&path).unwrap();
    let offline = hub(dir.path(), "http://127.0.0.1:9");
    assert_eq!(resolve(&offline, "org/name", false).unwrap(), path);
}

#[test]
fn a_plan_needs_the_configuration_alone() {
    let endpoint = serve(model_files(), None);
    let dir = tempfile::tempdir().unwrap();
    let plan =
        |hub: &Hub, download| hub.resolve(Path::new("org/name"), Need::Config, download, &Quiet, &Interrupt::new());
    let offline = hub(dir.path(), "http://127.0.0.1:9");
    let error = plan(&offline, false).unwrap_err().to_string();
    assert!(error.contains("set `download` to fetch it"), "{error}");
    let path = plan(&hub(dir.path(), &endpoint), true).unwrap();
    assert_eq!(entries(&path), ["config.json"]);
    assert_eq!(plan(&offline, false).unwrap(), path);
    let error = resolve(&offline, "org/name", false).unwrap_err().to_string();
    assert!(error.contains("holds only a part of it; set `download` to fetch the rest"), "{error}");
    assert_eq!(resolve(&hub(dir.path(), &endpoint), "org/name", true).unwrap(), path);
    Source::open(&path).unwrap();
}

#[test]
fn a_failed_download_says_why_and_can_be_tried_again() {
    let shard = "model-00002-of-00002.safetensors";
    let dir = tempfile::tempdir().unwrap();
    let cut = serve(model_files(), Some(shard));
    let error = resolve(&hub(dir.path(), &cut), "org/name", true).unwrap_err().to_string();
    assert!(error.contains(shard) && error.contains(&cut), "{error}");
    let whole = serve(model_files(), None);
    let error = resolve(&hub(dir.path(), &whole), "org/other", true).unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
    let mut stranger = hub(dir.path(), &whole);
    stranger.token = None;
    let error = resolve(&stranger, "org/name", true).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");
    let path = resolve(&hub(dir.path(), &whole), "org/name", true).unwrap();
    Source::open(&path).unwrap();
}
