//! An instruction set chosen at run time: the one place that knows them all.

#![forbid(unsafe_code)]

use crate::isa::Isa;
use crate::portable::Portable;
use crate::tiled::{Tiled, software::Software};
#[cfg(target_arch = "x86_64")]
use crate::x86_64::{
    amx::{Amx, AmxAvx512},
    avx2::Avx2,
    avx512::{Avx512, Avx512Bf16},
};

/// The token of some instruction set that this CPU has.
#[derive(Clone, Copy)]
pub(crate) enum AnyInstructionSet {
    #[cfg(target_arch = "x86_64")]
    Amx(AmxAvx512),
    /// AMX's code over tiles in plain Rust.
    SoftwareTiles(Tiled<Software, Portable>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Bf16),
    #[cfg(target_arch = "x86_64")]
    Avx512f(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

/// Evaluates an expression with the token that an [`AnyInstructionSet`] holds. The expression is compiled once for each
/// type of token.
macro_rules! with_isa {
    ($set:expr, $isa:ident => $work:expr) => {
        match $set {
            #[cfg(target_arch = "x86_64")]
            $crate::any_instruction_set::AnyInstructionSet::Amx($isa) => $work,
            $crate::any_instruction_set::AnyInstructionSet::SoftwareTiles($isa) => $work,
            #[cfg(target_arch = "x86_64")]
            $crate::any_instruction_set::AnyInstructionSet::Avx512($isa) => $work,
            #[cfg(target_arch = "x86_64")]
            $crate::any_instruction_set::AnyInstructionSet::Avx512f($isa) => $work,
            #[cfg(target_arch = "x86_64")]
            $crate::any_instruction_set::AnyInstructionSet::Avx2($isa) => $work,
            $crate::any_instruction_set::AnyInstructionSet::Portable($isa) => $work,
        }
    };
}
pub(crate) use with_isa;

impl AnyInstructionSet {
    /// # Errors
    /// What this CPU or its operating system lacks, in words.
    pub(crate) fn new(isa: Isa) -> Result<Self, &'static str> {
        const MISSING: &str = "this CPU lacks these instructions";
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                let vectors = Avx512::new().ok_or("this CPU lacks AVX-512 F, BW, VL or DQ")?;
                Ok(Self::Amx(Tiled { unit: Amx::new()?, vectors }))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512Bf16::new().map(Self::Avx512).ok_or(MISSING),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512f => Avx512::new().map(Self::Avx512f).ok_or(MISSING),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Self::Avx2).ok_or(MISSING),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512 | Isa::Avx512f | Isa::Avx2 => Err(MISSING),
            Isa::Portable => Ok(Self::Portable(Portable)),
        }
    }

    /// AMX's code over tiles in plain Rust, which every CPU runs.
    pub(crate) fn software_tiles() -> Self {
        Self::SoftwareTiles(Tiled { unit: Software, vectors: Portable })
    }

    /// Which instruction set this is; tiles in software count as AMX.
    pub(crate) fn isa(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Isa::Amx,
            Self::SoftwareTiles(_) => Isa::Amx,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512f(_) => Isa::Avx512f,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            Self::Portable(_) => Isa::Portable,
        }
    }
}
