//! What this machine has: GPUs, the way to TensorRT-LLM, memory.

use engine_format::Target;
use engine_format::target::{GPUS, Gpu};
use trtllm_sys::gpu::same_release;
use trtllm_sys::loader::LIBRARY_NAME;
use trtllm_sys::{Device, GpuSupport};

use crate::memory_plan::{Executor, Place};
use crate::network::Release;

/// A100s of 40 and 80 GB have one name but for the size; the driver reports a little less than either.
const BETWEEN_A100S: u64 = 60_000_000_000;

/// The target that a device is, if it is one.
pub(crate) fn target_of(device: &Device) -> Option<&'static Gpu> {
    let words: Vec<String> =
        device.name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect();
    let has = |word: &str| words.iter().any(|found| found == word);
    let name = if has("a100") && device.memory_bytes < BETWEEN_A100S {
        "a100-40gb"
    } else if ["rtx", "pro", "6000", "blackwell"].into_iter().all(has) {
        "rtx-pro-6000"
    } else {
        words.iter().find(|word| GPUS.iter().any(|gpu| gpu.name == **word))?
    };
    GPUS.iter().find(|gpu| gpu.name == name)
}

/// Why a GPU engine cannot be built here.
#[derive(Debug)]
pub(crate) struct Obstacle {
    /// What is missing first, as the end of a sentence.
    pub(crate) reason: String,
    /// What was tried.
    pub(crate) details: Vec<String>,
}

impl Obstacle {
    /// A reason without more to say.
    pub(crate) fn plain(reason: String) -> Self {
        Self { reason, details: Vec::new() }
    }
}

/// The GPUs that an engine for `target` is built on; the first kind that is here when it is `None`.
pub(crate) fn devices_for(target: Option<&Gpu>, support: &GpuSupport) -> Result<Vec<Device>, Obstacle> {
    let devices = support.devices.as_ref().map_err(|error| Obstacle::plain(error.to_string()))?;
    let Some(gpu) = target else {
        let same = |device: &&Device| device.name == devices[0].name;
        return Ok(devices.iter().filter(same).cloned().collect());
    };
    let fitting: Vec<_> = devices.iter().filter(|device| target_of(device) == Some(gpu)).cloned().collect();
    if fitting.is_empty() {
        let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        return Err(Obstacle::plain(format!(
            "this machine has {}, and a TensorRT engine is built on the kind of GPU that it is for ({})",
            names.join(", "),
            gpu.product
        )));
    }
    Ok(fitting)
}

/// Whether the shim is there, with a TensorRT-LLM whose plugins are known and the TensorRT that it was compiled against.
pub(crate) fn check_library(support: &GpuSupport) -> Result<(), Obstacle> {
    let library = support.library.as_ref().map_err(|error| Obstacle {
        reason: error.to_string(),
        details: error.tried.iter().map(|attempt| format!("tried {attempt}")).collect(),
    })?;
    if Release::of_version(&library.tensorrt_llm).is_none() {
        let known = Release::ALL.map(Release::name).join(", ");
        return Err(Obstacle::plain(format!(
            "TensorRT-LLM {} is here, and networks are known for {known}; `compiler` trtllm-build asks it for its own",
            library.tensorrt_llm
        )));
    }
    let Some(tensorrt) = &library.tensorrt else {
        return Err(Obstacle::plain(format!(
            "`{LIBRARY_NAME}` was built without TensorRT's headers: set TENSORRT_ROOT to a folder that has them in `include/`, and build it again"
        )));
    };
    if !same_release(tensorrt, &library.tensorrt_built_against) {
        return Err(Obstacle::plain(format!(
            "TensorRT {tensorrt} was loaded, but `{LIBRARY_NAME}` was compiled against {}: put the libraries of that one first, or build it again",
            library.tensorrt_built_against
        )));
    }
    Ok(())
}

/// The place of a kind of GPU, from its data sheet.
pub(crate) fn place_of_gpu(gpu: &Gpu) -> Place {
    Place {
        target: gpu.name.to_owned(),
        description: gpu.product.to_owned(),
        memory_bytes: gpu.memory_bytes,
        source: gpu.source.to_owned(),
        executor: Executor::TensorRtLlm,
    }
}

/// The place of a GPU that is here.
pub(crate) fn place_of_device(device: &Device) -> Place {
    Place {
        target: Target::Auto.name().to_owned(),
        description: device.name.clone(),
        memory_bytes: device.memory_bytes,
        source: "the NVIDIA driver of this machine".to_owned(),
        executor: Executor::TensorRtLlm,
    }
}

/// The place of `--gpu auto`: the first GPU of this machine, or the CPU with the reason why.
pub(crate) fn place_of_auto(support: &GpuSupport) -> (Place, Option<String>) {
    match &support.devices {
        Ok(devices) => {
            // The list is never empty.
            let place = devices.first().map_or_else(place_of_cpu, place_of_device);
            (place, None)
        }
        Err(error) => {
            let place = Place { target: Target::Auto.name().to_owned(), ..place_of_cpu() };
            (place, Some(error.to_string()))
        }
    }
}

/// The place of the CPU engine: the memory that this process may take of this machine's.
pub(crate) fn place_of_cpu() -> Place {
    let available = system::Machine::here().available();
    let unknown = || system::Available { bytes: 0, limit: "unknown: /proc/meminfo has no MemAvailable".to_owned() };
    let system::Available { bytes, limit } = available.unwrap_or_else(unknown);
    Place {
        target: Target::Cpu.name().to_owned(),
        description: "this machine's CPU".to_owned(),
        memory_bytes: bytes,
        source: limit,
        executor: Executor::Cpu,
    }
}

#[cfg(test)]
mod tests {
    use trtllm_sys::{DeviceError, LibraryVersions, LoaderError};

    use super::*;

    fn device(name: &str, memory_gb: u64) -> Device {
        Device {
            index: 0,
            name: name.into(),
            memory_bytes: memory_gb * 1_000_000_000,
            compute_capability: (8, 0),
            driver_cuda_version: (12, 8),
            pci_bus_id: "0000:01:00.0".into(),
            memory_free_bytes: None,
            is_mig: None,
            driver_version: None,
        }
    }

    #[test]
    fn devices_are_recognized_by_the_drivers_names() {
        let cases = [
            ("NVIDIA A100-SXM4-80GB", 85, Some("a100")),
            ("NVIDIA A100 80GB PCIe", 85, Some("a100")),
            ("NVIDIA A100-SXM4-40GB", 42, Some("a100-40gb")),
            ("NVIDIA A100-PCIE-40GB", 42, Some("a100-40gb")),
            ("NVIDIA H100 80GB HBM3", 85, Some("h100")),
            ("NVIDIA H100 PCIe", 85, Some("h100")),
            ("NVIDIA H200", 150, Some("h200")),
            ("NVIDIA L40", 48, Some("l40")),
            ("NVIDIA L40S", 48, Some("l40s")),
            ("NVIDIA B200", 192, Some("b200")),
            ("NVIDIA GB200", 198, Some("gb200")),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 102, Some("rtx-pro-6000")),
            ("NVIDIA RTX 6000 Ada Generation", 51, None),
            ("NVIDIA GeForce RTX 4090", 25, None),
            ("NVIDIA GH200 480GB", 102, None),
        ];
        for (name, memory, expected) in cases {
            let target = target_of(&device(name, memory)).map(|gpu| gpu.name);
            assert_eq!(target, expected, "{name}");
        }
    }

    #[test]
    fn the_first_thing_missing_is_the_obstacle() {
        let [a100, h100] = ["a100", "h100"].map(|name| GPUS.iter().find(|gpu| gpu.name == name));
        let no_library = || Err(LoaderError { tried: Vec::new() });
        let support = GpuSupport { devices: Err(DeviceError::NoDevice), library: no_library() };
        assert!(devices_for(a100, &support).unwrap_err().reason.contains("no GPU"));
        let devices = vec![device("NVIDIA H100 PCIe", 85), device("NVIDIA L40S", 48), device("NVIDIA H100 PCIe", 85)];
        let support = GpuSupport { devices: Ok(devices), library: no_library() };
        let reason = devices_for(a100, &support).unwrap_err().reason;
        assert!(reason.contains("H100 PCIe") && reason.contains("A100"), "{reason}");
        for target in [h100, None] {
            assert_eq!(devices_for(target, &support).unwrap().len(), 2);
        }
        assert!(check_library(&support).unwrap_err().reason.contains("libtrtllm_gpu.so"));
        let with = |tensorrt_llm: &str, tensorrt: Option<&str>| GpuSupport {
            devices: Err(DeviceError::NoDevice),
            library: Ok(LibraryVersions {
                tensorrt_llm: tensorrt_llm.to_owned(),
                tensorrt: tensorrt.map(str::to_owned),
                tensorrt_built_against: "10.14.1".to_owned(),
            }),
        };
        let reason = |support: GpuSupport| check_library(&support).unwrap_err().reason;
        assert!(reason(with("0.21.0", Some("10.14.1"))).contains("0.21.0"));
        assert!(reason(with("1.2.1", None)).contains("TENSORRT_ROOT"));
        assert!(reason(with("1.2.1", Some("10.13.3"))).contains("10.13.3 was loaded"));
        assert!(check_library(&with("1.2.1", Some("10.14.2"))).is_ok());
    }
}
