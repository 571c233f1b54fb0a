//! A model that draws tokens at random, and the tokenizers that it draws from.

use std::path::Path;

use text::detokenizer::Detokenizer;
use text::guide::{Guide, GuideFactory};
use text::tokenizer::Tokenizer;
use text::{GuidedDecodingParams, TokenId};

/// The end id of all three tokenizers.
pub(crate) const END: TokenId = 2;

/// Ids of the model that the tokenizer lacks.
const SPARE: usize = 45;

pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) factory: GuideFactory,
    pub(crate) vocab_size: usize,
}

impl Bench {
    fn open(name: &'static str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let tokenizer = Tokenizer::open(&root.join(name)).unwrap();
        let vocab_size = tokenizer.vocab_size() + SPARE;
        let factory = GuideFactory::new(&tokenizer, vocab_size).unwrap();
        Self { name, tokenizer, factory, vocab_size }
    }

    /// Byte-level, word marks with byte fallback, and the demo model's.
    pub(crate) fn all() -> [Self; 3] {
        ["fixtures/tokenizer", "fixtures/tokenizer/byte-fallback", "assets/demo-model"].map(Self::open)
    }

    pub(crate) fn compile(&self, params: &GuidedDecodingParams) -> Guide {
        self.factory.compile(params, &[END]).unwrap_or_else(|error| panic!("{params:?}: {error}"))
    }

    /// The ids that a guide lets come next.
    pub(crate) fn allowed(&self, guide: &mut Guide) -> Vec<TokenId> {
        let mut logits = vec![0.0; self.vocab_size];
        guide.mask(&mut logits).unwrap();
        let ids = (0..self.vocab_size as TokenId).filter(|&id| logits[id as usize] > f32::NEG_INFINITY);
        ids.collect()
    }

    /// Every id of a one-letter text: byte fallback has two.
    pub(crate) fn letter(&self, letter: char) -> Vec<TokenId> {
        let byte = format!("<0x{:02X}>", u32::from(letter));
        let mut ids: Vec<_> =
            [letter.to_string(), byte].iter().filter_map(|spelling| self.tokenizer.token_to_id(spelling)).collect();
        ids.sort_unstable();
        ids
    }

    /// The text of an output as a reader sees it.
    pub(crate) fn text(&self, ids: &[TokenId]) -> String {
        let mut detokenizer = Detokenizer::of_guided_output(&self.tokenizer, true);
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        text
    }
}

/// Splitmix64, by Steele, Lea and Flood.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fraction(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }
}

/// Logits without any sense, except that ends and closing signs are likelier, so that outputs come to an end.
pub(crate) fn logits(bench: &Bench, random: &mut Random) -> Vec<f32> {
    let mut logits: Vec<f32> = (0..bench.vocab_size).map(|_| random.fraction()).collect();
    let mut favour = |id: Option<TokenId>, by: f32| {
        if let Some(id) = id {
            logits[id as usize] += by * random.fraction();
        }
    };
    favour(Some(END), 2.0);
    for closing in ["\"", "}", "]", ")", "1", ",", ":"] {
        favour(bench.tokenizer.token_to_id(closing), 1.5);
    }
    logits
}

pub(crate) fn draw(logits: &[f32]) -> TokenId {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    assert!(*best.1 > f32::NEG_INFINITY, "the mask leaves nothing");
    best.0 as TokenId
}

/// Generates until the end, at most `longest` tokens. At every step: no special token but the end, no id that the
/// tokenizer lacks, and the end exactly where `complete` holds for the text so far.
pub(crate) fn walk(
    bench: &Bench,
    guide: &mut Guide,
    seed: u64,
    longest: usize,
    complete: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let mut random = Random(seed);
    let mut ids = Vec::new();
    for _ in 0..longest {
        let mut logits = logits(bench, &mut random);
        guide.mask(&mut logits).unwrap();
        let text = bench.text(&ids);
        let allows = |id: TokenId| logits[id as usize] > f32::NEG_INFINITY;
        // A text that reads U+FFFD is in the middle of a character: these walks are too short to write one.
        let complete = complete(&text) && !text.contains(char::REPLACEMENT_CHARACTER);
        assert_eq!(allows(END), complete, "{}: end after {text:?}", bench.name);
        for id in (0..bench.vocab_size as TokenId).filter(|&id| id != END) {
            let no_text = bench.tokenizer.is_special(id) || id as usize >= bench.tokenizer.vocab_size();
            assert!(!no_text || !allows(id), "{}: token {id} after {text:?}", bench.name);
        }
        let token = draw(&logits);
        assert!(!guide.must_end() || token == END);
        guide.accept(token).unwrap();
        if token == END {
            assert!(guide.must_end());
            return Some(text);
        }
        ids.push(token);
    }
    None
}

/// Walks `times` times with each tokenizer; how many outputs came to an end.
pub(crate) fn walks(params: &GuidedDecodingParams, times: u64, complete: &dyn Fn(&str) -> bool) -> usize {
    let mut finished = 0;
    for bench in Bench::all() {
        let start = bench.compile(params);
        for seed in 0..times {
            let text = walk(&bench, &mut start.clone(), seed, 400, complete);
            finished += usize::from(text.is_some());
        }
    }
    finished
}
