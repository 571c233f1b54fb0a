//! A tokenizer that is parsed when it is first needed: a large vocabulary takes half a second and 250 MB, which who has token
//! ids already need not pay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Tokenizer, TokenizerError};

/// The tokenizer of a directory, parsed when it is first asked for, and once. Clones share it.
#[derive(Debug, Clone)]
pub struct LazyTokenizer(Arc<Lazy>);

#[derive(Debug)]
struct Lazy {
    dir: PathBuf,
    parsed: OnceLock<Result<Tokenizer, TokenizerError>>,
}

impl LazyTokenizer {
    /// The tokenizer of a model or engine directory, of which nothing is read yet.
    pub fn of(dir: &Path) -> Self {
        Self(Arc::new(Lazy { dir: dir.to_owned(), parsed: OnceLock::new() }))
    }

    /// The tokenizer. The first call parses it; calls from other threads wait for that.
    ///
    /// # Errors
    /// As [`Tokenizer::open`], at every call the same.
    pub fn get(&self) -> Result<&Tokenizer, TokenizerError> {
        self.0.parsed.get_or_init(|| Tokenizer::open(&self.0.dir)).as_ref().map_err(Clone::clone)
    }

    /// Whether it has been asked for.
    pub fn is_parsed(&self) -> bool {
        self.0.parsed.get().is_some()
    }
}

impl From<Tokenizer> for LazyTokenizer {
    /// A tokenizer that is there already.
    fn from(tokenizer: Tokenizer) -> Self {
        Self(Arc::new(Lazy { dir: PathBuf::new(), parsed: OnceLock::from(Ok(tokenizer)) }))
    }
}
