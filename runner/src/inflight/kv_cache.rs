//! The KV cache's book-keeping: which block belongs to whom. Keys and values themselves are in
//! [`crate::cpu_model::KvCache`].
//!
//! A block is *free* (its content is of no use), *idle* (nobody holds it, but it can be found as a prefix), or *held*
//! by one or more tables; all that is *untouched*: it was never used, and the system has given it no memory yet. Blocks are
//! taken from the free ones, then from the idle ones, least recently held first, then from the untouched ones, lowest first; but
//! as long as the cache is small, untouched ones come before idle ones, so that prefixes are kept.
//!
//! A block that is taken or given back costs a look-up, or `O(log idle)` where it is or becomes idle. Finding or registering a
//! prefix hashes and compares each of its tokens once.
//!
//! Under a sliding window a table gives back the blocks that no later token sees. They stay what they are to those who look for
//! their prefix: a chain of blocks is found from its root, and only what is seen of it is held.

use std::collections::BTreeMap;

use super::prefix::{Parent, PrefixIndex, Salt};
use crate::executor::{KvCacheStats, TokenId};
use crate::model::BlockId;

/// The blocks of one sequence, from its first token on.
///
/// Invariants: `passed <= registered <= blocks.len()`; `last` is the prefix that ends with block `registered - 1`, and the root where
/// none is registered.
#[derive(Debug)]
pub(super) struct BlockTable {
    blocks: Vec<BlockId>,
    /// How many of the blocks, from the first on, have been given back, since no later token sees them: they have no number.
    passed: usize,
    /// How many of the blocks, from the first on, are known as prefixes: found as such, or registered.
    registered: usize,
    /// What the last of them is known as: the parent of the block after it.
    last: Parent,
}

impl BlockTable {
    /// A table of no blocks.
    pub(super) fn new(salt: Salt) -> Self {
        Self { blocks: Vec::new(), passed: 0, registered: 0, last: Parent::Root(salt) }
    }

    /// Checks the invariants.
    fn check(&self) {
        debug_assert!(self.passed <= self.registered && self.registered <= self.blocks.len(), "{self:?}");
        debug_assert_eq!(matches!(self.last, Parent::Root(_)), self.registered == 0, "{self:?}");
    }

    /// The blocks, in order; those that it has passed are [`NO_BLOCK`].
    pub(super) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// How many of the blocks have been given back.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// How many of the blocks it holds.
    pub(super) fn held(&self) -> usize {
        self.blocks.len() - self.passed
    }

    /// How many of the blocks are known as prefixes.
    pub(super) fn registered(&self) -> usize {
        self.registered
    }

    /// What comes before the first block that is not.
    pub(super) fn last(&self) -> Parent {
        self.last
    }
}

/// In place of a block that a table has given back.
pub(super) const NO_BLOCK: BlockId = BlockId::MAX;

/// How much of a sequence can be found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub blocks: usize,
    /// How many of them nobody holds.
    pub idle: usize,
    /// What comes before the first block that cannot be found.
    pub last: Parent,
}

/// The pool.
#[derive(Debug)]
pub(super) struct BlockManager {
    tokens_per_block: usize,
    holders: Vec<u32>,
    /// Free blocks that were used before.
    free: Vec<BlockId>,
    /// Blocks below this one have been used.
    touched: usize,
    /// How many blocks may be touched, as far as that is known: nothing is started that would need more.
    capacity: usize,
    /// As long as fewer are touched, untouched blocks are taken before idle ones.
    keep: usize,
    /// Idle blocks by the time at which they became idle.
    idle: BTreeMap<u64, BlockId>,
    idle_since: Vec<u64>,
    clock: u64,
    prefixes: PrefixIndex,
    alloc_new_blocks: u64,
    reused_blocks: u64,
    missed_blocks: u64,
}

impl BlockManager {
    /// A pool of `num_blocks` free blocks.
    pub(super) fn new(num_blocks: usize, tokens_per_block: usize) -> Self {
        Self {
            tokens_per_block,
            holders: vec![0; num_blocks],
            free: Vec::new(),
            touched: 0,
            capacity: num_blocks,
            keep: num_blocks,
            idle: BTreeMap::new(),
            idle_since: vec![0; num_blocks],
            clock: 0,
            prefixes: PrefixIndex::default(),
            alloc_new_blocks: 0,
            reused_blocks: 0,
            missed_blocks: 0,
        }
    }

    /// Blocks in all.
    pub(super) fn num_blocks(&self) -> usize {
        self.holders.len()
    }

    /// Takes untouched blocks before idle ones only while fewer than `blocks` are touched.
    pub(super) fn keep_unused_prefixes_within(&mut self, blocks: usize) {
        self.keep = blocks.min(self.num_blocks());
    }

    /// Blocks that have been used: those below this number.
    pub(super) fn touched(&self) -> usize {
        self.touched
    }

    /// Sets how many blocks may be touched; what is touched already stays.
    pub(super) fn set_capacity(&mut self, blocks: usize) {
        self.capacity = blocks.clamp(self.touched, self.num_blocks());
    }

    /// Blocks that may be touched, with those that are.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Blocks that nobody holds and that may be touched. A sequence that was promised more than that gets it all the same.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len() + self.capacity.saturating_sub(self.touched)
    }

    /// Blocks that nobody holds.
    fn not_held(&self) -> usize {
        self.free.len() + self.idle.len() + self.num_blocks() - self.touched
    }

    /// Blocks that `tokens` tokens fill, the last perhaps in part.
    pub(super) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.tokens_per_block)
    }

    /// Tokens of one block.
    pub(super) fn tokens_per_block(&self) -> usize {
        self.tokens_per_block
    }

    /// How often a prefix was looked for.
    #[cfg(test)]
    pub(super) fn look_ups(&self) -> u64 {
        self.prefixes.look_ups.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The state of the pool.
    pub(super) fn stats(&self) -> KvCacheStats {
        KvCacheStats {
            max_num_blocks: self.num_blocks(),
            free_num_blocks: self.not_held(),
            used_num_blocks: self.num_blocks() - self.not_held(),
            tokens_per_block: self.tokens_per_block,
            alloc_total_blocks: self.alloc_new_blocks + self.reused_blocks,
            alloc_new_blocks: self.alloc_new_blocks,
            reused_blocks: self.reused_blocks,
            missed_blocks: self.missed_blocks,
        }
    }

    /// How many of the full blocks of `tokens`, from the first on, can be found.
    pub(super) fn find_prefix(&self, salt: Salt, tokens: &[TokenId]) -> Found {
        let mut found = Found { blocks: 0, idle: 0, last: Parent::Root(salt) };
        for tokens in tokens.chunks_exact(self.tokens_per_block) {
            let Some((node, block)) = self.prefixes.find(found.last, tokens) else { break };
            found.last = node;
            found.blocks += 1;
            found.idle += usize::from(self.holders[block as usize] == 0);
        }
        found
    }

    /// Gives an empty table the blocks that hold a prefix of `tokens`, but for the first `passed(n)` of `n` tokens, which nobody
    /// sees; the number of tokens that they hold.
    pub(super) fn take_prefix(
        &mut self,
        table: &mut BlockTable,
        tokens: &[TokenId],
        passed: impl Fn(usize) -> usize,
    ) -> usize {
        debug_assert!(table.blocks.is_empty() && table.registered == 0, "only an empty table takes a prefix");
        let full = tokens.len() / self.tokens_per_block;
        for tokens in tokens.chunks_exact(self.tokens_per_block) {
            let Some((node, block)) = self.prefixes.find(table.last, tokens) else { break };
            table.blocks.push(block);
            table.last = node;
            table.registered += 1;
        }
        table.passed = passed(table.blocks.len() * self.tokens_per_block).min(table.blocks.len());
        for &block in &table.blocks[table.passed..] {
            self.hold(block);
        }
        // The last first: without its beginning a prefix is of no use, so its end should be evicted earlier.
        for block in table.blocks[..table.passed].iter_mut().rev() {
            if self.holders[*block as usize] == 0 {
                self.idle.remove(&self.idle_since[*block as usize]);
                self.leave_idle(*block);
            }
            *block = NO_BLOCK;
        }
        self.reused_blocks += table.blocks.len() as u64;
        self.missed_blocks += (full - table.blocks.len()) as u64;
        table.check();
        table.blocks.len() * self.tokens_per_block
    }

    /// Adds blocks to a table until it has room for `tokens` tokens. Where there are not enough, nothing is added and
    /// the answer is false.
    pub(super) fn grow(&mut self, table: &mut BlockTable, tokens: usize) -> bool {
        let missing = self.blocks_for(tokens).saturating_sub(table.blocks.len());
        if missing > self.not_held() {
            return false;
        }
        table.blocks.extend((0..missing).map_while(|_| self.allocate()));
        true
    }

    /// Registers the blocks of a table that are full of computed keys and values; `tokens` are the computed ones.
    pub(super) fn register(&mut self, table: &mut BlockTable, tokens: &[TokenId]) {
        for index in table.registered..tokens.len() / self.tokens_per_block {
            let tokens = &tokens[index * self.tokens_per_block..][..self.tokens_per_block];
            table.last = self.prefixes.register(table.last, tokens, table.blocks[index]);
            table.registered = index + 1;
        }
        table.check();
    }

    /// A table that shares the full blocks of `table`, which holds `tokens` computed tokens, and has a block of its own
    /// for the rest: the content of the first block of the pair is to be copied into the second. `None` where no block
    /// is left.
    pub(super) fn fork(
        &mut self,
        table: &BlockTable,
        tokens: usize,
    ) -> Option<(BlockTable, Option<(BlockId, BlockId)>)> {
        let full = tokens / self.tokens_per_block;
        let copy = match table.blocks.get(full).filter(|_| !tokens.is_multiple_of(self.tokens_per_block)) {
            Some(&partial) => Some((partial, self.allocate()?)),
            None => None,
        };
        // Blocks are registered when they are full, so all that are registered are shared.
        debug_assert!(table.registered <= full, "a block is registered before it is full");
        let mut shared = table.blocks[..full].to_vec();
        shared[table.passed..].iter().for_each(|&block| self.hold(block));
        shared.extend(copy.map(|(_, new)| new));
        let fork = BlockTable { blocks: shared, passed: table.passed, registered: table.registered, last: table.last };
        fork.check();
        Some((fork, copy))
    }

    /// Gives a table's blocks back. The table is of no use afterwards.
    pub(super) fn release(&mut self, table: &mut BlockTable) {
        // The last first: without its beginning a prefix is of no use, so its end should be evicted earlier.
        for block in table.blocks.drain(table.passed..).rev() {
            self.give_back(block);
        }
        table.blocks.clear();
    }

    /// Gives the first `passed` blocks of a table back, as far as they are full and it has them.
    pub(super) fn pass(&mut self, table: &mut BlockTable, passed: usize) {
        let passed = passed.min(table.registered);
        for index in table.passed..passed {
            self.give_back(std::mem::replace(&mut table.blocks[index], NO_BLOCK));
            table.passed = index + 1;
        }
        table.check();
    }

    fn give_back(&mut self, block: BlockId) {
        let holders = &mut self.holders[block as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if self.prefixes.contains(block) {
            self.leave_idle(block);
        } else {
            self.free.push(block);
        }
    }

    fn leave_idle(&mut self, block: BlockId) {
        self.clock += 1;
        self.idle_since[block as usize] = self.clock;
        self.idle.insert(self.clock, block);
    }

    fn hold(&mut self, block: BlockId) {
        let holders = &mut self.holders[block as usize];
        if *holders == 0 {
            self.idle.remove(&self.idle_since[block as usize]);
        }
        *holders += 1;
    }

    /// The next block that was never used.
    fn touch(&mut self) -> Option<BlockId> {
        let block = self.touched;
        self.touched += usize::from(block < self.num_blocks());
        (block < self.num_blocks()).then_some(block as BlockId)
    }

    fn allocate(&mut self) -> Option<BlockId> {
        let fresh_first = self.touched < self.keep.min(self.capacity);
        let block = match self.free.pop() {
            Some(block) => block,
            None if fresh_first || self.idle.is_empty() => self.touch()?,
            None => {
                let (_, block) = self.idle.pop_first()?;
                self.prefixes.forget(block);
                block
            }
        };
        self.holders[block as usize] = 1;
        self.alloc_new_blocks += 1;
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills `blocks` blocks of one token each with a sequence of its own, and ends it; the highest number that it held.
    fn run(manager: &mut BlockManager, salt: u64, blocks: usize) -> BlockId {
        let salt = Salt { shared: Some(salt), private: None };
        let tokens: Vec<TokenId> = (0..blocks as TokenId).collect();
        let mut table = BlockTable::new(salt);
        assert!(manager.grow(&mut table, blocks));
        manager.register(&mut table, &tokens);
        let highest = table.blocks().iter().copied().max().unwrap();
        manager.release(&mut table);
        highest
    }

    #[test]
    fn blocks_that_were_used_come_before_untouched_ones() {
        let mut manager = BlockManager::new(100, 1);
        manager.keep_unused_prefixes_within(25);
        // Unused prefixes are kept up to there, and evicted beyond.
        let highest: Vec<_> = (0..20).map(|salt| run(&mut manager, salt, 10)).collect();
        assert_eq!(highest[..3], [9, 19, 24]);
        assert!(highest[3..].iter().all(|&highest| highest < 25), "{highest:?}");
        assert_eq!((manager.touched(), manager.available()), (25, 100));
        // What needs more gets more, and what is used no more is used again.
        assert_eq!(run(&mut manager, 20, 60), 59);
        assert_eq!((0..20).map(|salt| run(&mut manager, salt, 10)).max(), Some(59));
        assert_eq!(manager.touched(), 60);
    }

    #[test]
    fn a_cache_of_a_given_size_keeps_prefixes_until_it_is_full() {
        let mut manager = BlockManager::new(100, 1);
        let highest: Vec<_> = (0..10).map(|salt| run(&mut manager, salt, 10)).collect();
        assert_eq!(highest, (0..10).map(|run| 10 * run + 9).collect::<Vec<_>>());
        assert!((0..10).all(|salt| manager.find_prefix(Salt { shared: Some(salt), private: None }, &[0]).blocks == 1));
        run(&mut manager, 10, 10);
        assert_eq!(manager.find_prefix(Salt { shared: Some(0), private: None }, &[0]).blocks, 0);
    }
}
