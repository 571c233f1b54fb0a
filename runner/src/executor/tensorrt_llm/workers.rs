//! Starting an engine of several ranks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tempfile::TempDir;
use trtllm_sys::HostSignals;
use trtllm_sys::gpu::{GpuError, GpuExecutor, GpuLibrary, GpuTokenizer, Setting};

use super::OpenError;
use crate::executor::tensorrt_llm_config::{CommunicationMode, Parallel};

/// What tells a process that it is one of several, by those that start them: Open MPI, MPICH and Intel MPI, Slurm's `srun`
/// (`SLURM_NTASKS` is set in a batch script too, which is one process).
const SIZE_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Who starts the ranks; `None` where this process is the only one.
pub(super) fn mode(parallel: &Parallel, world_size: usize) -> Option<CommunicationMode> {
    parallel.communication_mode.or(match (is_one_of_several(), world_size) {
        (true, _) => Some(CommunicationMode::Leader),
        (false, 1) => None,
        (false, _) => Some(CommunicationMode::Orchestrator),
    })
}

/// Whether `mpirun` or Slurm has started this process as one of several.
pub fn is_one_of_several() -> bool {
    SIZE_VARIABLES.iter().any(|variable| {
        let size = std::env::var(variable).ok().and_then(|size| size.parse::<usize>().ok());
        size.is_some_and(|size| size > 1)
    })
}

/// Where an orchestrator's workers begin, and where what they print goes. The workers live as long as this.
#[derive(Debug)]
pub(super) struct WorkerDir {
    dir: TempDir,
}

impl WorkerDir {
    /// A folder with a script that runs `worker` with the folders of TensorRT-LLM's libraries on its path.
    ///
    /// The script stays the worker's parent: TensorRT-LLM's worker kills its parent before it aborts. Were that MPI's daemon, MPI would
    /// end this process too.
    pub(super) fn new(library: &GpuLibrary, worker: Option<&str>) -> Result<Self, OpenError> {
        let libraries =
            library.tensorrt_llm_dir().ok_or(OpenError::NoWorker { tried: PathBuf::from("executorWorker") })?;
        let usual = libraries.parent().unwrap_or(&libraries).join("bin/executorWorker");
        let worker = worker.map_or(usual, PathBuf::from);
        if !worker.is_file() {
            return Err(OpenError::NoWorker { tried: worker });
        }
        let failed = |source| OpenError::WorkerDir { source };
        let dir = tempfile::Builder::new().prefix("trtllm-workers-").tempdir().map_err(failed)?;
        let dirs: Vec<_> = library.library_dirs().iter().map(|dir| quoted(dir)).collect();
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\nexport LD_LIBRARY_PATH\n{} \"$@\" >>{} 2>&1\nexit $?\n",
            dirs.join(":"),
            quoted(&worker),
            quoted(&dir.path().join(LOG)),
        );
        let path = dir.path().join(SCRIPT);
        fs::write(&path, script).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self { dir })
    }

    /// What is to be started.
    pub(super) fn script(&self) -> PathBuf {
        self.dir.path().join(SCRIPT)
    }

    /// Keeps the log, and says where it is and how it ends.
    fn keep_log(self) -> (PathBuf, String) {
        let log = self.dir.keep().join(LOG);
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        (log, lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
    }
}

const SCRIPT: &str = "worker";
const LOG: &str = "workers.log";

/// Lines of the workers' log in an error.
const LAST_LINES: usize = 5;

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Opens the engine and waits for the workers, at most `timeout`. Where they do not come, what waits for them is left behind:
/// TensorRT-LLM waits for ever.
pub(super) fn open(
    library: &GpuLibrary,
    engine: &Path,
    settings: Vec<Setting>,
    tokenizer: Option<GpuTokenizer>,
    workers: WorkerDir,
    timeout: Duration,
) -> Result<(GpuExecutor, WorkerDir), OpenError> {
    // The thread that waits may do so for ever.
    let _signals = HostSignals::note();
    let (sender, receiver) = mpsc::channel();
    let (own_library, own_engine) = (library.clone(), engine.to_owned());
    let open = move || {
        // Nobody listens after the timeout.
        let _ = sender.send(GpuExecutor::open(&own_library, &own_engine, &settings, tokenizer.as_ref()));
    };
    system::threads::spawn_for_processes("trtllm-gpu-open", open).map_err(|source| OpenError::Thread { source })?;
    match receiver.recv_timeout(timeout) {
        Ok(Ok(executor)) => Ok((executor, workers)),
        Ok(Err(GpuError::Busy { message })) => Err(OpenError::Busy { path: engine.to_owned(), problem: message }),
        Ok(Err(error)) => {
            let (log, end) = workers.keep_log();
            Err(OpenError::Workers { problem: error.to_string(), log, end })
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let (log, end) = workers.keep_log();
            let problem = format!("they were not ready after {} s (start_up_timeout)", timeout.as_secs());
            Err(OpenError::Workers { problem, log, end })
        }
    }
}
