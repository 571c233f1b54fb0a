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

use crate::kv_int8::{BLOCK, code_at, round_block, set_code};
use crate::packed::PANEL_COLUMNS;

/// What keys and values are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtype {
    /// bf16.
    Bf16,
    /// Codes of eight bits with a scale for every 32 elements of a token: see `kv_int8`.
    Int8,
}

/// Where the elements of a page lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Elements of a head: even.
    pub head_dim: usize,
    /// Tokens of a page, at least 1.
    pub tokens_per_block: usize,
    /// What elements are.
    pub dtype: KvDtype,
}

/// Places at equal distances: `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    step: usize,
}

impl KvLayout {
    /// Words of 16 bits that the keys of a page take, and its values.
    pub fn page_len(self) -> usize {
        match self.dtype {
            KvDtype::Bf16 => self.elements(),
            KvDtype::Int8 => self.elements() / 2 + self.tokens_per_block * self.head_dim.div_ceil(BLOCK),
        }
    }

    /// Elements of the keys of a page, and of its values.
    fn elements(self) -> usize {
        self.tokens_per_block * self.head_dim
    }

    /// Rounds the key of the token at `slot` of a page, and stores it.
    ///
    /// # Panics
    /// If `slot` is not in the page, or `page` or `key` have another length than this layout's.
    pub fn store_key(self, page: &mut [bf16], slot: usize, key: &[f32]) {
        self.check(page, slot, key);
        let Places { first, step } = self.key(slot);
        self.store(page, slot, key, (first..).step_by(step).flat_map(|place| [place, place + 1]));
    }

    /// Rounds the value of the token at `slot` of a page, and stores it.
    ///
    /// # Panics
    /// As [`Self::store_key`].
    pub fn store_value(self, page: &mut [bf16], slot: usize, value: &[f32]) {
        self.check(page, slot, value);
        let panels = 0..self.head_dim.div_ceil(PANEL_COLUMNS);
        let places = panels.flat_map(|panel| {
            let Places { first, step } = self.value(slot, panel);
            (first..).step_by(step).take(PANEL_COLUMNS)
        });
        self.store(page, slot, value, places);
    }

    /// Stores a token's elements at `places`.
    fn store(self, page: &mut [bf16], slot: usize, token: &[f32], mut places: impl Iterator<Item = usize>) {
        match self.dtype {
            KvDtype::Bf16 => places.zip(token).for_each(|(place, x)| page[place] = bf16::from_f32(*x)),
            KvDtype::Int8 => {
                for (block, elements) in token.chunks(BLOCK).enumerate() {
                    let (scale, codes) = round_block(elements);
                    page[self.scale(block, slot)] = scale;
                    for (code, place) in codes.into_iter().zip(places.by_ref().take(elements.len())) {
                        set_code(page, place, code);
                    }
                }
            }
        }
    }

    /// Where the scale of a block of a token is.
    #[inline(always)]
    pub(crate) fn scale(self, block: usize, slot: usize) -> usize {
        self.elements() / 2 + block * self.tokens_per_block + slot
    }

    /// The element at `place` of a page, without its scale.
    #[inline(always)]
    fn element(self, page: &[bf16], place: usize) -> bf16 {
        match self.dtype {
            KvDtype::Bf16 => page[place],
            KvDtype::Int8 => code_at(page, place),
        }
    }

    /// Copies the key at `slot` of `page`, without its scales, to `to_slot` of `to`, a page in bf16 with as many elements or more.
    pub(crate) fn copy_key(self, page: &[bf16], slot: usize, layout: KvLayout, to: &mut [bf16], to_slot: usize) {
        let (from, place) = (self.key(slot), layout.key(to_slot));
        for pair in 0..self.head_dim / 2 {
            let (from, place) = (from.first + pair * from.step, place.first + pair * place.step);
            (to[place], to[place + 1]) = (self.element(page, from), self.element(page, from + 1));
        }
    }

    /// As [`Self::copy_key`].
    pub(crate) fn copy_value(self, page: &[bf16], slot: usize, layout: KvLayout, to: &mut [bf16], to_slot: usize) {
        for panel in 0..self.head_dim.div_ceil(PANEL_COLUMNS) {
            let columns = PANEL_COLUMNS.min(self.head_dim - panel * PANEL_COLUMNS);
            let (from, place) = (self.value(slot, panel), layout.value(to_slot, panel));
            for column in 0..columns {
                to[place.first + column * place.step] = self.element(page, from.first + column * from.step);
            }
        }
    }

    fn check(self, page: &[bf16], slot: usize, token: &[f32]) {
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
            let layout = KvLayout { head_dim, tokens_per_block, dtype: KvDtype::Bf16 };
            let wide = KvLayout { head_dim: head_dim.next_multiple_of(32), tokens_per_block: 32, ..layout };
            let element = |slot: usize, i: usize| bf16::from_bits((1 + slot * head_dim + i) as u16).to_f32();
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
                copies_find_it(layout, [&keys, &values], slot, wide, &token(slot));
            }
        }
    }

    /// A token in eight bits takes codes and scales of its own and leaves those of others.
    #[test]
    fn tokens_in_eight_bits_do_not_touch_one_another() {
        for (head_dim, tokens_per_block) in [(2, 1), (16, 32), (34, 33), (80, 7), (128, 64), (20, 48)] {
            let layout = KvLayout { head_dim, tokens_per_block, dtype: KvDtype::Int8 };
            let wide = KvLayout { head_dim: head_dim.next_multiple_of(32), tokens_per_block: 32, dtype: KvDtype::Bf16 };
            // In every block one that is 127 times the scale, which is a number of the token's own.
            let code = |slot: usize, i: usize| {
                if i.is_multiple_of(BLOCK) { 127.0 } else { ((slot * 31 + i * 7) % 255) as f32 - 127.0 }
            };
            let scale = |block: usize, slot: usize| (1 + block + 4 * slot) as f32;
            let token = |slot: usize| (0..head_dim).map(|i| code(slot, i) * scale(i / BLOCK, slot)).collect::<Vec<_>>();
            let mut keys = vec![bf16::NAN; layout.page_len()];
            let mut values = keys.clone();
            for slot in (0..tokens_per_block).rev() {
                layout.store_key(&mut keys, slot, &token(slot));
                layout.store_value(&mut values, slot, &token(slot));
            }
            for slot in 0..tokens_per_block {
                for block in 0..head_dim.div_ceil(BLOCK) {
                    let found = [&keys, &values].map(|page| page[layout.scale(block, slot)].to_f32());
                    assert_eq!(found, [bf16::from_f32(scale(block, slot)).to_f32(); 2], "{layout:?}");
                }
                if slot < 60 {
                    let codes: Vec<_> = (0..head_dim).map(|i| code(slot, i)).collect();
                    copies_find_it(layout, [&keys, &values], slot, wide, &codes);
                }
            }
        }
    }

    /// What is copied of a slot is `expected`.
    fn copies_find_it(layout: KvLayout, pages: [&[bf16]; 2], slot: usize, wide: KvLayout, expected: &[f32]) {
        let to_slot = (slot + 5) % 32;
        let (mut key, mut value) = (vec![bf16::ZERO; wide.page_len()], vec![bf16::ZERO; wide.page_len()]);
        layout.copy_key(pages[0], slot, wide, &mut key, to_slot);
        layout.copy_value(pages[1], slot, wide, &mut value, to_slot);
        let mut padded = expected.to_vec();
        padded.resize(wide.head_dim, 0.0);
        let (mut expected_key, mut expected_value) = (key.clone(), value.clone());
        expected_key.fill(bf16::ZERO);
        expected_value.fill(bf16::ZERO);
        wide.store_key(&mut expected_key, to_slot, &padded);
        wide.store_value(&mut expected_value, to_slot, &padded);
        assert!(key == expected_key && value == expected_value, "{layout:?}, slot {slot}");
    }
}
