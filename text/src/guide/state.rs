//! A guide on its way: what the output may become, token by token.

use std::sync::Arc;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;

use super::GuideError;
use super::error::{first_words, guarded, too_complex};
use crate::TokenId;

/// What one sequence may still become. A clone goes its own way from where it was taken, with caches of its own, so
/// that what it allows depends on its own tokens alone.
pub struct Guide {
    parser: TokenParser,
    end_ids: Arc<[TokenId]>,
    /// The output is complete as it is.
    may_end: bool,
    /// The tokens that can come next, where they are known already.
    allowed: Option<SimpleVob>,
    /// Nothing can come but an end.
    must_end: bool,
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guide")
            .field("end_ids", &self.end_ids)
            .field("may_end", &self.may_end)
            .field("must_end", &self.must_end)
            .finish_non_exhaustive()
    }
}

impl Clone for Guide {
    fn clone(&self) -> Self {
        Self {
            parser: self.parser.deep_clone(),
            end_ids: Arc::clone(&self.end_ids),
            may_end: self.may_end,
            allowed: self.allowed.clone(),
            must_end: self.must_end,
        }
    }
}

impl Guide {
    pub(super) fn new(parser: TokenParser, end_ids: &[TokenId]) -> Self {
        Self { parser, end_ids: end_ids.into(), may_end: false, allowed: None, must_end: false }
    }

    /// The guide with what can come first, which shows whether anything can, and whether the parser goes on from there.
    pub(super) fn started(mut self) -> Result<Self, String> {
        let told = |error: GuideError| match error {
            GuideError::TooComplex { problem } => format!("it is too complex: {problem}; simplify it"),
            other => other.to_string(),
        };
        self.settle().map_err(told)?;
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => self.next_tokens().map_err(told)?,
        };
        if !self.may_end && allowed.is_zero() {
            return Err("no output satisfies it".to_owned());
        }
        let first = allowed.first_bit_set();
        self.allowed = Some(allowed);
        if let Some(token) = first {
            let mut probe = self.clone();
            probe.accept(token as TokenId).and_then(|()| probe.next_tokens()).map_err(told)?;
        }
        Ok(self)
    }

    /// Sets the logits of all tokens that cannot come next to negative infinity. End ids can come exactly when the
    /// output is complete; one that has a text of its own ends it all the same.
    ///
    /// # Errors
    /// [`GuideError::DeadEnd`], [`GuideError::TooComplex`]; [`GuideError::Over`] when nothing can come but an end and
    /// there are no end ids.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GuideError> {
        if self.must_end && self.end_ids.is_empty() {
            return Err(GuideError::Over);
        }
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => self.next_tokens()?,
        };
        if !self.may_end && allowed.is_zero() {
            return Err(GuideError::DeadEnd);
        }
        let ends: Vec<(TokenId, f32)> =
            self.end_ids.iter().filter_map(|&id| Some((id, *logits.get(id as usize)?))).collect();
        keep(&allowed, logits);
        if self.may_end {
            for (id, logit) in ends {
                logits[id as usize] = logit;
            }
        }
        self.allowed = Some(allowed);
        Ok(())
    }

    /// Takes the next token in.
    ///
    /// # Errors
    /// [`GuideError::Refused`] for a token that the mask excludes, and only for one; [`GuideError::Over`] after an end;
    /// [`GuideError::TooComplex`].
    pub fn accept(&mut self, token: TokenId) -> Result<(), GuideError> {
        if self.end_ids.contains(&token) {
            if !self.may_end {
                return Err(GuideError::Refused { token });
            }
            // A second end is a token too many.
            (self.may_end, self.must_end, self.allowed) = (false, true, None);
            return Ok(());
        }
        if self.must_end {
            return Err(GuideError::Over);
        }
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => self.next_tokens()?,
        };
        let is_allowed = (token as usize) < allowed.len() && allowed.is_allowed(token);
        if !is_allowed {
            self.allowed = Some(allowed);
            return Err(GuideError::Refused { token });
        }
        // The mask admitted it, so whatever the parser says now is a limit of its own. Without backtracking, which is off, no
        // tokens are taken back.
        let parser = &mut self.parser;
        guarded(|| parser.consume_token(token)).map_err(too_complex)?;
        self.settle()
    }

    /// Whether nothing but an end can follow.
    pub fn must_end(&self) -> bool {
        self.must_end
    }

    /// Works out whether the output may end here, and whether it must.
    fn settle(&mut self) -> Result<(), GuideError> {
        self.allowed = None;
        let parser = &mut self.parser;
        self.may_end = guarded(|| Ok(parser.is_accepting())).map_err(too_complex)?;
        if self.may_end {
            let allowed = self.next_tokens()?;
            self.must_end = allowed.is_zero();
            self.allowed = Some(allowed);
        }
        Ok(())
    }

    /// The tokens that go on with the output, end ids aside.
    fn next_tokens(&mut self) -> Result<SimpleVob, GuideError> {
        let parser = &mut self.parser;
        let masked = guarded(|| Ok((parser.compute_mask(), parser.stop_reason()))).map_err(too_complex)?;
        let mut allowed = match masked {
            (Ok(allowed), _) => allowed,
            (Err(_), StopReason::NoExtensionBias) => self.parser.token_env.tok_trie().alloc_token_set(),
            (Err(error), _) => return Err(too_complex(first_words(&error.to_string()))),
        };
        let size = allowed.len();
        for &id in self.end_ids.iter().filter(|&&id| (id as usize) < size) {
            allowed.disallow_token(id);
        }
        Ok(allowed)
    }
}

/// Sets every logit that is not among `allowed` to negative infinity.
fn keep(allowed: &SimpleVob, logits: &mut [f32]) {
    let words = allowed.as_slice();
    for (position, logits) in logits.chunks_mut(32).enumerate() {
        match words.get(position).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}
