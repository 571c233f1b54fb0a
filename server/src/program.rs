//! The program: what was typed, a listener, an engine, and the server's end.
//!
//! The listener is bound and signals are heard before the engine is opened, so that probes see 503 rather than a refused connection.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ::args::exit::{Failure, exit_code, input, say};
use anyhow::{Context, anyhow};
use engine_format::EngineDir;
use engine_format::error::counted;
use runner::engine::{Engine, OpenError, Running, check_target};
use runner::executor::{ExecutorConfig, Shutdown};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{self, Args, Settings};
use crate::http::accept;
use crate::http::listener::{Address, Listener, UnixSocket};
use crate::keys::{self, Keys};
use crate::model::{self, Parts};
use crate::operations::{Outcome, Signal, drain, on_signal};
use crate::state::State;

/// Runs the program.
pub fn main() -> ExitCode {
    system::memory::share_the_allocator_where_address_space_is_little();
    ::args::generate::main_with_environment("SERVE", |args: Args| exit_code(run(&args)))
}

fn run(args: &Args) -> Result<(), Failure> {
    let (settings, executor) = config::load(args).map_err(input)?;
    if args.print_config {
        return print(&settings, &executor);
    }
    let repository = Path::new(config::container::REPOSITORY);
    let path = config::container::engine(args.engine.as_deref(), repository);
    let path = &path.map_err(|problem| input(anyhow!(problem)))?;
    install_log(args.verbose, &settings.log_format);
    let keys = Keys::open(&settings.api_key_file, std::env::var(keys::VARIABLE).ok(), &settings.keys);
    let keys = keys.map_err(|problem| input(anyhow!(problem)))?;
    let (sender, signals) = unbounded_channel();
    let loading = Loading::install(sender).map_err(Failure::Other)?;
    let listener = bind(&settings, &keys)?;
    let address = listener.address().map_err(|error| Failure::Other(error.into()))?;
    let state = State::new(settings, keys, address).map_err(no_thread)?;
    let http = accept::start(&state, listener).map_err(no_thread)?;
    announce(&state)?;
    match loading.open(&state, args, path, executor)? {
        Opened::Interrupted(Signal::Interrupt) => Err(Failure::Interrupted),
        // Nothing was served yet.
        Opened::Interrupted(_) | Opened::Served => Ok(()),
        Opened::Ready => {
            say(format_args!("ready; try: {}", example(&state)));
            if let Address::Tcp(address) = &state.address {
                say(format_args!("page: http://{}/ui", from_here(*address)));
            }
            serve(&state, http.runtime(), signals)
        }
    }
}

/// Serves until the end, and ends in order.
fn serve(state: &Arc<State>, runtime: &Runtime, mut signals: UnboundedReceiver<Signal>) -> Result<(), Failure> {
    let outcome = runtime.block_on(drain(state, &mut signals));
    if let Some(model) = state.model() {
        // It waits for its threads, so it is not for an asynchronous one.
        model.session().shutdown(Shutdown::Cancel);
    }
    match outcome {
        Outcome::Drained => {
            tracing::info!("the server has ended");
            Ok(())
        }
        Outcome::Interrupted => Err(Failure::Interrupted),
        Outcome::Failed(problem) => Err(Failure::Other(anyhow!("the engine has failed: {problem}"))),
    }
}

/// What opening the engine led to.
enum Opened {
    Ready,
    /// A signal came first.
    Interrupted(Signal),
    /// This process was a rank of several, and has served the first of them.
    Served,
}

/// The signals that come while the engine is opened, and those after that.
struct Loading {
    events: std::sync::mpsc::Receiver<Event>,
    sender: std::sync::mpsc::Sender<Event>,
}

enum Event {
    Signal(Signal),
    Opened(Result<Option<Parts>, Failure>),
}

impl Loading {
    /// Hears signals from now on, and passes each to `signals` too.
    fn install(signals: UnboundedSender<Signal>) -> anyhow::Result<Self> {
        let (sender, events) = std::sync::mpsc::channel();
        let heard = sender.clone();
        on_signal(move |signal| {
            // Whichever of the two is not listened to any more has no use for it.
            let _ = heard.send(Event::Signal(signal));
            let _ = signals.send(signal);
        })
        .context("cannot watch for signals")?;
        Ok(Self { events, sender })
    }

    /// Opens the engine on a thread of its own, which a signal does not wait for.
    fn open(self, state: &Arc<State>, args: &Args, path: &Path, config: ExecutorConfig) -> Result<Opened, Failure> {
        let (settings, executor, path) = (state.settings.clone(), args.executor.clone(), path.to_owned());
        let sender = self.sender;
        let open = move || {
            let opened = open_engine(&settings, &executor, &path, &config);
            let _ = sender.send(Event::Opened(opened));
        };
        // Workers of TensorRT-LLM are processes that this thread starts.
        system::threads::spawn_for_processes("trtllm-open", open).map_err(no_thread)?;
        loop {
            match self.events.recv() {
                Ok(Event::Signal(Signal::Hangup)) => {}
                Ok(Event::Signal(signal)) => return Ok(Opened::Interrupted(signal)),
                Ok(Event::Opened(opened)) => {
                    let Some(parts) = opened? else { return Ok(Opened::Served) };
                    state.open(parts).map_err(no_thread)?;
                    return Ok(Opened::Ready);
                }
                Err(_) => return Err(Failure::Other(anyhow!("the thread that opens the engine ended unexpectedly"))),
            }
        }
    }
}

/// The engine; none in a process that serves another rank, after it has.
fn open_engine(
    settings: &Settings,
    executor: &::args::ExecutorArgs,
    path: &Path,
    config: &ExecutorConfig,
) -> Result<Option<Parts>, Failure> {
    let dir = EngineDir::open(path).map_err(OpenError::from)?;
    check_target(&dir).map_err(Failure::from)?;
    executor.check(config, dir.manifest().limits).map_err(input)?;
    let engine = Engine::start_with_text(dir, config).map_err(Failure::from)?;
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(None);
    }
    model::check(&engine, settings).map_err(|problem| input(anyhow!(problem)))?;
    say(format_args!("{}: {}", path.display(), described(engine.running())));
    let limits = engine.executor().limits();
    say(format_args!("max_seq_len {}, max_batch_size {}", limits.max_seq_len, limits.max_batch_size));
    Parts::of_engine(engine, config).map(Some).map_err(no_thread)
}

/// What runs, in the words of `run-engine`.
fn described(running: &Running) -> String {
    let Running::Cpu(executor) = running else { return running.to_string() };
    let facts = executor.facts();
    let (threads, tokens) = (counted(facts.threads, "thread"), counted(facts.kv_cache_tokens, "token"));
    let (cache, size) = (facts.kv_cache_dtype.mention(), size(facts.kv_cache_bytes));
    let (weights, kernels) = (facts.weight_type, facts.kernels());
    format!(
        "{weights} weights; CPU ({kernels}, {threads}); KV cache{cache} of {tokens} (up to {size}, taken as it fills)"
    )
}

/// Bytes for people.
fn size(bytes: usize) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.2} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::Machine(anyhow::Error::new(error).context("cannot start a thread"))
}

fn print(settings: &Settings, executor: &ExecutorConfig) -> Result<(), Failure> {
    let text = config::shown(settings, executor).map_err(|error| Failure::Other(error.into()))?;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Other(error.into())),
        _ => Ok(()),
    }
}

/// Warnings and errors of the libraries, and what the server says of requests.
pub fn install_log(verbose: bool, format: &str) {
    let is_wanted = move |metadata: &tracing::Metadata<'_>| {
        let is_ours = metadata.target().starts_with("server");
        let level = match (verbose, is_ours) {
            (true, true) => tracing::Level::DEBUG,
            (true, false) | (false, true) => tracing::Level::INFO,
            (false, false) => tracing::Level::WARN,
        };
        *metadata.level() <= level
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        "json" => lines.json().boxed(),
        _ => lines.with_ansi(false).boxed(),
    };
    // The only failure is that a log is installed already.
    let _ = registry().with(lines.with_filter(filter_fn(is_wanted))).try_init();
}

/// Listens. Anybody who reaches an address that is not loopback could use the engine, so that needs keys or a decision.
fn bind(settings: &Settings, keys: &Keys) -> Result<Listener, Failure> {
    use std::net::ToSocketAddrs;
    if !settings.unix_socket.is_empty() {
        // Who reaches it, its folder and its permissions say.
        let path = Path::new(&settings.unix_socket);
        let socket = UnixSocket::bind(path).context(format!("--unix-socket {}", path.display())).map_err(input)?;
        return Ok(Listener::Unix(socket));
    }
    let (host, port) = (settings.host.trim_matches(['[', ']']), settings.port);
    let found = (host, port).to_socket_addrs().context(format!("--host {host}: not an address")).map_err(input)?;
    let addresses: Vec<SocketAddr> = found.collect();
    if !addresses.iter().all(|address| address.ip().is_loopback()) && !keys.are_needed() {
        if !settings.no_auth {
            let message = "every machine that reaches it could use the engine: give --api-key-file, or --no-auth if that is wanted";
            return Err(input(anyhow!("--host {host}: {message}")));
        }
        say(format_args!("warning: {host} is not loopback, and no API key is asked for"));
    }
    let listener = TcpListener::bind(&addresses[..]).context(format!("cannot listen on {host}:{port}"));
    listener.map(Listener::Tcp).map_err(Failure::Other)
}

/// The address as a client of this machine asks for it: one that stands for all of the machine's is none to ask for.
fn from_here(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        address => address,
    }
}

/// A first request.
fn example(state: &State) -> String {
    let key = if state.keys.are_needed() { " -H 'Authorization: Bearer KEY'" } else { "" };
    let place = match &state.address {
        Address::Tcp(address) => format!("http://{}", from_here(*address)),
        Address::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
    };
    format!(
        r#"curl {place}/v1/completions{key} -H 'Content-Type: application/json' -d '{{"prompt": "Our solar system is"}}'"#
    )
}

/// Says where the server listens.
fn announce(state: &State) -> Result<(), Failure> {
    match &state.address {
        Address::Tcp(address) => say(format_args!("listening on http://{address}")),
        Address::Unix(_) => say(format_args!("listening on {}", state.address)),
    }
    let file = &state.settings.ready_file;
    if file.is_empty() {
        return Ok(());
    }
    // Put into place as a whole: whoever waits for the file must not read half of a line.
    let aside = format!("{file}.{}", std::process::id());
    std::fs::write(&aside, format!("{}\n", state.address))
        .and_then(|()| std::fs::rename(&aside, file))
        .with_context(|| format!("cannot write --ready-file {file}"))
        .map_err(input)
}
