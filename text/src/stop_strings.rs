//! Ending a text at a stop string, while the text still arrives piece by piece.
//!
//! The stop string that is complete first wins, whatever the pieces; of several that end at the same place, the longest.
//! It and all after it are dropped. Text that may be the beginning of a stop string is held back until it is known not
//! to be, and no other text is.
//!
//! Each stop string is followed by its own Knuth-Morris-Pratt automaton: time is linear in the text, and the longest
//! partial match over all of them is exactly what has to be held back.

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

/// What a piece of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emit {
    /// Text that no stop string can take back any more; held-back text of earlier pieces comes first.
    pub text: String,
    /// The stop string that ended the text, as an index into the list. The first of equal ones.
    pub stopped: Option<usize>,
}

/// The stop strings of one text, and how far the text has got.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    automata: Vec<Automaton>,
    /// Held-back text begins at `start`; what lies before it has been given out.
    buffer: String,
    start: usize,
    stopped: Option<usize>,
}

impl StopStrings {
    /// Prepares to look for stop strings; with an empty list all text passes at once.
    ///
    /// # Errors
    /// One of them is empty.
    pub fn new(stops: Vec<String>) -> Result<Self, StopStringError> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(StopStringError::Empty { number: index + 1 });
        }
        Ok(Self {
            automata: stops.into_iter().map(Automaton::new).collect(),
            buffer: String::new(),
            start: 0,
            stopped: None,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.automata.is_empty()
    }

    /// Takes the next piece of text. After a stop, further pieces are dropped and the stop is reported again.
    pub fn push(&mut self, delta: &str) -> Emit {
        if self.stopped.is_some() {
            return Emit { text: String::new(), stopped: self.stopped };
        }
        let arrived = self.buffer.len();
        self.buffer.push_str(delta);
        for (offset, &byte) in delta.as_bytes().iter().enumerate() {
            if let Some((index, length)) = self.step(byte) {
                self.stopped = Some(index);
                let text = self.give_out(arrived + offset + 1 - length);
                self.buffer.clear();
                self.start = 0;
                return Emit { text, stopped: self.stopped };
            }
        }
        // A partial match begins where its stop string does, at a character, and so does what remains.
        let held = self.automata.iter().map(|automaton| automaton.matched).max().unwrap_or(0);
        Emit { text: self.give_out(self.buffer.len() - held), stopped: None }
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

    /// Feeds one byte to all automata: the longest stop string that ends here, and its length in bytes.
    fn step(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for (index, automaton) in self.automata.iter_mut().enumerate() {
            let length = automaton.pattern.len();
            if automaton.step(byte) && found.is_none_or(|(_, longest)| length > longest) {
                found = Some((index, length));
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

#[derive(Debug, Clone)]
struct Automaton {
    pattern: Vec<u8>,
    /// For each length of a partial match, the longest shorter one that ends at the same place.
    fallback: Vec<usize>,
    matched: usize,
}

impl Automaton {
    fn new(pattern: String) -> Self {
        let pattern = pattern.into_bytes();
        let mut fallback = vec![0; pattern.len() + 1];
        let mut matched = 0;
        for end in 1..pattern.len() {
            while matched > 0 && pattern[matched] != pattern[end] {
                matched = fallback[matched];
            }
            if pattern[matched] == pattern[end] {
                matched += 1;
            }
            fallback[end + 1] = matched;
        }
        Self { pattern, fallback, matched: 0 }
    }

    /// Takes one byte; true when the whole pattern ends with it. Not to be called again after that.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        if self.pattern[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == self.pattern.len()
    }
}
