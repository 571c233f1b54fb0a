//! Which instruction sets there are, and their names.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// An instruction set that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AMX-TILE, AMX-BF16 and AMX-INT8, beside all of [`Isa::Avx512f`].
    Amx,
    /// AVX-512 F, BW, VL, DQ and BF16.
    Avx512,
    /// AVX-512 F, BW, VL and DQ, whose matrix product is of fp32.
    Avx512f,
    /// AVX2 and FMA.
    Avx2,
    /// Whatever the compiler makes of plain Rust.
    Portable,
}

impl Isa {
    /// All of them.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx512f, Isa::Avx2, Isa::Portable];

    /// The name that `TRTLLM_CPU_ISA` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx512f => "avx512f",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// The names of those that `keep` accepts, for messages.
    pub(crate) fn list(keep: impl Fn(Isa) -> bool) -> String {
        let names: Vec<&str> = Isa::ALL.into_iter().filter(|&isa| keep(isa)).map(Isa::name).collect();
        names.join(", ")
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no instruction set of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an instruction set that there are kernels for: {}", Isa::list(|_| true))]
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
}
