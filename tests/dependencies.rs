//! What depends on what: the table in ARCHITECTURE.md, and what the library leaves to the programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that is broken is a test that fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The packages that a package brings, itself included, as `name version`.
fn tree(package: &str, options: &[&str]) -> BTreeSet<String> {
    let common = ["tree", "-e", "normal", "--prefix", "none", "--format", "{p}", "-p", package];
    let packages = cargo(&[&common, options].concat());
    packages.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_library_brings_nothing_for_terminals_and_plots() {
    let library = tree("trtllm", &["--no-default-features"]);
    assert!(library.iter().any(|package| package.starts_with("engine-format ")), "{library:?}");
    for name in ["clap", "indicatif", "plotters", "png", "signal-hook", "rustyline", "console", "tokio", "hyper"] {
        assert!(!library.iter().any(|package| package.split(' ').next() == Some(name)), "the library brings {name}");
    }
}

#[test]
fn only_the_server_brings_an_asynchronous_runtime() {
    let brings = |package: &str| tree(package, &[]).iter().any(|package| package.starts_with("tokio "));
    assert!(brings("server"));
    for package in ["runner", "text", "args", "programs", "engine-builder"] {
        assert!(!brings(package), "{package} brings tokio");
    }
}

#[test]
fn the_feature_download_brings_the_hub_and_no_more() {
    let (without, with) = (tree("trtllm", &["--no-default-features"]), tree("trtllm", &[]));
    let hub = tree("hf-hub", &[]);
    assert!(with.iter().any(|package| package.starts_with("hf-hub ")));
    assert!(without.is_subset(&with));
    let more: Vec<_> = with.difference(&without).filter(|package| !hub.contains(*package)).collect();
    assert!(more.is_empty(), "the feature `download` brings what hf-hub does not need: {more:?}");
}

/// A crate of the workspace.
#[derive(Debug, PartialEq, Eq)]
struct Crate {
    /// The crates of the workspace that it depends on.
    ours: BTreeSet<String>,
    /// Lines of Rust under `src/`, without bindings.
    lines: usize,
}

fn crates() -> BTreeMap<String, Crate> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let read = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // A kind is `dev` or `build`; ours have a path.
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string());
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let name = package["name"].as_str().unwrap().to_owned();
        let ours = normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (name, Crate { ours, lines: lines(&manifest.with_file_name("src")) })
    };
    metadata["packages"].as_array().unwrap().iter().map(read).collect()
}

fn lines(folder: &Path) -> usize {
    let lines_of = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => lines(&path),
        Some(extension) if extension == "rs" && !path.ends_with("bindings.rs") => {
            std::fs::read_to_string(path).unwrap().lines().count()
        }
        _ => 0,
    };
    std::fs::read_dir(folder).unwrap().map(|entry| lines_of(entry.unwrap().path())).sum()
}

/// The table under "Crates" in ARCHITECTURE.md.
fn table() -> BTreeMap<String, Crate> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) =
        page.split_once("\n## Crates\n").unwrap_or_else(|| panic!("ARCHITECTURE.md has no section `Crates`"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = section.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let read = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = names(cells[1]).pop_first().unwrap();
        let lines = cells[2].replace(',', "").parse().unwrap_or_else(|_| panic!("{name}: `{}` is no number", cells[2]));
        (name, Crate { ours: names(cells[3]), lines })
    };
    rows.map(read).collect()
}

#[test]
fn the_table_of_crates_is_true() {
    let (said, found) = (table(), crates());
    assert_eq!(
        said.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>(),
        "the crates of ARCHITECTURE.md's table"
    );
    for (name, found) in found {
        let said = &said[&name];
        assert_eq!(said.ours, found.ours, "what `{name}` depends on: ARCHITECTURE.md's table, and Cargo.toml");
        let (low, high) = (found.lines * 9 / 10, found.lines * 11 / 10);
        let lines = said.lines;
        assert!((low..=high).contains(&lines), "`{name}` has {} lines, ARCHITECTURE.md says {lines}", found.lines);
    }
}
