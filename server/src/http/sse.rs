//! Answers that stream, as server-sent events.
//!
//! A chunk is made of all that has come since the last one was taken, so that a slow reader gets fewer and larger ones and costs no
//! more memory than its text.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::ApiError;
use crate::generate::Flight;
use crate::generate::cell::{Cell, Delta};
use crate::state::State;

use super::reply::{Body, ErrorBody};

/// How an API writes outputs as events.
pub trait Events: Send + Unpin + 'static {
    /// What has come for a sequence.
    ///
    /// # Errors
    /// What has come is the stream's failure.
    fn delta(&mut self, sequence: usize, delta: Delta, cell: &Cell, out: &mut Vec<u8>) -> Result<(), ApiError>;

    /// Every sequence has ended.
    fn end(&mut self, cell: &Cell, out: &mut Vec<u8>);

    /// The stream ends with an error.
    fn error(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(out, &ErrorBody::from(error));
        out.extend_from_slice(DONE);
    }
}

/// The last event of OpenAI's streams.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

const COMMENT: &[u8] = b": keep-alive\n\n";

/// Writes an event.
pub fn event(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    out.extend_from_slice(b"data: ");
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Nothing of ours has keys that are no text, which is all that could fail.
        out.truncate(start);
        return;
    }
    out.extend_from_slice(b"\n\n");
}

type Explanation = Pin<Box<dyn Future<Output = ApiError> + Send>>;

/// The body of an answer that streams. Dropping it cancels what has not ended.
struct EventStream<E> {
    events: E,
    flight: Option<Flight>,
    state: Arc<State>,
    explanation: Option<Explanation>,
    interval: Duration,
    /// When a chunk was sent last.
    sent: Instant,
    /// Ends no later than the interval after that.
    timer: Pin<Box<Sleep>>,
}

/// The answer that streams a flight.
pub fn response(state: &Arc<State>, flight: Flight, events: impl Events) -> Response<Body> {
    let interval = Duration::from_secs_f64(state.settings.sse_keep_alive);
    state.metrics.sse_streams.add(1);
    let sent = Instant::now();
    let timer = Box::pin(sleep_until(sent + interval));
    let stream =
        EventStream { events, flight: Some(flight), state: state.clone(), explanation: None, interval, sent, timer };
    let mut response = Response::new(Body::new(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E> Drop for EventStream<E> {
    fn drop(&mut self) {
        self.state.metrics.sse_streams.sub(1);
    }
}

impl<E: Events> EventStream<E> {
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.state.metrics.count_error(error.code);
        if let Some(flight) = &self.flight {
            flight.record().fail(error.code);
        }
        self.events.error(error, out);
        self.flight = None;
    }

    /// Nothing has been sent for the interval. The timer is set again when it ends and not by each chunk, which are many.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let due = self.sent + self.interval;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// The next bytes; none at the end.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut out = Vec::new();
        loop {
            if let Some(explanation) = &mut self.explanation {
                let Poll::Ready(error) = explanation.as_mut().poll(context) else { return Poll::Pending };
                self.explanation = None;
                self.fail(&error, &mut out);
                return Poll::Ready(Some(out));
            }
            let Some(flight) = &self.flight else { return Poll::Ready(None) };
            let cell = flight.cell();
            let Poll::Ready(taken) = cell.poll_take(context) else {
                if self.interval.is_zero() || self.poll_quiet(context).is_pending() {
                    return Poll::Pending;
                }
                return Poll::Ready(Some(COMMENT.to_vec()));
            };
            let mut failure = None;
            for (sequence, delta) in taken.deltas {
                if let Err(error) = self.events.delta(sequence, delta, cell, &mut out) {
                    failure = Some(error);
                    break;
                }
            }
            if let Some(error) = failure {
                self.fail(&error, &mut out);
            } else if let Some(failure) = taken.error {
                let state = self.state.clone();
                self.explanation = Some(Box::pin(async move { state.lifecycle.explain(failure).await }));
            } else if taken.is_over {
                self.events.end(cell, &mut out);
                self.flight = None;
            }
            if !out.is_empty() {
                return Poll::Ready(Some(out));
            }
        }
    }
}

impl<E: Events> hyper::body::Body for EventStream<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let Poll::Ready(bytes) = this.poll_bytes(context) else { return Poll::Pending };
        this.sent = Instant::now();
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes.into()))))
    }
}
