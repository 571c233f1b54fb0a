//! The best few of many logits, without sorting them: only blocks whose largest can be among them are looked into.

use std::cmp::Ordering;

use cpu_kernels::Kernels;

use crate::executor::{TokenId, TokenLogProb};

/// Logits of a block. Small, because blocks are searched one by one; not smaller, because each is a candidate.
const BLOCK: usize = 128;

/// The largest logit of each block, and of all.
pub(super) struct Maxima {
    of_blocks: Vec<f32>,
    best: f32,
}

impl Maxima {
    pub(super) fn of(kernels: Kernels, logits: &[f32]) -> Self {
        let mut of_blocks = vec![0.0; logits.len().div_ceil(BLOCK)];
        kernels.maxima(logits, BLOCK, &mut of_blocks);
        let best = of_blocks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { of_blocks, best }
    }

    /// The highest logit; minus infinity where none is a number above it.
    pub(super) fn best(&self) -> f32 {
        self.best
    }

    /// The token of the highest logit, the lowest id among equals; 0 where none is above minus infinity.
    pub(super) fn best_token(&self, logits: &[f32]) -> TokenId {
        if self.best == f32::NEG_INFINITY {
            return 0;
        }
        self.at_least(logits, self.best).next().map_or(0, |(_, token)| token)
    }

    /// The `k` best, the lowest ids among equals, in no order; fewer where there are fewer numbers.
    pub(super) fn top(&self, logits: &[f32], k: usize) -> Vec<(f32, TokenId)> {
        let Some(last) = k.checked_sub(1) else { return Vec::new() };
        // The k-th of the blocks' largest: at least k logits reach it, and few more.
        let threshold = if k <= self.of_blocks.len() {
            *self.of_blocks.clone().select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1
        } else {
            f32::NEG_INFINITY
        };
        let mut top: Vec<_> = self.at_least(logits, threshold).collect();
        if k < top.len() {
            top.select_nth_unstable_by(last, better_first);
            top.truncate(k);
        }
        top
    }

    fn at_least(&self, logits: &[f32], threshold: f32) -> impl Iterator<Item = (f32, TokenId)> {
        let blocks = self.of_blocks.iter().zip(logits.chunks(BLOCK)).zip((0..).step_by(BLOCK));
        blocks
            .filter(move |&((&largest, _), _)| largest >= threshold)
            .flat_map(|((_, logits), first)| logits.iter().copied().zip(first..))
            .filter(move |&(logit, _)| logit >= threshold)
    }
}

/// The order of preference; none of the logits is NaN.
fn better_first(a: &(f32, TokenId), b: &(f32, TokenId)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The token of the highest logit, the lowest id among equals; a NaN never wins, and 0 does where nothing can.
pub fn best(kernels: Kernels, logits: &[f32]) -> TokenId {
    Maxima::of(kernels, logits).best_token(logits)
}

/// The `n` most probable tokens of raw `logits`, best first, the lowest id among equals; `log_sum_exp` is theirs.
pub fn top_log_probs(kernels: Kernels, logits: &[f32], log_sum_exp: f32, n: usize) -> Vec<TokenLogProb> {
    let mut top = Maxima::of(kernels, logits).top(logits, n);
    top.sort_unstable_by(better_first);
    top.into_iter().map(|(logit, token_id)| TokenLogProb { token_id, log_prob: logit - log_sum_exp }).collect()
}
