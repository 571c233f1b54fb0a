//! Rotary position embedding: settings, and the inverse frequencies that follow from them.
//!
//! Formulas: RoFormer (Su et al. 2021) for the base; `linear` divides positions by a factor; `llama3` is the
//! frequency-dependent scaling published with Llama 3.1.

use std::ops::RangeInclusive;

/// Bases that are accepted: with [`FACTORS`], those that give finite frequencies above zero in fp32.
pub const THETAS: RangeInclusive<f64> = 1.0..=1e30;

/// Factors of the scalings that are accepted.
pub const FACTORS: RangeInclusive<f64> = 1e-3..=1e6;

/// Settings of the rotary position embedding, applied to all of a head (NeoX order: two halves).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, one of [`THETAS`].
    pub theta: f64,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The factor, one of [`FACTORS`].
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a smooth step between.
    Llama3 {
        /// The factor, one of [`FACTORS`].
        factor: f64,
        /// Wavelengths longer than the original context divided by this are divided by `factor`.
        low_freq_factor: f64,
        /// Wavelengths shorter than the original context divided by this are kept; above `low_freq_factor`, in fp32 too.
        high_freq_factor: f64,
        /// Context length that the model was first trained with, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// The kinds that [`RopeScaling`] has, as `rope_type` spells them.
    pub const SUPPORTED: &'static str = "default, linear, llama3";
}

impl Rope {
    /// Radians per position of each pair of a head's elements: `[head_size / 2]`.
    ///
    /// Computed in fp32 in the order in which Transformers does, so that long positions get the same angles.
    pub fn inverse_frequencies(&self, head_size: usize) -> Vec<f32> {
        let unscaled = |i: usize| 1.0 / (self.theta as f32).powf((2 * i) as f32 / head_size as f32);
        let frequencies = (0..head_size / 2).map(unscaled);
        match self.scaling {
            RopeScaling::None => frequencies.collect(),
            RopeScaling::Linear { factor } => frequencies.map(|frequency| frequency / factor as f32).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let (factor, context) = (factor as f32, original_max_position_embeddings as f32);
                let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
                let stretch = |frequency: f32| {
                    let wavelength = std::f32::consts::TAU / frequency;
                    if wavelength > context / low {
                        frequency / factor
                    } else if wavelength < context / high {
                        frequency
                    } else {
                        let smooth = (context / wavelength - low) / (high - low);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                };
                frequencies.map(stretch).collect()
            }
        }
    }

    /// Cosines and sines, each `[positions.len(), head_size / 2]`, of the angles at `positions`.
    pub fn tables(inverse_frequencies: &[f32], positions: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
        let mut cos = Vec::new();
        let mut sin = Vec::new();
        for position in positions {
            for &frequency in inverse_frequencies {
                let angle = position as f32 * frequency;
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        (cos, sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_from_one() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
        let frequencies = rope.inverse_frequencies(8);
        for (frequency, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((frequency / expected - 1.0).abs() < 1e-6, "{frequencies:?}");
        }
        let linear = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        assert_eq!(linear.inverse_frequencies(8)[0], 0.25);
    }

    #[test]
    fn the_extremes_of_what_is_accepted_give_finite_frequencies() {
        let (smallest, largest) = (*FACTORS.start(), *FACTORS.end());
        for theta in [*THETAS.start(), *THETAS.end()] {
            for (factor, low_freq_factor, high_freq_factor) in
                [(smallest, smallest, largest), (largest, smallest, 2.0 * smallest), (largest, largest / 2.0, largest)]
            {
                let original_max_position_embeddings = 1 << 30;
                let llama3 =
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings };
                for scaling in [RopeScaling::Linear { factor }, llama3] {
                    let frequencies = Rope { theta, scaling }.inverse_frequencies(256);
                    assert!(frequencies.iter().all(|f| f.is_finite() && *f > 0.0), "{frequencies:?}");
                }
            }
        }
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None }.inverse_frequencies(128);
        let scaled = Rope { theta: 500_000.0, scaling }.inverse_frequencies(128);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        assert!(scaled.iter().zip(&plain).any(|(s, p)| *s < *p && *s > *p / 8.0), "some frequency lies between");
    }
}
