//! What a CPU engine's matrices are stored as.

use std::fmt;
use std::str::FromStr;

/// The type of the weights of matrix products. Everything else, norms, biases and embeddings, is bfloat16 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// bfloat16.
    #[default]
    Bf16,
    /// Eight bits, in blocks of 32 with a scale: 8.5 bits a weight.
    Int8,
    /// Four bits, in blocks of 32 with a scale and a minimum: 4.75 bits a weight. The output head and a few others have eight.
    Int4,
}

impl WeightType {
    /// All of them.
    pub const ALL: [WeightType; 3] = [WeightType::Bf16, WeightType::Int8, WeightType::Int4];

    /// The name that `--weights` knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            WeightType::Bf16 => "bf16",
            WeightType::Int8 => "int8",
            WeightType::Int4 => "int4",
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no type of weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no type of weights: bf16, int8 or int4")]
pub struct UnknownWeightType {
    /// The name as it was given.
    pub name: String,
}

impl FromStr for WeightType {
    type Err = UnknownWeightType;

    /// # Errors
    /// Anything but the exact, lower-case names.
    fn from_str(name: &str) -> Result<Self, UnknownWeightType> {
        let found = Self::ALL.into_iter().find(|weights| weights.name() == name);
        found.ok_or_else(|| UnknownWeightType { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for weights in WeightType::ALL {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert!("INT8".parse::<WeightType>().is_err());
    }
}
