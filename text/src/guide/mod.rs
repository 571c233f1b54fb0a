//! Output that has to have a form: a JSON schema, a regular expression or a grammar, as masks over the next token.
//!
//! The parsing is [llguidance](https://github.com/guidance-ai/llguidance)'s. What it is given are the bytes that each
//! token adds to the text, so that the text which a reader sees, [`Detokenizer::of_guided_output`], is what the guide
//! has matched, from its first byte to its last.
//!
//! A panic of llguidance is an error here. See [`engine_format::panics`] for the hook that keeps it from being printed;
//! llguidance puts one of the same kind before it when it first compiles.
//!
//! [`Detokenizer::of_guided_output`]: crate::detokenizer::Detokenizer::of_guided_output

// In reading order: params, error, ebnf, source, vocabulary, state, workers, cache, xgrammar.
mod cache;
mod ebnf;
mod error;
mod params;
mod source;
mod state;
mod vocabulary;
mod workers;
mod xgrammar;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use llguidance::ParserFactory;

pub use error::{CompileError, GuideError};
pub use params::GuidedDecodingParams;
pub use state::Guide;

use crate::TokenId;
use crate::tokenizer::Tokenizer;

use cache::Cache;
use error::guarded;
use workers::Workers;

/// How long a guide may be compiled. The slowest known that the limits of [`source`] let through takes 1 s.
const DEADLINE: Duration = Duration::from_secs(10);

/// Items of the Earley parser after one token. An object has four for each property that may come next, so that 2,500 optional
/// ones are possible. With 2,000, the slowest mask of a token took 22 ms.
const MAX_ITEMS: usize = 10_000;

/// Makes guides for one model. Built once: sorting the vocabulary takes longer than compiling a schema.
pub struct GuideFactory {
    parsers: Arc<ParserFactory>,
    deadline: Duration,
    workers: Arc<Workers>,
    compiled: Mutex<Cache>,
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
        parsers.limits_mut().max_items_in_row = MAX_ITEMS;
        Ok(Self { parsers: Arc::new(parsers), deadline: DEADLINE, workers: Arc::default(), compiled: Mutex::default() })
    }

    /// The factory, whose guides are compiled within `deadline` or not at all. It is 10 s without.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Compiles a guide, or takes it from those that were compiled lately. Any of `end_ids` ends an output where the guide allows
    /// an end; without any, an output is over when [`Guide::must_end`].
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Result<Guide, CompileError> {
        if let Some(guide) = self.compiled().get(params, end_ids) {
            return Ok(guide);
        }
        let grammar = source::grammar(params)?;
        let (parsers, ends) = (self.parsers.clone(), end_ids.to_vec());
        let compile = move || {
            guarded(|| {
                let mut parser = parsers.create_parser(grammar)?;
                parser.start_without_prompt();
                Ok(Guide::new(parser, &ends))
            })
            .and_then(Guide::started)
        };
        let compiled = self.workers.run(self.deadline, compile).and_then(|compiled| compiled);
        let guide = compiled.map_err(|problem| CompileError::Invalid { kind: params.kind(), problem })?;
        self.compiled().put(params, end_ids, &guide);
        Ok(guide)
    }

    fn compiled(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
