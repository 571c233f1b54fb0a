//! How many blocks a sequence can come to hold.
//!
//! Without a sliding window that is all of its tokens. With one, blocks that no later token sees are given back as soon as
//! they are computed, so a sequence holds those of its window and of the chunk that is computed next.

/// What a sequence's need of blocks follows from.
#[derive(Debug, Clone, Copy)]
pub(in crate::inflight) struct Demand {
    pub tokens_per_block: usize,
    /// The most tokens of an iteration.
    pub max_num_tokens: usize,
    pub sliding_window: Option<usize>,
}

/// The size of one sequence.
#[derive(Debug, Clone, Copy)]
pub(in crate::inflight) struct Size {
    pub prompt_len: usize,
    /// Tokens that may get into the cache: all but the last generated one.
    pub max_cached: usize,
    pub beam_width: usize,
}

impl Size {
    /// One sequence whose prompt is nearly all of its `tokens` tokens.
    pub(in crate::inflight) fn of(tokens: usize) -> Self {
        Self { prompt_len: tokens, max_cached: tokens, beam_width: 1 }
    }
}

impl Demand {
    /// Blocks, from the first on, that the token at position `computed` and later ones do not see.
    pub(in crate::inflight) fn passed(&self, computed: usize) -> usize {
        self.sliding_window.map_or(0, |window| (computed + 1).saturating_sub(window) / self.tokens_per_block)
    }

    /// The most blocks that a sequence ever holds.
    pub(in crate::inflight) fn most(&self, size: Size) -> usize {
        self.in_context(size).max(self.generating(size))
    }

    /// The most blocks that it holds until its context is computed.
    pub(in crate::inflight) fn in_context(&self, size: Size) -> usize {
        let all = size.max_cached.div_ceil(self.tokens_per_block);
        // The first token of a chunk sees a window, and the others one token more each.
        self.sliding_window.map_or(all, |window| all.min(self.span(window.saturating_add(self.max_num_tokens - 1))))
    }

    /// The most blocks that it holds afterwards. Beams share the full blocks of the prompt.
    pub(in crate::inflight) fn generating(&self, Size { prompt_len, max_cached, beam_width }: Size) -> usize {
        let all = max_cached.div_ceil(self.tokens_per_block);
        let shared = if beam_width > 1 { prompt_len / self.tokens_per_block } else { 0 };
        let whole = shared + beam_width * (all - shared);
        self.sliding_window.map_or(whole, |window| whole.min(beam_width * self.span(window)))
    }

    /// The most blocks that consecutive tokens can be in.
    fn span(&self, tokens: usize) -> usize {
        (tokens - 1).div_ceil(self.tokens_per_block) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks held by a sequence that is computed in the largest chunks and then token by token, from the definition.
    fn held(demand: Demand, size: Size) -> (usize, usize) {
        let (mut computed, mut in_context, mut generating) = (0, 0, 0);
        while computed < size.max_cached {
            let is_context = computed < size.prompt_len;
            let chunk = if is_context { demand.max_num_tokens.min(size.prompt_len - computed) } else { 1 };
            let first = demand.sliding_window.map_or(0, |window| (computed + 1).saturating_sub(window));
            let blocks = (computed + chunk).div_ceil(demand.tokens_per_block) - first / demand.tokens_per_block;
            let most = if is_context { &mut in_context } else { &mut generating };
            *most = blocks.max(*most);
            computed += chunk;
        }
        (in_context, generating)
    }

    #[test]
    fn a_window_bounds_what_is_held() {
        let demand = |sliding_window| Demand { tokens_per_block: 4, max_num_tokens: 8, sliding_window };
        let size = Size { prompt_len: 200, max_cached: 256, beam_width: 1 };
        assert_eq!((demand(None).in_context(size), demand(None).generating(size)), (64, 64));
        assert_eq!((demand(Some(16)).in_context(size), demand(Some(16)).generating(size)), (7, 5));
        for tokens_per_block in [1, 3, 4, 32] {
            for (max_num_tokens, window) in [(1, 1), (1, 16), (7, 5), (8, 16), (64, 3), (500, 40)] {
                for (prompt_len, max_cached) in [(1, 1), (1, 300), (17, 20), (200, 256)] {
                    let demand = Demand { tokens_per_block, max_num_tokens, sliding_window: Some(window) };
                    let size = Size { prompt_len, max_cached, beam_width: 1 };
                    let (in_context, generating) = held(demand, size);
                    assert!(in_context <= demand.in_context(size), "{demand:?} {size:?}");
                    assert!(generating <= demand.generating(size), "{demand:?} {size:?}");
                }
            }
        }
    }
}
