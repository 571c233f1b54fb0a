//! The owner thread: takes requests in, runs iterations as long as there is work, and ends requests. It alone knows the
//! sequences of a request.

mod iteration;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::executor::{FinishReason, PerfMetrics, RequestId, Response};
use crate::model::Model;

use super::beam::Finished;
use super::prefix::Salt;
use super::queue::{Arrival, Cancellation, Queue};
use super::running::Running;
use super::scheduler::{NewSequence, Scheduler, SequenceId};

/// Runs until the queue is closed and everything has ended.
pub(super) fn run(queue: &Queue, model: impl Model, scheduler: Scheduler, enable_block_reuse: bool) {
    /// Tells the queue of the end, also when this thread panics.
    struct TellsTheEnd<'a>(&'a Queue);
    impl Drop for TellsTheEnd<'_> {
        fn drop(&mut self) {
            self.0.owner_is_gone();
        }
    }
    let _tells_the_end = TellsTheEnd(queue);
    let mut owner = Owner {
        model,
        scheduler,
        enable_block_reuse,
        logits: Vec::new(),
        sequences: HashMap::new(),
        requests: HashMap::new(),
        deadlines: BTreeSet::new(),
        started: 0,
        responses: Vec::new(),
        iter: 0,
    };
    while let Some(inbox) = queue.look(owner.scheduler.is_empty()) {
        let began = Instant::now();
        inbox.arrived.into_iter().for_each(|arrival| owner.receive(arrival));
        inbox.cancelled.into_iter().for_each(|(id, what)| owner.cancel(id, what));
        owner.end_late(began);
        let stats = owner.iterate(began);
        let waiting = owner.requests.len() - owner.started;
        queue.deliver(&mut owner.responses, waiting, owner.scheduler.blocks().stats(), stats);
    }
}

struct Owner<M> {
    model: M,
    scheduler: Scheduler,
    enable_block_reuse: bool,
    logits: Vec<f32>,
    sequences: HashMap<SequenceId, Box<Running>>,
    requests: HashMap<RequestId, Progress>,
    /// Requests that have an allotted time, by its end.
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// How many of the requests have started.
    started: usize,
    responses: Vec<Response>,
    iter: u64,
}

/// What the owner knows of a request.
struct Progress {
    /// Sequences that have not ended. The first computes the prompt, and collects its log-probabilities.
    open: Vec<SequenceId>,
    since: Instant,
    deadline: Option<Instant>,
    started: bool,
    /// When asked for.
    prompt_log_probs: Option<Vec<f32>>,
    /// When asked for.
    perf_metrics: Option<Box<PerfMetrics>>,
}

impl Progress {
    /// Notes that a token was chosen.
    fn note_token(&mut self) {
        if let Some(metrics) = &mut self.perf_metrics {
            metrics.last_token = self.since.elapsed();
            if metrics.first_token.is_zero() {
                metrics.first_token = metrics.last_token;
            }
        }
    }
}

impl<M: Model> Owner<M> {
    /// Takes a request in: one sequence for each that it returns, of which the first computes the prompt.
    fn receive(&mut self, arrival: Arrival) {
        let request = Arc::new(arrival.request);
        let spec = request.spec();
        let salt = Salt { shared: spec.cache_salt_id, private: (!self.enable_block_reuse).then_some(arrival.id.0) };
        let mut open: Vec<SequenceId> = Vec::new();
        let beam_width = spec.sampling.beam_width;
        let sequences = if beam_width > 1 { 1 } else { spec.sampling.num_return_sequences };
        for index in 0..sequences {
            let id = self.scheduler.add(NewSequence {
                prompt: spec.input_token_ids.clone(),
                max_tokens: spec.max_tokens,
                beam_width,
                priority: spec.priority,
                salt,
                computes_whole_prompt: spec.output.return_prompt_log_probs && index == 0,
                follows: open.first().copied(),
            });
            open.push(id);
            let running = Running::new(arrival.id, index, request.clone(), arrival.guide.clone(), self.model.kernels());
            self.sequences.insert(id, Box::new(running));
        }
        let deadline = spec.allotted_time.and_then(|time| arrival.since.checked_add(time));
        self.deadlines.extend(deadline.map(|deadline| (deadline, arrival.id)));
        let prompt_log_probs = spec.output.return_prompt_log_probs.then(Vec::new);
        let perf_metrics = spec.output.return_perf_metrics.then(Box::default);
        let progress =
            Progress { open, since: arrival.since, deadline, started: false, prompt_log_probs, perf_metrics };
        self.requests.insert(arrival.id, progress);
    }

    fn cancel(&mut self, id: RequestId, what: Cancellation) {
        match what {
            Cancellation::Request => self.end(id, FinishReason::Cancelled),
            Cancellation::Sequences(indices) => {
                indices.into_iter().for_each(|index| self.cancel_sequence(id, index));
            }
        }
    }

    fn cancel_sequence(&mut self, id: RequestId, index: usize) {
        let open = self.requests.get(&id).map(|request| request.open.as_slice()).unwrap_or_default();
        let ends = |sequence: &&SequenceId| {
            self.sequences.get_mut(*sequence).is_some_and(|running| running.ends_when_cancelled(index))
        };
        if let Some(&sequence) = open.iter().find(ends) {
            self.finish(sequence, FinishReason::Cancelled, Vec::new());
        }
    }

    /// Ends all sequences of a request that have not ended.
    fn end(&mut self, id: RequestId, reason: FinishReason) {
        let open = self.requests.get(&id).map(|request| request.open.clone()).unwrap_or_default();
        open.into_iter().for_each(|sequence| self.finish(sequence, reason, Vec::new()));
    }

    fn end_late(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, id));
            self.end(id, FinishReason::TimedOut);
        }
    }

    /// Ends a sequence, or a search with its beams, and with the last one its request.
    fn finish(&mut self, id: SequenceId, reason: FinishReason, beams: Vec<Finished>) {
        let blocks = self.scheduler.remove(id);
        let Some(mut running) = self.sequences.remove(&id) else { return };
        let Some(request) = self.requests.get_mut(&running.request_id) else { return };
        request.open.retain(|&other| other != id);
        let is_final = request.open.is_empty();
        let prompt_log_probs = request.prompt_log_probs.as_ref();
        if let Some(metrics) = &mut request.perf_metrics {
            metrics.new_blocks += blocks.new as u64;
            metrics.reused_blocks += blocks.reused as u64;
            metrics.missed_blocks += blocks.missed as u64;
        }
        let mut results = if running.is_search() {
            running.take_beams(beams, reason, prompt_log_probs)
        } else {
            vec![running.take(Some(reason), is_final, prompt_log_probs)]
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
    fn fail(&mut self, id: SequenceId, message: &str) {
        let Some(request_id) = self.sequences.get(&id).map(|running| running.request_id) else { return };
        let before = self.responses.len();
        self.end(request_id, FinishReason::Cancelled);
        self.responses.truncate(before);
        self.responses.push(Response::Error { request_id, message: message.to_owned() });
    }
}
