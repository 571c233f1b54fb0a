//! Text to token ids and back, by the files that came with the model.
//!
//! `tokenizer.json` says everything about splitting and decoding; `tokenizer_config.json` and `special_tokens_map.json`
//! add the names of the special tokens and whether a prompt starts with one.

mod config;
mod lazy;
mod pieces;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{Encoding, Model, Token};

pub use config::SpecialTokens;
use config::TokenizerConfig;
pub(crate) use config::read_json_object;
pub use lazy::LazyTokenizer;
pub(crate) use pieces::{Assembly, Kind, Pieces};

/// Largest token id that is believed: no vocabulary comes near it, and tables are as long as the largest id.
const MAX_TOKEN_ID: u32 = (1 << 24) - 1;

/// Why a tokenizer could not be opened or used. Every message names the file and says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenizerError {
    /// The directory has no `tokenizer.json`.
    #[error("{} has no tokenizer.json: {advice}", dir.display())]
    Missing {
        /// The directory that was looked at.
        dir: PathBuf,
        /// What to do about it, in view of what the directory does hold.
        advice: &'static str,
    },
    /// A file is there and cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: Arc<std::io::Error>,
    },
    /// A file is not what its name promises.
    #[error("{} is not valid: {detail}; copy the file from the model again", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// A field of a file has a value that cannot be used.
    #[error("{}: {field}: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, as a path of keys.
        field: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode this text: {detail}")]
    Encode {
        /// What the tokenizer said.
        detail: String,
    },
    /// The tokenizer refused a list of ids.
    #[error("the tokenizer cannot decode these ids: {detail}")]
    Decode {
        /// What the tokenizer said.
        detail: String,
    },
}

/// A model's tokenizer. Cheap to share behind an `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Arc<Pieces>,
    special_tokens: SpecialTokens,
    /// Ids put before an encoded prompt, and after it.
    around_prompt: (Vec<u32>, Vec<u32>),
}

impl Tokenizer {
    /// Opens the tokenizer of a model or engine directory: `tokenizer.json`, and `tokenizer_config.json` and
    /// `special_tokens_map.json` where they are there.
    ///
    /// # Errors
    /// A missing, unreadable or malformed file, a decoder that cannot be streamed, or special tokens that the
    /// vocabulary lacks.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(dir)),
            Err(error) => return Err(TokenizerError::Read { path, source: Arc::new(error) }),
        };
        let config = TokenizerConfig::read(dir)?;
        let (inner, around_prompt, pieces) = guarded(|| {
            let inner = parse(&bytes).map_err(|detail| TokenizerError::Invalid { path: path.clone(), detail })?;
            let around_prompt = around_prompt(&inner, &config, dir)?;
            let pieces = Pieces::of(&inner, &path)?;
            Ok((inner, around_prompt, Arc::new(pieces)))
        })
        .unwrap_or_else(|detail| Err(TokenizerError::Invalid { path: path.clone(), detail }))?;
        Ok(Self { inner, pieces, special_tokens: config.special_tokens, around_prompt })
    }

    /// The ids of a text. Special tokens written in the text (`</s>`) become their ids either way.
    ///
    /// With `add_special_tokens` the ids are surrounded by what `tokenizer.json`'s post-processor adds, except that
    /// `add_bos_token` and `add_eos_token` of `tokenizer_config.json`, where they are there, decide whether BOS begins and
    /// EOS ends them. Without, the ids are those of the text alone: a rendered chat has its own BOS.
    ///
    /// # Errors
    /// The text cannot be split, as with a vocabulary that lacks a character and has no unknown token.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false).map_err(|error| error.to_string()))
            .and_then(|encoded| encoded)
            .map_err(|detail| TokenizerError::Encode { detail })?;
        let ids = encoding.get_ids();
        if !add_special_tokens {
            return Ok(ids.to_vec());
        }
        let (before, after) = &self.around_prompt;
        Ok([before, ids, after].concat())
    }

    /// The ways in which a word appears in a text: as it is encoded alone, and after a blank, for which most words have
    /// tokens of their own.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_word(&self, word: &str) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let mut forms = vec![self.encode(word, false)?, self.encode(&format!(" {word}"), false)?];
        forms.dedup();
        Ok(forms)
    }

    /// The text of a whole list of ids; ids that the vocabulary lacks are left out, bytes that are not UTF-8 become U+FFFD.
    /// For text that grows token by token use [`Detokenizer`](crate::detokenizer::Detokenizer).
    ///
    /// # Errors
    /// The decoder failed.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        if ids.is_empty() {
            return Ok(String::new());
        }
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|error| TokenizerError::Decode { detail: error.to_string() })
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of a token as the vocabulary spells it (`Ġworld`, `▁world`, `</s>`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether an id is a special token, which generated text leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// The token that begins a sequence, as text.
    pub fn bos_token(&self) -> Option<&str> {
        self.special_tokens.get("bos_token")
    }

    /// The token that ends a sequence, as text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special_tokens.get("eos_token")
    }

    /// The id of [`bos_token`](Self::bos_token).
    pub fn bos_id(&self) -> Option<u32> {
        self.token_to_id(self.bos_token()?)
    }

    /// The id of [`eos_token`](Self::eos_token).
    pub fn eos_id(&self) -> Option<u32> {
        self.token_to_id(self.eos_token()?)
    }

    pub(crate) fn pieces(&self) -> &Arc<Pieces> {
        &self.pieces
    }
}

/// Parses `tokenizer.json`.
fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
    // A length that the file was saved with must neither cut a prompt nor pad it.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

/// Runs the tokenizers library where a file that contradicts itself makes it panic: the file's fault, not the program's.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing that `run` touched is used after a panic, except locks, which are then poisoned.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        format!("it contradicts itself ({})", said.unwrap_or("the tokenizers library gave no reason"))
    })
}

fn missing(dir: &Path) -> TokenizerError {
    let has = |name: &str| dir.join(name).exists();
    let advice = if has("tokenizer.model") || has("tekken.json") || has("vocab.json") {
        "the tokenizer files that are there are of an older kind; save it once with Transformers, \
         AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), and build the engine again"
    } else {
        "copy it, with tokenizer_config.json, from the model that the weights came from, or give prompts as ids"
    };
    TokenizerError::Missing { dir: dir.to_path_buf(), advice }
}

/// What goes before and after a prompt: the post-processor's additions, corrected by `add_bos_token` and `add_eos_token`.
fn around_prompt(
    tokenizer: &tokenizers::Tokenizer,
    config: &TokenizerConfig,
    dir: &Path,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    // The post-processor is asked with a token that no vocabulary has, so that what it adds is plain to see.
    const MARK: u32 = u32::MAX;
    let marked = Encoding::from_tokens(vec![Token::new(MARK, String::new(), (0, 0))], 0);
    let invalid = |detail: String| TokenizerError::Field {
        path: dir.join("tokenizer.json"),
        field: "post_processor".to_owned(),
        problem: format!("{detail}; copy the file from the model again"),
    };
    let processed = tokenizer.post_process(marked, None, true).map_err(|error| invalid(error.to_string()))?;
    let ids = processed.get_ids();
    let mark =
        ids.iter().position(|&id| id == MARK).ok_or_else(|| invalid("the prompt itself is left out".to_owned()))?;
    let (mut before, mut after) = (ids[..mark].to_vec(), ids[mark + 1..].to_vec());

    let id_of = |name: &str, flag: &str| {
        let problem = |problem: String| TokenizerError::Field {
            path: dir.join("tokenizer_config.json"),
            field: flag.to_owned(),
            problem,
        };
        let token = config
            .special_tokens
            .get(name)
            .ok_or_else(|| problem(format!("true, but no {name} is named; name it or set {flag} to false")))?;
        tokenizer.token_to_id(token).ok_or_else(|| {
            problem(format!(
                "true, but tokenizer.json has no token {token:?} ({name}); correct the name or set {flag} to false"
            ))
        })
    };
    let known = |name: &str| config.special_tokens.get(name).and_then(|token| tokenizer.token_to_id(token));
    match config.add_bos_token {
        Some(true) => {
            let bos = id_of("bos_token", "add_bos_token")?;
            if before.first() != Some(&bos) {
                before.insert(0, bos);
            }
        }
        Some(false) if !before.is_empty() && before.first().copied() == known("bos_token") => {
            before.remove(0);
        }
        _ => {}
    }
    match config.add_eos_token {
        Some(true) => {
            let eos = id_of("eos_token", "add_eos_token")?;
            if after.last() != Some(&eos) {
                after.push(eos);
            }
        }
        Some(false) if !after.is_empty() && after.last().copied() == known("eos_token") => {
            after.pop();
        }
        _ => {}
    }
    Ok((before, after))
}

/// The token of an id as decoding sees it.
fn token_for_decoding(tokenizer: &tokenizers::Tokenizer, id: u32) -> Option<String> {
    tokenizer.get_added_vocabulary().simple_id_to_token(id).or_else(|| tokenizer.get_model().id_to_token(id))
}
