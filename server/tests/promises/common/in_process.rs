//! The server in this process.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use server::config::Settings;
use server::http::accept::{self, Http};
use server::http::listener::{Address, Listener};
use server::keys::Keys;
use server::model::Parts;
use server::operations::{Outcome, Phase, Signal, drain};
use server::state::State;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub struct InProcess {
    pub address: SocketAddr,
    pub state: Arc<State>,
    pub signals: UnboundedSender<Signal>,
    /// How it ends, once it was told to.
    pub outcome: std::sync::Mutex<std::sync::mpsc::Receiver<Outcome>>,
    pub http: Http,
}

impl InProcess {
    pub fn start(parts: Parts, change: impl FnOnce(&mut Settings)) -> Self {
        let server = Self::loading(change);
        server.state.open(parts).unwrap();
        assert_eq!(server.state.lifecycle.phase(), Phase::Serving);
        server
    }

    /// Without an engine.
    pub fn loading(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { drain_grace: 0.0, fail_grace: 0.0, ..Settings::default() };
        change(&mut settings);
        settings.validate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Keys::open(&settings.api_key_file, None, &settings.keys).unwrap();
        let state = State::new(settings, keys, Address::Tcp(address)).unwrap();
        let http = accept::start(&state, Listener::Tcp(listener)).unwrap();
        let (signals, mut heard) = unbounded_channel();
        let (ended, outcome) = std::sync::mpsc::channel();
        let draining = state.clone();
        http.runtime().spawn(async move {
            let _ = ended.send(drain(&draining, &mut heard).await);
        });
        Self { address, state, signals, outcome: std::sync::Mutex::new(outcome), http }
    }

    /// How it ended.
    pub fn ended(&self) -> Outcome {
        self.outcome.lock().unwrap().recv_timeout(std::time::Duration::from_secs(30)).unwrap()
    }
}
