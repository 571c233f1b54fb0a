//! Which blocks hold which prefixes.
//!
//! A full block is known by its tokens and by the node of the block before it, so a chain of nodes from a root is a
//! prefix. Tokens are compared, not hashes of them: two prefixes are never taken for one another.
//!
//! A look-up hashes the tokens of one block. The tokens of an indexed block are kept twice, 8 bytes a token.

use std::collections::HashMap;

use crate::executor::TokenId;
use crate::model::BlockId;

/// Prefixes are shared among sequences of equal salt only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Salt {
    /// The request's `cache_salt_id`.
    pub shared: Option<u64>,
    /// The request itself, where blocks are not shared between requests.
    pub private: Option<u64>,
}

/// What comes before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Parent {
    /// Nothing: the block is the first.
    Root(Salt),
    /// The block that was registered under this number.
    Node(u64),
}

/// The blocks that follow one parent: their tokens, and their node and number.
type Children = HashMap<Box<[TokenId]>, (u64, BlockId)>;

/// The index of full blocks.
#[derive(Debug, Default)]
pub(super) struct PrefixIndex {
    children: HashMap<Parent, Children>,
    keys: HashMap<BlockId, (Parent, Box<[TokenId]>)>,
    next_node: u64,
    #[cfg(test)]
    pub(super) look_ups: std::sync::atomic::AtomicU64,
}

impl PrefixIndex {
    /// The block that holds `tokens` after `parent`, and its node.
    pub(super) fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<(Parent, BlockId)> {
        #[cfg(test)]
        self.look_ups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let &(node, block) = self.children.get(&parent)?.get(tokens)?;
        Some((Parent::Node(node), block))
    }

    /// Notes that `block` holds `tokens` after `parent`; the block's node. Where another block holds the same already,
    /// that one stays, and its node is given.
    pub(super) fn register(&mut self, parent: Parent, tokens: &[TokenId], block: BlockId) -> Parent {
        if let Some((node, _)) = self.find(parent, tokens) {
            return node;
        }
        let node = self.next_node;
        self.next_node += 1;
        self.children.entry(parent).or_default().insert(tokens.into(), (node, block));
        self.keys.insert(block, (parent, tokens.into()));
        Parent::Node(node)
    }

    /// Whether `block` can be found.
    pub(super) fn contains(&self, block: BlockId) -> bool {
        self.keys.contains_key(&block)
    }

    /// Forgets `block`. What was registered after it cannot be found any more, and ages until it is evicted.
    pub(super) fn forget(&mut self, block: BlockId) {
        let Some((parent, tokens)) = self.keys.remove(&block) else { return };
        if let Some(children) = self.children.get_mut(&parent) {
            children.remove(&tokens);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }
}
