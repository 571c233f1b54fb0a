//! Text to token ids and back, by the files that came with the model.
//!
//! `tokenizer.json` says how texts are split and decoded, and what goes around a prompt; `tokenizer_config.json`,
//! `special_tokens_map.json` and `added_tokens.json` add tokens and name the special ones. What Transformers 5 makes of them is
//! followed; `docs/model-files.md` has every field.

mod added_tokens;
mod class;
mod config;
mod lazy;
mod pieces;
mod places;
mod template_text;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use engine_format::model_files::TOKENIZER;
use engine_format::panics::caught;
use engine_format::python_json;
use serde_json::Value;
use tokenizers::tokenizer::OffsetType;
use tokenizers::{Encoding, Model, ModelWrapper, Token};

pub use config::SpecialTokens;
use config::TokenizerConfig;
pub(crate) use config::read_json_object;
pub use lazy::LazyTokenizer;
pub(crate) use pieces::{Assembly, Kind, Pieces};
pub use places::Placed;
use template_text::TemplateText;

use crate::chat::Rendered;

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
    /// A file is something else than its name says: a Git LFS pointer, a web page.
    #[error("{detail}")]
    Foreign {
        /// Which file, what it is, and what to do.
        detail: String,
    },
    /// The decoder cannot be followed token by token, so that outputs have no text; token ids go in and out all the same.
    #[error("{}: decoder: {problem}", path.display())]
    Decoder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
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
    template_text: OnceLock<TemplateText>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model or engine directory: `tokenizer.json`, and `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` where they are there.
    ///
    /// # Errors
    /// A missing, unreadable or malformed file, or a decoder that cannot be streamed.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        Self::of(Vocabulary::open(dir)?)
    }

    pub(crate) fn of(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        let Vocabulary { inner, special_tokens, around_prompt, path } = vocabulary;
        let pieces = guarded(|| Pieces::of(&inner, &path))
            .unwrap_or_else(|detail| Err(TokenizerError::Invalid { path: path.clone(), detail }))?;
        Ok(Self { inner, pieces: Arc::new(pieces), special_tokens, around_prompt, template_text: OnceLock::new() })
    }

    /// The ids of a text. Special tokens written in the text (`</s>`) become their ids either way.
    ///
    /// With `add_special_tokens` the ids are surrounded by what `tokenizer.json`'s post-processor adds. Without, the ids are
    /// those of the text alone: a rendered chat has its own BOS.
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

    /// The ids of a rendered conversation, which has its own BOS. Special tokens are those that the template wrote: what came
    /// from messages, tools, documents and variables is text, whatever it says.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; or a message has a special token that the tokenizer cannot write as plain text.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TokenizerError> {
        match self.encode_guarding(rendered, OffsetType::None)? {
            Some(encoding) => Ok(encoding.get_ids().to_vec()),
            None => self.encode(rendered.as_str(), false),
        }
    }

    /// The tokens of a rendered conversation in which an input might have a special token; none where it is as any other text.
    fn encode_guarding(&self, rendered: &Rendered, offsets: OffsetType) -> Result<Option<Encoding>, TokenizerError> {
        let encode = || -> Result<Option<Encoding>, tokenizers::Error> {
            let (text, input) = (rendered.as_str(), rendered.input_ranges());
            let template_text = match self.template_text.get() {
                Some(known) => known,
                None => {
                    let new = TemplateText::of(&self.inner)?;
                    self.template_text.get_or_init(|| new)
                }
            };
            if !template_text.concerns(text, input) {
                return Ok(None);
            }
            template_text.encode(&self.inner, text, input, offsets).map(Some)
        };
        guarded(|| encode().map_err(|error| error.to_string()))
            .and_then(|encoded| encoded)
            .map_err(|detail| TokenizerError::Encode { detail })
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
        guarded(|| self.inner.decode(ids, skip_special_tokens).map_err(|error| error.to_string()))
            .and_then(|decoded| decoded)
            .map_err(|detail| TokenizerError::Decode { detail })
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

    /// Every special token and its text, the longest first.
    pub fn special_tokens(&self) -> Vec<(u32, String)> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(id, token)| self.is_special(*id) && !token.content.is_empty());
        let mut special: Vec<_> = special.map(|(id, token)| (id, token.content)).collect();
        special.sort_by(|(one, a), (other, b)| b.len().cmp(&a.len()).then(one.cmp(other)));
        special
    }

    /// The bytes that a token after the first adds to a text that shows special tokens; they need not be whole characters. Empty
    /// for an id that the vocabulary lacks.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id, false).1
    }

    /// Bytes of text that a token adds at most.
    pub fn longest_token(&self) -> usize {
        self.pieces.longest()
    }

    /// The token that begins a sequence, as text.
    pub fn bos_token(&self) -> Option<&str> {
        self.special_tokens.get("bos_token")
    }

    /// The token that ends a sequence, as text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special_tokens.get("eos_token")
    }

    /// The token that fills batches up, as text.
    pub fn pad_token(&self) -> Option<&str> {
        self.special_tokens.get("pad_token")
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

/// A tokenizer whose texts can be encoded, before it is known whether its decoder can be followed.
pub(crate) struct Vocabulary {
    inner: tokenizers::Tokenizer,
    special_tokens: SpecialTokens,
    around_prompt: (Vec<u32>, Vec<u32>),
    path: PathBuf,
}

impl Vocabulary {
    /// Reads `tokenizer.json` and the files beside it.
    pub(crate) fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(dir)),
            Err(error) => return Err(TokenizerError::Read { path, source: Arc::new(error) }),
        };
        let config = TokenizerConfig::read(dir)?;
        let inner = guarded(|| parse(&bytes, &config, dir)).and_then(|parsed| parsed);
        let inner = inner.map_err(|detail| {
            let detail =
                unknown_field(&bytes).map_or(detail, |name| format!("it has an unknown field `{name}`; take it out"));
            config::invalid(&path, &bytes, &detail)
        })?;
        let around_prompt = guarded(|| around_prompt(&inner, &path))
            .unwrap_or_else(|detail| Err(config::invalid(&path, &bytes, &detail)))?;
        Ok(Self { inner, special_tokens: config.special_tokens(), around_prompt, path })
    }

    /// The id of the token that ends a sequence.
    pub(crate) fn eos_id(&self) -> Option<u32> {
        self.inner.token_to_id(self.special_tokens.get("eos_token")?)
    }

    /// The tokens whose ids are `vocab_size` or more: a model of that size has no place for them.
    pub(crate) fn beyond(&self, vocab_size: usize) -> Vec<(u32, String)> {
        let all = self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token));
        let mut beyond: Vec<_> = all.filter(|(id, _)| *id as usize >= vocab_size).collect();
        beyond.sort_unstable();
        beyond
    }
}

/// The tokenizer that `tokenizer.json` and the files beside it make together.
fn parse(bytes: &[u8], config: &TokenizerConfig, dir: &Path) -> Result<tokenizers::Tokenizer, String> {
    let said = |error: tokenizers::Error| error.to_string();
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(bytes).or_else(|error| match python_json::cleaned(bytes) {
            Cow::Borrowed(_) => Err(said(error)),
            Cow::Owned(bytes) => tokenizers::Tokenizer::from_bytes(bytes).map_err(said),
        })?;
    // A length that the file was saved with must neither cut a prompt nor pad it, and dropout is for training.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(said)?;
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    let saved = tokenizer.get_added_tokens_decoder();
    let mut tokenizer = class::apply(tokenizer, config, bytes, dir).map_err(said)?;
    let present = tokenizer.get_added_tokens_decoder();
    let present = present.values().map(|token| token.content.as_str());
    let to_add = config.declared.to_add(saved.into_iter(), present);
    tokenizer.add_tokens(to_add).map_err(said)?;
    Ok(tokenizer)
}

/// A field of `tokenizer.json` that the tokenizers library does not know. It stumbles over it, and does not say so.
fn unknown_field(bytes: &[u8]) -> Option<String> {
    let Ok(Value::Object(fields)) = python_json::parse(bytes) else { return None };
    let is_known = |name: &String| TOKENIZER.fields.iter().any(|field| field.names.contains(&name.as_str()));
    fields.into_iter().map(|(name, _)| name).find(|name| !is_known(name))
}

/// Runs the tokenizers library where a file that contradicts itself makes it panic: the file's fault, not the program's. Nothing
/// that `run` touched is used after a panic, except locks, which are then poisoned.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    caught(run).map_err(|panic| match panic.contains("Regex search error") {
        true => format!("a regex of tokenizer.json gave up on it ({panic})"),
        false => format!("tokenizer.json contradicts itself ({panic})"),
    })
}

fn missing(dir: &Path) -> TokenizerError {
    let has = |name: &str| dir.join(name).exists();
    let advice = if has("tokenizer.model") || has("vocab.json") {
        "the tokenizer files that are there are of an older kind; save it once with Transformers, \
         AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), and build the engine again"
    } else if has("tekken.json") {
        "tekken.json is Mistral's own kind; save it once with Transformers, \
         PreTrainedTokenizerFast.from_pretrained(DIR).save_pretrained(DIR), and build the engine again"
    } else {
        "copy it, with tokenizer_config.json, from the model that the weights came from, or give prompts as ids"
    };
    TokenizerError::Missing { dir: dir.to_path_buf(), advice }
}

/// What the post-processor puts before and after a prompt. `add_bos_token` and `add_eos_token` have no say where there is a
/// `tokenizer.json`, as in Transformers 5.
fn around_prompt(tokenizer: &tokenizers::Tokenizer, path: &Path) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    // The post-processor is asked with a token that no vocabulary has, so that what it adds is plain to see.
    const MARK: u32 = u32::MAX;
    let marked = Encoding::from_tokens(vec![Token::new(MARK, String::new(), (0, 0))], 0);
    let invalid =
        |detail: &str| config::field(path, "post_processor", &format!("{detail}; copy the file from the model again"));
    let processed = tokenizer.post_process(marked, None, true).map_err(|error| invalid(&error.to_string()))?;
    let ids = processed.get_ids();
    let mark = ids.iter().position(|&id| id == MARK).ok_or_else(|| invalid("the prompt itself is left out"))?;
    Ok((ids[..mark].to_vec(), ids[mark + 1..].to_vec()))
}

/// The token of an id as decoding sees it.
fn token_for_decoding(tokenizer: &tokenizers::Tokenizer, id: u32) -> Option<String> {
    tokenizer.get_added_vocabulary().simple_id_to_token(id).or_else(|| tokenizer.get_model().id_to_token(id))
}
