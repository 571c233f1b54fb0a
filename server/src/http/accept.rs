//! The accept loop: one task for each connection, up to a limit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::operations::Phase;
use crate::state::{State, processors};

use super::connection::{Checked, Turn, Turns};
use super::reply::{self, Body};
use super::{head, routes};

/// Bytes that wait to be written to a slow reader, and of a head that hyper has not read to its end.
const BUFFER: usize = head::MOST_BYTES;

/// Starts the threads that answer.
///
/// # Errors
/// One of them cannot be started, or the listener cannot be used.
pub fn start(state: &Arc<State>, listener: std::net::TcpListener) -> std::io::Result<Runtime> {
    let threads = match state.settings.http_threads {
        0 => (processors() / 2).clamp(1, 4),
        threads => threads,
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).thread_name("trtllm-http").enable_io().enable_time().build()?;
    listener.set_nonblocking(true)?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(entered);
    runtime.spawn(serve(state.clone(), listener));
    Ok(runtime)
}

/// Accepts connections for ever.
async fn serve(state: Arc<State>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(state.settings.max_connections));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // The usual reason is that there are no descriptors: some will be given back.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Chunks are small, and are to go out at once.
        let _ = socket.set_nodelay(true);
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(connection(state.clone(), socket, place));
            }
            Err(_) => {
                state.metrics.count_rejection("connections");
                tokio::spawn(refuse(state.clone(), socket));
            }
        }
    }
}

async fn refuse(state: Arc<State>, mut socket: TcpStream) {
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

async fn connection(state: Arc<State>, socket: TcpStream, _place: OwnedSemaphorePermit) {
    state.metrics.connections.add(1);
    let _counted = Counted(state.clone());
    let turns = Turns::default();
    let deadline = Instant::now() + Duration::from_secs_f64(state.settings.header_timeout);
    let checked = Checked::new(socket, BytesMut::new(), deadline, state.clone(), turns.clone());
    let answering = state.clone();
    let begun = turns.clone();
    let service = service_fn(move |request: Request<Incoming>| answer(answering.clone(), request, begun.begin()));
    // The timeouts of heads are in `Checked`: hyper's own would end connections that are only idle.
    let mut http = http1::Builder::new();
    let connection =
        http.header_read_timeout(None).max_buf_size(BUFFER).serve_connection(TokioIo::new(checked), service);
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

async fn answer(state: Arc<State>, request: Request<Incoming>, turn: Turn) -> Result<Response<Body>, Infallible> {
    let response = routes::answer(&state, request).await;
    // The turn ends with the body's.
    Ok(reply::holding(response, turn))
}
