//! The KV cache's book-keeping: which block belongs to whom. Keys and values themselves are in
//! [`crate::cpu_model::KvCache`].
//!
//! A block is *free* (its content is of no use), *idle* (nobody holds it, but it can be found as a prefix), or *held*
//! by one or more tables. Blocks are taken from the free ones, then from the idle ones, least recently held first.
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
    free: Vec<BlockId>,
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
            // Taken from the end: low numbers first, so that memory is touched only as far as it is needed.
            free: (0..num_blocks as BlockId).rev().collect(),
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

    /// Blocks that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
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
            free_num_blocks: self.available(),
            used_num_blocks: self.num_blocks() - self.available(),
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
        if missing > self.available() {
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

    fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.free.pop() {
            Some(block) => block,
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
