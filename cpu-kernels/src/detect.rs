//! Which instruction set this process uses: the best of this CPU, or what the environment asks for.

#![forbid(unsafe_code)]

use std::ffi::OsStr;

use crate::any_instruction_set::AnyInstructionSet;
use crate::isa::{Isa, UnknownIsa};
use crate::portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::cpu;

/// The environment variable that forces an instruction set: `amx`, `avx512`, `avx512f`, `avx2` or `portable`.
pub const ISA_VARIABLE: &str = "TRTLLM_CPU_ISA";

/// Why the instruction set that `TRTLLM_CPU_ISA` asks for cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The value names nothing.
    #[error(
        "{ISA_VARIABLE}={value}: no such instruction set; accepted: {}; this CPU has: {}; unset it to use the best",
        Isa::list(|_| true), Isa::list(on_this_cpu)
    )]
    Unknown {
        /// The value, with anything that is not Unicode replaced.
        value: String,
    },
    /// This CPU, or its operating system, lacks the instructions.
    #[error(
        "{ISA_VARIABLE}={isa}: {missing}; accepted: {}; this CPU has: {}; unset it to use the best",
        Isa::list(|_| true), Isa::list(on_this_cpu)
    )]
    NotOnThisCpu {
        /// What was asked for.
        isa: Isa,
        /// What is missing, in words.
        missing: &'static str,
    },
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> crate::preference::Cpu {
    Default::default()
}

fn on_this_cpu(isa: Isa) -> bool {
    AnyInstructionSet::new(isa).is_ok()
}

/// The best of this CPU.
pub(crate) fn best() -> AnyInstructionSet {
    let present = cpu().best_first().into_iter().find_map(|isa| AnyInstructionSet::new(isa).ok());
    present.unwrap_or(AnyInstructionSet::Portable(Portable))
}

/// What to use given the value of `TRTLLM_CPU_ISA`; unset and empty mean the best of this CPU.
pub(crate) fn detect(value: Option<&OsStr>) -> Result<AnyInstructionSet, IsaError> {
    let value = match value {
        Some(value) if !value.is_empty() => value.to_string_lossy(),
        _ => return Ok(best()),
    };
    let isa: Isa = value.parse().map_err(|UnknownIsa { name }| IsaError::Unknown { value: name })?;
    AnyInstructionSet::new(isa).map_err(|missing| IsaError::NotOnThisCpu { isa, missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_obeyed() {
        let best = cpu().best_first().into_iter().find(|&isa| on_this_cpu(isa)).unwrap();
        assert_eq!(detect(None).unwrap().isa(), best);
        assert_eq!(detect(Some(OsStr::new(""))).unwrap().isa(), best);
        for isa in Isa::ALL {
            match detect(Some(OsStr::new(isa.name()))) {
                Ok(set) => assert_eq!(set.isa(), isa),
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
            let message = detect(Some(OsStr::new(value))).map(|set| set.isa()).unwrap_err().to_string();
            for part in [ISA_VARIABLE, value, "accepted: amx, avx512, avx512f, avx2, portable", "this CPU has: "] {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }
}
