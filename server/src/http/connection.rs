//! The timeouts of a connection, between hyper and the socket: a head has to come in time, an idle connection ends, and so does one
//! whose reader takes nothing.
//!
//! Bodies have their own, in `read`. An idle connection costs its buffers and no timer more than one.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// The times that a connection has.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a head, from its first byte; of the first one from the connection's start.
    pub header: Duration,
    /// Between an answer and the next head's first byte.
    pub idle: Duration,
    /// Without a byte taken by the reader.
    pub write: Duration,
}

/// Requests that have begun and ended on a connection.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Even while none is under way.
    turns: AtomicU64,
    /// The connection's task, where it has read while one was.
    reader: Mutex<Option<Waker>>,
}

impl Turns {
    /// A request's head has come.
    pub fn begin(&self) -> Turn {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }

    /// Whether there was any request.
    pub fn have_begun(&self) -> bool {
        self.0.turns.load(Ordering::Relaxed) > 0
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way, until its answer's body is dropped.
#[derive(Debug)]
pub struct Turn(Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.turns.fetch_add(1, Ordering::Relaxed);
        // It may wait without a time to wait for.
        let reader = self.0.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// What the reading side waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The first byte of a head.
    Idle,
    /// The rest of it.
    Head,
}

/// A socket with timeouts.
#[derive(Debug)]
pub struct Timed {
    socket: TcpStream,
    timeouts: Timeouts,
    turns: Turns,
    /// The number of turns in which `waiting` was set.
    seen: u64,
    waiting: Waiting,
    read: Pin<Box<Sleep>>,
    write: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    /// Begins with the first head's time.
    pub fn new(socket: TcpStream, timeouts: Timeouts, turns: Turns) -> Self {
        let read = Box::pin(sleep_until(Instant::now() + timeouts.header));
        Self { socket, timeouts, turns, seen: 0, waiting: Waiting::Head, read, write: None }
    }

    /// After a write that could not be done: whether the reader has had its time.
    fn poll_written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write = None;
            return written;
        }
        let write = self.timeouts.write;
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + write)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader takes nothing")))
    }
}

impl AsyncRead for Timed {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut turns = this.turns.0.turns.load(Ordering::Relaxed);
        if !turns.is_multiple_of(2) {
            *this.turns.reader() = Some(context.waker().clone());
            // It may have ended just before it could be told whom to wake.
            turns = this.turns.0.turns.load(Ordering::Relaxed);
        }
        let is_between = turns.is_multiple_of(2);
        if is_between && turns != this.seen {
            this.seen = turns;
            this.waiting = Waiting::Idle;
            this.read.as_mut().reset(Instant::now() + this.timeouts.idle);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(context, buffer);
        if !is_between {
            return polled;
        }
        if polled.is_ready() {
            if this.waiting == Waiting::Idle && buffer.filled().len() > before {
                this.waiting = Waiting::Head;
                this.read.as_mut().reset(Instant::now() + this.timeouts.header);
            }
            return polled;
        }
        ready!(this.read.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time")))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.poll_written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(context, slices);
        this.poll_written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
