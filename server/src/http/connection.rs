//! A connection between hyper and its socket: heads are checked before hyper reads them, a head has to come in time, an idle connection
//! ends, and so does one whose reader takes nothing.
//!
//! Bodies have their own timeout, in `read`. An idle connection costs its buffers and no timer more than one. What is refused here is
//! answered here, after what hyper has still to write.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::ApiError;
use crate::state::State;

use super::framing::Framing;
use super::{head, reply};

/// How long is read, and how much, after an answer that did not wait for all of its request: closing at once would take the answer
/// from a client that still writes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

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

/// A socket whose heads are checked.
pub struct Checked<S> {
    socket: S,
    state: Arc<State>,
    turns: Turns,
    /// The turns that there had been when the head that is awaited, or the one whose request is under way, was begun.
    seen: u64,
    /// What was read and hyper has not.
    buffer: BytesMut,
    /// The first of those, which hyper may have.
    open: usize,
    /// Where the body of the request under way ends; none while a head is awaited.
    framing: Option<Framing>,
    /// Bytes of the awaited head in which there is no end.
    searched: usize,
    /// Whether the time of a head runs, and not that of an idle connection.
    has_begun: bool,
    read: Pin<Box<Sleep>>,
    write: Option<Pin<Box<Sleep>>>,
    /// No head comes any more. What is refused is answered with this, once hyper has written its own.
    last_words: Option<Bytes>,
    was_refused: bool,
    /// Bytes that may still be read after the end.
    linger: Option<usize>,
}

impl<S> std::fmt::Debug for Checked<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Checked").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Checked<S> {
    /// A connection of which `first` was read already, and whose first head must be there by `deadline`.
    pub fn new(socket: S, first: BytesMut, deadline: Instant, state: Arc<State>, turns: Turns) -> Self {
        let read = Box::pin(sleep_until(deadline));
        Self {
            socket,
            state,
            turns,
            seen: 0,
            buffer: first,
            open: 0,
            framing: None,
            searched: 0,
            has_begun: true,
            read,
            write: None,
            last_words: None,
            was_refused: false,
            linger: None,
        }
    }

    /// Whether a request is under way. If so, the end of its turn wakes the task.
    fn is_in_turn(&self, context: &Context<'_>) -> bool {
        let turns = || self.turns.0.turns.load(Ordering::Relaxed);
        let is_in_turn = |turns: u64| turns == self.seen || !turns.is_multiple_of(2);
        if !is_in_turn(turns()) {
            return false;
        }
        *self.turns.reader() = Some(context.waker().clone());
        // It may have ended just before it could be told whom to wake.
        is_in_turn(turns())
    }

    /// Reads more into the buffer: how much.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Of the stack, so that a connection costs no more than what it has sent.
        let mut piece = [MaybeUninit::uninit(); 8 << 10];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut piece))?;
        self.buffer.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Goes on to the next head.
    fn await_head(&mut self) {
        self.seen = self.turns.0.turns.load(Ordering::Relaxed);
        self.framing = None;
        self.searched = 0;
        self.has_begun = !self.buffer.is_empty();
        let settings = &self.state.settings;
        let time = if self.has_begun { settings.header_timeout } else { settings.idle_timeout };
        self.read.as_mut().reset(Instant::now() + Duration::from_secs_f64(time));
    }

    /// Looks for the awaited head in what was read: whether there is one, and how its body ends.
    fn find_head(&mut self) -> Result<bool, ApiError> {
        let blank = self.buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        if self.searched == 0 {
            self.buffer.advance(blank);
        }
        if self.buffer.first().is_some_and(|&first| !head::may_begin(first)) {
            return Err(head::bad("it does not begin with a method"));
        }
        let most = &self.buffer[..self.buffer.len().min(head::MOST_BYTES)];
        if let Some(end) = head::end(most, self.searched) {
            self.framing = Some(head::check(&most[..end])?);
            self.open = end;
            return Ok(true);
        }
        self.searched = most.len();
        if most.len() == head::MOST_BYTES {
            return Err(head::too_large(&format!("{} bytes", head::MOST_BYTES)));
        }
        Ok(false)
    }

    /// The connection ends with an answer of its own. Hyper is told that nothing more comes.
    fn refuse(&mut self, error: &ApiError) {
        self.state.metrics.count_error(error.code);
        self.state.metrics.count_http("", "other", error.status.as_u16(), Duration::ZERO);
        tracing::debug!(status = error.status.as_u16(), "refused a request: {}", error.message);
        self.last_words = Some(reply::raw(error).into());
        self.was_refused = true;
    }

    /// Makes bytes of the buffer ready for hyper: whether there are any, or else the end.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.open > 0 {
                return Poll::Ready(Ok(true));
            }
            if self.last_words.is_some() {
                return Poll::Ready(Ok(false));
            }
            let Some(framing) = &mut self.framing else {
                ready!(self.poll_head(context))?;
                continue;
            };
            if !framing.is_over() {
                self.open = framing.take(&self.buffer);
                if self.open == 0 && ready!(self.poll_more(context))? == 0 {
                    return Poll::Ready(Ok(false));
                }
            } else if self.is_in_turn(context) {
                // The next request waits; where there is none, this is how it is seen that the client goes.
                if !self.buffer.is_empty() {
                    return Poll::Pending;
                }
                if ready!(self.poll_more(context))? == 0 {
                    return Poll::Ready(Ok(false));
                }
            } else {
                self.await_head();
            }
        }
    }

    /// A head, a refusal, or more of a head.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.find_head() {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => {}
            Err(error) => {
                self.refuse(&error);
                return Poll::Ready(Ok(()));
            }
        }
        match self.poll_more(context) {
            Poll::Ready(Ok(0)) => self.last_words = Some(Bytes::new()),
            Poll::Ready(Ok(_)) => self.begin_head(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.read.as_mut().poll(context));
                // Where not a byte came there is nothing to answer.
                match self.buffer.is_empty() {
                    true => self.last_words = Some(Bytes::new()),
                    false => self.refuse(&head::too_slow(self.state.settings.header_timeout)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The first byte of a head has come, or more of it.
    fn begin_head(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            let time = Duration::from_secs_f64(self.state.settings.header_timeout);
            self.read.as_mut().reset(Instant::now() + time);
        }
    }

    /// After a write that could not be done: whether the reader has had its time.
    fn poll_written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write = None;
            return written;
        }
        let write = Duration::from_secs_f64(self.state.settings.write_timeout);
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + write)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader takes nothing")))
    }

    /// Reads on for a while, and drops what comes.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(left) = self.linger.filter(|&left| left > 0) {
            self.buffer.clear();
            match self.poll_more(context) {
                Poll::Ready(Ok(more @ 1..)) => self.linger = Some(left.saturating_sub(more)),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.read.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Checked<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_open(context))? {
            let count = this.open.min(buffer.remaining());
            buffer.put_slice(&this.buffer[..count]);
            this.buffer.advance(count);
            this.open -= count;
            if this.buffer.is_empty() {
                // What comes next may be long in coming.
                this.buffer = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Checked<S> {
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
        let this = self.get_mut();
        while let Some(left) = this.last_words.clone().filter(|left| !left.is_empty()) {
            let written = Pin::new(&mut this.socket).poll_write(context, &left);
            let written = ready!(this.poll_written(context, written))?;
            this.last_words = Some(left.slice(written..));
        }
        if this.linger.is_none() {
            let is_unread = this.framing.as_ref().is_some_and(|framing| !framing.is_over());
            this.linger = Some(if this.was_refused || is_unread { LINGER_BYTES } else { 0 });
            this.read.as_mut().reset(Instant::now() + LINGER);
        }
        ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
        this.poll_linger(context).map(Ok)
    }
}
