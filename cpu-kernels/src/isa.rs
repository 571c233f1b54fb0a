//! Which instruction sets there are, and which one this process uses.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use crate::Kernels;

/// The environment variable that forces an instruction set: `amx`, `avx512`, `avx2` or `portable`.
pub const ISA_VARIABLE: &str = "TRTLLM_CPU_ISA";

/// An instruction set that there are kernels for, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AMX-TILE and AMX-BF16, beside all of [`Isa::Avx512`].
    Amx,
    /// AVX-512 F, BW, VL, DQ and BF16.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Whatever the compiler makes of plain Rust.
    Portable,
}

impl Isa {
    /// All of them, best first.
    pub const ALL: [Isa; 4] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// The name that `TRTLLM_CPU_ISA` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no instruction set of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an instruction set that there are kernels for: {}", names(|_| true))]
pub struct UnknownIsa {
    /// The name as it was given.
    pub name: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    /// # Errors
    /// Anything but the exact, lower-case names.
    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| UnknownIsa { name: name.to_owned() })
    }
}

/// Why the instruction set that `TRTLLM_CPU_ISA` asks for cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The value names nothing.
    #[error(
        "{ISA_VARIABLE}={value}: no such instruction set; accepted: {}; this CPU has: {}; unset it to use the best",
        names(|_| true), names(on_this_cpu)
    )]
    Unknown {
        /// The value, with anything that is not Unicode replaced.
        value: String,
    },
    /// This CPU, or its operating system, lacks the instructions.
    #[error(
        "{ISA_VARIABLE}={isa}: {missing}; accepted: {}; this CPU has: {}; unset it to use the best",
        names(|_| true), names(on_this_cpu)
    )]
    NotOnThisCpu {
        /// What was asked for.
        isa: Isa,
        /// What is missing, in words.
        missing: &'static str,
    },
}

fn on_this_cpu(isa: Isa) -> bool {
    Kernels::for_isa(isa).is_some()
}

fn names(keep: impl Fn(Isa) -> bool) -> String {
    let names: Vec<&str> = Isa::ALL.into_iter().filter(|&isa| keep(isa)).map(Isa::name).collect();
    names.join(", ")
}

/// What to use given the value of `TRTLLM_CPU_ISA`; unset and empty mean the best of this CPU.
pub(crate) fn choose(value: Option<&OsStr>) -> Result<Kernels, IsaError> {
    let value = match value {
        Some(value) if !value.is_empty() => value.to_string_lossy(),
        _ => {
            return Ok(Isa::ALL.into_iter().find_map(Kernels::for_isa).unwrap_or(Kernels::portable()));
        }
    };
    let isa: Isa = value.parse().map_err(|UnknownIsa { name }| IsaError::Unknown { value: name })?;
    Kernels::try_isa(isa).map_err(|missing| IsaError::NotOnThisCpu { isa, missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert!("AVX2".parse::<Isa>().is_err());
    }

    #[test]
    fn the_variable_is_obeyed() {
        let best = Isa::ALL.into_iter().find(|&isa| on_this_cpu(isa)).unwrap();
        assert_eq!(choose(None).unwrap().isa(), best);
        assert_eq!(choose(Some(OsStr::new(""))).unwrap().isa(), best);
        for isa in Isa::ALL {
            match choose(Some(OsStr::new(isa.name()))) {
                Ok(kernels) => assert_eq!(kernels.isa(), isa),
                Err(error) => {
                    assert!(matches!(error, IsaError::NotOnThisCpu { isa: found, .. } if found == isa));
                    assert!(!on_this_cpu(isa) && error.to_string().contains("lacks"), "{error}");
                }
            }
        }
    }

    #[test]
    fn errors_name_the_variable_the_value_and_the_choices() {
        for value in ["sse", "AVX2", " avx2"] {
            let message = choose(Some(OsStr::new(value))).map(|k| k.isa()).unwrap_err().to_string();
            for part in [ISA_VARIABLE, value, "accepted: amx, avx512, avx2, portable", "this CPU has: "] {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }
}
