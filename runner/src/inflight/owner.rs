//! The owner thread: takes requests and runs each to its end.

use std::time::Instant;

use crate::cpu_model::{CpuModel, ForwardPass, KvCache, StepSequence, TOKENS_PER_BLOCK};
use crate::executor::{
    FinishReason, InflightBatchingStats, IterationStats, KvCacheStats, Limits, Request, RequestId, Response, TokenId,
    TokenResult,
};

use super::queue::Queue;
use super::sampler::Sampler;

/// Rows of logits computed at a time for prompt log-probabilities; bounds their memory to this many vocabularies.
const LOGITS_ROWS: usize = 32;

/// Runs until the queue is closed and empty.
pub(super) fn run(queue: &Queue, model: &CpuModel, cache: KvCache, limits: Limits) {
    struct Farewell<'a>(&'a Queue);
    impl Drop for Farewell<'_> {
        fn drop(&mut self) {
            self.0.owner_is_gone();
        }
    }
    let _farewell = Farewell(queue);
    let mut owner = Owner { queue, model, cache, limits, pass: ForwardPass::default(), logits: Vec::new(), iter: 0 };
    while let Some((id, request)) = queue.next() {
        owner.run(id, &request);
    }
}

struct Owner<'a> {
    queue: &'a Queue,
    model: &'a CpuModel,
    cache: KvCache,
    limits: Limits,
    pass: ForwardPass,
    logits: Vec<f32>,
    iter: u64,
}

/// What was generated and not delivered yet.
#[derive(Default)]
struct Undelivered {
    tokens: Vec<TokenId>,
    log_probs: Option<Vec<f32>>,
    prompt_log_probs: Option<Vec<f32>>,
}

impl Owner<'_> {
    fn run(&mut self, id: RequestId, request: &Request) {
        let spec = request.spec();
        let prompt = &spec.input_token_ids;
        let total = prompt.len() + spec.max_tokens;
        let blocks: Vec<u32> = (0..total.div_ceil(TOKENS_PER_BLOCK) as u32).collect();
        let mut new = Undelivered {
            log_probs: spec.output.return_log_probs.then(Vec::new),
            prompt_log_probs: spec.output.return_prompt_log_probs.then(Vec::new),
            ..Undelivered::default()
        };

        for start in (0..prompt.len()).step_by(self.limits.max_num_tokens) {
            if self.queue.is_cancelled(id) {
                return self.deliver(id, &mut new, Some(FinishReason::Cancelled));
            }
            let end = prompt.len().min(start + self.limits.max_num_tokens);
            self.step(&prompt[start..end], start, &blocks, true);
            if let Some(log_probs) = &mut new.prompt_log_probs {
                self.prompt_log_probs(prompt, start..end, log_probs);
            }
            if end == prompt.len() {
                self.model.logits(&mut self.pass, end - start - 1..end - start, &mut self.logits);
            }
        }

        let mut sampler = Sampler::new(self.model.kernels(), spec, 0);
        let mut tokens = prompt.clone();
        for position in prompt.len()..total {
            let logits = &mut self.logits[..self.model.config().vocab_size];
            let raw = new.log_probs.is_some().then(|| logits.to_vec());
            let token = sampler.sample(logits, &tokens, None);
            sampler.accept(token);
            tokens.push(token);
            new.tokens.push(token);
            if let (Some(log_probs), Some(raw)) = (&mut new.log_probs, raw) {
                log_probs.push(self.model.log_prob(&raw, token));
            }
            let finish = if spec.end_ids.contains(&token) {
                Some(FinishReason::EndId)
            } else if position + 1 == total {
                Some(FinishReason::Length)
            } else if self.queue.is_cancelled(id) {
                Some(FinishReason::Cancelled)
            } else {
                None
            };
            if finish.is_some() || spec.streaming {
                self.deliver(id, &mut new, finish);
            }
            if finish.is_some() {
                return;
            }
            self.step(&[token], position, &blocks, false);
            self.model.logits(&mut self.pass, 0..1, &mut self.logits);
        }
    }

    /// One iteration: the next tokens of the sequence.
    fn step(&mut self, tokens: &[TokenId], start: usize, blocks: &[u32], is_context: bool) {
        let began = Instant::now();
        self.model.forward(&mut self.pass, &mut self.cache, &[StepSequence { tokens, start, blocks }]);
        let used_num_blocks = (start + tokens.len()).div_ceil(TOKENS_PER_BLOCK);
        self.queue.record(IterationStats {
            iter: self.iter,
            iter_latency: began.elapsed(),
            model_latency: began.elapsed(),
            new_active_requests_queue_latency: std::time::Duration::ZERO,
            num_new_active_requests: 0,
            num_active_requests: 1,
            num_queued_requests: self.queue.waiting(),
            num_completed_requests: 0,
            kv_cache: KvCacheStats {
                max_num_blocks: self.cache.num_blocks(),
                free_num_blocks: self.cache.num_blocks() - used_num_blocks,
                used_num_blocks,
                tokens_per_block: TOKENS_PER_BLOCK,
                ..KvCacheStats::default()
            },
            inflight_batching: InflightBatchingStats {
                num_scheduled_requests: 1,
                num_context_requests: is_context.into(),
                num_gen_requests: (!is_context).into(),
                num_paused_requests: 0,
                num_ctx_tokens: if is_context { tokens.len() } else { 0 },
            },
        });
        self.iter += 1;
    }

    /// Log-probabilities of the prompt's tokens that follow those of the last step, which were `done`.
    fn prompt_log_probs(&mut self, prompt: &[TokenId], done: std::ops::Range<usize>, out: &mut Vec<f32>) {
        let vocab_size = self.model.config().vocab_size;
        // The last token of the prompt is followed by output, not by prompt.
        let rows = done.end.min(prompt.len() - 1).saturating_sub(done.start);
        for first in (0..rows).step_by(LOGITS_ROWS) {
            let last = rows.min(first + LOGITS_ROWS);
            self.model.logits(&mut self.pass, first..last, &mut self.logits);
            for (row, logits) in (first..last).zip(self.logits.chunks_exact(vocab_size)) {
                out.push(self.model.log_prob(logits, prompt[done.start + row + 1]));
            }
        }
    }

    fn deliver(&self, request_id: RequestId, new: &mut Undelivered, finish_reason: Option<FinishReason>) {
        let more = new.log_probs.is_some().then(Vec::new);
        self.queue.respond(Response::Result(TokenResult {
            request_id,
            sequence_index: 0,
            output_token_ids: std::mem::take(&mut new.tokens),
            log_probs: std::mem::replace(&mut new.log_probs, more),
            prompt_log_probs: new.prompt_log_probs.take(),
            top_log_probs: None,
            cum_log_prob: None,
            finish_reason,
            is_sequence_final: finish_reason.is_some(),
            is_final: finish_reason.is_some(),
        }));
    }
}
