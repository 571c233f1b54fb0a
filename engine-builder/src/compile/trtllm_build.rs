//! TensorRT-LLM's own builder, a Python program, run on the same checkpoint with the same limits: a second way to an engine, to
//! compare the first with.
//!
//! Source of its options: TensorRT-LLM 1.x, `commands/build.py`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{BuildError, Result};
use crate::network::NetworkOptions;
use crate::network::options::TOKENS_PER_BLOCK;
use crate::progress::{Interrupt, Progress};
use system::threads::spawn_scoped;

/// The program's name.
pub(crate) const PROGRAM: &str = "trtllm-build";

/// Lines from the end of the program's output that an error repeats.
const LAST_LINES: usize = 8;

/// Time between two looks at whether the program ended or the build was interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where the program is, if it is in `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|program| program.is_file())
}

/// The program's options for these limits.
pub(crate) fn options(options: &NetworkOptions) -> Vec<String> {
    let limits = options.limits;
    let mut arguments = Vec::new();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option("--max_seq_len", limits.max_seq_len.to_string());
    option("--max_input_len", limits.max_seq_len.to_string());
    option("--max_batch_size", limits.max_batch_size.to_string());
    option("--max_num_tokens", limits.max_num_tokens.to_string());
    match options.opt_num_tokens {
        Some(best) => option("--opt_num_tokens", best.to_string()),
        // With one range the program's own list of ranges is malformed.
        None if options.token_ranges().len() > 1 => option("--multiple_profiles", "enable".to_owned()),
        None => {}
    }
    option("--max_beam_width", options.max_beam_width.to_string());
    option("--tokens_per_block", TOKENS_PER_BLOCK.to_string());
    option("--gemm_plugin", if options.gemm_plugin { "bfloat16" } else { "disable" }.to_owned());
    if let Some(lora) = options.lora {
        let words =
            ["--lora_plugin", "bfloat16", "--max_lora_rank", &lora.max_rank.to_string(), "--lora_target_modules"];
        arguments.extend(words.map(str::to_owned));
        arguments.extend(lora.modules.iter().map(|module| module.name().to_owned()));
    }
    if options.gather_context_logits {
        arguments.push("--gather_context_logits".to_owned());
    }
    if options.gather_generation_logits {
        arguments.push("--gather_generation_logits".to_owned());
    }
    arguments
}

/// Runs `program` on the checkpoint; engines and `config.json` appear in `folder`.
///
/// # Errors
/// [`BuildError::TrtllmBuild`] with the end of its output; an interrupt, which ends the program too.
pub(crate) fn run(
    program: &Path,
    checkpoint: &Path,
    folder: &Path,
    settings: &NetworkOptions,
    workers: usize,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let failed = |problem: String| BuildError::TrtllmBuild { program: program.to_owned(), problem };
    let mut command = Command::new(program);
    command.arg("--checkpoint_dir").arg(checkpoint).arg("--output_dir").arg(folder).args(options(settings));
    command.arg("--workers").arg(workers.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    progress.detail(&format!("running {command:?}"));
    let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    let last_lines = Mutex::new(VecDeque::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    progress.begin_steps(&format!("running {PROGRAM}"), 1);
    let ended = std::thread::scope(|scope| {
        let (lines, mut started) = (&last_lines, Vec::new());
        started.extend(out.map(|out| spawn_scoped(scope, "trtllm-log", move || repeat(out, lines, progress))));
        started.extend(err.map(|err| spawn_scoped(scope, "trtllm-log", move || repeat(err, lines, progress))));
        if let Some(error) = started.into_iter().find_map(Result::err) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(BuildError::Thread(error));
        }
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if interrupt.is_set() => {
                    // It may have ended meanwhile; what it wrote is thrown away in either case.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(BuildError::Interrupted);
                }
                Ok(None) => std::thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(failed(format!("cannot be waited for: {error}"))),
            }
        }
    });
    if ended.as_ref().is_ok_and(|status| status.success()) {
        progress.advance(1);
    }
    progress.end();
    let status = ended?;
    if status.success() {
        return Ok(());
    }
    let last_lines = last_lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    let text: String = last_lines.iter().map(|line| format!("\n  {line}")).collect();
    Err(failed(format!("ended with {status}; its last words:{text}")))
}

/// Repeats the program's output as progress, and keeps its last lines.
fn repeat(output: impl Read, last_lines: &Mutex<VecDeque<String>>, progress: &dyn Progress) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        progress.detail(&format!("{PROGRAM}: {text}"));
        let mut last_lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(text);
    }
}
