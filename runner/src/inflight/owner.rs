//! The owner thread: `schedule → forward → sample → respond`, as long as there is work.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::executor::{FinishReason, InflightBatchingStats, IterationStats, PerfMetrics, RequestId, Response, TokenId};
use crate::model::{Model, StepSequence};

use super::beam::Finished;
use super::prefix::Salt;
use super::queue::{Arrival, Cancellation, Queue};
use super::running::{Chosen, Running};
use super::scheduler::{NewSequence, Scheduler, SequenceId, Step, StepPart};

/// Rows of logits computed at a time; bounds their memory to this many vocabularies.
const LOGITS_ROWS: usize = 64;

/// A sequence whose next token is to be chosen, and the row of the pass that each of its beams ends with.
type Unit = (SequenceId, Vec<usize>);

/// Runs until the queue is closed and everything has ended.
pub(super) fn run(queue: &Queue, model: impl Model, scheduler: Scheduler, enable_block_reuse: bool) {
    struct Farewell<'a>(&'a Queue);
    impl Drop for Farewell<'_> {
        fn drop(&mut self) {
            self.0.owner_is_gone();
        }
    }
    let _farewell = Farewell(queue);
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

    /// One iteration; none where there is nothing to do.
    fn iterate(&mut self, began: Instant) -> Option<IterationStats> {
        let step = self.scheduler.schedule();
        if step.parts.is_empty() {
            return None;
        }
        let (num_new_active_requests, new_active_requests_queue_latency) = self.note_started(&step);
        self.note_iteration(&step);
        let num_active_requests = self.started;
        let before = self.requests.len();
        let mut model_latency = self.forward(&step);
        self.scheduler.computed(&step);
        model_latency += self.prompt_log_probs(&step);
        model_latency += self.generate(&step);
        let count = |context| step.parts.iter().filter(|part| part.is_context == context).count();
        self.iter += 1;
        Some(IterationStats {
            iter: self.iter - 1,
            iter_latency: began.elapsed(),
            model_latency,
            new_active_requests_queue_latency,
            num_new_active_requests,
            num_active_requests,
            num_queued_requests: self.requests.len() - self.started,
            num_completed_requests: before - self.requests.len(),
            kv_cache: self.scheduler.blocks().stats(),
            inflight_batching: InflightBatchingStats {
                num_scheduled_requests: step.parts.len(),
                num_context_requests: count(true),
                num_gen_requests: count(false),
                num_paused_requests: step.paused,
                num_ctx_tokens: step.parts.iter().filter(|part| part.is_context).map(|part| part.tokens).sum(),
            },
        })
    }

    fn note_started(&mut self, step: &Step) -> (usize, Duration) {
        let (mut count, mut waited) = (0, Duration::ZERO);
        for id in &step.started {
            let request = self.sequences.get(id).and_then(|running| self.requests.get_mut(&running.request_id));
            if let Some(request) = request.filter(|request| !request.started) {
                request.started = true;
                self.started += 1;
                count += 1;
                let since_arrival = request.since.elapsed();
                waited += since_arrival;
                if let Some(metrics) = &mut request.perf_metrics {
                    metrics.first_scheduled = since_arrival;
                    metrics.iterations = (self.iter, self.iter);
                    metrics.cached_prompt_tokens = self.scheduler.cached_tokens(*id) as u64;
                }
            }
        }
        (count, waited)
    }

    /// Notes the iteration in the figures of the requests that it works on.
    fn note_iteration(&mut self, step: &Step) {
        for part in &step.parts {
            let running = self.sequences.get(&part.sequence).filter(|running| running.wants_perf_metrics());
            let request = running.and_then(|running| self.requests.get_mut(&running.request_id));
            if let Some(metrics) = request.and_then(|request| request.perf_metrics.as_mut()) {
                metrics.iterations.1 = self.iter;
            }
        }
    }

    fn forward(&mut self, step: &Step) -> Duration {
        let began = Instant::now();
        let sequence = |part: &StepPart| StepSequence {
            tokens: &self.scheduler.tokens(part.sequence, part.beam)[part.start..][..part.tokens],
            start: part.start,
            blocks: self.scheduler.part_blocks(part),
        };
        let sequences: Vec<_> = step.parts.iter().map(sequence).collect();
        self.model.forward(&sequences);
        began.elapsed()
    }

    /// Log-probabilities of the prompt tokens that follow those of the step, where they are asked for.
    fn prompt_log_probs(&mut self, step: &Step) -> Duration {
        let mut model_latency = Duration::ZERO;
        let kernels = self.model.kernels();
        let mut first_row = 0;
        for part in &step.parts {
            let row = first_row;
            first_row += part.tokens;
            let running = self.sequences.get(&part.sequence);
            let running = running.filter(|running| part.is_context && running.wants_prompt_log_probs());
            let Some(request) = running.and_then(|running| self.requests.get_mut(&running.request_id)) else {
                continue;
            };
            let Some(collected) = request.prompt_log_probs.as_mut() else { continue };
            let prompt_len = self.scheduler.prompt_len(part.sequence);
            if request.open.first() != Some(&part.sequence) || collected.len() + 1 >= prompt_len {
                continue;
            }
            if part.start == 0 {
                // A prompt that was paused half-way, or whose first sequence was cancelled, begins again.
                collected.clear();
            }
            // The last token of the prompt is followed by output, not by prompt.
            let next = self.scheduler.tokens(part.sequence, part.beam)[part.start + 1..].iter().take(part.tokens);
            let rows: Vec<(usize, TokenId)> = (row..).zip(next.copied()).collect();
            for rows in rows.chunks(LOGITS_ROWS) {
                let began = Instant::now();
                let numbers: Vec<_> = rows.iter().map(|&(row, _)| row).collect();
                let logits = self.model.logits(&numbers, &mut self.logits);
                model_latency += began.elapsed();
                let width = logits.len() / rows.len();
                let log_probs: Vec<f32> = self.model.pool().install(|| {
                    let each = logits.par_chunks_exact(width).zip(rows);
                    each.map(|(logits, &(_, next))| logits[next as usize] - kernels.log_sum_exp(logits)).collect()
                });
                collected.extend(log_probs);
            }
        }
        model_latency
    }

    /// Chooses the next token of every sequence whose tokens are all computed.
    fn generate(&mut self, step: &Step) -> Duration {
        let mut model_latency = Duration::ZERO;
        let mut units: Vec<Unit> = Vec::new();
        let mut first_row = 0;
        for part in &step.parts {
            first_row += part.tokens;
            match units.last_mut() {
                // The beams of a search follow one another.
                Some((id, rows)) if *id == part.sequence => rows.push(first_row - 1),
                _ if part.completes => units.push((part.sequence, vec![first_row - 1])),
                _ => {}
            }
        }
        let kernels = self.model.kernels();
        let vocab_size = self.model.vocab_size();
        // A search's beams are chosen among together, so it is not divided.
        for units in by_rows(&units, LOGITS_ROWS) {
            let began = Instant::now();
            let rows: Vec<_> = units.iter().flat_map(|(_, rows)| rows).copied().collect();
            let mut logits = self.model.logits(&rows, &mut self.logits);
            model_latency += began.elapsed();
            let mut draws = Vec::with_capacity(units.len());
            for (id, rows) in units {
                let (own, rest) = logits.split_at_mut(rows.len() * vocab_size);
                logits = rest;
                draws.extend(self.sequences.remove(id).map(|running| (*id, running, own)));
            }
            let scheduler = &self.scheduler;
            let chosen: Vec<_> = self.model.pool().install(|| {
                let choose = |(id, running, logits): &mut (SequenceId, Box<Running>, &mut [f32])| {
                    running.choose(kernels, logits, |beam| scheduler.tokens(*id, beam))
                };
                draws.par_iter_mut().with_max_len(1).map(choose).collect()
            });
            let ids: Vec<_> = draws.iter().map(|(id, ..)| *id).collect();
            let running: Vec<_> = draws.into_iter().map(|(id, running, _)| (id, running)).collect();
            self.sequences.extend(running);
            for (id, chosen) in ids.into_iter().zip(chosen) {
                // One that failed took the other sequences of its request with it.
                if self.sequences.contains_key(&id) {
                    self.respond(id, chosen);
                }
            }
        }
        model_latency
    }

    fn respond(&mut self, id: SequenceId, chosen: Chosen) {
        let running = self.sequences.get(&id).filter(|running| running.wants_perf_metrics());
        if let Some(request) = running.and_then(|running| self.requests.get_mut(&running.request_id)) {
            request.note_token();
        }
        match chosen {
            Chosen::Token(_, Some(reason)) => self.finish(id, reason, Vec::new()),
            Chosen::Token(token, None) => {
                self.scheduler.append(id, token);
                let Some(running) = self.sequences.get_mut(&id).filter(|running| running.streams()) else { return };
                let request = self.requests.get(&running.request_id);
                let prompt_log_probs = request.and_then(|request| request.prompt_log_probs.as_ref());
                self.responses.push(Response::Result(running.take(None, false, prompt_log_probs)));
            }
            Chosen::Branches(next) => {
                for (from, to) in self.scheduler.branch(id, &next) {
                    self.model.copy_block(from, to);
                }
            }
            Chosen::Beams(beams) => self.finish(id, FinishReason::Length, beams),
            Chosen::Failed(problem) => self.fail(id, &problem),
        }
    }
}

/// Consecutive units of together at most `limit` rows, or one unit that has more.
fn by_rows(units: &[Unit], limit: usize) -> impl Iterator<Item = &[Unit]> {
    let mut rest = units;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |(_, own): &&Unit| {
            rows += own.len();
            rows <= limit
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (units, later) = rest.split_at(count);
        rest = later;
        (!units.is_empty()).then_some(units)
    })
}
