//! Optimization profiles: the ranges of tokens of a step for each of which TensorRT chooses tactics of its own.
//!
//! Source: TensorRT-LLM 1.x, `models/generation_mixin.py` (`split_num_tokens_range`), and for the choice at run time
//! `runtime/tllmRuntime.h` (`getOptProfileId`) and `runtime/modelConfig.h` (`kOPT_PROFILES_SPLIT_POINTS`): an engine with one
//! profile uses that one, any other the first whose greatest number is not less than the step's tokens. So the ranges have to end
//! at the split points, or the runtime would take a profile that does not hold the step.

/// Tokens of a step at which the runtime goes over to the next profile.
const SPLIT_POINTS: [usize; 5] = [64, 128, 256, 512, 1024];

/// Least, best and greatest number of tokens of a step in each profile: one profile that is best at `best`, or where that is
/// `None`, those between the runtime's split points, each best at its end.
pub fn token_ranges(best: Option<usize>, max_num_tokens: usize) -> Vec<[usize; 3]> {
    if let Some(best) = best {
        return vec![[1, best.min(max_num_tokens), max_num_tokens]];
    }
    let ends = SPLIT_POINTS.into_iter().take_while(|&point| point < max_num_tokens).chain([max_num_tokens]);
    let mut least = 1;
    let range = |end| [std::mem::replace(&mut least, end), end, end];
    ends.map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_that_the_runtime_takes_holds_every_step() {
        for max in [1, 63, 64, 65, 128, 500, 1024, 1025, 8192] {
            let ranges = token_ranges(None, max);
            for tokens in 1..=max {
                let index = if ranges.len() == 1 { 0 } else { SPLIT_POINTS.partition_point(|&point| point < tokens) };
                let [least, best, greatest] = ranges[index];
                assert!(least <= tokens && tokens <= greatest && best == greatest, "{tokens} of {max}: {ranges:?}");
            }
        }
        let minitron =
            [[1, 64, 64], [64, 128, 128], [128, 256, 256], [256, 512, 512], [512, 1024, 1024], [1024, 8192, 8192]];
        assert_eq!(token_ranges(None, 8192), minitron);
        assert_eq!(token_ranges(Some(2048), 8192), [[1, 2048, 8192]]);
        assert_eq!(token_ranges(Some(2048), 512), [[1, 512, 512]]);
    }
}
