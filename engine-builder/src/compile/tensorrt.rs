//! TensorRT: networks replayed on nvinfer1, weights read where the checkpoint is mapped, plans written as they come.
//!
//! Source of the builder's settings: TensorRT-LLM 1.x, `builder.py`: a strongly typed network, layer names in the
//! engine, a timing cache, and TensorRT's defaults for the rest. `IS_BUILDING`, which keeps TensorRT-LLM's plugins from running
//! while TensorRT times them, is the shim's.

mod phase_progress;
mod plan_file;
mod replay;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use engine_format::build_config::engine_file;
use engine_format::manifest::FileRecord;
use engine_format::{FormatError, Mapping, staging};
use trtllm_sys::GpuLibrary;
use trtllm_sys::gpu::{GpuBuild, GpuError, GpuNetwork, Severity};

use crate::error::{BuildError, Result};
use crate::network::RankNetwork;
use crate::progress::{Interrupt, Progress};
use crate::source::Source;
use phase_progress::PhaseProgress;
use plan_file::PlanFile;
use replay::replay;

/// Steps of progress that one rank counts for.
const STEPS_PER_RANK: u64 = 1000;

/// Where and how ranks are compiled.
pub(crate) struct TensorRt<'a> {
    pub(crate) library: &'a GpuLibrary,
    /// CUDA's numbers of the GPUs, at least one.
    pub(crate) devices: &'a [usize],
    /// Ranks that are compiled at the same time.
    pub(crate) workers: usize,
    /// The file of the timing cache: what TensorRT measured in earlier builds.
    pub(crate) timing_cache: Option<&'a Path>,
}

impl TensorRt<'_> {
    /// Compiles every rank into `folder`, and gives the engine files' records, in the order of the ranks.
    ///
    /// # Errors
    /// [`BuildError::TensorRt`] with the rank that failed first; an interrupt; what the system said to a write.
    pub(crate) fn compile(
        &self,
        checkpoint: &Source,
        mapping: Mapping,
        networks: &[RankNetwork],
        folder: &Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Vec<FileRecord>> {
        let timing_cache = match self.timing_cache.map(|path| (path, std::fs::read(path))) {
            Some((_, Ok(content))) => content,
            Some((path, Err(error))) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FormatError::io("read", path)(error).into());
            }
            _ => Vec::new(),
        };
        let work = Work {
            tensorrt: self,
            checkpoint,
            mapping,
            folder,
            progress,
            interrupt,
            timing_cache: Mutex::new(timing_cache),
            failed: Arc::default(),
        };
        let what = match networks {
            [_] => format!("compiling {}", engine_file(0)),
            networks => format!("compiling {} engines", networks.len()),
        };
        progress.begin_steps(&what, STEPS_PER_RANK * networks.len() as u64);
        let results = work.compile_all(networks);
        progress.end();
        let mut records = Vec::new();
        let mut interrupted = None;
        for result in results {
            match result {
                Ok(record) => records.push(record),
                // The other ranks were interrupted because one failed: that one's error is the cause.
                Err(error) if error.is_interrupted() => interrupted = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = interrupted {
            return Err(error);
        }
        if let Some(path) = self.timing_cache {
            let content = work.timing_cache.into_inner().unwrap_or_else(PoisonError::into_inner);
            staging::write_file(path, &content)?;
        }
        Ok(records)
    }
}

/// What the threads that compile share.
struct Work<'a> {
    tensorrt: &'a TensorRt<'a>,
    checkpoint: &'a Source,
    mapping: Mapping,
    folder: &'a Path,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    timing_cache: Mutex<Vec<u8>>,
    failed: Arc<AtomicBool>,
}

impl Work<'_> {
    /// Compiles every rank, each worker one at a time; results are in the order of the ranks.
    fn compile_all(&self, networks: &[RankNetwork]) -> Vec<Result<FileRecord>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let run_worker = |device: usize| {
            while let Some(network) = networks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.compile_rank(network, device);
                self.failed.fetch_or(result.is_err(), Ordering::Relaxed);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((network.rank, result));
            }
        };
        let devices = self.tensorrt.devices;
        std::thread::scope(|scope| {
            for worker in 0..self.tensorrt.workers.clamp(1, networks.len()) {
                let (run_worker, device) = (&run_worker, devices[worker % devices.len()]);
                // A thread that the system refuses is one that the others do without.
                let started = system::threads::spawn_scoped(scope, "trtllm-compile", move || run_worker(device));
                if worker == 0 && started.is_err() {
                    run_worker(device);
                }
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(rank, _)| *rank);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Whether nobody has interrupted the build and no rank has failed.
    fn may_continue(&self) -> bool {
        !self.interrupt.is_set() && !self.failed.load(Ordering::Relaxed)
    }

    /// Compiles one rank on the GPU with this number.
    fn compile_rank(&self, network: &RankNetwork, device: usize) -> Result<FileRecord> {
        if !self.may_continue() {
            return Err(BuildError::Interrupted);
        }
        let failed = |source| match source {
            GpuError::Cancelled => BuildError::Interrupted,
            source => BuildError::TensorRt { rank: network.rank, source },
        };
        std::thread::scope(|scope| {
            let (log, lines) = mpsc::channel();
            // TensorRT logs from its own threads. This thread ends when the network, which owns the sender, is dropped.
            let repeat = move || {
                for (severity, text) in lines {
                    match severity {
                        Severity::Error => self.progress.note(&format!("TensorRT error: {text}")),
                        Severity::Warning => self.progress.detail(&format!("TensorRT warning: {text}")),
                        Severity::Info => self.progress.detail(&format!("TensorRT: {text}")),
                        Severity::Debug => {}
                    }
                }
            };
            system::threads::spawn_scoped(scope, "trtllm-log", repeat).map_err(BuildError::Thread)?;
            let graph = &network.graph;
            let log = Mutex::new(log);
            let (interrupt, failed_elsewhere) = (self.interrupt.clone(), Arc::clone(&self.failed));
            let mut gpu_network = GpuNetwork::new(self.tensorrt.library, &graph.name, device as i32, move |line| {
                // That a build was told to stop is an error to TensorRT only.
                let told_to = interrupt.is_set() || failed_elsewhere.load(Ordering::Relaxed);
                let severity = if told_to { line.severity.max(Severity::Info) } else { line.severity };
                let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                // Without a receiver nobody reads the log.
                let _ = log.send((severity, line.text.to_owned()));
            })
            .map_err(failed)?;
            replay(network, self.checkpoint, self.mapping, &mut gpu_network)?;
            let path = self.folder.join(engine_file(network.rank));
            let mut plan = PlanFile::create(&path)?;
            let mut new_timings = Vec::new();
            let known_timings = self.timing_cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut phases = PhaseProgress::new(STEPS_PER_RANK);
            let built = gpu_network.build(GpuBuild {
                timing_cache: &known_timings,
                write_timing_cache: &mut |bytes| {
                    new_timings.extend_from_slice(bytes);
                    true
                },
                write_plan: &mut |bytes| plan.write(bytes),
                progress: &mut |phase| {
                    self.progress.advance(phases.advance(&phase));
                    self.may_continue()
                },
            });
            // Where a write failed, its error is the cause; TensorRT only says that something did.
            let record = plan.finish();
            if built.is_err()
                && let Err(error) = record
            {
                return Err(error.into());
            }
            built.map_err(failed)?;
            self.progress.advance(phases.remaining());
            if !new_timings.is_empty() {
                *self.timing_cache.lock().unwrap_or_else(PoisonError::into_inner) = new_timings;
            }
            Ok(record?)
        })
    }
}
