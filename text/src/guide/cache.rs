//! Guides that were compiled lately, by their content.

use super::{Guide, GuidedDecodingParams};
use crate::TokenId;

/// Guides that are kept.
const CAPACITY: usize = 128;

/// The last [`CAPACITY`] guides that were asked for, the latest at the end. A look-up compares lengths before texts.
#[derive(Debug, Default)]
pub(super) struct Cache(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    params: GuidedDecodingParams,
    end_ids: Vec<TokenId>,
    guide: Guide,
}

impl Cache {
    /// The guide as it was compiled, which becomes the latest.
    pub(super) fn get(&mut self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Option<Guide> {
        let place = self.0.iter().position(|entry| entry.end_ids == end_ids && entry.params == *params)?;
        self.0[place..].rotate_left(1);
        self.0.last().map(|entry| entry.guide.clone())
    }

    /// Keeps a guide, in the place of the one that was not asked for for longest.
    pub(super) fn put(&mut self, params: &GuidedDecodingParams, end_ids: &[TokenId], guide: &Guide) {
        if self.0.len() == CAPACITY {
            self.0.remove(0);
        }
        self.0.push(Entry { params: params.clone(), end_ids: end_ids.to_vec(), guide: guide.clone() });
    }
}
