//! A text as windows of token ids.

use anyhow::{Result, ensure};
use text::tokenizer::Tokenizer;

/// What is between two documents of a text.
const BETWEEN_DOCUMENTS: &str = "\n\n\n";

/// The tokens of every document of `text`, cut into windows of at most `window` tokens. Documents are divided by two empty lines. Each
/// begins with what the tokenizer puts before a text, a BOS token or nothing; windows of one token, which predict nothing, are
/// left out.
pub(crate) fn windows(tokenizer: &Tokenizer, text: &str, window: usize) -> Result<Vec<Vec<u32>>> {
    let mut windows = Vec::new();
    for document in text.split(BETWEEN_DOCUMENTS).map(str::trim).filter(|document| !document.is_empty()) {
        let ids = tokenizer.encode(document, true)?;
        windows.extend(ids.chunks(window).filter(|ids| ids.len() > 1).map(<[u32]>::to_vec));
    }
    ensure!(!windows.is_empty(), "the text has no two tokens in a row");
    Ok(windows)
}
