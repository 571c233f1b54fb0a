//! Ending a text at a stop string, while the text still arrives piece by piece.
//!
//! The stop string that is complete first wins, whatever the pieces; of several that end at the same place, the longest.
//! It and all after it are dropped, unless it is to stay in the text. Text that may be the beginning of a stop string is held
//! back until it is known not to be, and no other text is.
//!
//! A stop string that names special tokens (`[/INST]`, `\n</s>`) is looked for twice: in the text, as it is written, and in the
//! tokens, where each special token is one sign, whether the text shows it or not.
//!
//! Each pattern is followed by its own Knuth-Morris-Pratt automaton. A byte costs a step of each, and the longest
//! partial match over all of them is exactly what has to be held back.

use std::sync::Arc;

use crate::TokenId;
use crate::tokenizer::Tokenizer;

/// Why a list of stop strings was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopStringError {
    /// An empty string would stop before the first token.
    #[error("stop string number {number} is empty: leave it out or give it text")]
    Empty {
        /// Its place in the list, from 1.
        number: usize,
    },
}

/// The texts that end an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings {
    texts: Arc<[String]>,
    /// Whether the one that ends a text stays in it.
    included: bool,
}

impl StopStrings {
    /// Texts to look for; with an empty list all text passes at once.
    ///
    /// # Errors
    /// One of them is empty.
    pub fn new(texts: Vec<String>) -> Result<Self, StopStringError> {
        match texts.iter().position(String::is_empty) {
            Some(index) => Err(StopStringError::Empty { number: index + 1 }),
            None => Ok(Self { texts: texts.into(), included: false }),
        }
    }

    /// The same texts; whether the one that ends a text stays in it.
    #[must_use]
    pub fn included(self, included: bool) -> Self {
        Self { included, ..self }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The texts.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// What a piece of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emit {
    /// Text that no stop string can take back any more; held-back text of earlier pieces comes first.
    pub text: String,
    /// The stop string that ended the text, as an index into the list. The first of equal ones.
    pub stopped: Option<usize>,
}

/// The search for stop strings in one text, and how far the text has got.
#[derive(Debug, Clone, Default)]
pub struct StopSearch {
    stops: StopStrings,
    /// Those that follow the text, then those that follow the tokens.
    automata: Vec<Automaton>,
    /// Held-back text begins at `start`; what lies before it has been given out.
    buffer: String,
    start: usize,
    stopped: Option<usize>,
}

impl StopSearch {
    /// A search in text alone.
    pub fn in_text(stops: StopStrings) -> Self {
        let spelled = stops.texts.iter().enumerate().map(|(stop, text)| Automaton::new(stop, spelling(text), false));
        Self { automata: spelled.collect(), stops, ..Self::default() }
    }

    /// A search in text and tokens. `shows_special_tokens` is whether the text has special tokens in it.
    pub fn new(stops: StopStrings, tokenizer: &Tokenizer, shows_special_tokens: bool) -> Self {
        let mut search = Self::in_text(stops);
        if !search.stops.is_empty() {
            let special = tokenizer.special_tokens();
            let named = search.stops.texts.iter().enumerate().filter_map(|(stop, text)| {
                let signs = signs(text, &special, shows_special_tokens)?;
                Some(Automaton::new(stop, signs, true))
            });
            search.automata.extend(named.collect::<Vec<_>>());
        }
        search
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Whether a stop string names special tokens, which are then to be told by [`Self::push_special`].
    pub fn looks_for_special_tokens(&self) -> bool {
        self.automata.last().is_some_and(|automaton| automaton.follows_tokens)
    }

    /// The texts.
    pub fn texts(&self) -> &[String] {
        &self.stops.texts
    }

    /// Takes the next piece of text. After a stop, further pieces are dropped and the stop is reported again.
    pub fn push(&mut self, delta: &str) -> Emit {
        self.take(delta, None)
    }

    /// Takes a special token, which the text shows as `shown`, or not at all.
    pub fn push_special(&mut self, token: TokenId, shown: &str) -> Emit {
        self.take(shown, Some(token))
    }

    fn take(&mut self, delta: &str, special: Option<TokenId>) -> Emit {
        if self.stopped.is_some() {
            return Emit { text: String::new(), stopped: self.stopped };
        }
        let arrived = self.buffer.len();
        self.buffer.push_str(delta);
        for (offset, &byte) in delta.as_bytes().iter().enumerate() {
            let is_last = special.is_some() && offset + 1 == delta.len();
            let found = self.step(u32::from(byte), |automaton| !automaton.follows_tokens || special.is_none());
            if let Some(found) = found.filter(|_| !is_last) {
                return self.stop(found, arrived + offset + 1);
            }
            if is_last && let Some(found) = found {
                // A pattern of tokens may be complete here too, and longer.
                let other = special.and_then(|token| self.step(sign(token), |automaton| automaton.follows_tokens));
                let longest = other.filter(|other| other.1 > found.1).unwrap_or(found);
                return self.stop(longest, arrived + offset + 1);
            }
        }
        if let Some(token) = special
            && let Some(found) = self.step(sign(token), |automaton| automaton.follows_tokens)
        {
            return self.stop(found, self.buffer.len());
        }
        // A partial match begins where its stop string does, at a character, and so does what remains.
        let held = self.automata.iter().map(Automaton::held).max().unwrap_or(0);
        let end = self.buffer.floor_char_boundary(self.buffer.len().saturating_sub(held).max(self.start));
        Emit { text: self.give_out(end), stopped: None }
    }

    /// The text ends before the stop string `found`, whose last character ends at `end`.
    fn stop(&mut self, found: (usize, usize), end: usize) -> Emit {
        let (stop, width) = found;
        self.stopped = Some(stop);
        let end = self.buffer.floor_char_boundary(end.saturating_sub(width).max(self.start));
        let mut text = self.give_out(end);
        if self.stops.included {
            text.push_str(&self.stops.texts[stop]);
        }
        self.buffer.clear();
        self.start = 0;
        Emit { text, stopped: self.stopped }
    }

    /// The text is over: gives back what was held, which turned out to be no stop string.
    pub fn finish(&mut self) -> String {
        for automaton in &mut self.automata {
            automaton.matched = 0;
        }
        self.give_out(self.buffer.len())
    }

    /// The stop string that ended the text, if one did.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Feeds one sign to the automata that `which` chooses: the longest stop string that ends here, and its width in the text.
    fn step(&mut self, sign: u32, which: impl Fn(&Automaton) -> bool) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for automaton in self.automata.iter_mut().filter(|automaton| which(automaton)) {
            if automaton.step(sign) && found.is_none_or(|(_, widest)| automaton.held() > widest) {
                found = Some((automaton.stop, automaton.held()));
            }
        }
        found
    }

    /// Takes the text from `start` to `end` out of the buffer.
    fn give_out(&mut self, end: usize) -> String {
        let text = self.buffer[self.start..end].to_owned();
        self.start = end;
        // Moving what remains only when it is the smaller half keeps the sum of all moves linear.
        if self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        text
    }
}

/// A sign of a pattern, and how many bytes of the text show it.
type Sign = (u32, usize);

/// The sign of a special token; those below are bytes.
fn sign(token: TokenId) -> u32 {
    token.saturating_add(256)
}

fn spelling(text: &str) -> Vec<Sign> {
    text.bytes().map(|byte| (u32::from(byte), 1)).collect()
}

/// A text with a sign for each special token in it; `None` where there is none. `special` are the longest first.
fn signs(text: &str, special: &[(TokenId, String)], shown: bool) -> Option<Vec<Sign>> {
    let (mut signs, mut rest, mut has_special) = (Vec::new(), text, false);
    while let Some(first) = rest.chars().next() {
        match special.iter().find(|(_, token)| rest.starts_with(token.as_str())) {
            Some((id, token)) => {
                has_special = true;
                signs.push((sign(*id), if shown { token.len() } else { 0 }));
                rest = &rest[token.len()..];
            }
            None => {
                signs.extend(spelling(&rest[..first.len_utf8()]));
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    has_special.then_some(signs)
}

#[derive(Debug, Clone)]
struct Automaton {
    /// Its place in the list.
    stop: usize,
    /// Whether special tokens are signs to it, and not text.
    follows_tokens: bool,
    pattern: Arc<Pattern>,
    matched: usize,
}

#[derive(Debug)]
struct Pattern {
    signs: Vec<u32>,
    /// For each length of a partial match, how many bytes of the text it is.
    widths: Vec<usize>,
    /// For each length of a partial match, the longest shorter one that ends at the same place.
    fallback: Vec<usize>,
}

impl Automaton {
    fn new(stop: usize, pattern: Vec<Sign>, follows_tokens: bool) -> Self {
        let signs: Vec<u32> = pattern.iter().map(|&(sign, _)| sign).collect();
        let mut widths = vec![0; signs.len() + 1];
        for (index, (_, width)) in pattern.iter().enumerate() {
            widths[index + 1] = widths[index] + width;
        }
        let mut fallback = vec![0; signs.len() + 1];
        let mut matched = 0;
        for end in 1..signs.len() {
            while matched > 0 && signs[matched] != signs[end] {
                matched = fallback[matched];
            }
            if signs[matched] == signs[end] {
                matched += 1;
            }
            fallback[end + 1] = matched;
        }
        Self { stop, follows_tokens, pattern: Arc::new(Pattern { signs, widths, fallback }), matched: 0 }
    }

    /// Bytes of the text that the match so far holds.
    fn held(&self) -> usize {
        self.pattern.widths[self.matched]
    }

    /// Takes one sign; true when the whole pattern ends with it. Not to be called again after that.
    fn step(&mut self, sign: u32) -> bool {
        let Pattern { signs, fallback, .. } = self.pattern.as_ref();
        while self.matched > 0 && signs[self.matched] != sign {
            self.matched = fallback[self.matched];
        }
        if signs[self.matched] == sign {
            self.matched += 1;
        }
        self.matched == signs.len()
    }
}
