//! One iteration: `schedule → forward → sample → respond`.
//!
//! Beside the model's pass it costs, for each sequence, a few look-ups, and one row of logits with what the sampler does to
//! it; sequences are sampled on all threads of the model, `LOGITS_ROWS` at a time.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::Owner;
use super::requests::Requests;
use crate::cpu_model::MemoryError;
use crate::executor::{FinishReason, InflightBatchingStats, IterationStats, Limits};
use crate::inflight::running::{Chosen, Running};
use crate::inflight::scheduler::{SequenceId, Step, StepPart};
use crate::logits::check_finite;
use crate::model::{ForwardError, Model, StepSequence};

/// Rows of logits computed at a time; bounds their memory to this many vocabularies.
const LOGITS_ROWS: usize = 64;

/// Rows of logits that are computed at once at most: the beams of one search stay together.
pub(in crate::inflight) fn most_logits_rows(limits: Limits) -> usize {
    LOGITS_ROWS.max(limits.max_batch_size)
}

/// Room for as many rows.
///
/// # Errors
/// The system does not give that much address space.
pub(in crate::inflight) fn room_for_logits(limits: Limits, vocab_size: usize) -> Result<Vec<f32>, MemoryError> {
    let (rows, mut logits) = (most_logits_rows(limits), Vec::new());
    let elements = rows.saturating_mul(vocab_size);
    let refused = |_| MemoryError::refused(format!("{rows} rows of logits"), 4 * elements as u64);
    logits.try_reserve_exact(elements).map_err(refused)?;
    Ok(logits)
}

/// A sequence whose next token is to be chosen, and the row of the pass that each of its beams ends with.
type Completed = (SequenceId, Vec<usize>);

/// How often it is heard, during a pass, what is to end.
const HEAR_EVERY: Duration = Duration::from_millis(5);

impl<M: Model> Owner<'_, M> {
    /// One iteration; none where there is nothing to do, or where most of it turned out to be for nobody.
    pub(super) fn iterate(&mut self, began: Instant) -> Option<IterationStats> {
        let step = self.schedule(began);
        if step.parts.is_empty() {
            return None;
        }
        let (num_new_active_requests, new_active_requests_queue_latency) = self.note_started(&step);
        self.note_iteration(&step);
        let num_active_requests = self.requests.started();
        let before = self.requests.len();
        let pass = Instant::now();
        if let Err(ForwardError::Interrupted) = self.forward(&step) {
            return None;
        }
        let mut model_latency = pass.elapsed();
        self.scheduler.computed(&step);
        model_latency += self.score_prompts(&step);
        self.pace.note(&step, model_latency.as_secs_f64(), self.model.sliding_window());
        model_latency += self.generate(&step);
        self.forget_ended();
        let count = |context| step.parts.iter().filter(|part| part.is_context == context).count();
        self.iter += 1;
        Some(IterationStats {
            iter: self.iter - 1,
            iter_latency: began.elapsed(),
            model_latency,
            new_active_requests_queue_latency,
            num_new_active_requests,
            num_active_requests,
            num_queued_requests: self.requests.len() - self.requests.started(),
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

    /// The next step, within the memory that there is for blocks which were never used. Where nothing runs and what is first
    /// in the order has too little, that is ended.
    fn schedule(&mut self, now: Instant) -> Step {
        let time = self.pace.iteration_time();
        if let Some(memory) = &mut self.memory {
            memory.look(self.scheduler.blocks_mut(), now);
        }
        let mut step = self.scheduler.schedule(time);
        while step.parts.is_empty()
            && let Some(memory) = &mut self.memory
            && let Some(first) = self.scheduler.first_waiting()
        {
            let left = memory.look_again(self.scheduler.blocks_mut());
            step = self.scheduler.schedule(time);
            if step.parts.is_empty() {
                let problem = format!("there is no memory for the keys and values of this request: {left}");
                self.requests.fail(&self.scheduler, first, &problem);
                self.forget_ended();
            }
        }
        step
    }

    fn note_started(&mut self, step: &Step) -> (usize, Duration) {
        let (mut count, mut waited) = (0, Duration::ZERO);
        for &id in &step.started {
            let Some(since_arrival) = self.requests.start(id) else { continue };
            count += 1;
            waited += since_arrival;
            if let Some(metrics) = self.requests.of(id).and_then(|request| request.perf_metrics.as_mut()) {
                metrics.first_scheduled = since_arrival;
                metrics.iterations = (self.iter, self.iter);
                metrics.cached_prompt_tokens = self.scheduler.cached_tokens(id) as u64;
            }
        }
        (count, waited)
    }

    /// Notes the iteration in the figures of the requests that it works on.
    fn note_iteration(&mut self, step: &Step) {
        for part in &step.parts {
            if self.requests.sequence(part.sequence).is_some_and(Running::wants_perf_metrics)
                && let Some(metrics) = self.requests.of(part.sequence).and_then(|request| request.perf_metrics.as_mut())
            {
                metrics.iterations.1 = self.iter;
            }
        }
    }

    /// The pass. What is cancelled or late meanwhile ends at once; the pass goes on for the others, unless it is in vain.
    fn forward(&mut self, step: &Step) -> Result<(), ForwardError> {
        let Self { queue, model, scheduler, requests, heard, .. } = self;
        let sequence = |part: &StepPart| StepSequence {
            tokens: &scheduler.tokens(part.sequence, part.beam)[part.start..][..part.tokens],
            start: part.start,
            blocks: scheduler.part_blocks(part),
        };
        let sequences: Vec<_> = step.parts.iter().map(sequence).collect();
        model.forward(&sequences, &mut || {
            let now = Instant::now();
            if now.duration_since(*heard) < HEAR_EVERY {
                return false;
            }
            *heard = now;
            requests.hear(queue, scheduler, now);
            is_in_vain(step, requests)
        })
    }

    /// Scores what follows the prompt tokens of the step, where it is asked for.
    fn score_prompts(&mut self, step: &Step) -> Duration {
        let mut model_latency = Duration::ZERO;
        let kernels = self.model.kernels();
        let mut first_row = 0;
        for part in &step.parts {
            let row = first_row;
            first_row += part.tokens;
            let Some(scores) = self.requests.unfinished_scores(part.sequence).filter(|_| part.is_context) else {
                continue;
            };
            if part.start == 0 {
                // A prompt that was paused half-way, or whose first sequence was cancelled, begins again.
                scores.clear();
            }
            let positions: Vec<usize> = (part.start..scores.wanted().min(part.start + part.tokens)).collect();
            for positions in positions.chunks(LOGITS_ROWS) {
                let began = Instant::now();
                let rows: Vec<_> = positions.iter().map(|position| row + position - part.start).collect();
                let logits = self.model.logits(&rows, &mut self.logits);
                model_latency += began.elapsed();
                let prompt_len = self.scheduler.prompt_len(part.sequence);
                let next = &self.scheduler.tokens(part.sequence, part.beam)[positions[0] + 1..prompt_len];
                let Some(scores) = self.requests.unfinished_scores(part.sequence) else { break };
                let added = self.model.pool().install(|| scores.add(kernels, logits, rows.len(), next));
                if let Err(problem) = added {
                    self.requests.fail(&self.scheduler, part.sequence, &problem);
                    break;
                }
                self.hear();
            }
        }
        model_latency
    }

    /// Ends what is cancelled or late, where it was not looked for lately.
    fn hear(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.heard) >= HEAR_EVERY {
            self.heard = now;
            self.requests.hear(self.queue, &self.scheduler, now);
        }
    }

    /// Chooses the next token of every sequence whose tokens are all computed.
    fn generate(&mut self, step: &Step) -> Duration {
        let mut model_latency = Duration::ZERO;
        let mut completed: Vec<Completed> = Vec::new();
        let mut first_row = 0;
        for part in &step.parts {
            first_row += part.tokens;
            match completed.last_mut() {
                // The beams of a search follow one another.
                Some((id, rows)) if *id == part.sequence => rows.push(first_row - 1),
                _ if part.completes => completed.push((part.sequence, vec![first_row - 1])),
                _ => {}
            }
        }
        let kernels = self.model.kernels();
        let vocab_size = self.model.vocab_size();
        // The beams of one search compete, so they stay in one group.
        for group in by_rows(&completed, LOGITS_ROWS) {
            let began = Instant::now();
            let rows: Vec<_> = group.iter().flat_map(|(_, rows)| rows).copied().collect();
            let mut logits = self.model.logits(&rows, &mut self.logits);
            model_latency += began.elapsed();
            let mut draws = Vec::with_capacity(group.len());
            for (id, rows) in group {
                let (of_sequence, rest) = logits.split_at_mut(rows.len() * vocab_size);
                logits = rest;
                draws.extend(self.requests.take(*id).map(|running| (*id, running, of_sequence)));
            }
            let scheduler = &self.scheduler;
            let chosen: Vec<_> = self.model.pool().install(|| {
                let choose = |(id, running, logits): &mut (SequenceId, Box<Running>, &mut [f32])| {
                    // Before anybody changes them: a bias, a ban, a guide or a hook is not to blame for what the model computed.
                    match check_finite(kernels, logits, vocab_size) {
                        Ok(()) => running.choose(kernels, logits, |beam| scheduler.tokens(*id, beam)),
                        Err(problem) => Chosen::Failed(problem),
                    }
                };
                draws.par_iter_mut().with_max_len(1).map(choose).collect()
            });
            let ids: Vec<_> = draws.iter().map(|(id, ..)| *id).collect();
            draws.into_iter().for_each(|(id, running, _)| self.requests.insert(id, running));
            for (id, chosen) in ids.into_iter().zip(chosen) {
                // An error ends all sequences of a request, so this one may be gone.
                if self.requests.sequence(id).is_some() {
                    self.respond(id, chosen);
                }
            }
        }
        model_latency
    }

    fn respond(&mut self, id: SequenceId, chosen: Chosen) {
        let has_token = !matches!(chosen, Chosen::Nothing);
        let wants_perf_metrics = self.requests.sequence(id).is_some_and(Running::wants_perf_metrics);
        if let Some(request) = self.requests.of(id).filter(|_| has_token && wants_perf_metrics) {
            request.note_token();
        }
        match chosen {
            Chosen::Token(_, Some(reason)) => self.requests.finish(&self.scheduler, id, reason, Vec::new()),
            Chosen::Token(token, None) => {
                self.scheduler.append(id, token);
                self.requests.stream(id);
            }
            Chosen::Branches(next) => {
                for (from, to) in self.scheduler.branch(id, &next) {
                    self.model.copy_block(from, to);
                }
            }
            Chosen::Beams(beams) => self.requests.finish(&self.scheduler, id, FinishReason::Length, beams),
            Chosen::Nothing => self.requests.finish(&self.scheduler, id, FinishReason::Length, Vec::new()),
            Chosen::Failed(problem) => self.requests.fail(&self.scheduler, id, &problem),
        }
    }
}

/// Whether a pass is to be dropped: most of it is for sequences that have ended, and none of the others generates. So nobody's
/// stream waits for a dropped pass, and each drop is paid for by sequences that end.
fn is_in_vain(step: &Step, requests: &Requests) -> bool {
    let mut wanted = step.parts.iter().filter(|part| requests.sequence(part.sequence).is_some());
    let all: usize = step.parts.iter().map(|part| part.tokens).sum();
    let mut tokens = 0;
    wanted.all(|part| {
        tokens += part.tokens;
        part.is_context && 2 * tokens <= all
    })
}

/// Consecutive sequences of together at most `limit` rows, or one that has more.
fn by_rows(completed: &[Completed], limit: usize) -> impl Iterator<Item = &[Completed]> {
    let mut rest = completed;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |(_, beams): &&Completed| {
            rows += beams.len();
            rows <= limit
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (group, later) = rest.split_at(count);
        rest = later;
        (!group.is_empty()).then_some(group)
    })
}
