//! Token ids to text, one token at a time.
//!
//! Each token appends bytes that were worked out when the tokenizer was opened, so a token costs what its own bytes
//! cost, and the pieces together are the decoded whole: no window is decoded again, and nothing depends on where the
//! stream was cut. A character is given out when its last byte has come.

use std::sync::Arc;

use crate::tokenizer::{Assembly, Kind, Pieces, Tokenizer};

/// How many bytes of a byte-fallback run are held to see how the run ends.
///
/// The decoder turns a run of byte tokens into U+FFFD altogether when any of it is ill-formed, so exactness needs the whole
/// run; a script that the vocabulary lacks is one long run, though, and a reader does not want to wait for its end.
/// Past this many bytes, complete characters are given out as they come.
const HELD_RUN: usize = 64;

/// Turns the tokens of one sequence into text as they are generated.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    pieces: Arc<Pieces>,
    skip_special_tokens: bool,
    /// No token has contributed yet.
    first: bool,
    /// How many more characters to cut from the start of the text.
    strip: usize,
    /// Bytes that are not given out yet: an incomplete character, or a run of byte tokens.
    pending: Vec<u8>,
    /// How many of the pending bytes are whole characters.
    whole: usize,
    run: Run,
}

/// What is known of the run of byte tokens at the end of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Well-formed so far, all of it pending.
    Held,
    /// Part of it has been given out.
    Begun,
    /// Ill-formed: each of its bytes is a U+FFFD.
    Broken,
}

impl Detokenizer {
    /// A detokenizer for a text that starts with its first token.
    pub fn new(tokenizer: &Tokenizer, skip_special_tokens: bool) -> Self {
        let pieces = Arc::clone(tokenizer.pieces());
        Self {
            skip_special_tokens,
            first: true,
            strip: pieces.strip_start.1,
            pending: Vec::new(),
            whole: 0,
            run: Run::Held,
            pieces,
        }
    }

    /// A detokenizer for what follows a prompt: the blank before the first generated word is kept, and a character
    /// that the prompt's last bytes began is given out whole.
    pub fn after_prompt(tokenizer: &Tokenizer, prompt: &[u32], skip_special_tokens: bool) -> Self {
        let mut detokenizer = Self::new(tokenizer, skip_special_tokens);
        let mut prompt_text = String::new();
        for &id in prompt {
            prompt_text.clear();
            detokenizer.push_to(id, &mut prompt_text);
        }
        detokenizer.give_out_whole(&mut prompt_text);
        detokenizer
    }

    /// A detokenizer for what is generated under a guide, which is matched from its first byte: a leading space is kept, and no
    /// character begins in the prompt.
    pub fn of_guided_output(tokenizer: &Tokenizer, skip_special_tokens: bool) -> Self {
        Self { first: false, strip: 0, ..Self::new(tokenizer, skip_special_tokens) }
    }

    /// The text that one more token makes certain; often empty in the middle of a character.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.push_to(id, &mut text);
        text
    }

    /// The text is over: what remains, with U+FFFD for an unfinished character.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        match self.pieces.assembly {
            Assembly::Bytes => {
                if !self.pending.is_empty() {
                    self.pending.clear();
                    self.give_out(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]), &mut text);
                }
            }
            Assembly::Runs => self.end_run(&mut text),
        }
        text
    }

    /// Whole characters that wait for the end of a run, without waiting for it.
    pub(crate) fn flush(&mut self) -> String {
        let mut text = String::new();
        self.give_out_whole(&mut text);
        text
    }

    /// Whether an id is a special token.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// What a token after the first adds to the text; nothing for a special token that is skipped.
    pub(crate) fn shown(&self, id: u32) -> String {
        if self.skip_special_tokens && self.pieces.is_special(id) {
            return String::new();
        }
        String::from_utf8_lossy(self.pieces.get(id, false).1).into_owned()
    }

    fn push_to(&mut self, id: u32, out: &mut String) {
        let pieces = Arc::clone(&self.pieces);
        let (kind, bytes) = pieces.get(id, self.first);
        if kind == Kind::Absent || (self.skip_special_tokens && pieces.is_special(id)) {
            return;
        }
        self.first = false;
        match (pieces.assembly, kind) {
            (Assembly::Bytes, _) => self.push_bytes(bytes, out),
            (Assembly::Runs, Kind::Byte) => self.push_run(bytes, out),
            (Assembly::Runs, _) => {
                self.end_run(out);
                // Contributions of this kind were made from strings.
                self.give_out(&String::from_utf8_lossy(bytes), out);
            }
        }
    }

    /// Decodes as `String::from_utf8_lossy` would the whole stream.
    fn push_bytes(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.give_out(text, out);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.give_out(&String::from_utf8_lossy(valid), out);
            rest = after;
            let Some(ill_formed) = error.error_len() else {
                break;
            };
            self.give_out(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]), out);
            rest = &rest[ill_formed..];
        }
        let kept = rest.len();
        self.pending = pending;
        self.pending.drain(..self.pending.len() - kept);
    }

    fn push_run(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        if self.run != Run::Broken {
            match std::str::from_utf8(&self.pending[self.whole..]) {
                Ok(_) => self.whole = self.pending.len(),
                Err(error) if error.error_len().is_none() => self.whole += error.valid_up_to(),
                Err(_) => self.run = Run::Broken,
            }
        }
        if self.run == Run::Broken {
            self.give_out_broken(out);
        } else if self.run == Run::Begun || self.pending.len() > HELD_RUN {
            self.give_out_whole(out);
        }
    }

    /// Gives out the complete characters of a run without waiting for its end.
    fn give_out_whole(&mut self, out: &mut String) {
        if self.whole > 0 {
            let pending = std::mem::take(&mut self.pending);
            self.give_out(&String::from_utf8_lossy(&pending[..self.whole]), out);
            self.pending = pending;
            self.pending.drain(..self.whole);
            self.whole = 0;
            self.run = Run::Begun;
        }
    }

    fn give_out_broken(&mut self, out: &mut String) {
        for _ in 0..self.pending.len() {
            self.give_out(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]), out);
        }
        self.pending.clear();
        self.whole = 0;
    }

    fn end_run(&mut self, out: &mut String) {
        if self.whole == self.pending.len() {
            self.give_out_whole(out);
        } else {
            self.give_out_broken(out);
        }
        self.run = Run::Held;
    }

    fn give_out(&mut self, text: &str, out: &mut String) {
        let mut text = text;
        while self.strip > 0 && !text.is_empty() {
            match text.strip_prefix(self.pieces.strip_start.0) {
                Some(rest) => {
                    text = rest;
                    self.strip -= 1;
                }
                None => self.strip = 0,
            }
        }
        out.push_str(text);
    }
}
