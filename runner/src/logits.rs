//! What a model's raw logits must be.

use cpu_kernels::Kernels;

/// Checks logits that nobody has changed yet, `[rows, vocab_size]`. Costs one pass over them, at the speed of the cache.
///
/// # Errors
/// A logit is infinite or not a number, as a sentence that ends a request.
pub(crate) fn check_finite(kernels: Kernels, logits: &[f32], vocab_size: usize) -> Result<(), String> {
    if kernels.all_finite(logits) { Ok(()) } else { Err(problem(logits, vocab_size)) }
}

/// A copy of logits, which are the largest thing that a token takes.
///
/// # Errors
/// The system refuses the memory, as a sentence that ends a request.
pub(crate) fn copied(logits: &[f32]) -> Result<Vec<f32>, String> {
    let mut copy = Vec::new();
    let refused = |_| format!("the system refuses {} bytes for a copy of the logits", size_of_val(logits));
    copy.try_reserve_exact(logits.len()).map_err(refused)?;
    copy.extend_from_slice(logits);
    Ok(copy)
}

/// What is wrong with logits that are not all finite.
pub(crate) fn problem(logits: &[f32], vocab_size: usize) -> String {
    let bad = || logits.iter().enumerate().filter(|(_, logit)| !logit.is_finite());
    let (place, logit) = bad().next().unwrap_or((0, &f32::NAN));
    format!(
        "the model's logits are not numbers: it computed {logit} for token {}, and {} of {} logits are infinite or NaN; its weights are damaged or overflow bfloat16: build the engine again from intact weights",
        place % vocab_size,
        bad().count(),
        logits.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_logit_is_named() {
        let kernels = Kernels::detect().unwrap();
        let mut logits = vec![-3.0e38; 2 * 100];
        assert_eq!(check_finite(kernels, &logits, 100), Ok(()));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            logits[117] = value;
            logits[199] = value;
            let problem = check_finite(kernels, &logits, 100).unwrap_err();
            assert!(problem.contains(&format!("computed {value} for token 17, and 2 of 200")), "{problem}");
        }
    }
}
