//! The memory of blocks that were never used. It was promised when the cache was made; whether it is still there is asked again
//! as requests need it, since other programs, or the control group's limit, may have taken it.

use std::time::{Duration, Instant};

use system::{Machine, Promise};

use super::kv_cache::BlockManager;
use super::sizes::beside;

/// Time for which an answer is good enough: asking takes about 0.1 ms.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// The memory of one cache.
#[derive(Debug)]
pub(super) struct CacheMemory {
    machine: Machine,
    promise: Promise,
    /// Bytes of mapped weights, which the machine counts as free where they are not in memory.
    weights: u64,
    bytes_per_block: u64,
    /// Blocks that the promise was told of.
    touched: usize,
    asked: Option<Instant>,
}

impl CacheMemory {
    pub(super) fn new(machine: Machine, promise: Promise, weights: u64, bytes_per_block: u64) -> Self {
        Self { machine, promise, weights, bytes_per_block: bytes_per_block.max(1), touched: 0, asked: None }
    }

    /// Lets sequences start only within the memory that there is. Costs nothing where every block was used before.
    pub(super) fn look(&mut self, blocks: &mut BlockManager, now: Instant) {
        let new = blocks.touched() - self.touched;
        self.touched += new;
        if new > 0 {
            self.promise.note_touched((new as u64).saturating_mul(self.bytes_per_block));
        }
        let is_recent = self.asked.is_some_and(|asked| now.duration_since(asked) < GOOD_FOR);
        if !is_recent && blocks.touched() < blocks.num_blocks() {
            self.asked = Some(now);
            self.look_again(blocks);
        }
    }

    /// [`look`](Self::look), now; says what there is.
    pub(super) fn look_again(&mut self, blocks: &mut BlockManager) -> String {
        let Some(available) = self.promise.touchable(&self.machine) else {
            blocks.set_capacity(usize::MAX);
            return "the system does not say how much is left".to_owned();
        };
        let left = beside(available.bytes, self.weights);
        let new = usize::try_from(left / self.bytes_per_block).unwrap_or(usize::MAX);
        blocks.set_capacity(blocks.touched().saturating_add(new));
        format!("{left} bytes may be taken ({})", available.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::kv_cache::BlockTable;
    use crate::inflight::prefix::Salt;

    #[test]
    fn what_may_start_follows_the_memory_that_is_left() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc")).unwrap();
        let set_free =
            |kib: u64| std::fs::write(dir.path().join("proc/meminfo"), format!("MemAvailable: {kib} kB\n")).unwrap();
        set_free(100);
        let machine = Machine::at(dir.path());
        let promise = Promise::new(&machine, |_| 64 * 1024);
        let mut memory = CacheMemory::new(machine, promise, 0, 1024);
        let mut blocks = BlockManager::new(64, 1);
        let start = Instant::now();
        memory.look(&mut blocks, start);
        assert_eq!(blocks.available(), 64);
        let mut table = BlockTable::new(Salt { shared: None, private: None });
        assert!(blocks.grow(&mut table, 10));
        // An answer is good for a while; then less may be left.
        set_free(5);
        memory.look(&mut blocks, start + GOOD_FOR / 2);
        assert_eq!((blocks.available(), memory.promise.left()), (54, 54 * 1024));
        memory.look(&mut blocks, start + 2 * GOOD_FOR);
        assert_eq!(blocks.available(), 5);
        // What has started gets what it was promised; what it gives back can be had.
        assert!(blocks.grow(&mut table, 20));
        assert_eq!(blocks.available(), 0);
        blocks.release(&mut table);
        assert_eq!(blocks.available(), 20);
        set_free(1000);
        memory.look(&mut blocks, start + 4 * GOOD_FOR);
        assert_eq!((blocks.available(), memory.promise.left()), (64, 44 * 1024));
    }
}
