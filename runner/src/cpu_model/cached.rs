//! The decoder with a KV cache, as in-flight batching drives it.

use cpu_kernels::Kernels;
use rayon::ThreadPool;

use super::{CpuModel, ForwardPass, KvCache, MemoryError};
use crate::executor::KvCacheDtype;
use crate::model::{BlockId, ForwardError, Interrupted, Model, StepSequence};

/// A decoder and the keys and values of the sequences that it works on.
#[derive(Debug)]
pub struct CachedCpuModel {
    model: CpuModel,
    cache: KvCache,
    pass: ForwardPass,
}

impl CachedCpuModel {
    /// The decoder with an empty cache of this many blocks, and the buffers of its passes.
    ///
    /// # Errors
    /// The system does not give the cache's memory.
    pub fn new(
        model: CpuModel,
        pass: ForwardPass,
        dtype: KvCacheDtype,
        num_blocks: usize,
        tokens_per_block: usize,
    ) -> Result<Self, MemoryError> {
        let cache = KvCache::new(model.config(), dtype, num_blocks, tokens_per_block)?;
        Ok(Self { model, cache, pass })
    }
}

impl Model for CachedCpuModel {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn num_blocks(&self) -> usize {
        self.cache.num_blocks()
    }

    fn tokens_per_block(&self) -> usize {
        self.cache.tokens_per_block()
    }

    fn bytes_per_block(&self) -> usize {
        self.cache.bytes_per_block()
    }

    fn sliding_window(&self) -> Option<usize> {
        self.model.config().sliding_window
    }

    fn kernels(&self) -> Kernels {
        self.model.kernels()
    }

    fn pool(&self) -> &ThreadPool {
        self.model.pool()
    }

    fn forward(
        &mut self,
        sequences: &[StepSequence<'_>],
        interrupted: &mut Interrupted<'_>,
    ) -> Result<(), ForwardError> {
        self.model.forward(&mut self.pass, &mut self.cache, sequences, interrupted)
    }

    fn logits<'a>(&mut self, rows: &[usize], out: &'a mut Vec<f32>) -> &'a mut [f32] {
        self.model.logits(&mut self.pass, rows, out)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.cache.copy_block(from, to);
    }
}
