//! Weights that are infinite or not a number: found while they are converted, by a look at what was just written, which is
//! still in the cache. Only where there is one are the source's rows read again, to say which it is.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use engine_format::bf16;
use engine_format::dtype::round_to_bf16;

use crate::error::{BuildError, Result};
use crate::progress::Progress;
use crate::source::PartView;

/// Weights that would be written as an infinity or as NaN.
#[derive(Debug, Clone, PartialEq)]
pub struct NonFiniteWeights {
    /// How many, of all that were to be written. What several ranks hold counts for each of them.
    pub count: u64,
    /// How many tensors of the source they are in.
    pub tensors: usize,
    /// The file of the first one, by the names of files and tensors.
    pub path: PathBuf,
    /// Its tensor, as the source calls it.
    pub tensor: String,
    /// Its row and column in that tensor; of a vector, its place and 0.
    pub position: (usize, usize),
    /// What is stored there: finite where it is only too large for the type that it was to have.
    pub value: f32,
}

impl fmt::Display for NonFiniteWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, tensors, path, tensor, position: (row, column), value } = self;
        write!(f, "`{}`: tensor `{tensor}` has {value} at [{row}, {column}]", path.display())?;
        match (value.is_finite(), round_to_bf16(*value).is_finite()) {
            (true, false) => f.write_str(", which is infinite as a bfloat16")?,
            (true, true) => f.write_str(", which is too large for integer codes (it is not for bf16 weights)")?,
            (false, _) => {}
        }
        let weights = if *count == 1 { "weight is" } else { "weights are" };
        let places = if *tensors == 1 { "tensor" } else { "tensors" };
        write!(f, "; {count} {weights} infinite or NaN, in {tensors} {places}")
    }
}

/// What one conversion has found.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<BTreeMap<(PathBuf, String), InTensor>>);

#[derive(Debug)]
struct InTensor {
    count: u64,
    first: (usize, usize),
    value: f32,
}

impl Findings {
    /// Notes those of some rows and columns of `view`, and what is above `largest` in magnitude.
    pub(crate) fn note(&self, view: &PartView<'_>, rows: Range<usize>, columns: Range<usize>, largest: bf16) {
        view.for_each_outside(rows, columns, largest, |position, value| {
            let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (path, tensor) = view.name();
            let new = InTensor { count: 0, first: position, value };
            let in_tensor = found.entry((path.to_owned(), tensor.to_owned())).or_insert(new);
            in_tensor.count += 1;
            if position < in_tensor.first {
                (in_tensor.first, in_tensor.value) = (position, value);
            }
        });
    }

    /// Ends a conversion: refuses what was found, or says it where it is `allowed`.
    ///
    /// # Errors
    /// [`BuildError::NonFinite`].
    pub(crate) fn finish(self, allowed: bool, progress: &dyn Progress) -> Result<()> {
        let found = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(((path, tensor), first)) = found.iter().next() else { return Ok(()) };
        let weights = NonFiniteWeights {
            count: found.values().map(|in_tensor| in_tensor.count).sum(),
            tensors: found.len(),
            path: path.clone(),
            tensor: tensor.clone(),
            position: first.first,
            value: first.value,
        };
        if !allowed {
            return Err(BuildError::NonFinite(Box::new(weights)));
        }
        progress.note(&format!("warning: {weights}"));
        Ok(())
    }
}

/// Whether all of `weights` are numbers and at most `largest` in magnitude; [`bf16::MAX`] asks for finite ones.
pub(crate) fn all_within(weights: &[bf16], largest: bf16) -> bool {
    // Without a branch in the loop, so that it is vectorized. Magnitudes are ordered as their bits are.
    const MAGNITUDE: u16 = 0x7fff;
    let largest = largest.to_bits();
    weights
        .chunks(1 << 12)
        .all(|weights| weights.iter().fold(true, |all, weight| all & (weight.to_bits() & MAGNITUDE <= largest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_and_nans_are_no_finite_weights() {
        let mut weights = vec![bf16::MAX; 10_000];
        let all_finite = |weights: &[bf16]| all_within(weights, bf16::MAX);
        assert!(all_finite(&weights) && all_finite(&[bf16::MIN, bf16::MIN_POSITIVE_SUBNORMAL, bf16::NEG_ZERO]));
        assert!(!all_within(&weights, bf16::ONE) && all_within(&[-bf16::ONE], bf16::ONE));
        for place in [0, 4_095, 4_096, 9_999] {
            for value in [bf16::INFINITY, bf16::NEG_INFINITY, bf16::NAN] {
                weights[place] = value;
                assert!(!all_finite(&weights), "{value} at {place}");
                weights[place] = bf16::MAX;
            }
        }
    }
}
