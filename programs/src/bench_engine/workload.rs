//! Synthetic workloads: lengths and prompts, a function of the seed.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};

use runner::executor::TokenId;
use runner::request_builder::Prompt;

/// What a generator is for. Each has a stream of its own, so that more requests, or other arrivals, leave the rest as
/// it was.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// Lengths of prompts and outputs.
    Lengths,
    /// Ids that all prompts begin with.
    Prefix,
    /// Ids of prompts.
    Prompts,
    /// Ids of the warm-up's prompt.
    WarmUp,
    /// Arrival times.
    Arrivals,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: Stream) -> Self {
        let mut mixed = Self(seed ^ (stream as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Above 0, at most 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// A number of tokens, or a range to draw from, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub min: usize,
    pub max: usize,
}

impl Lengths {
    fn draw(self, random: &mut Random) -> usize {
        self.min + random.below(self.max - self.min + 1)
    }
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once(':').unwrap_or((text, text));
        let parse = |text: &str| text.parse::<u32>().ok().map(|length| length as usize);
        match (parse(min), parse(max)) {
            (Some(min), Some(max)) if 1 <= min && min <= max => Ok(Self { min, max }),
            _ => Err(format!("`{text}` is neither a number from 1 nor a range like 16:256")),
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}:{}", self.min, self.max) }
    }
}

/// One length for each of `count` requests.
pub(super) fn draw_lengths(lengths: Lengths, count: usize, random: &mut Random) -> Vec<usize> {
    (0..count).map(|_| lengths.draw(random)).collect()
}

/// What synthetic prompts are made of.
#[derive(Debug, Clone)]
pub(super) enum Material {
    /// The ids of a vocabulary, without its end ids.
    Ids { vocab_size: usize, end_ids: Vec<TokenId> },
    /// Words, about a token each: for a server that takes text.
    Words,
}

impl Material {
    /// Makes prompts of it, which begin with `shared_prefix_len` ids or words that are the same for all.
    ///
    /// # Errors
    /// A vocabulary of end ids only.
    pub(super) fn prompts(
        &self,
        shared_prefix_len: usize,
        seed: u64,
        stream: Stream,
    ) -> Result<impl FnMut(usize) -> Prompt> {
        let (vocab_size, end_ids, is_text) = match self {
            Self::Ids { vocab_size, end_ids } => (*vocab_size, end_ids.as_slice(), false),
            Self::Words => (WORDS.len(), &[][..], true),
        };
        let mut maker = PromptMaker::new(vocab_size, end_ids, shared_prefix_len, seed, stream)?;
        let word = |id: TokenId| WORDS[id as usize];
        Ok(move |len| match maker.prompt(len) {
            ids if is_text => Prompt::Text(ids.into_iter().map(word).collect::<Vec<_>>().join(" ")),
            ids => Prompt::Ids(ids),
        })
    }
}

/// Words that most vocabularies have as one token, with a blank before.
#[rustfmt::skip]
const WORDS: [&str; 128] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not",
    "he", "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one", "you", "were",
    "all", "her", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who", "will", "no", "more", "if",
    "out", "so", "up", "said", "what", "its", "about", "than", "into", "them", "can", "only", "other", "time", "new", "some",
    "could", "these", "two", "may", "first", "then", "do", "any", "like", "my", "now", "over", "such", "our", "man", "me",
    "even", "most", "made", "after", "also", "well", "did", "many", "before", "must", "years", "back", "through", "much", "where", "your",
    "way", "down", "should", "because", "long", "each", "just", "state", "those", "people", "too", "world", "how", "good", "still", "see",
    "work", "life", "day", "both", "here", "own", "under", "last", "never", "same", "another", "know", "while", "great", "old", "off",
];

/// Makes prompts of random ids.
#[derive(Debug)]
struct PromptMaker {
    ids: Vec<TokenId>,
    prefix: Vec<TokenId>,
    random: Random,
}

impl PromptMaker {
    /// Prompts of a vocabulary without its end ids, which begin with `shared_prefix_len` ids that are the same for all.
    ///
    /// # Errors
    /// A vocabulary of end ids only.
    fn new(
        vocab_size: usize,
        end_ids: &[TokenId],
        shared_prefix_len: usize,
        seed: u64,
        stream: Stream,
    ) -> Result<Self> {
        let ids: Vec<TokenId> = (0..vocab_size as TokenId).filter(|id| !end_ids.contains(id)).collect();
        ensure!(!ids.is_empty(), "every token of the engine is an end token: there is nothing to make prompts of");
        let mut random = Random::new(seed, Stream::Prefix);
        let prefix = (0..shared_prefix_len).map(|_| ids[random.below(ids.len())]).collect();
        Ok(Self { ids, prefix, random: Random::new(seed, stream) })
    }

    /// A prompt of `len` ids; the shared prefix is part of them.
    fn prompt(&mut self, len: usize) -> Vec<TokenId> {
        let mut prompt = self.prefix[..self.prefix.len().min(len)].to_vec();
        prompt.resize_with(len, || self.ids[self.random.below(self.ids.len())]);
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_everything() {
        let prompts = |seed| {
            let mut maker = PromptMaker::new(100, &[2], 0, seed, Stream::Prompts).unwrap();
            [maker.prompt(30), maker.prompt(30)]
        };
        assert_eq!(prompts(1), prompts(1));
        assert_ne!(prompts(1), prompts(2));
        let [first, second] = prompts(1);
        assert_ne!(first, second);
    }

    #[test]
    fn lengths_fill_their_range() {
        let lengths: Lengths = "3:6".parse().unwrap();
        let drawn = draw_lengths(lengths, 1000, &mut Random::new(0, Stream::Lengths));
        for length in 3..=6 {
            assert!(drawn.contains(&length), "{length}");
        }
        assert!(drawn.iter().all(|length| (3..=6).contains(length)));
        assert_eq!("5".parse(), Ok(Lengths { min: 5, max: 5 }));
        assert_eq!(["5", "3:6"].map(|text| text.parse::<Lengths>().unwrap().to_string()), ["5", "3:6"]);
        for wrong in ["", "0", "-1", "4:3", "1:2:3", "x", ":4", "99999999999"] {
            assert!(wrong.parse::<Lengths>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn prompts_have_no_end_ids_and_share_their_start() {
        let mut maker = PromptMaker::new(10, &[2, 7], 4, 0, Stream::Prompts).unwrap();
        let prompts: Vec<_> = (0..200).map(|_| maker.prompt(12)).collect();
        assert!(prompts.iter().flatten().all(|id| *id < 10 && ![2, 7].contains(id)));
        assert!(prompts.iter().all(|prompt| prompt.len() == 12 && prompt[..4] == prompts[0][..4]));
        assert!(prompts.iter().any(|prompt| prompt[4] != prompts[0][4]));
        let warm_up = PromptMaker::new(10, &[2, 7], 0, 0, Stream::WarmUp).unwrap().prompt(12);
        assert!(prompts.iter().all(|prompt| prompt[4..] != warm_up[4..]));
        assert!(PromptMaker::new(2, &[0, 1], 0, 0, Stream::Prompts).is_err());
    }

    #[test]
    fn words_stand_for_ids() {
        let mut text = Material::Words.prompts(2, 5, Stream::Prompts).unwrap();
        let vocabulary = Material::Ids { vocab_size: WORDS.len(), end_ids: Vec::new() };
        let mut ids = vocabulary.prompts(2, 5, Stream::Prompts).unwrap();
        let (Prompt::Text(text), Prompt::Ids(ids)) = (text(9), ids(9)) else { panic!("a text and ids") };
        assert_eq!(text.split(' ').collect::<Vec<_>>(), ids.iter().map(|&id| WORDS[id as usize]).collect::<Vec<_>>());
        let mut sorted = WORDS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), WORDS.len());
    }
}
