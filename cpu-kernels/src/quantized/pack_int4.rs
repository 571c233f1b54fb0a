//! `int4`: of many scales and minima of a block, those with the least squared error.
//!
//! All 16 columns of a panel are searched side by side: an array is one number of each, which compilers make vectors of.

use half::{bf16, f16};

use super::{BLOCK, INT4_STEP, Places, ROUNDER, nearest};
use crate::packed::PANEL_COLUMNS;

const LARGEST_CODE: f32 = 15.0;

/// Where searches begin: the codes reach over this many steps, in tenths, where 15 just covers all weights. Fewer
/// weights at the ends and finer steps between them are often better.
const REACHES: [u8; 6] = [138, 144, 150, 156, 162, 168];

/// How often a search gives each weight the nearest code and then fits scale and minimum to the codes. Three fits from each of six
/// beginnings leave 5 % less squared error than one from each of eighteen, at the same cost.
const FITS: usize = 3;

/// The largest zero, in steps.
const LARGEST_ZERO: f32 = 255.0 / INT4_STEP as f32;

/// One number of each column.
type Columns = [f32; PANEL_COLUMNS];

/// Packs up to 16 rows into a panel of zeros.
#[inline(always)]
pub(super) fn pack(rows: &[bf16], k: usize, places: Places, panel: &mut [u8]) {
    let (codes, rest) = panel.split_at_mut(places.scales);
    let (scales, zeros) = rest.split_at_mut(places.zeros - places.scales);
    let (scales, _) = scales.as_chunks_mut::<2>();
    let count = rows.len() / k;
    for block in 0..k.div_ceil(BLOCK) {
        let first = block * BLOCK;
        let len = BLOCK.min(k - first);
        let mut weights = [[0.0; PANEL_COLUMNS]; BLOCK];
        for (column, row) in rows.chunks_exact(k).enumerate() {
            for (weights, x) in weights.iter_mut().zip(&row[first..first + len]) {
                weights[column] = x.to_f32();
            }
        }
        let weights = &weights[..len];
        let (scale, zero) = search(weights);
        for column in 0..count {
            scales[block * PANEL_COLUMNS + column] = scale[column].to_le_bytes();
            zeros[block * PANEL_COLUMNS + column] = zero[column];
            let step = scale[column].to_f32();
            let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
            let offset = f32::from(zero[column]) / INT4_STEP as f32;
            for (i, weights) in weights.iter().enumerate() {
                let code = (weights[column] * inverse + offset).clamp(0.0, LARGEST_CODE);
                let byte = &mut codes[((first + i) / 8 * PANEL_COLUMNS + column) * 4 + i % 4];
                *byte |= (nearest(code) as u8) << (i / 4 % 2 * 4);
            }
        }
    }
}

/// The scale and the zero of each column of a block of up to 32 rows.
#[inline(always)]
fn search(weights: &[Columns]) -> ([f16; PANEL_COLUMNS], [u8; PANEL_COLUMNS]) {
    let (mut least, mut largest) = ([0.0_f32; PANEL_COLUMNS], [0.0_f32; PANEL_COLUMNS]);
    let (mut sum, mut squares) = ([0.0_f32; PANEL_COLUMNS], [0.0_f32; PANEL_COLUMNS]);
    for row in weights {
        for c in 0..PANEL_COLUMNS {
            let x = row[c];
            least[c] = if x < least[c] { x } else { least[c] };
            largest[c] = if x > largest[c] { x } else { largest[c] };
            sum[c] += x;
            squares[c] += x * x;
        }
    }
    // What stays where all weights are zero.
    let step = std::array::from_fn(|c| (largest[c] - least[c]) / LARGEST_CODE);
    let mut best = Best { error: [f32::INFINITY; PANEL_COLUMNS], step, least };
    for reach in REACHES {
        best.search_from(weights, f32::from(reach) / 10.0, (&least, &largest), (&sum, &squares));
    }
    let (mut scales, mut zeros) = ([f16::ZERO; PANEL_COLUMNS], [0; PANEL_COLUMNS]);
    for c in 0..PANEL_COLUMNS {
        let scale = f16::from_f32(best.step[c]);
        // A sum that is not finite belongs to a weight that is not, or to weights whose squares are out of range.
        if !squares[c].is_finite() || !scale.is_finite() {
            scales[c] = f16::NAN;
        } else if scale > f16::ZERO {
            scales[c] = scale;
            let zero = -best.least[c] / scale.to_f32() * INT4_STEP as f32;
            zeros[c] = nearest(zero.clamp(0.0, 255.0)) as u8;
        }
    }
    (scales, zeros)
}

/// The best that was found for each column.
struct Best {
    error: Columns,
    step: Columns,
    /// The weight of code 0, at most zero.
    least: Columns,
}

impl Best {
    /// Begins with steps of a `reach`th of the range.
    #[inline(always)]
    fn search_from(
        &mut self,
        weights: &[Columns],
        reach: f32,
        (least, largest): (&Columns, &Columns),
        of_weights: (&Columns, &Columns),
    ) {
        // Half of what is left over is cut at each end.
        let offset = (LARGEST_CODE - reach) / 2.0;
        let mut step: Columns = std::array::from_fn(|c| (largest[c] - least[c]) / reach);
        let mut minimum = std::array::from_fn(|c| least[c] - offset * step[c]);
        for _ in 0..FITS {
            self.fit(weights, &mut step, &mut minimum, of_weights);
        }
    }

    /// The codes that are nearest with this step and minimum; for these codes, the two with the least squared error. `sum` and
    /// `squares` are those of the weights.
    #[inline(always)]
    fn fit(
        &mut self,
        weights: &[Columns],
        step: &mut Columns,
        minimum: &mut Columns,
        (sum, squares): (&Columns, &Columns),
    ) {
        let mut inverse = [0.0_f32; PANEL_COLUMNS];
        for c in 0..PANEL_COLUMNS {
            inverse[c] = if step[c] > 0.0 { 1.0 / step[c] } else { 0.0 };
        }
        let (mut codes, mut code_squares, mut products) =
            ([0.0_f32; PANEL_COLUMNS], [0.0_f32; PANEL_COLUMNS], [0.0_f32; PANEL_COLUMNS]);
        for row in weights {
            for c in 0..PANEL_COLUMNS {
                let place = (row[c] - minimum[c]) * inverse[c];
                let place = if place > 0.0 { place } else { 0.0 };
                let place = if place < LARGEST_CODE { place } else { LARGEST_CODE };
                let code = (place + ROUNDER) - ROUNDER;
                codes[c] += code;
                code_squares[c] += code * code;
                products[c] += code * row[c];
            }
        }
        let count = weights.len() as f32;
        for c in 0..PANEL_COLUMNS {
            let determinant = count * code_squares[c] - codes[c] * codes[c];
            let mut fitted = (count * products[c] - codes[c] * sum[c]) / determinant;
            let mut least = (sum[c] - fitted * codes[c]) / count;
            if least > 0.0 {
                (fitted, least) = (products[c] / code_squares[c], 0.0);
            }
            // Where no zero is as far from code 0 as this minimum, or the codes say nothing of a step, they stay as they were.
            if fitted > 0.0 && -least <= fitted * LARGEST_ZERO {
                (step[c], minimum[c]) = (fitted, least);
            }
            let (step, minimum) = (step[c], minimum[c]);
            let error = squares[c] - 2.0 * (step * products[c] + minimum * sum[c])
                + step * step * code_squares[c]
                + 2.0 * step * minimum * codes[c]
                + count * minimum * minimum;
            if error < self.error[c] {
                (self.error[c], self.step[c], self.least[c]) = (error, step, minimum);
            }
        }
    }
}
