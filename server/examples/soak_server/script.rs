//! What the stand-in says: a token for each place of an output, known beforehand, so that one that is lost, doubled or of
//! another output shows.

use text::TokenId;
use text::tokenizer::Tokenizer;

/// Tokens that are plain text on their own, so that each can be streamed as soon as it is there.
#[derive(Debug, Clone)]
pub struct Script {
    words: Vec<TokenId>,
}

impl Script {
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let is_word = |bytes: &[u8]| (2..=8).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_alphabetic);
        let all = 0..tokenizer.vocab_size() as TokenId;
        let words = all.filter(|&id| !tokenizer.is_special(id) && is_word(tokenizer.token_bytes(id))).collect();
        Self { words }
    }

    /// The token at a place of the sequence `number` of the outputs of a prompt that ends with `last`.
    pub fn token(&self, last: TokenId, number: usize, place: usize) -> TokenId {
        let mixed = mix(u64::from(last) << 40 ^ (number as u64) << 32 ^ place as u64);
        self.words[(mixed % self.words.len() as u64) as usize]
    }
}

/// Spreads numbers over all bits (the finalizer of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Numbers at random, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 up to and without `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % end
    }
}
