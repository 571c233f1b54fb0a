//! The owner thread: takes requests in, runs iterations as long as there is work, and ends requests.
//!
//! `requests` is what it knows of requests and their sequences, `iteration` one turn of the loop.

mod iteration;
mod requests;

pub(super) use iteration::{most_logits_rows, room_for_logits};

use std::sync::Arc;
use std::time::Instant;

use crate::executor::FinishReason;
use crate::model::Model;

use super::memory::CacheMemory;
use super::pace::Pace;
use super::prefix::Salt;
use super::queue::{Arrival, Queue, ended};
use super::running::Running;
use super::sampler::Sampler;
use super::scheduler::{NewSequence, Scheduler, SequenceId};

use requests::Requests;

/// Runs until the queue is closed and everything has ended.
pub(super) fn run(
    queue: &Queue,
    model: impl Model,
    scheduler: Scheduler,
    memory: Option<CacheMemory>,
    logits: Vec<f32>,
    enable_block_reuse: bool,
) {
    /// Tells the queue of the end, also when this thread panics.
    struct TellsTheEnd<'a>(&'a Queue);
    impl Drop for TellsTheEnd<'_> {
        fn drop(&mut self) {
            self.0.owner_is_gone();
        }
    }
    let _tells_the_end = TellsTheEnd(queue);
    let (requests, pace, heard) = (Requests::default(), Pace::default(), Instant::now());
    let mut owner =
        Owner { queue, model, scheduler, memory, enable_block_reuse, logits, requests, pace, heard, iter: 0 };
    while let Some(inbox) = queue.look(owner.scheduler.is_empty()) {
        let began = Instant::now();
        owner.heard = began;
        inbox.arrived.into_iter().for_each(|arrival| owner.receive(arrival));
        inbox.cancelled.into_iter().for_each(|(id, what)| owner.requests.cancel(&owner.scheduler, id, what));
        owner.requests.end_late(&owner.scheduler, began);
        owner.forget_ended();
        let stats = owner.iterate(began);
        owner.forget_ended();
        queue.note(owner.scheduler.blocks().stats(), stats);
        owner.requests.deliver(queue);
    }
}

struct Owner<'a, M> {
    queue: &'a Queue,
    model: M,
    scheduler: Scheduler,
    /// Of the blocks that were never used; `None` where they are no memory.
    memory: Option<CacheMemory>,
    enable_block_reuse: bool,
    logits: Vec<f32>,
    requests: Requests,
    pace: Pace,
    /// When it last heard what is to end.
    heard: Instant,
    iter: u64,
}

impl<M: Model> Owner<'_, M> {
    /// Takes a request in: one sequence for each that it returns, of which the first computes the prompt.
    fn receive(&mut self, arrival: Arrival) {
        let Arrival { id: request_id, request, guide, since, deadline } = arrival;
        let request = Arc::new(request);
        let spec = request.spec();
        if spec.max_tokens == 0 && !spec.output.needs_context_logits() {
            self.requests.respond(ended(request_id, spec, FinishReason::Length));
            return;
        }
        let salt = Salt { shared: spec.cache_salt_id, private: (!self.enable_block_reuse).then_some(request_id.0) };
        let mut open: Vec<SequenceId> = Vec::new();
        let sampler = Sampler::new(self.model.kernels(), spec);
        // Where nothing is generated, nothing is searched.
        let beam_width = if spec.max_tokens == 0 { 1 } else { spec.sampling.beam_width };
        let sequences = if beam_width > 1 { 1 } else { spec.sampling.num_return_sequences };
        for index in 0..sequences {
            let id = self.scheduler.add(NewSequence {
                prompt: spec.input_token_ids.clone(),
                // The whole prompt is computed, as if a token were to follow.
                max_tokens: spec.max_tokens.max(1),
                beam_width,
                priority: spec.priority,
                salt,
                computes_whole_prompt: spec.output.needs_context_logits() && index == 0,
                follows: open.first().copied(),
            });
            open.push(id);
            let running = Running::new(request_id, index, request.clone(), guide.clone(), sampler.of_sequence(index));
            self.requests.insert(id, Box::new(running));
        }
        self.requests.add(request_id, spec, open, since, deadline);
    }

    /// Removes from the scheduler what has ended.
    fn forget_ended(&mut self) {
        for id in self.requests.take_ended() {
            self.scheduler.remove(id);
        }
    }
}
