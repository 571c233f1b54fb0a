//! The layout of keys and values in the cache: the order in which the products of attention read them.
//!
//! A *page* is what one KV head has of one block of the cache: `tokens_per_block` tokens of `head_dim` elements, and
//! no padding. Its keys lie as [`crate::packed`] has a matrix with a row for each token, 16 tokens to a panel, and its
//! values as the same of their transpose, 16 elements to a panel:
//!
//! ```text
//! keys      panels of 16 tokens       each [head_dim / 2 pairs of elements, 16 tokens, 2]
//! values    panels of 16 elements     each [tokens_per_block / 2 pairs of tokens, 16 elements, 2]
//! ```
//!
//! The last panel is narrower where 16 does not divide the tokens or the elements, and of an odd number of tokens the
//! last is a pair of one. So scores are a product of queries and key panels, the output is one of weights and value
//! panels, and no query transposes anything. A token is written once, its key in steps of 64 bytes and its value in steps of 4.

#![forbid(unsafe_code)]

use half::bf16;

use crate::packed::PANEL_COLUMNS;

/// Where the elements of a page lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Elements of a head: even.
    pub head_dim: usize,
    /// Tokens of a page, at least 1.
    pub tokens_per_block: usize,
}

/// Places at equal distances: `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    step: usize,
}

impl KvLayout {
    /// Elements of the keys of a page, and of its values.
    pub fn page_len(self) -> usize {
        self.tokens_per_block * self.head_dim
    }

    /// Stores the key of the token at `slot` of a page.
    ///
    /// # Panics
    /// If `slot` is not in the page, or `page` or `key` have another length than this layout's.
    pub fn store_key(self, page: &mut [bf16], slot: usize, key: &[bf16]) {
        self.check(page, slot, key);
        let Places { first, step } = self.key(slot);
        for (place, pair) in page[first..].chunks_mut(step).zip(key.as_chunks::<2>().0) {
            place[..2].copy_from_slice(pair);
        }
    }

    /// Stores the value of the token at `slot` of a page.
    ///
    /// # Panics
    /// As [`Self::store_key`].
    pub fn store_value(self, page: &mut [bf16], slot: usize, value: &[bf16]) {
        self.check(page, slot, value);
        for (panel, elements) in value.chunks(PANEL_COLUMNS).enumerate() {
            let Places { first, step } = self.value(slot, panel);
            for (place, element) in page[first..].iter_mut().step_by(step).zip(elements) {
                *place = *element;
            }
        }
    }

    /// Copies the key at `slot` of `page` to `to_slot` of `to`, a page of another layout with as many elements or more.
    pub(crate) fn copy_key(self, page: &[bf16], slot: usize, layout: KvLayout, to: &mut [bf16], to_slot: usize) {
        let (from, place) = (self.key(slot), layout.key(to_slot));
        let pairs = page[from.first..].chunks(from.step).take(self.head_dim / 2);
        for (place, pair) in to[place.first..].chunks_mut(place.step).zip(pairs) {
            place[..2].copy_from_slice(&pair[..2]);
        }
    }

    /// As [`Self::copy_key`].
    pub(crate) fn copy_value(self, page: &[bf16], slot: usize, layout: KvLayout, to: &mut [bf16], to_slot: usize) {
        for panel in 0..self.head_dim.div_ceil(PANEL_COLUMNS) {
            let columns = PANEL_COLUMNS.min(self.head_dim - panel * PANEL_COLUMNS);
            let (from, place) = (self.value(slot, panel), layout.value(to_slot, panel));
            let elements = page[from.first..].iter().step_by(from.step).take(columns);
            for (place, element) in to[place.first..].iter_mut().step_by(place.step).zip(elements) {
                *place = *element;
            }
        }
    }

    fn check(self, page: &[bf16], slot: usize, token: &[bf16]) {
        assert!(slot < self.tokens_per_block, "slot {slot} of a page of {} tokens", self.tokens_per_block);
        assert_eq!(page.len(), self.page_len(), "the keys or the values of one page");
        assert_eq!(token.len(), self.head_dim, "the key or the value of one token");
    }

    /// The pairs of a token's key.
    #[inline(always)]
    fn key(self, slot: usize) -> Places {
        let panel = slot / PANEL_COLUMNS * PANEL_COLUMNS;
        let columns = PANEL_COLUMNS.min(self.tokens_per_block - panel);
        Places { first: panel * self.head_dim + 2 * (slot - panel), step: 2 * columns }
    }

    /// The elements of a token's value that are in a panel.
    #[inline(always)]
    fn value(self, slot: usize, panel: usize) -> Places {
        let (element, pair) = (panel * PANEL_COLUMNS, slot / 2 * 2);
        let columns = PANEL_COLUMNS.min(self.head_dim - element);
        let first = element * self.tokens_per_block + pair * columns + slot % 2;
        Places { first, step: 2.min(self.tokens_per_block - pair) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_one_place_and_copies_find_it() {
        for (head_dim, tokens_per_block) in [(2, 1), (16, 32), (34, 33), (80, 7), (128, 64), (20, 48)] {
            let layout = KvLayout { head_dim, tokens_per_block };
            let wide = KvLayout { head_dim: head_dim.next_multiple_of(32), tokens_per_block: 32 };
            let element = |slot: usize, i: usize| bf16::from_bits((1 + slot * head_dim + i) as u16);
            let token = |slot: usize| (0..head_dim).map(|i| element(slot, i)).collect::<Vec<_>>();
            let mut keys = vec![bf16::ZERO; layout.page_len()];
            let mut values = keys.clone();
            for slot in 0..tokens_per_block {
                layout.store_key(&mut keys, slot, &token(slot));
                layout.store_value(&mut values, slot, &token(slot));
            }
            for page in [&keys, &values] {
                let mut bits: Vec<u16> = page.iter().map(|x| x.to_bits()).collect();
                bits.sort_unstable();
                assert!(bits.into_iter().eq(1..=layout.page_len() as u16), "{layout:?}");
            }
            for slot in 0..tokens_per_block {
                let to_slot = (slot + 5) % 32;
                let (mut key, mut value) = (vec![bf16::ZERO; wide.page_len()], vec![bf16::ZERO; wide.page_len()]);
                layout.copy_key(&keys, slot, wide, &mut key, to_slot);
                layout.copy_value(&values, slot, wide, &mut value, to_slot);
                let mut padded = token(slot);
                padded.resize(wide.head_dim, bf16::ZERO);
                let (mut expected_key, mut expected_value) = (key.clone(), value.clone());
                expected_key.fill(bf16::ZERO);
                expected_value.fill(bf16::ZERO);
                wide.store_key(&mut expected_key, to_slot, &padded);
                wide.store_value(&mut expected_value, to_slot, &padded);
                assert!(key == expected_key && value == expected_value, "{layout:?}, slot {slot}");
            }
        }
    }
}
