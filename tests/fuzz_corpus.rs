//! Replays the corpus of every fuzz target through the functions that the targets call.
//!
//! A file called `valid-…` has to be accepted and one called `refused-…`, which lies in the way that its name says, has
//! to be refused. Any other file was found by the fuzzer and may be either.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check that fails is a test that fails")]

use std::path::{Path, PathBuf};

#[allow(unreachable_pub, reason = "a library for the fuzz targets, a module here")]
#[path = "../fuzz/src/lib.rs"]
mod readers;

type Reader = fn(&[u8]) -> trtllm::engine_format::Result<()>;

const READERS: [(&str, Reader); 9] = [
    ("gguf", readers::gguf),
    ("torch_checkpoint", readers::torch_checkpoint),
    ("nemo_config", readers::nemo_config),
    ("safetensors_header", readers::safetensors_header),
    ("model_config", readers::model_config),
    ("checkpoint_config", readers::checkpoint_config),
    ("weights_head", readers::weights_head),
    ("manifest", readers::manifest),
    ("lora_config", readers::lora_config),
];

/// Those that need the server, whose tests replay them (`server/tests/promises/fuzz.rs`).
const OF_SERVER: [&str; 4] = ["chat_body", "completions_body", "generate_body", "sse_event"];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn every_reader_does_as_the_name_of_a_corpus_file_says() {
    for (target, reader) in READERS {
        let (mut valid, mut refused) = (0, 0);
        for path in entries(&fuzz().join("corpus").join(target)) {
            let outcome = reader(&std::fs::read(&path).unwrap());
            if name(&path).starts_with("valid-") {
                assert!(outcome.is_ok(), "{}: {outcome:?}", path.display());
                valid += 1;
            } else if name(&path).starts_with("refused-") {
                assert!(outcome.is_err(), "{} was accepted", path.display());
                refused += 1;
            }
        }
        assert!(valid > 0 && refused > 0, "{target}: {valid} valid files, {refused} to be refused");
    }
}

#[test]
fn every_fuzz_target_is_replayed() {
    let mut replayed: Vec<_> = READERS.into_iter().map(|(target, _)| target).chain(OF_SERVER).collect();
    replayed.sort_unstable();
    let (targets, corpora) = (entries(&fuzz().join("fuzz_targets")), entries(&fuzz().join("corpus")));
    assert_eq!(targets.iter().map(|path| name(path)).collect::<Vec<_>>(), replayed);
    assert_eq!(corpora.iter().map(|path| name(path)).collect::<Vec<_>>(), replayed);
}
