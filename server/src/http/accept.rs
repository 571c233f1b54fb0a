//! The accept loop: one task for each connection, up to a limit.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::operations::Phase;
use crate::state::{State, processors};

use super::connection::{Checked, Turn, Turns};
use super::listener::{Listener, Listens};
use super::reply::{self, Body};
use super::{head, routes};

/// Bytes that wait to be written to a slow reader, and of a head that hyper has not read to its end.
const BUFFER: usize = head::MOST_BYTES;

/// What a connection beyond the limit has to say that it only asks whether the process lives.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// The threads that speak HTTP. They end when it is dropped.
#[derive(Debug)]
pub struct Http {
    main: Runtime,
    /// Accepts connections, and answers whether the process lives: on a thread of its own, which no request can hold.
    _live: Runtime,
    /// The socket's file goes last.
    _listener: Listener,
}

impl Http {
    /// The threads that answer.
    pub fn runtime(&self) -> &Runtime {
        &self.main
    }
}

/// Starts the threads that answer.
///
/// # Errors
/// One of them cannot be started, or the listener cannot be used.
pub fn start(state: &Arc<State>, listener: Listener) -> std::io::Result<Http> {
    let threads = match state.settings.http_threads {
        0 => (processors() / 2).clamp(1, 4),
        threads => threads,
    };
    let runtime = |threads: usize, name: &str| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name(name).enable_io().enable_time().build()
    };
    let (main, live) = (runtime(threads, "trtllm-http")?, runtime(1, "trtllm-live")?);
    let entered = live.enter();
    match &listener {
        Listener::Tcp(listener) => {
            let listener = listener.try_clone()?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            live.spawn(serve(state.clone(), listener, main.handle().clone()));
        }
        Listener::Unix(socket) => {
            let listener = socket.listener.try_clone()?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            live.spawn(serve(state.clone(), listener, main.handle().clone()));
        }
    }
    drop(entered);
    Ok(Http { main, _live: live, _listener: listener })
}

/// Accepts connections for ever.
async fn serve<L: Listens>(state: Arc<State>, listener: L, main: Handle) {
    let places = Arc::new(Semaphore::new(state.settings.max_connections));
    loop {
        let socket = match poll_fn(|context| listener.poll_accept(context)).await {
            Ok(socket) => socket,
            Err(error) => {
                // The usual reason is that there are no descriptors: some will be given back.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = places.clone().try_acquire_owned().ok();
        tokio::spawn(begin::<L>(state.clone(), socket, place, main.clone()));
    }
}

/// Reads what comes first on a connection, and gives it to the threads that answer, unless it asks whether the process lives.
async fn begin<L: Listens>(
    state: Arc<State>,
    mut socket: L::Socket,
    place: Option<OwnedSemaphorePermit>,
    main: Handle,
) -> std::io::Result<()> {
    state.metrics.connections.add(1);
    let counted = Counted(state.clone());
    let time = Duration::from_secs_f64(state.settings.header_timeout);
    let deadline = Instant::now() + if place.is_some() { time } else { time.min(LAST_CHANCE) };
    let mut first = BytesMut::with_capacity(2 << 10);
    let came = tokio::select! {
        read = tokio::time::timeout_at(deadline, socket.read_buf(&mut first)) => matches!(read, Ok(Ok(1..))),
        () = cancelling(&state) => false,
    };
    if came && routes::is_live(&first) {
        let from = Begun { first, deadline, is_kept: place.is_some(), main: Some(main) };
        connection(state, socket, from).await;
    } else if place.is_none() {
        state.metrics.count_rejection("connections");
        refuse(&state, socket).await;
    } else if came {
        let socket = L::leave(socket)?;
        main.spawn(async move {
            if let Ok(socket) = L::enter(socket) {
                connection(state, socket, Begun { first, deadline, is_kept: true, main: None }).await;
            }
            drop((counted, place));
        });
    }
    Ok(())
}

async fn cancelling(state: &State) {
    let _ = state.lifecycle.subscribe().wait_for(|phase| *phase == Phase::Cancelling).await;
}

async fn refuse(state: &State, mut socket: impl AsyncWrite + Unpin) {
    let error = ApiError::overloaded("queue_full", "the server has too many connections (max_connections)", 1);
    let error = state.answered(error);
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        socket.write_all(&reply::raw(&error)).await?;
        socket.shutdown().await
    })
    .await;
}

/// Counts a connection while it is open.
struct Counted(Arc<State>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.sub(1);
    }
}

/// A connection that has begun.
struct Begun {
    /// What was read of it.
    first: BytesMut,
    /// When the first head must be there.
    deadline: Instant,
    /// Whether further requests may follow the first.
    is_kept: bool,
    /// The threads that answer, where it is not on one of them.
    main: Option<Handle>,
}

/// Answers the requests of a connection.
async fn connection(state: Arc<State>, socket: impl AsyncRead + AsyncWrite + Unpin, from: Begun) {
    let Begun { first, deadline, is_kept, main } = from;
    let turns = Turns::default();
    let checked = Checked::new(socket, first, deadline, state.clone(), turns.clone());
    let answering = state.clone();
    let begun = turns.clone();
    let service =
        service_fn(move |request: Request<Incoming>| answer(answering.clone(), main.clone(), request, begun.begin()));
    // The timeouts of heads are in `Checked`: hyper's own would end connections that are only idle.
    let mut http = http1::Builder::new();
    let connection = http
        .keep_alive(is_kept)
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        // Chunks are small: one copied buffer costs less to write than three.
        .writev(false)
        .serve_connection(TokioIo::new(checked), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = last_request(&state, &turns) => connection.as_mut().graceful_shutdown(),
    }
    // How it ends is its client's affair.
    let _ = connection.await;
}

/// Returns when a connection should have no further request: the server refuses them, and this one has been told so, or had one
/// before. One that has just been opened is to hear why it is closed.
async fn last_request(state: &State, turns: &Turns) {
    let mut phases = state.lifecycle.subscribe();
    let _ = phases.wait_for(|phase| matches!(phase, Phase::Refusing | Phase::Cancelling)).await;
    while !turns.have_begun() && state.lifecycle.phase() == Phase::Refusing {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A task that ends when nobody waits for it any more.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer(
    state: Arc<State>,
    main: Option<Handle>,
    request: Request<Incoming>,
    turn: Turn,
) -> Result<Response<Body>, Infallible> {
    let response = match main.filter(|_| !routes::is_of_liveness(request.uri().path())) {
        None => routes::answer(&state, request).await,
        Some(main) => {
            let task = main.spawn(async move { routes::answer(&state, request).await });
            let _aborts = Aborts(task.abort_handle());
            task.await.unwrap_or_else(|_| reply::error(&ApiError::internal("the request ended unexpectedly")))
        }
    };
    // The turn ends with the body's.
    Ok(reply::holding(response, turn))
}
