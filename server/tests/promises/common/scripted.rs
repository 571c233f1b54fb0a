//! A scripted executor: tokens come from a function, at a pace.

use std::sync::Arc;
use std::time::Duration;

use engine_format::manifest::Limits;
use runner::executor::{Executor, ExecutorConfig, TokenId};
use runner::inflight::CpuExecutor;
use runner::scripted_model::{Script, ScriptedModel};
use runner::session::Session;
use server::config::Settings;
use server::model::Parts;
use text::tokenizer::{LazyTokenizer, Tokenizer};

use super::engine::demo_model;
use super::in_process::InProcess;

/// Tokens of the demo model's vocabulary.
pub const VOCAB_SIZE: usize = 2560;

pub fn tokenizer() -> Tokenizer {
    Tokenizer::open(&demo_model()).unwrap()
}

/// A script that says `text` after any prompt of one token, and dots after that.
pub fn saying(text: &str) -> Script {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode(text, false).unwrap();
    let dot = tokenizer.encode(".", false).unwrap()[0];
    Script { next_token: Box::new(move |tokens| ids.get(tokens.len() - 1).copied().unwrap_or(dot)), ..large() }
}

/// A script that says these tokens after any prompt of one token.
pub fn giving(ids: Vec<TokenId>) -> Script {
    Script { next_token: Box::new(move |tokens| ids.get(tokens.len() - 1).copied().unwrap_or(100)), ..large() }
}

/// A script that takes its time for each token.
pub fn slow(step: Duration) -> Script {
    Script { latency_per_step: step, next_token: Box::new(|_| 100), ..large() }
}

fn large() -> Script {
    Script { vocab_size: VOCAB_SIZE, num_blocks: 4096, ..Script::default() }
}

/// A server over a script, of which `batch` sequences run at once.
pub fn start(script: Script, batch: usize, change: impl FnOnce(&mut Settings)) -> InProcess {
    start_with(script, batch, &ExecutorConfig::default(), change)
}

pub fn start_with(
    script: Script,
    batch: usize,
    config: &ExecutorConfig,
    change: impl FnOnce(&mut Settings),
) -> InProcess {
    let limits = Limits { max_seq_len: 16_384, max_batch_size: batch, max_num_tokens: 16_384 };
    let executor = CpuExecutor::with_model(ScriptedModel::new(script).unwrap(), limits, config);
    let executor: Arc<dyn Executor> = Arc::new(executor.unwrap());
    let session = Arc::new(Session::start(executor, Some(LazyTokenizer::of(&demo_model()))).unwrap());
    InProcess::start(Parts { session, engine: None, name: "scripted".to_owned(), tokens_per_block: 16 }, change)
}
