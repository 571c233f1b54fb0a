//! What each token adds to a text, worked out once so that a stream of tokens needs no decoding of its own.
//!
//! A `tokenizer.json` decoder is a chain of steps over a list of tokens. For the decoders of Llama and Mistral models
//! each token's contribution depends on the token alone, with three exceptions that a stream can follow: bytes that
//! join into characters, the first token's own treatment, and blanks stripped from the start of the whole text.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{Decoder, Tokenizer};

use super::{MAX_TOKEN_ID, TokenizerError, token_for_decoding};

/// What kind of contribution a token makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No token has this id: decoding passes over it.
    Absent,
    /// Bytes to append: whole characters, or under [`Assembly::Bytes`] any bytes.
    Text,
    /// One raw byte of a byte-fallback vocabulary (`<0xE2>`).
    Byte,
}

/// How contributions become a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assembly {
    /// All contributions are bytes of one stream; each ill-formed sequence becomes one U+FFFD.
    Bytes,
    /// Texts, with runs of [`Kind::Byte`] between them; an ill-formed run becomes one U+FFFD for each of its bytes.
    Runs,
}

/// The contributions of a vocabulary.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// Contributions of tokens after the first.
    later: Table,
    /// Contributions of a text's first token, where they differ.
    first: Option<Table>,
    special: Vec<bool>,
    pub(crate) assembly: Assembly,
    /// A character and how many of it are cut from the start of the whole text.
    pub(crate) strip_start: (char, usize),
}

#[derive(Debug, Default)]
struct Table {
    bytes: Vec<u8>,
    /// For each id, where its bytes end and what they are.
    ends: Vec<(usize, Kind)>,
}

impl Table {
    fn push(&mut self, kind: Kind, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push((self.bytes.len(), kind));
    }

    fn get(&self, id: usize) -> (Kind, &[u8]) {
        let Some(&(end, kind)) = self.ends.get(id) else {
            return (Kind::Absent, &[]);
        };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before].0);
        (kind, &self.bytes[start..end])
    }
}

impl Pieces {
    /// Works out the contributions of every token of a tokenizer; `path` is its file, for errors.
    pub(super) fn of(tokenizer: &Tokenizer, path: &Path) -> Result<Self, TokenizerError> {
        let vocabulary = tokenizer.get_vocab(true);
        let Some(&largest) = vocabulary.values().max() else {
            return Err(field(path, "model.vocab", "is empty; copy the file from the model again"));
        };
        if largest > MAX_TOKEN_ID {
            let problem = format!(
                "has the id {largest}, and ids above {MAX_TOKEN_ID} are refused; copy the file from the model again"
            );
            return Err(field(path, "model.vocab", &problem));
        }
        let plan = Plan::of(tokenizer.get_decoder(), path)?;
        let mut pieces = Self {
            later: Table::default(),
            first: plan.first_differs.then(Table::default),
            special: Vec::new(),
            assembly: if plan.byte_level { Assembly::Bytes } else { Assembly::Runs },
            strip_start: plan.strip_start,
        };
        let byte_of_char = byte_of_char();
        for id in 0..=largest {
            let token = token_for_decoding(tokenizer, id);
            pieces
                .special
                .push(token.as_ref().is_some_and(|token| tokenizer.get_added_vocabulary().is_special_token(token)));
            for (table, first) in [(Some(&mut pieces.later), false), (pieces.first.as_mut(), true)] {
                let Some(table) = table else { continue };
                match &token {
                    None => table.push(Kind::Absent, &[]),
                    Some(token) => {
                        let (kind, bytes) = plan.contribution(token, first, &byte_of_char).map_err(|detail| {
                            cannot_decode(path, format!("fails for the token {token:?}: {detail}"))
                        })?;
                        table.push(kind, &bytes);
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.special.len()
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Bytes of the longest contribution.
    pub(crate) fn longest(&self) -> usize {
        let longest = |table: &Table| (0..table.ends.len()).map(|id| table.get(id).1.len()).max().unwrap_or(0);
        longest(&self.later).max(self.first.as_ref().map_or(0, longest))
    }

    /// What a token adds; `first` says that no token came before it.
    pub(crate) fn get(&self, id: u32, first: bool) -> (Kind, &[u8]) {
        let table = self.first.as_ref().filter(|_| first).unwrap_or(&self.later);
        table.get(id as usize)
    }
}

/// A decoder's chain, sorted into what can be done token by token and what cannot.
struct Plan {
    /// Steps on single tokens, before bytes are recognised.
    steps: Vec<DecoderWrapper>,
    byte_fallback: bool,
    byte_level: bool,
    /// Without a decoder, tokens are separated by blanks.
    separated: bool,
    first_differs: bool,
    strip_start: (char, usize),
}

impl Plan {
    fn of(decoder: Option<&DecoderWrapper>, path: &Path) -> Result<Self, TokenizerError> {
        let mut plan = Self {
            steps: Vec::new(),
            byte_fallback: false,
            byte_level: false,
            separated: decoder.is_none(),
            first_differs: decoder.is_none(),
            strip_start: (' ', 0),
        };
        let mut fused = false;
        let mut chain = Vec::new();
        flatten(decoder, &mut chain);
        for step in chain {
            let whole = fused || plan.byte_level;
            match step {
                DecoderWrapper::Fuse(_) => fused = true,
                DecoderWrapper::ByteFallback(_) if !whole => plan.byte_fallback = true,
                DecoderWrapper::ByteLevel(_) if !whole && !plan.byte_fallback => plan.byte_level = true,
                // After the tokens are one text, there is a start to strip; a stream never knows that its end has come.
                DecoderWrapper::Strip(strip) if whole && strip.stop == 0 && plan.strip_start.1 == 0 => {
                    plan.strip_start = (strip.content, strip.start);
                }
                DecoderWrapper::Strip(strip) if !whole && !plan.byte_fallback && strip.stop == 0 => {
                    plan.steps.push(step.clone());
                }
                DecoderWrapper::Replace(_) if !whole && !plan.byte_fallback => plan.steps.push(step.clone()),
                // Before or after ByteFallback, it changes the mark only, and text is not encoded with the mark's bytes.
                DecoderWrapper::Metaspace(metaspace) if !whole => {
                    plan.first_differs |= metaspace.prepend_scheme != PrependScheme::Never;
                    plan.steps.push(step.clone());
                }
                other => {
                    let known = "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip in the order of a Llama or Mistral tokenizer";
                    let problem = format!(
                        "{} here cannot be decoded token by token (known: {known}); give prompts as ids and read output ids instead",
                        name(other)
                    );
                    return Err(cannot_decode(path, problem));
                }
            }
        }
        Ok(plan)
    }

    fn contribution(
        &self,
        token: &str,
        first: bool,
        byte_of_char: &HashMap<char, u8>,
    ) -> Result<(Kind, Vec<u8>), String> {
        let mut text = token.to_owned();
        for step in &self.steps {
            // Steps treat the first of a list differently, so a later token gets an empty one before it.
            let list = if first { vec![text] } else { vec![String::new(), text] };
            let mut out = step.decode_chain(list).map_err(|error| error.to_string())?;
            text = out.pop().unwrap_or_default();
        }
        if self.separated && !first {
            text.insert(0, ' ');
        }
        if self.byte_level {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| byte_of_char.get(&c).copied()).collect();
            return Ok((Kind::Text, bytes.unwrap_or_else(|| text.into_bytes())));
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(&text)
        {
            return Ok((Kind::Byte, vec![byte]));
        }
        Ok((Kind::Text, text.into_bytes()))
    }
}

fn flatten<'a>(decoder: Option<&'a DecoderWrapper>, chain: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        Some(DecoderWrapper::Sequence(sequence)) => {
            for step in sequence.get_decoders() {
                flatten(Some(step), chain);
            }
        }
        Some(step) => chain.push(step),
        None => {}
    }
}

fn name(decoder: &DecoderWrapper) -> &'static str {
    match decoder {
        DecoderWrapper::BPE(_) => "BPEDecoder",
        DecoderWrapper::ByteLevel(_) => "ByteLevel",
        DecoderWrapper::WordPiece(_) => "WordPiece",
        DecoderWrapper::Metaspace(_) => "Metaspace",
        DecoderWrapper::CTC(_) => "CTC",
        DecoderWrapper::Sequence(_) => "Sequence",
        DecoderWrapper::Replace(_) => "Replace",
        DecoderWrapper::Fuse(_) => "Fuse",
        DecoderWrapper::Strip(_) => "Strip",
        DecoderWrapper::ByteFallback(_) => "ByteFallback",
    }
}

fn field(path: &Path, field: &str, problem: &str) -> TokenizerError {
    TokenizerError::Field { path: path.to_path_buf(), field: field.to_owned(), problem: problem.to_owned() }
}

fn cannot_decode(path: &Path, problem: String) -> TokenizerError {
    TokenizerError::Decoder { path: path.to_path_buf(), problem }
}

/// The byte of a byte-fallback token, `<0x00>` to `<0xFF>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The alphabet of byte-level BPE (GPT-2's): printable Latin-1 characters stand for their own bytes, and the other
/// bytes, in order, for the characters from U+0100 on.
fn byte_of_char() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted = (0..=u8::MAX).filter(|&byte| !printable(byte)).zip('\u{100}'..);
    (0..=u8::MAX)
        .filter(|&byte| printable(byte))
        .map(|byte| (char::from(byte), byte))
        .chain(shifted.map(|(byte, c)| (c, byte)))
        .collect()
}
