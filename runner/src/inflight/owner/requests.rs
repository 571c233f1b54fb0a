//! What the owner knows of requests and their sequences, and how they end.
//!
//! A sequence ends here first, also while a pass runs; the scheduler, whose blocks the pass uses, forgets it afterwards. An end
//! costs a few look-ups, and `O(log n)` where the request has a deadline.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::executor::{FinishReason, PerfMetrics, RequestId, RequestSpec, Response};
use crate::inflight::beam::Finished;
use crate::inflight::prompt_scores::PromptScores;
use crate::inflight::queue::{Cancellation, Queue};
use crate::inflight::running::Running;
use crate::inflight::scheduler::{Scheduler, SequenceId};

#[derive(Default)]
pub(super) struct Requests {
    sequences: HashMap<SequenceId, Box<Running>>,
    requests: HashMap<RequestId, Progress>,
    /// Requests that have an allotted time, by its end.
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// How many of the requests have started.
    started: usize,
    /// Sequences that have ended and that the scheduler has still.
    ended: Vec<SequenceId>,
    responses: Vec<Response>,
}

/// What the owner knows of a request.
pub(super) struct Progress {
    /// Sequences that have not ended. The first computes the prompt, and collects its scores.
    pub(super) open: Vec<SequenceId>,
    pub(super) since: Instant,
    deadline: Option<Instant>,
    pub(super) started: bool,
    /// When asked for.
    prompt_scores: Option<PromptScores>,
    /// When asked for.
    pub(super) perf_metrics: Option<Box<PerfMetrics>>,
}

impl Progress {
    /// Notes that a token was chosen.
    pub(super) fn note_token(&mut self) {
        if let Some(metrics) = &mut self.perf_metrics {
            metrics.last_token = self.since.elapsed();
            if metrics.first_token.is_zero() {
                metrics.first_token = metrics.last_token;
            }
        }
    }
}

impl Requests {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many of them have started.
    pub(super) fn started(&self) -> usize {
        self.started
    }

    pub(super) fn add(
        &mut self,
        id: RequestId,
        spec: &RequestSpec,
        open: Vec<SequenceId>,
        since: Instant,
        deadline: Option<Instant>,
    ) {
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        let prompt_scores = PromptScores::new(spec.output, spec.input_token_ids.len());
        let perf_metrics = spec.output.return_perf_metrics.then(Box::default);
        let progress = Progress { open, since, deadline, started: false, prompt_scores, perf_metrics };
        self.requests.insert(id, progress);
    }

    pub(super) fn insert(&mut self, id: SequenceId, running: Box<Running>) {
        self.sequences.insert(id, running);
    }

    /// Takes a sequence out, until it is inserted again.
    pub(super) fn take(&mut self, id: SequenceId) -> Option<Box<Running>> {
        self.sequences.remove(&id)
    }

    /// A sequence that has not ended.
    pub(super) fn sequence(&self, id: SequenceId) -> Option<&Running> {
        self.sequences.get(&id).map(AsRef::as_ref)
    }

    /// The request of a sequence.
    pub(super) fn of(&mut self, id: SequenceId) -> Option<&mut Progress> {
        self.requests.get_mut(&self.sequences.get(&id)?.request_id)
    }

    /// What a sequence still has to collect of its prompt: the first of a request does, where it is asked for.
    pub(super) fn unfinished_scores(&mut self, id: SequenceId) -> Option<&mut PromptScores> {
        let request = self.of(id).filter(|request| request.open.first() == Some(&id))?;
        request.prompt_scores.as_mut().filter(|scores| !scores.is_complete())
    }

    /// Notes that the request of a sequence is worked on: how long it has waited, the first time.
    pub(super) fn start(&mut self, id: SequenceId) -> Option<Duration> {
        let request = self.requests.get_mut(&self.sequences.get(&id)?.request_id).filter(|request| !request.started)?;
        request.started = true;
        self.started += 1;
        Some(request.since.elapsed())
    }

    /// Adds what a sequence streams to the responses.
    pub(super) fn stream(&mut self, id: SequenceId) {
        let Some(running) = self.sequences.get_mut(&id).filter(|running| running.streams()) else { return };
        let request = self.requests.get_mut(&running.request_id);
        let prompt_scores = request.and_then(|request| request.prompt_scores.as_mut());
        self.responses.push(Response::Result(running.take(None, false, prompt_scores)));
    }

    /// Adds the responses to a request that was never one of these.
    pub(super) fn respond(&mut self, responses: impl Iterator<Item = Response>) {
        self.responses.extend(responses);
    }

    /// Delivers the responses that there are.
    pub(super) fn deliver(&mut self, queue: &Queue) {
        queue.deliver(&mut self.responses, self.requests.len() - self.started);
    }

    /// The sequences that have ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<SequenceId> {
        std::mem::take(&mut self.ended)
    }

    /// Ends what was cancelled and what is late, and delivers the responses.
    pub(super) fn hear(&mut self, queue: &Queue, scheduler: &Scheduler, now: Instant) {
        queue.hear(now).into_iter().for_each(|(id, what)| self.cancel(scheduler, id, what));
        self.end_late(scheduler, now);
        if !self.responses.is_empty() {
            self.deliver(queue);
        }
    }

    pub(super) fn cancel(&mut self, scheduler: &Scheduler, id: RequestId, what: Cancellation) {
        match what {
            Cancellation::Request => self.end(scheduler, id, FinishReason::Cancelled),
            Cancellation::Sequences(indices) => {
                indices.into_iter().for_each(|index| self.cancel_sequence(scheduler, id, index));
            }
        }
    }

    fn cancel_sequence(&mut self, scheduler: &Scheduler, id: RequestId, index: usize) {
        let open = self.requests.get(&id).map(|request| request.open.as_slice()).unwrap_or_default();
        let ends = |sequence: &&SequenceId| {
            self.sequences.get_mut(*sequence).is_some_and(|running| running.ends_when_cancelled(index))
        };
        if let Some(&sequence) = open.iter().find(ends) {
            self.finish(scheduler, sequence, FinishReason::Cancelled, Vec::new());
        }
    }

    /// Ends all sequences of a request that have not ended.
    fn end(&mut self, scheduler: &Scheduler, id: RequestId, reason: FinishReason) {
        let open = self.requests.get(&id).map(|request| request.open.clone()).unwrap_or_default();
        open.into_iter().for_each(|sequence| self.finish(scheduler, sequence, reason, Vec::new()));
    }

    /// Ends the requests whose time is over.
    pub(super) fn end_late(&mut self, scheduler: &Scheduler, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, id));
            self.end(scheduler, id, FinishReason::TimedOut);
        }
    }

    /// Ends a sequence, or a search with its beams, and with the last one its request.
    pub(super) fn finish(&mut self, scheduler: &Scheduler, id: SequenceId, reason: FinishReason, beams: Vec<Finished>) {
        let Some(mut running) = self.sequences.remove(&id) else { return };
        self.ended.push(id);
        let Some(request) = self.requests.get_mut(&running.request_id) else { return };
        request.open.retain(|&other| other != id);
        let is_final = request.open.is_empty();
        let prompt_scores = request.prompt_scores.as_mut();
        if let Some(metrics) = &mut request.perf_metrics {
            let blocks = scheduler.usage(id);
            metrics.new_blocks += blocks.new as u64;
            metrics.reused_blocks += blocks.reused as u64;
            metrics.missed_blocks += blocks.missed as u64;
        }
        let mut results = if running.is_search() {
            running.take_beams(beams, reason, prompt_scores)
        } else {
            vec![running.take(Some(reason), is_final, prompt_scores)]
        };
        if let Some(last) = results.last_mut().filter(|_| is_final) {
            last.perf_metrics = request.perf_metrics.take();
        }
        self.responses.extend(results.into_iter().map(Response::Result));
        if is_final {
            self.started -= usize::from(request.started);
            if let Some(deadline) = request.deadline {
                self.deadlines.remove(&(deadline, running.request_id));
            }
            self.requests.remove(&running.request_id);
        }
    }

    /// Ends a request, by one of its sequences, with an error.
    pub(super) fn fail(&mut self, scheduler: &Scheduler, id: SequenceId, message: &str) {
        let Some(request_id) = self.sequences.get(&id).map(|running| running.request_id) else { return };
        let before = self.responses.len();
        self.end(scheduler, request_id, FinishReason::Cancelled);
        self.responses.truncate(before);
        self.responses.push(Response::Error { request_id, message: message.to_owned() });
    }
}
