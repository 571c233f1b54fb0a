//! The server over the stand-in, as a program of its own: everything that `serve-engine` does, but for the engine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine_format::manifest::Limits;
use runner::executor::Shutdown;
use runner::session::Session;
use server::config::{Settings, SettingsArgs};
use server::http::accept;
use server::http::listener::{Address, Listener};
use server::keys::Keys;
use server::model::Parts;
use server::operations::{Outcome, drain, on_signal};
use server::program;
use server::state::State;
use text::tokenizer::{LazyTokenizer, Tokenizer};
use tokio::sync::mpsc::unbounded_channel;

use super::script::Script;
use super::stand_in::StandInExecutor;

/// Serve a stand-in that says tokens of a script.
#[derive(Debug, Clone, clap::Args)]
pub struct StandInArgs {
    /// Sequences that run at once
    #[arg(long, default_value_t = 64)]
    pub max_batch_size: usize,
    /// Microseconds between two tokens of a sequence
    #[arg(long, default_value_t = 0)]
    pub period_us: u64,
    /// How to serve
    #[command(flatten)]
    pub server: SettingsArgs,
}

/// The model whose tokenizer the stand-in speaks through.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model")
}

/// Serves until a signal. Whether that went in order.
pub fn serve(args: &StandInArgs) -> anyhow::Result<bool> {
    let settings = args.server.clone().over(Settings::default());
    settings.validate().map_err(anyhow::Error::msg)?;
    program::install_log(false, &settings.log_format);
    let (sender, mut signals) = unbounded_channel();
    on_signal(move |signal| {
        let _ = sender.send(signal);
    })?;
    let listener = TcpListener::bind((settings.host.as_str(), settings.port)).context("cannot listen")?;
    let keys = Keys::open("", None, &settings.keys).map_err(anyhow::Error::msg)?;
    let ready_file = settings.ready_file.clone();
    let address = listener.local_addr()?;
    let state = State::new(settings, keys, Address::Tcp(address))?;
    let http = accept::start(&state, Listener::Tcp(listener))?;
    let tokenizer = Tokenizer::open(&demo_model())?;
    let limits = Limits { max_seq_len: 1 << 20, max_batch_size: args.max_batch_size, max_num_tokens: 1 << 16 };
    let period = Duration::from_micros(args.period_us);
    let executor = StandInExecutor::new(Script::of(&tokenizer), limits, tokenizer.vocab_size(), period);
    let lazy = LazyTokenizer::of(&demo_model());
    lazy.get().map_err(|error| anyhow::anyhow!("{error}"))?;
    let session = Arc::new(Session::start(Arc::new(executor), Some(lazy))?);
    state.open(Parts { session, engine: None, name: "stand-in".to_owned(), tokens_per_block: 16 })?;
    if !ready_file.is_empty() {
        let aside = format!("{ready_file}.new");
        std::fs::write(&aside, format!("{address}\n"))?;
        std::fs::rename(&aside, &ready_file)?;
    }
    let outcome = http.runtime().block_on(drain(&state, &mut signals));
    if let Some(model) = state.model() {
        model.session().shutdown(Shutdown::Cancel);
    }
    Ok(outcome == Outcome::Drained)
}
