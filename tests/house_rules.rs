//! Rules of the house that no compiler checks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that is broken is a test that fails")]

use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;
const MEDIAN_LINES: usize = 200;

/// Extensions of what is compiled.
const LANGUAGES: [&str; 6] = ["rs", "c", "cc", "cpp", "h", "hpp"];

/// Lines above an `unsafe` block in which its `SAFETY` comment may begin or end.
const COMMENT_REACH: usize = 3;

/// A source file, with its path from the root.
struct Source {
    path: String,
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file that is written by people.
fn rust_files() -> Vec<Source> {
    files(&["rs"])
}

/// Every file of these extensions that is written by people: all but build outputs, hidden folders, and what bindgen and
/// cbindgen made.
fn files(extensions: &[&str]) -> Vec<Source> {
    let (mut folders, mut files) = (vec![root().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || name.starts_with('.') || name == "target" {
                continue;
            }
            let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension.as_str()))
                && name != "bindings.rs"
                && path != root().join("include/trtllm.h")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(read).collect()
}

fn read(path: &PathBuf) -> Source {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).unwrap().display().to_string();
    Source { path, lines: text.lines().map(str::to_owned).collect() }
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_crate_is_looked_at() {
    let files = rust_files();
    let crates = [
        "args",
        "cpu-kernels",
        "engine-builder",
        "engine-format",
        "programs",
        "runner",
        "server",
        "system",
        "text",
        "trtllm-sys",
    ];
    for folder in crates.into_iter().chain(["src", "tests", "fuzz"]) {
        assert!(files.iter().any(|file| file.path.starts_with(&format!("{folder}/"))), "no file of {folder}");
    }
}

#[test]
fn files_are_short() {
    // Whoever includes it wants one header.
    let exempt = "include/trtllm.hpp";
    let files = files(&LANGUAGES);
    let long: Vec<_> = files
        .iter()
        .filter(|file| file.lines.len() > MAX_LINES && file.path != exempt)
        .map(|file| format!("{}: {} lines, at most {MAX_LINES}: give each idea a file", file.path, file.lines.len()))
        .collect();
    assert_none(&long);
    let mut lengths: Vec<_> = files.iter().map(|file| file.lines.len()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < MEDIAN_LINES, "half of the files have {median} lines or more; the aim is under {MEDIAN_LINES}");
}

#[test]
fn libraries_print_nothing_and_leave_signals_alone() {
    let crates =
        ["engine-format", "cpu-kernels", "trtllm-sys", "trtllm-sys/gpu", "text", "engine-builder", "runner", "system"];
    let folders: Vec<_> = crates.iter().map(|name| format!("{name}/src/")).chain(["src/".to_owned()]).collect();
    let words = ["print!", "println!", "eprint!", "eprintln!", "io::stdout", "io::stderr", "stdout()", "stderr()"];
    // What NVIDIA's libraries did to a host's handlers is undone there.
    let puts_back = "trtllm-sys/src/signals.rs";
    let signals = ["ctrlc", "signal_hook", "sigaction", "libc::signal"];
    let mut found = Vec::new();
    // Files of tests say what they leave out.
    let is_library = |file: &&Source| {
        folders.iter().any(|folder| file.path.starts_with(folder)) && !file.path.ends_with("/tests.rs")
    };
    for file in rust_files().iter().filter(is_library) {
        for (number, line) in file.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // To ignore a signal is no handler; programs ask for it at their start.
            let signals = signals.iter().filter(|_| !code.contains("SIG_IGN") && file.path != puts_back);
            if let Some(word) = words.iter().chain(signals).find(|word| has_word(code, word)) {
                found.push(format!("{}:{}: {word} in a library", file.path, number + 1));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn what_git_ignores_is_not_copied_into_an_image() {
    let read =
        |name: &str| std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let ignored = read(".dockerignore");
    let ignored: Vec<_> = ignored.lines().collect();
    // Git's patterns are of every folder, unless they begin with a slash.
    let as_docker = |line: &str| match line.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None => format!("**/{}", line.trim_end_matches('/')),
    };
    let copied: Vec<_> =
        read(".gitignore").lines().map(as_docker).filter(|line| !ignored.contains(&line.as_str())).collect();
    assert_none(&copied);
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in two parts, so that this file passes its own rule.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["todo", "!"], ["unimplemented", "!"]].map(|word| word.concat());
    let mut found = Vec::new();
    for file in rust_files() {
        for (number, line) in file.lines.iter().enumerate() {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    assert_none(&found);
}

/// Whether `word` stands in `line` and is not the end of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        let ends = word.ends_with('!') || !after.starts_with(is_letter);
        !before.ends_with(is_letter) && ends
    })
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut bare = Vec::new();
    let mut blocks = 0;
    for file in rust_files() {
        for number in 0..file.lines.len() {
            let code = file.lines[number].split("//").next().unwrap_or_default();
            // What opens here is a block; functions and traits have a `# Safety` section, which Clippy asks for.
            if !has_word(code, "unsafe")
                || !(code.contains("unsafe {") || code.contains("unsafe impl"))
                || in_text(code)
            {
                continue;
            }
            blocks += 1;
            if !is_explained(&file.lines, number) {
                bare.push(format!("{}:{}: no SAFETY comment above it", file.path, number + 1));
            }
        }
    }
    assert!(blocks > 0, "the walk finds no unsafe block, though there are some");
    assert_none(&bare);
}

/// Whether the line's `unsafe` stands in a string, as in this file.
fn in_text(code: &str) -> bool {
    code.find("unsafe").is_some_and(|start| code[..start].matches('"').count() % 2 == 1)
}

/// A comment with `SAFETY:` ends at most [`COMMENT_REACH`] lines above the block.
fn is_explained(lines: &[String], block: usize) -> bool {
    let is_comment = |line: &String| line.trim_start().starts_with("//");
    let nearest = (block.saturating_sub(COMMENT_REACH)..block).rev().find(|&number| is_comment(&lines[number]));
    let Some(end) = nearest else {
        return lines[block].contains("// SAFETY:");
    };
    lines[..=end].iter().rev().take_while(|line| is_comment(line)).any(|line| line.contains("SAFETY:"))
}

#[test]
fn the_readme_names_the_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["scripts/quickstart", "scripts/test"] {
        assert!(readme.contains(command), "README.md does not name {command}");
        assert!(root().join(command).is_file(), "{command} is missing");
    }
}

#[test]
fn dependencies_are_locked() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        assert!(root().join(lock).is_file(), "{lock} is missing");
    }
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap();
    assert!(!ignored.lines().any(|line| line.contains("Cargo.lock")), ".gitignore keeps Cargo.lock out");
}
