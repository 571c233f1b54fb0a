//! What this machine has: GPUs, the way to TensorRT-LLM, memory.

use engine_format::Target;
use engine_format::target::{GPUS, Gpu};
use trtllm_sys::{Device, GpuSupport};

use crate::memory_plan::{Executor, Place};

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

/// Why a GPU engine cannot be built here, as the end of a sentence, and further lines. There is always a reason in this
/// version, which has no compiler for GPUs.
pub(crate) struct Obstacle {
    /// What is missing first.
    pub(crate) reason: String,
    /// What was tried.
    pub(crate) details: Vec<String>,
}

/// What stands in the way of an engine for `target`, or for any GPU that is here when it is `None`.
pub(crate) fn obstacle(target: Option<&Gpu>, support: &GpuSupport) -> Obstacle {
    let plain = |reason: String| Obstacle { reason, details: Vec::new() };
    let devices = match &support.devices {
        Ok(devices) => devices,
        Err(error) => return plain(error.to_string()),
    };
    if let Some(gpu) = target
        && !devices.iter().any(|device| target_of(device) == Some(gpu))
    {
        let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        return plain(format!(
            "this machine has {}, and a TensorRT engine is built on the kind of GPU that it is for ({})",
            names.join(", "),
            gpu.product
        ));
    }
    match &support.library {
        Err(error) => Obstacle {
            reason: error.to_string(),
            details: error.tried.iter().map(|attempt| format!("tried {attempt}")).collect(),
        },
        Ok(_) => plain(format!("build-engine {} cannot compile for GPUs yet", env!("CARGO_PKG_VERSION"))),
    }
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

/// The place of `--gpu auto`: the first GPU of this machine, or the CPU with the reason why.
pub(crate) fn place_of_auto(support: &GpuSupport) -> (Place, Option<String>) {
    match &support.devices {
        Ok(devices) => {
            let first = devices.first();
            let place = Place {
                target: Target::Auto.name().to_owned(),
                description: first.map_or_else(String::new, |device| device.name.clone()),
                memory_bytes: first.map_or(0, |device| device.memory_bytes),
                source: "the NVIDIA driver of this machine".to_owned(),
                executor: Executor::TensorRtLlm,
            };
            (place, None)
        }
        Err(error) => {
            let place = Place { target: Target::Auto.name().to_owned(), ..place_of_cpu() };
            (place, Some(error.to_string()))
        }
    }
}

/// The place of the CPU engine: this machine's memory that is not in use.
pub(crate) fn place_of_cpu() -> Place {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_memory(&text));
    Place {
        target: Target::Cpu.name().to_owned(),
        description: "this machine's CPU".to_owned(),
        memory_bytes: available.unwrap_or(0),
        source: match available {
            Some(_) => "MemAvailable of /proc/meminfo",
            None => "unknown: /proc/meminfo has no MemAvailable",
        }
        .to_owned(),
        executor: Executor::Cpu,
    }
}

/// `MemAvailable` in bytes from the text of `/proc/meminfo`.
fn available_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use trtllm_sys::{DeviceError, LoaderError};

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
        assert!(obstacle(a100, &support).reason.contains("no GPU"));
        let support = GpuSupport { devices: Ok(vec![device("NVIDIA H100 PCIe", 85)]), library: no_library() };
        let reason = obstacle(a100, &support).reason;
        assert!(reason.contains("H100 PCIe") && reason.contains("A100"), "{reason}");
        for target in [h100, None] {
            let reason = obstacle(target, &support).reason;
            assert!(reason.contains("libtrtllm_gpu.so"), "{reason}");
        }
        let support = GpuSupport { library: Ok("1.2.1".to_owned()), ..support };
        assert!(obstacle(h100, &support).reason.contains("cannot compile for GPUs yet"));
    }

    #[test]
    fn available_memory_is_in_bytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:   24675432 kB\n";
        assert_eq!(available_memory(text), Some(24_675_432 * 1024));
        assert_eq!(available_memory("MemTotal: 100 kB\n"), None);
    }
}
