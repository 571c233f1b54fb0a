//! What in-flight batching needs of a model: a forward pass over a KV cache in blocks, and the logits that follow it.
//!
//! Which block belongs to which sequence is not the model's business: it is told with every pass.

use cpu_kernels::Kernels;
use rayon::ThreadPool;

use crate::executor::TokenId;

/// A block's number in the KV cache, from 0.
pub type BlockId = u32;

/// The next tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct StepSequence<'a> {
    /// The tokens; at least one.
    pub tokens: &'a [TokenId],
    /// Position of the first of them in the sequence.
    pub start: usize,
    /// The sequence's blocks of the cache, enough for `start + tokens.len()` tokens. Those that lie wholly before what the first
    /// token sees may be any number.
    pub blocks: &'a [BlockId],
}

/// Why a pass was not finished. Nothing that it stored may be taken for computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The caller's `interrupted` said so.
    #[error("the forward pass was interrupted")]
    Interrupted,
}

/// Asked between layers: whether the pass is to be dropped. It may take its time to find out, but not that of a layer.
pub type Interrupted<'a> = dyn FnMut() -> bool + Send + 'a;

/// A model with its KV cache. One thread calls it.
pub trait Model: Send {
    /// Tokens of the vocabulary: columns of the logits.
    fn vocab_size(&self) -> usize;

    /// Blocks of the KV cache.
    fn num_blocks(&self) -> usize;

    /// Tokens of one block.
    fn tokens_per_block(&self) -> usize;

    /// Bytes of one block.
    fn bytes_per_block(&self) -> usize;

    /// With a sliding window of W, a token at position i sees positions i - W + 1 to i; otherwise all up to i.
    fn sliding_window(&self) -> Option<usize>;

    /// The kernels that sample from the logits.
    fn kernels(&self) -> Kernels;

    /// The threads that sample from the logits.
    fn pool(&self) -> &ThreadPool;

    /// Computes the tokens of `sequences`, and stores their keys and values in the blocks. Blocks hold those of all tokens
    /// before `start`. `interrupted` is asked between layers.
    ///
    /// # Errors
    /// The pass was not finished; another may follow, over the same tokens or others.
    ///
    /// # Panics
    /// When a token is outside the vocabulary or the blocks do not cover the tokens; callers hold checked requests.
    fn forward(
        &mut self,
        sequences: &[StepSequence<'_>],
        interrupted: &mut Interrupted<'_>,
    ) -> Result<(), ForwardError>;

    /// The raw logits of what follows tokens of the last pass, `[rows, vocab_size]`, at the start of `out`, which grows where
    /// it must. `rows` are numbers of tokens, counted over all sequences of the pass.
    fn logits<'a>(&mut self, rows: &[usize], out: &'a mut Vec<f32>) -> &'a mut [f32];

    /// Copies a block's keys and values.
    fn copy_block(&mut self, from: BlockId, to: BlockId);
}
