//! The fuzz targets of the server, over their corpus and over random changes of it, the same ones every time.

use std::path::{Path, PathBuf};

use server::error::ApiError;

#[allow(
    unreachable_pub,
    clippy::expect_used,
    reason = "of the fuzz targets, a module here: what does not hold is to panic"
)]
#[path = "../../../fuzz/src/http.rs"]
mod targets;

type Target = fn(&[u8]) -> Result<(), ApiError>;

const TARGETS: [(&str, Target); 4] = [
    ("completions_body", targets::completions_body),
    ("chat_body", targets::chat_body),
    ("generate_body", targets::generate_body),
    ("sse_event", targets::sse_event),
];

/// Changed inputs of each target.
const CHANGED: usize = 3000;

/// What bodies are made of, and what they are broken by.
const WORDS: [&[u8]; 16] = [
    b"null", b"true", b"-1", b"1e999", b"16.0", b"\"\"", b"[", b"]", b"{", b"}", b",", b":", b"\\ud800", b"\xff",
    b"[INST]", b"</s>",
];

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(12) + 1);
        match self.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end, WORDS[self.below(WORDS.len())].iter().copied())),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            3 => {
                let from = self.below(other.len() + 1);
                let to = from + self.below((other.len() - from).min(40) + 1);
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ => {}
        }
    }
}

#[test]
fn every_target_does_as_the_name_of_a_corpus_file_says() {
    for (name, target) in TARGETS {
        let (mut valid, mut refused) = (0, 0);
        for path in corpus(name) {
            let outcome = target(&std::fs::read(&path).unwrap());
            let file = path.file_stem().unwrap().to_str().unwrap();
            if file.starts_with("valid-") {
                assert!(outcome.is_ok(), "{}: {outcome:?}", path.display());
                valid += 1;
            } else if file.starts_with("refused-") {
                assert!(outcome.is_err(), "{} was accepted", path.display());
                refused += 1;
            }
        }
        assert!(valid > 0 && (refused > 0 || name == "sse_event"), "{name}: {valid} valid, {refused} refused");
    }
}

#[test]
fn changed_inputs_break_no_target() {
    for (name, target) in TARGETS {
        let inputs: Vec<Vec<u8>> = corpus(name).iter().map(|path| std::fs::read(path).unwrap()).collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut accepted = 0;
        for _ in 0..CHANGED {
            let mut bytes = inputs[random.below(inputs.len())].clone();
            for _ in 0..=random.below(4) {
                let other = &inputs[random.below(inputs.len())];
                random.change(&mut bytes, other);
            }
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            accepted += usize::from(outcome.unwrap_or_else(|_| panic!("{name}: {shown}")).is_ok());
        }
        assert!(accepted > 0, "{name}: nothing got past the parser");
    }
}
