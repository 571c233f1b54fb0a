//! A build that stops in the middle leaves nothing.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use engine_builder::checkpoint::write::write_checkpoint;
use engine_builder::compile::cpu::build_cpu_engine;
use engine_builder::progress::{Interrupt, Progress, Quiet};
use engine_builder::{BuildError, Source};

use crate::support::{Model, checkpoint_request, entries, request};

/// Asks to stop once some bytes are written.
struct StopAfter {
    bytes: u64,
    done: AtomicU64,
    interrupt: Interrupt,
}

impl Progress for StopAfter {
    fn note(&self, _text: &str) {}
    fn detail(&self, _text: &str) {}
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn begin_steps(&self, _what: &str, _steps: u64) {}
    fn advance(&self, bytes: u64) {
        if self.done.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.bytes {
            self.interrupt.set();
        }
    }
    fn end(&self) {}
}

#[test]
fn an_interrupt_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Model::large().write(&dir.path().join("model"));
    let source = Source::open(&dir.path().join("model")).unwrap();
    let output = dir.path().join("out");
    for bytes in [0, 1, 17 << 20] {
        let stop = || {
            let interrupt = Interrupt::new();
            if bytes == 0 {
                interrupt.set();
            }
            let done = AtomicU64::new(0);
            StopAfter { bytes, done, interrupt }
        };
        let progress = stop();
        let interrupt = progress.interrupt.handle();
        let built = build_cpu_engine(&source, &request(&output), &progress, &interrupt);
        assert!(matches!(built, Err(BuildError::Interrupted)), "{built:?}");
        let progress = stop();
        let interrupt = progress.interrupt.handle();
        let written = write_checkpoint(&source, &checkpoint_request(&output), &progress, &interrupt);
        assert!(matches!(written, Err(BuildError::Interrupted)), "{written:?}");
        assert_eq!(entries(dir.path()), ["model"]);
    }
}

/// A file-size limit stands in for a full disk: a write fails in the middle in the same way. It is set for a process of
/// its own, this test's program run again.
#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing() {
    const INSIDE: &str = "BUILDER_TEST_OUTPUT";
    if let Some(dir) = std::env::var_os(INSIDE) {
        let dir = std::path::PathBuf::from(dir);
        let source = Source::open(&dir.join("model")).unwrap();
        let (quiet, interrupt) = (Quiet, Interrupt::new());
        let error = build_cpu_engine(&source, &request(&dir.join("out")), &quiet, &interrupt).unwrap_err();
        assert!(error.is_disk_full(), "{error:?}");
        assert!(error.to_string().contains("rank0.weights"), "{error}");
        let checkpoint = dir.join("checkpoint");
        let error = write_checkpoint(&source, &checkpoint_request(&checkpoint), &quiet, &interrupt).unwrap_err();
        assert!(error.is_disk_full(), "{error:?}");
        assert!(error.to_string().contains("rank0.safetensors"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Model::tiny().write(&dir.path().join("model"));
    let program = std::env::current_exe().unwrap();
    let name = "interruption::a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing";
    // One block is 512 or 1024 bytes; the signal that the limit sends is ignored, so that the write fails instead.
    let output = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\" --nocapture")
        .arg(program)
        .arg(name)
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(entries(dir.path()), ["model"]);
}
