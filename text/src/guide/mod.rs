//! Output that has to have a form: a JSON schema, a regular expression or a grammar, as masks over the next token.
//!
//! The parsing is [llguidance](https://github.com/guidance-ai/llguidance)'s. What it is given are the bytes that each
//! token adds to the text, so that the text which a reader sees, [`Detokenizer::of_guided_output`], is what the guide
//! has matched, from its first byte to its last.
//!
//! [`Detokenizer::of_guided_output`]: crate::detokenizer::Detokenizer::of_guided_output

#![forbid(unsafe_code)]

mod params;
mod source;
mod vocabulary;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::SimpleVob;
use llguidance::{ParserFactory, TokenParser};

pub use params::GuidedDecodingParams;

use crate::TokenId;
use crate::tokenizer::Tokenizer;

/// Why a guide cannot be made or followed. A guide that gave an error is not to be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuideError {
    /// The tokenizer cannot be used for constrained output.
    #[error("the tokenizer cannot be used for constrained output: {problem}")]
    Vocabulary {
        /// What is wrong with it.
        problem: String,
    },
    /// The guide asks for more, and no token has it.
    #[error(
        "the output has to go on, but no token of the vocabulary goes on as the guide demands: change the guide or use its model with another tokenizer"
    )]
    DeadEnd,
    /// A token came that the mask excludes.
    #[error("token {token} cannot come next under the guide")]
    Refused {
        /// The token.
        token: TokenId,
    },
    /// A token came after the end.
    #[error("the output is over: the guide lets no token follow")]
    Over,
    /// One step needed more work than a step may.
    #[error("the guide became too complex to follow: {problem}; simplify the schema, regex or grammar")]
    TooComplex {
        /// The limit that was met.
        problem: String,
    },
}

/// Why a guide cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It cannot be parsed, asks for what is not supported, or is too large.
    #[error("the {kind} cannot be used: {problem}")]
    Invalid {
        /// [`GuidedDecodingParams::kind`].
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A kind of guide that is not read here.
    #[error("{feature} is not supported")]
    Unsupported {
        /// What was asked for, and what to use instead.
        feature: &'static str,
    },
}

/// Makes guides for one model. Built once: sorting the vocabulary takes longer than compiling a schema.
pub struct GuideFactory {
    parsers: ParserFactory,
}

impl std::fmt::Debug for GuideFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuideFactory").finish_non_exhaustive()
    }
}

impl GuideFactory {
    /// Prepares the vocabulary. `vocab_size` is the model's, the length of its logits; ids that the tokenizer lacks are
    /// never allowed.
    ///
    /// # Errors
    /// [`GuideError::Vocabulary`].
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self, GuideError> {
        let environment = vocabulary::token_environment(tokenizer, vocab_size)?;
        let mut parsers = guarded(|| ParserFactory::new_simple(&environment))
            .map_err(|problem| GuideError::Vocabulary { problem })?;
        parsers.quiet();
        parsers.limits_mut().verbose_errors = false;
        Ok(Self { parsers })
    }

    /// Compiles a guide. Any of `end_ids` ends an output where the guide allows an end; without any, an output is over
    /// when [`Guide::must_end`].
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Result<Guide, CompileError> {
        let grammar = source::grammar(params)?;
        on_a_large_stack(|| {
            guarded(|| {
                let mut parser = self.parsers.create_parser(grammar)?;
                parser.start_without_prompt();
                Ok(Guide::new(parser, end_ids))
            })
            .and_then(Guide::started)
        })
        .and_then(|compiled| compiled)
        .map_err(|problem| CompileError::Invalid { kind: params.kind(), problem })
    }
}

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
    fn new(parser: TokenParser, end_ids: &[TokenId]) -> Self {
        Self { parser, end_ids: end_ids.into(), may_end: false, allowed: None, must_end: false }
    }

    /// The guide with what can come first, which shows whether anything can.
    fn started(mut self) -> Result<Self, String> {
        self.settle().map_err(|error| error.to_string())?;
        if self.allowed.is_none() {
            let allowed = self.next_tokens().map_err(|error| error.to_string())?;
            if allowed.is_zero() {
                return Err("no output satisfies it".to_owned());
            }
            self.allowed = Some(allowed);
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
    /// [`GuideError::Refused`] for a token that the mask excludes, [`GuideError::Over`] after an end,
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
        let parser = &mut self.parser;
        // Without backtracking, which is off, no tokens are taken back.
        let taken = guarded(|| parser.consume_token(token));
        taken.map_err(|problem| match self.parser.stop_reason() {
            StopReason::LexerTooComplex => GuideError::TooComplex { problem },
            _ => GuideError::Refused { token },
        })?;
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
            (Err(error), _) => return Err(too_complex(first_words(&error))),
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

fn too_complex(problem: String) -> GuideError {
    GuideError::TooComplex { problem }
}

/// Runs llguidance, whose assertions are errors here.
fn guarded<T>(run: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    // After a panic the guide is in error and nothing of it is used again.
    catch_unwind(AssertUnwindSafe(run)).map_err(|error| first_words(&error))
}

/// Runs what follows the references of a grammar by recursion. The longest chains that [`source`] lets through were seen
/// to do with an eighth of this stack; what is not touched costs nothing.
fn on_a_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, String> {
    const STACK: usize = 256 << 20;
    std::thread::scope(|scope| {
        let thread = system::threads::spawn_scoped(scope, "trtllm-guide", Some(STACK), run);
        let thread = thread.map_err(|error| format!("no thread can be started to compile it: {error}"))?;
        thread.join().map_err(|_| "the thread that compiled it ended early".to_owned())
    })
}

/// What an error says, without the state and the backtrace that may follow.
fn first_words(error: &anyhow::Error) -> String {
    let said = error.to_string();
    let end = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].iter().filter_map(|mark| said.find(mark)).min();
    let said = &said[..end.unwrap_or(said.len())];
    match said {
        "panic: missing special token prefix" => {
            "it names a special token; special tokens are written by their ids, as in <[7]>".to_owned()
        }
        _ if said.starts_with("lexer precomputation failed") => "it is too complex; simplify it".to_owned(),
        _ => readable(said),
    }
}

/// A message without its longest lines and without more of them than anyone reads.
fn readable(said: &str) -> String {
    const LINES: usize = 12;
    const LETTERS: usize = 160;
    let shorten = |line: &str| match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    let lines: Vec<String> = said.trim_end().lines().take(LINES).map(shorten).collect();
    lines.join("\n")
}
