//! Guides of an engine, compiled as requests ask for them.

use std::sync::OnceLock;

use engine_format::error::with_causes;
use text::guide::{CompileError, Guide, GuideFactory};
use text::tokenizer::LazyTokenizer;

use super::{EnqueueError, GuidedDecodingParams, TokenId};

/// Compiles guides for an executor. The first one asks for the tokenizer, which no other request needs.
#[derive(Debug)]
pub(crate) struct Guides {
    /// What messages call the executor.
    executor: &'static str,
    vocab_size: usize,
    tokenizer: Option<LazyTokenizer>,
    factory: OnceLock<Result<GuideFactory, String>>,
}

impl Guides {
    /// Of an executor; guides are refused without a tokenizer.
    pub(crate) fn new(executor: &'static str, vocab_size: usize, tokenizer: Option<LazyTokenizer>) -> Self {
        Self { executor, vocab_size, tokenizer, factory: OnceLock::new() }
    }

    /// Compiles a guide.
    ///
    /// # Errors
    /// [`EnqueueError::Guide`]; [`EnqueueError::Unsupported`] without a tokenizer.
    pub(crate) fn compile(&self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Result<Guide, EnqueueError> {
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| self.unsupported("guides over a model without a tokenizer"))?;
        let factory = self.factory.get_or_init(|| {
            let tokenizer = tokenizer.get().map_err(|error| with_causes(&error))?;
            GuideFactory::new(tokenizer, self.vocab_size).map_err(|error| with_causes(&error))
        });
        match factory {
            Ok(factory) => factory.compile(params, end_ids).map_err(|error| self.refusal(error)),
            Err(problem) => Err(EnqueueError::Guide { kind: params.kind(), problem: problem.clone() }),
        }
    }

    /// Why a guide is not taken.
    pub(crate) fn refusal(&self, error: CompileError) -> EnqueueError {
        match error {
            CompileError::Unsupported { feature } => self.unsupported(feature),
            CompileError::Invalid { kind, problem } => EnqueueError::Guide { kind, problem },
            other => EnqueueError::Guide { kind: "guide", problem: other.to_string() },
        }
    }

    fn unsupported(&self, feature: &str) -> EnqueueError {
        EnqueueError::Unsupported {
            executor: self.executor,
            field: Some("guided_decoding"),
            feature: feature.to_owned(),
        }
    }
}
