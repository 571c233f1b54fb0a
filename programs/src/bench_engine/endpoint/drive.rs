//! Puts a server under a load and writes down what comes of it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::super::load::Pace;
use super::answer::Answer;
use super::body::Call;
use super::client::Client;
use super::problem::Problem;

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// When it arrived, from the start of the run: for arrival times, when it was due.
    pub arrival: Duration,
    pub outcome: Result<Answer, Problem>,
}

/// What the threads of a run share.
struct Shared<'a> {
    client: &'a Client,
    calls: &'a [Call],
    began: Instant,
    sent: Mutex<Vec<Option<Sent>>>,
    next: AtomicUsize,
    on_end: &'a (dyn Fn() + Sync),
}

impl Shared<'_> {
    fn send(&self, index: usize, arrival: Duration) {
        let outcome = self.client.ask(&self.calls[index], self.began);
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(Sent { arrival, outcome });
        (self.on_end)();
    }

    /// Sends one request after the other, as long as there are more.
    fn send_all(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.calls.len() {
                return;
            }
            self.send(index, self.began.elapsed());
        }
    }
}

/// Sends `calls`, each once, and waits for all of them. `on_end` is called for each. A thread for each that is under way: it waits in a
/// read and costs nothing then.
///
/// # Errors
/// The system refuses a thread.
pub(super) fn drive(client: &Client, calls: &[Call], pace: &Pace, on_end: &(dyn Fn() + Sync)) -> io::Result<Vec<Sent>> {
    let sent = Mutex::new((0..calls.len()).map(|_| None).collect());
    let shared = Shared { client, calls, began: Instant::now(), sent, next: AtomicUsize::new(0), on_end };
    std::thread::scope(|scope| match pace {
        Pace::Concurrency(width) => (0..(*width).min(calls.len())).try_for_each(|_| spawn(scope, || shared.send_all())),
        Pace::Arrivals(times) => times.iter().enumerate().try_for_each(|(index, &time)| {
            std::thread::sleep(time.saturating_sub(shared.began.elapsed()));
            let shared = &shared;
            spawn(scope, move || shared.send(index, time))
        }),
    })?;
    Ok(shared.sent.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect())
}

fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, run: impl FnOnce() + Send + 'scope) -> io::Result<()> {
    system::threads::spawn_scoped(scope, "trtllm-client", run).map(|_| ())
}
