//! Whether this machine can run a TensorRT engine: what is there, whether it fits together, and what to type where it does not.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

use cpu_kernels::Kernels;
use engine_format::error::with_causes;
use engine_format::{EngineDir, Target};
use trtllm_sys::gpu::{GpuLibrary, same_release};
use trtllm_sys::{Device, libraries, loader};

/// What one thing turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There, and it fits.
    Good,
    /// Not there, or unknown, and that may be as it should be.
    Unknown,
    /// Not there, and it is needed.
    Missing,
    /// There, and it does not fit.
    Unfit,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, as `GPU 0` or `TensorRT`.
    pub subject: String,
    /// What it turned out to be.
    pub verdict: Verdict,
    /// What was found, or what is wrong.
    pub found: String,
    /// What to do, as a line to type where there is one.
    pub advice: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order in which things build on each other.
    pub findings: Vec<Finding>,
}

/// What a release of TensorRT-LLM is built with. Source: its `requirements.txt` and its container images.
struct Release {
    release: &'static str,
    tensorrt: &'static str,
    /// Major version of CUDA: drivers of the same major run all its minor versions.
    cuda: u32,
}

const RELEASES: [Release; 3] = [
    Release { release: "1.0", tensorrt: "10.11", cuda: 12 },
    Release { release: "1.1", tensorrt: "10.13", cuda: 13 },
    Release { release: "1.2", tensorrt: "10.14", cuda: 13 },
];

const INSTALL: &str = "docker run --gpus all -it nvcr.io/nvidia/tensorrt-llm/release:1.2.1";

impl Diagnosis {
    /// Whether nothing is missing or unfit.
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| matches!(finding.verdict, Verdict::Good | Verdict::Unknown))
    }

    fn add(&mut self, subject: impl Into<String>, verdict: Verdict, found: impl Into<String>, advice: Option<&str>) {
        let (subject, found, advice) = (subject.into(), found.into(), advice.map(str::to_owned));
        self.findings.push(Finding { subject, verdict, found, advice });
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
        for Finding { subject, verdict, found, advice } in &self.findings {
            let verdict = match verdict {
                Verdict::Good => "ok",
                Verdict::Unknown => "?",
                Verdict::Missing => "missing",
                Verdict::Unfit => "unfit",
            };
            writeln!(f, "{verdict:>7}  {subject:width$}  {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "{:>7}  {:width$}  -> {advice}", "", "")?;
            }
        }
        Ok(())
    }
}

/// Looks at everything that a TensorRT engine needs, and at `engine` where one is given; of an engine for the CPU, at what that
/// needs.
pub fn diagnose(engine: Option<&Path>) -> Diagnosis {
    if let Some(engine) = engine.and_then(|path| EngineDir::open(path).ok()).filter(|dir| dir.build_config().is_none())
    {
        return of_cpu_engine(&engine);
    }
    let mut diagnosis = Diagnosis::default();
    let devices = gpus(&mut diagnosis);
    let library = tensorrt_llm(&mut diagnosis);
    let release = library.as_ref().and_then(|library| release_of(library.version()));
    driver(&mut diagnosis, &devices, release);
    cuda(&mut diagnosis);
    tensorrt(&mut diagnosis, release, library.is_some());
    mpi(&mut diagnosis, library.is_some());
    if let Some(path) = engine {
        engine_dir(&mut diagnosis, path, &devices, library.as_ref());
    }
    diagnosis
}

fn of_cpu_engine(engine: &EngineDir) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    match Kernels::detect() {
        Ok(kernels) => diagnosis.add("CPU", Verdict::Good, format!("kernels for {}", kernels.isa()), None),
        Err(error) => diagnosis.add("CPU", Verdict::Missing, error.to_string(), None),
    }
    let found = format!("`{}`, for the CPU: it needs no GPU", engine.path().display());
    diagnosis.add("engine", Verdict::Good, found, None);
    diagnosis
}

/// What would break when `engine` is loaded, as a sentence: the little of a diagnosis that costs nothing.
pub fn obstacle(engine: &EngineDir) -> Option<String> {
    let devices = trtllm_sys::devices::list().unwrap_or_default();
    gpu_mismatch(engine, &devices)
}

fn gpus(diagnosis: &mut Diagnosis) -> Vec<Device> {
    match trtllm_sys::devices::list() {
        Ok(devices) => {
            for device in &devices {
                let (major, minor) = device.compute_capability;
                let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
                let free =
                    device.memory_free_bytes.map(|free| format!(", {:.1} GiB free", gib(free))).unwrap_or_default();
                let found = format!(
                    "{}, {:.0} GiB{free}, compute capability {major}.{minor}",
                    device.name,
                    gib(device.memory_bytes)
                );
                diagnosis.add(format!("GPU {}", device.index), Verdict::Good, found, None);
                if device.is_mig == Some(true) {
                    let found = "it is cut into instances (MIG), each with a part of this memory";
                    diagnosis.add(format!("GPU {}", device.index), Verdict::Unknown, found, None);
                }
            }
            devices
        }
        Err(error) => {
            let advice =
                "install NVIDIA's driver (nvidia-smi shows the GPUs); in a container, start it with `--gpus all`";
            diagnosis.add("GPU", Verdict::Missing, error.to_string(), Some(advice));
            Vec::new()
        }
    }
}

fn driver(diagnosis: &mut Diagnosis, devices: &[Device], release: Option<&Release>) {
    let Some(device) = devices.first() else { return };
    let (major, minor) = device.driver_cuda_version;
    let version = device.driver_version.as_ref().map(|version| format!("{version}, ")).unwrap_or_default();
    let found = format!("{version}supports CUDA {major}.{minor}");
    match release {
        Some(release) if major < release.cuda => {
            let found = format!("{found}, TensorRT-LLM {} needs CUDA {}", release.release, release.cuda);
            diagnosis.add(
                "driver",
                Verdict::Unfit,
                found,
                Some("update NVIDIA's driver, or use an older TensorRT-LLM"),
            );
        }
        _ => diagnosis.add("driver", Verdict::Good, found, None),
    }
}

fn tensorrt_llm(diagnosis: &mut Diagnosis) -> Option<GpuLibrary> {
    match loader::open() {
        Ok(library) => {
            let shim = format!("{}, compiled against {}", library.path().display(), library.built_against());
            diagnosis.add(loader::LIBRARY_NAME, Verdict::Good, shim, None);
            let place = library.tensorrt_llm_dir().map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
            diagnosis.add("TensorRT-LLM", Verdict::Good, format!("{}{place}", library.version()), None);
            diagnosis.add("C++ ABI", Verdict::Good, "every symbol that the shim needs was found", None);
            Some(library)
        }
        Err(error) => {
            let is_absent = |attempt: &&loader::Attempt| {
                let own_name = attempt.reason.matches(loader::LIBRARY_NAME).count() > 0;
                attempt.reason == "no such file" || own_name && attempt.reason.contains("No such file")
            };
            let (absent, broken): (Vec<_>, Vec<_>) = error.tried.iter().partition(is_absent);
            for attempt in &broken {
                let advice = advice(&attempt.reason);
                diagnosis.add(loader::LIBRARY_NAME, Verdict::Missing, attempt.to_string(), Some(advice));
            }
            if broken.is_empty() {
                let places: Vec<_> = absent.iter().map(|attempt| format!("`{}`", attempt.path.display())).collect();
                let found = format!("no such file: {}", places.join(", "));
                diagnosis.add(loader::LIBRARY_NAME, Verdict::Missing, found, Some(advice("")));
            }
            None
        }
    }
}

/// What to do about the loader's words.
fn advice(reason: &str) -> &'static str {
    if reason.contains("undefined symbol") {
        return "the TensorRT-LLM that is there is of another release or C++ ABI than the one that the shim was compiled against: TRTLLM_ROOT=<its folder> cargo build --release -p trtllm-gpu";
    }
    if reason.contains("cannot open shared object file") && !reason.contains(loader::LIBRARY_NAME) {
        return "a library that TensorRT-LLM needs is not on the loader's path: export LD_LIBRARY_PATH=<its folder>:$LD_LIBRARY_PATH";
    }
    if reason.contains("stand-in that tests use") {
        return "unset LD_LIBRARY_PATH and LD_PRELOAD, or let TRTLLM_GPU_LIB name the shim that belongs to these libraries";
    }
    if reason.contains("was loaded") || reason.contains("boundary") {
        return "TRTLLM_ROOT=<folder of TensorRT-LLM> cargo build --release -p trtllm-gpu";
    }
    "in NVIDIA's container, or with TensorRT-LLM elsewhere: TRTLLM_ROOT=<its folder> cargo build --release"
}

fn cuda(diagnosis: &mut Diagnosis) {
    match libraries::cuda_runtime() {
        Ok((name, version)) => diagnosis.add("CUDA runtime", Verdict::Good, format!("{version} ({name})"), None),
        // TensorRT-LLM may have it linked in.
        Err(reason) => diagnosis.add("CUDA runtime", Verdict::Unknown, reason, None),
    }
}

fn tensorrt(diagnosis: &mut Diagnosis, release: Option<&Release>, is_loaded: bool) {
    match (libraries::tensorrt(), release) {
        (Ok((name, version)), Some(release)) if !version.starts_with(&format!("{}.", release.tensorrt)) => {
            let found =
                format!("{version} ({name}), TensorRT-LLM {} is built with {}", release.release, release.tensorrt);
            let advice = "engines and plugins are bound to one TensorRT: put the one that TensorRT-LLM came with first in LD_LIBRARY_PATH";
            diagnosis.add("TensorRT", Verdict::Unfit, found, Some(advice));
        }
        (Ok((name, version)), _) => diagnosis.add("TensorRT", Verdict::Good, format!("{version} ({name})"), None),
        // Had it been needed, TensorRT-LLM could not have been loaded.
        (Err(reason), _) if is_loaded => diagnosis.add("TensorRT", Verdict::Unknown, reason, None),
        (Err(reason), _) => diagnosis.add("TensorRT", Verdict::Missing, reason, Some(INSTALL)),
    }
}

fn mpi(diagnosis: &mut Diagnosis, is_loaded: bool) {
    match libraries::mpi() {
        Ok((name, version)) => diagnosis.add("MPI", Verdict::Good, format!("{version} ({name})"), None),
        Err(reason) if is_loaded => diagnosis.add("MPI", Verdict::Unknown, reason, None),
        Err(reason) => {
            let advice = "TensorRT-LLM needs MPI for one GPU too: apt-get install libopenmpi3";
            diagnosis.add("MPI", Verdict::Missing, reason, Some(advice));
        }
    }
}

fn engine_dir(diagnosis: &mut Diagnosis, path: &Path, devices: &[Device], library: Option<&GpuLibrary>) {
    let engine = match EngineDir::open(path) {
        Ok(engine) => engine,
        Err(error) => {
            let advice = "build-engine --model <model> --gpu <gpu> --output <engine>";
            diagnosis.add("engine", Verdict::Unfit, with_causes(&error), Some(advice));
            return;
        }
    };
    let target = &engine.manifest().target;
    let Some(build) = engine.build_config() else { return };
    let ranks = if build.world_size > 1 { format!(", {} ranks", build.world_size) } else { String::new() };
    diagnosis.add("engine", Verdict::Good, format!("for `{target}`, TensorRT-LLM {}{ranks}", build.version), None);
    if let Err(error) = engine.check_ranks() {
        diagnosis.add("engine", Verdict::Unfit, error.to_string(), None);
    }
    let is_other =
        |library: &&GpuLibrary| !build.version.is_empty() && !same_release(&build.version, library.version());
    if let Some(library) = library.filter(is_other) {
        let found = format!("built by TensorRT-LLM {}, but {} is loaded", build.version, library.version());
        diagnosis.add(
            "engine",
            Verdict::Unfit,
            found,
            Some("build it again with the release that is here, or run it with its own"),
        );
    }
    if let Some(mismatch) = gpu_mismatch(&engine, devices) {
        diagnosis.add(
            "engine",
            Verdict::Unfit,
            mismatch,
            Some("build it again for the target auto, the GPU that is here"),
        );
    }
}

/// Why none of these GPUs runs an engine for its target. Engines are bound to a compute capability.
fn gpu_mismatch(engine: &EngineDir, devices: &[Device]) -> Option<String> {
    let Ok(Target::Gpu(gpu)) = engine.manifest().target.parse() else { return None };
    let device = devices.first()?;
    let ((major, minor), (here_major, here_minor)) = (gpu.compute_capability, device.compute_capability);
    let fits = devices.iter().any(|device| device.compute_capability == gpu.compute_capability);
    (!fits).then(|| {
        format!(
            "it was built for {} (compute capability {major}.{minor}), but the GPU here is {} ({here_major}.{here_minor})",
            gpu.product, device.name
        )
    })
}

fn release_of(version: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|release| same_release(release.release, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_decides_and_says_what_to_do() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add("GPU 0", Verdict::Good, "one", None);
        diagnosis.add("MPI", Verdict::Unknown, "none", None);
        assert!(diagnosis.is_healthy());
        diagnosis.add("TensorRT", Verdict::Unfit, "10.9", Some("get another"));
        assert!(!diagnosis.is_healthy());
        let text = diagnosis.to_string();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("unfit") && text.lines().last().unwrap().contains("-> get another"), "{text}");
    }

    #[test]
    fn the_loaders_words_have_an_answer() {
        assert!(advice("x.so: undefined symbol: _ZN12").contains("C++ ABI"));
        assert!(advice("libnvinfer.so.10: cannot open shared object file: No such file").contains("LD_LIBRARY_PATH"));
        assert!(advice("it was compiled against TensorRT-LLM 1.2.0, but 1.1.0 was loaded").contains("trtllm-gpu"));
        assert!(advice("no such file").contains("TRTLLM_ROOT"));
    }

    #[test]
    fn a_release_is_found_by_major_and_minor() {
        assert_eq!(release_of("1.2.0-something").map(|release| release.tensorrt), Some("10.14"));
    }
}
