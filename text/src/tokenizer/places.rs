//! Tokens with their places in the text.

use std::ops::Range;

use tokenizers::Encoding;
use tokenizers::tokenizer::OffsetType;

use super::{Tokenizer, TokenizerError, guarded};
use crate::chat::Rendered;

/// A token and the bytes of the text that it stands for. Tokens that share a character have all of it.
pub type Placed = (u32, Range<usize>);

impl Tokenizer {
    /// [`Tokenizer::encode`], with places. Tokens that are put around the text stand for nothing of it: their place is 0..0.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_places(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Placed>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode(text, false).map_err(|error| error.to_string()))
            .and_then(|encoded| encoded)
            .map_err(|detail| TokenizerError::Encode { detail })?;
        let placed = placed(&encoding);
        if !add_special_tokens {
            return Ok(placed.collect());
        }
        let (before, after) = &self.around_prompt;
        let around = |ids: &[u32]| ids.iter().map(|&id| (id, 0..0)).collect::<Vec<_>>();
        Ok(around(before).into_iter().chain(placed).chain(around(after)).collect())
    }

    /// [`Tokenizer::encode_rendered`], with places.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_rendered`].
    pub fn encode_rendered_with_places(&self, rendered: &Rendered) -> Result<Vec<Placed>, TokenizerError> {
        match self.encode_guarding(rendered, OffsetType::Byte)? {
            Some(encoding) => Ok(placed(&encoding).collect()),
            None => self.encode_with_places(rendered.as_str(), false),
        }
    }
}

fn placed(encoding: &Encoding) -> impl Iterator<Item = Placed> {
    encoding.get_ids().iter().zip(encoding.get_offsets()).map(|(&id, &(start, end))| (id, start..end))
}
