//! One iteration: `schedule → forward → sample → respond`.
//!
//! Beside the model's pass it costs, for each sequence, a few look-ups, and one row of logits with what the sampler does to
//! it; sequences are sampled on all threads of the model, `LOGITS_ROWS` at a time.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::Owner;
use crate::executor::{FinishReason, InflightBatchingStats, IterationStats, Response, TokenId};
use crate::inflight::running::{Chosen, Running};
use crate::inflight::scheduler::{SequenceId, Step, StepPart};
use crate::logits::check_finite;
use crate::model::{ForwardError, Model, StepSequence};

/// Rows of logits computed at a time; bounds their memory to this many vocabularies.
const LOGITS_ROWS: usize = 64;

/// A sequence whose next token is to be chosen, and the row of the pass that each of its beams ends with.
type Completed = (SequenceId, Vec<usize>);

impl<M: Model> Owner<M> {
    /// One iteration; none where there is nothing to do.
    pub(super) fn iterate(&mut self, began: Instant) -> Option<IterationStats> {
        let step = self.scheduler.schedule();
        if step.parts.is_empty() {
            return None;
        }
        let (num_new_active_requests, new_active_requests_queue_latency) = self.note_started(&step);
        self.note_iteration(&step);
        let num_active_requests = self.started;
        let before = self.requests.len();
        let pass = Instant::now();
        if let Err(ForwardError::Interrupted) = self.forward(&step) {
            return None;
        }
        let mut model_latency = pass.elapsed();
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

    fn forward(&mut self, step: &Step) -> Result<(), ForwardError> {
        let sequence = |part: &StepPart| StepSequence {
            tokens: &self.scheduler.tokens(part.sequence, part.beam)[part.start..][..part.tokens],
            start: part.start,
            blocks: self.scheduler.part_blocks(part),
        };
        let sequences: Vec<_> = step.parts.iter().map(sequence).collect();
        self.model.forward(&sequences, &mut || false)
    }

    /// Log-probabilities of the prompt tokens that follow those of the step, where they are asked for.
    fn prompt_log_probs(&mut self, step: &Step) -> Duration {
        let mut model_latency = Duration::ZERO;
        let (kernels, vocab_size) = (self.model.kernels(), self.model.vocab_size());
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
            let followed: Vec<(usize, TokenId)> = (row..).zip(next.copied()).collect();
            let score = |(logits, &(_, next)): (&mut [f32], &(usize, TokenId))| {
                check_finite(kernels, logits, vocab_size)?;
                Ok(logits[next as usize] - kernels.log_sum_exp(logits))
            };
            for rows in followed.chunks(LOGITS_ROWS) {
                let began = Instant::now();
                let numbers: Vec<_> = rows.iter().map(|&(row, _)| row).collect();
                let logits = self.model.logits(&numbers, &mut self.logits);
                model_latency += began.elapsed();
                let log_probs: Result<Vec<f32>, String> = self
                    .model
                    .pool()
                    .install(|| logits.par_chunks_exact_mut(vocab_size).zip(rows).map(score).collect());
                match log_probs {
                    Ok(log_probs) => collected.extend(log_probs),
                    Err(problem) => {
                        self.fail(part.sequence, &problem);
                        break;
                    }
                }
            }
        }
        model_latency
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
                draws.extend(self.sequences.remove(id).map(|running| (*id, running, of_sequence)));
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
            let running: Vec<_> = draws.into_iter().map(|(id, running, _)| (id, running)).collect();
            self.sequences.extend(running);
            for (id, chosen) in ids.into_iter().zip(chosen) {
                // An error ends all sequences of a request, so this one may be gone.
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
