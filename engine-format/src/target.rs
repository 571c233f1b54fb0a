//! What an engine can be built for: the one place with facts about GPUs.
//!
//! Memory is the data sheet's number in units of 10^9 bytes, which is at most what the driver reports; bandwidth and
//! compute capability are the data sheet's and the CUDA programming guide's.

use std::fmt;
use std::str::FromStr;

/// A value of `--gpu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The embedded CPU engine.
    Cpu,
    /// Whatever GPU this machine has.
    Auto,
    /// A kind of GPU.
    Gpu(&'static Gpu),
}

/// Facts about a kind of GPU.
#[derive(Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The target's name, as `--gpu` takes it.
    pub name: &'static str,
    /// The product.
    pub product: &'static str,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory bandwidth in bytes a second.
    pub bandwidth: u64,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Where the figures are from.
    pub source: &'static str,
}

const GB: u64 = 1_000_000_000;

/// Every GPU target.
pub static GPUS: [Gpu; 9] = [
    Gpu {
        name: "a100",
        product: "NVIDIA A100 80GB SXM",
        memory_bytes: 80 * GB,
        bandwidth: 2_039 * GB,
        compute_capability: (8, 0),
        source: "NVIDIA A100 Tensor Core GPU data sheet, 2021",
    },
    Gpu {
        name: "a100-40gb",
        product: "NVIDIA A100 40GB",
        memory_bytes: 40 * GB,
        bandwidth: 1_555 * GB,
        compute_capability: (8, 0),
        source: "NVIDIA A100 Tensor Core GPU data sheet, 2021",
    },
    Gpu {
        name: "h100",
        product: "NVIDIA H100 SXM",
        memory_bytes: 80 * GB,
        bandwidth: 3_350 * GB,
        compute_capability: (9, 0),
        source: "NVIDIA H100 Tensor Core GPU data sheet, 2023",
    },
    Gpu {
        name: "h200",
        product: "NVIDIA H200 SXM",
        memory_bytes: 141 * GB,
        bandwidth: 4_800 * GB,
        compute_capability: (9, 0),
        source: "NVIDIA H200 Tensor Core GPU data sheet, 2024",
    },
    Gpu {
        name: "l40",
        product: "NVIDIA L40",
        memory_bytes: 48 * GB,
        bandwidth: 864 * GB,
        compute_capability: (8, 9),
        source: "NVIDIA L40 data sheet, 2023",
    },
    Gpu {
        name: "l40s",
        product: "NVIDIA L40S",
        memory_bytes: 48 * GB,
        bandwidth: 864 * GB,
        compute_capability: (8, 9),
        source: "NVIDIA L40S data sheet, 2023",
    },
    Gpu {
        name: "b200",
        product: "NVIDIA B200",
        memory_bytes: 180 * GB,
        bandwidth: 8_000 * GB,
        compute_capability: (10, 0),
        source: "NVIDIA DGX B200 data sheet, 2024 (1,440 GB and 64 TB/s over 8 GPUs)",
    },
    Gpu {
        name: "gb200",
        product: "NVIDIA GB200 (one of its GPUs)",
        memory_bytes: 186 * GB,
        bandwidth: 8_000 * GB,
        compute_capability: (10, 0),
        source: "NVIDIA GB200 NVL72 data sheet, 2025 (13.4 TB and 576 TB/s over 72 GPUs)",
    },
    Gpu {
        name: "rtx-pro-6000",
        product: "NVIDIA RTX PRO 6000 Blackwell",
        memory_bytes: 96 * GB,
        bandwidth: 1_597 * GB,
        compute_capability: (12, 0),
        source: "NVIDIA RTX PRO 6000 Blackwell Server Edition data sheet, 2025",
    },
];

impl Target {
    /// The name, as `--gpu` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "none",
            Self::Auto => "auto",
            Self::Gpu(gpu) => gpu.name,
        }
    }

    /// Every accepted name, for messages.
    pub fn names() -> String {
        let names: Vec<_> = GPUS.iter().map(|gpu| gpu.name).chain(["auto", "none"]).collect();
        names.join(", ")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no target has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown GPU target `{name}` (known: {known})")]
pub struct UnknownTarget {
    /// The name given.
    pub name: String,
    /// Every accepted name.
    pub known: String,
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, UnknownTarget> {
        match name {
            "none" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            _ => GPUS
                .iter()
                .find(|gpu| gpu.name == name)
                .map(Self::Gpu)
                .ok_or_else(|| UnknownTarget { name: name.to_owned(), known: Self::names() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in Target::names().split(", ") {
            assert_eq!(name.parse::<Target>().unwrap().name(), name);
        }
        let error = "a200".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("a200") && error.contains("rtx-pro-6000"), "{error}");
    }
}
