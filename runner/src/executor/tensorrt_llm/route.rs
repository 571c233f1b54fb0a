//! What is known of a request that TensorRT-LLM works on, and what its responses become.

use trtllm_sys::gpu::{GpuFailure, GpuOutput, GpuPerfMetrics, GpuResult};

use crate::executor::{FinishReason, PerfMetrics, RequestId, RequestSpec, Response, TokenId, TokenResult};
use crate::inflight::PromptScores;

use super::prompt::UnscoredPrompt;
use super::scoring::{Lane, Scores};
use super::token_scores::{TokenScorer, TokenScores};

/// One request.
#[derive(Debug)]
pub(super) struct Route {
    sequences: Vec<Sequence>,
    is_beam_search: bool,
    /// Whether tokens are wanted: TensorRT-LLM generates one in any case.
    generates: bool,
    log_probs: bool,
    prompt_len: usize,
    end_ids: Vec<TokenId>,
    /// Until its logits have come: what is to be scored.
    unscored: Option<UnscoredPrompt>,
    /// Its responses that wait to be scored, or behind one that does, and where.
    pub(super) held: usize,
    lane: Lane,
    /// Until a response can take them along: those of a cancelled sequence are dropped.
    prompt_scores: Option<PromptScores>,
    /// Where the logits of generated tokens are wanted, or what is made of them.
    scorer: Option<TokenScorer>,
    /// Whether cancelling it can crash TensorRT-LLM, and it is left to run out instead: see `cancel`.
    runs_out: bool,
    /// Its end has been told; what still comes is of no interest.
    pub(super) is_over: bool,
}

#[derive(Debug, Clone, Default)]
struct Sequence {
    /// Log-probabilities that were delivered: those of a response are the whole sequence's.
    log_probs: usize,
    /// The sum of those that were made of logits here.
    cum_log_prob: f64,
    last_token: Option<TokenId>,
    ended: bool,
    cancelled: bool,
}

impl Route {
    /// `cancels` says whether TensorRT-LLM may be told to cancel streams with log-probabilities or logits too.
    pub(super) fn new(spec: &RequestSpec, vocab_size: usize, cancels: bool) -> Self {
        let is_beam_search = spec.sampling.beam_width > 1;
        let logits = spec.output.needs_context_logits();
        let scorer = TokenScorer::new(spec, vocab_size);
        Self {
            sequences: vec![Sequence::default(); spec.sampling.num_return_sequences],
            is_beam_search,
            generates: spec.max_tokens > 0,
            log_probs: spec.output.return_log_probs,
            prompt_len: spec.input_token_ids.len(),
            end_ids: spec.end_ids.clone(),
            unscored: UnscoredPrompt::new(spec, vocab_size),
            held: 0,
            lane: Lane::Tokens,
            prompt_scores: None,
            scorer,
            runs_out: !cancels
                && spec.streaming
                && !is_beam_search
                && (spec.output.return_log_probs || logits || scorer.is_some()),
            is_over: false,
        }
    }

    /// Whether TensorRT-LLM may be told to cancel the request. Where it may not (a stream with log-probabilities: TensorRT-LLM
    /// issue 10810, seen in 1.1 and 1.2), the request is over for its client, and runs out unseen: `responses` tell.
    pub(super) fn cancel(&mut self, id: RequestId, responses: &mut Vec<Response>) -> bool {
        if self.runs_out && !self.is_over {
            self.end(id, FinishReason::Cancelled, responses);
        }
        self.may_cancel()
    }

    /// Whether TensorRT-LLM may be told to cancel the request.
    pub(super) fn may_cancel(&self) -> bool {
        !self.runs_out
    }

    /// Ends one sequence; whether TensorRT-LLM is to be told to cancel the request, because that was the last. The beams of a
    /// search are cancelled together, when all have been asked for.
    pub(super) fn cancel_sequence(&mut self, id: RequestId, index: usize, responses: &mut Vec<Response>) -> bool {
        let Some(sequence) = self.sequences.get_mut(index).filter(|sequence| !sequence.ended && !sequence.cancelled)
        else {
            return false;
        };
        sequence.cancelled = true;
        if self.is_over {
            return false;
        }
        if self.is_beam_search {
            return self.sequences.iter().all(|beam| beam.cancelled) && self.cancel(id, responses);
        }
        sequence.ended = true;
        self.is_over = self.sequences.iter().all(|sequence| sequence.ended);
        let ended = TokenResult::ended(id, index, FinishReason::Cancelled, self.is_over);
        responses.push(Response::Result(ended));
        self.is_over && self.may_cancel()
    }

    /// Ends every sequence that has not ended.
    fn end(&mut self, id: RequestId, reason: FinishReason, responses: &mut Vec<Response>) {
        let open: Vec<_> = (0..self.sequences.len()).filter(|&index| !self.sequences[index].ended).collect();
        for &index in &open {
            self.sequences[index].ended = true;
            let is_final = Some(&index) == open.last();
            responses.push(Response::Result(TokenResult::ended(id, index, reason, is_final)));
        }
        self.is_over = true;
    }

    /// Ends the request with an error.
    pub(super) fn fail(&mut self, id: RequestId, message: String, responses: &mut Vec<Response>) {
        if !self.is_over {
            self.is_over = true;
            responses.push(Response::Error { request_id: id, message });
        }
    }

    /// Where a response has to wait, if it has to: it brings what is to be scored, or comes behind one that does. It is counted in
    /// `held` then.
    pub(super) fn holds(&mut self, result: &Result<GpuResult<'_>, GpuFailure>) -> Option<Lane> {
        if self.held == 0 {
            let result = result.as_ref().ok().filter(|_| !self.is_over)?;
            let has_tokens = result.outputs.first().is_some_and(|output| !output.token_ids.is_empty());
            self.lane = if result.context_logits.is_some() && self.unscored.is_some() {
                Lane::Prompts
            } else if self.scorer.is_some() && has_tokens {
                Lane::Tokens
            } else {
                return None;
            };
        }
        self.held += 1;
        Some(self.lane)
    }

    /// What is to be scored of the prompt, once, where a response brings its logits.
    pub(super) fn take_unscored(&mut self, result: &GpuResult<'_>) -> Option<UnscoredPrompt> {
        result.context_logits.and_then(|_| self.unscored.take()).filter(|_| !self.is_over)
    }

    /// What is to be made of the logits of a response's tokens.
    pub(super) fn scorer(&self) -> Option<TokenScorer> {
        self.scorer.filter(|_| !self.is_over)
    }

    /// What a response becomes, with what was scored of it; also tells whether TensorRT-LLM is done with the request.
    /// `tokens_per_block` is asked for the size of a KV-cache block, 0 where it is not known, if there are figures.
    pub(super) fn take(
        &mut self,
        id: RequestId,
        result: &GpuResult<'_>,
        scores: Result<Scores, String>,
        tokens_per_block: impl FnOnce() -> usize,
        responses: &mut Vec<Response>,
    ) -> bool {
        if self.is_over {
            return result.is_final;
        }
        let scores = match scores {
            Ok(scores) => scores,
            Err(message) => {
                self.fail(id, message, responses);
                return result.is_final;
            }
        };
        self.prompt_scores = scores.prompt.or(self.prompt_scores.take());
        // Of generated tokens TensorRT-LLM shows no logits, but what they were is seen in the log-probabilities.
        let log_probs = result.outputs.iter().filter_map(|output| output.log_probs).flatten();
        if log_probs.copied().any(f32::is_nan) {
            let message = "the model's logits are not numbers: TensorRT-LLM gave NaN as a log-probability; the weights are damaged or overflow: build the engine again from intact weights";
            self.fail(id, message.to_owned(), responses);
            return result.is_final;
        }
        let first = responses.len();
        if self.is_beam_search {
            for (beam, output) in result.outputs.iter().take(self.sequences.len()).enumerate() {
                responses.extend(self.sequence(id, beam, output, None, result.is_final).map(Response::Result));
            }
        } else if let Some(output) = result.outputs.first() {
            let is_final = result.is_sequence_final || result.is_final && self.sequences.len() == 1;
            let sequence = self.sequence(id, result.sequence_index, output, scores.tokens, is_final);
            responses.extend(sequence.map(Response::Result));
        }
        if let (Some(Response::Result(head)), Some(_)) = (responses.get_mut(first), &self.prompt_scores) {
            self.prompt_scores.take().into_iter().for_each(|mut scores| scores.deliver(head));
        }
        let reason = match responses.get(first) {
            Some(Response::Result(result)) => result.finish_reason,
            _ => None,
        };
        if result.is_final {
            self.end(id, reason.unwrap_or(FinishReason::Unknown(0)), responses);
        }
        self.is_over |= self.sequences.iter().all(|sequence| sequence.ended);
        if let (true, Some(Response::Result(last))) = (self.is_over, responses.last_mut()) {
            last.is_final = true;
            last.perf_metrics = result.perf_metrics.map(|metrics| {
                let cached = metrics.reused_blocks.saturating_mul(tokens_per_block() as u64);
                Box::new(to_metrics(metrics, cached.min(self.prompt_len as u64)))
            });
        }
        result.is_final
    }

    /// New tokens of a sequence; nothing where there is nothing to tell.
    fn sequence(
        &mut self,
        id: RequestId,
        index: usize,
        output: &GpuOutput<'_>,
        scores: Option<TokenScores>,
        is_final: bool,
    ) -> Option<TokenResult> {
        let sequence = self.sequences.get_mut(index).filter(|sequence| !sequence.ended)?;
        // Beams of unequal length are filled up with negative ids.
        let mut tokens: Vec<TokenId> = output.token_ids.iter().map_while(|&id| TokenId::try_from(id).ok()).collect();
        if !self.generates {
            tokens.clear();
        }
        if tokens.is_empty() && !is_final {
            return None;
        }
        sequence.last_token = tokens.last().copied().or(sequence.last_token);
        let end = sequence.log_probs + tokens.len();
        let nothing = self.scorer.map(TokenScorer::nothing);
        let scores = scores.filter(|_| !tokens.is_empty()).or(nothing).unwrap_or_default();
        // What is made of the logits here goes before what TensorRT-LLM's sampler says.
        let cum_log_prob = match &scores.log_probs {
            Some(log_probs) => {
                sequence.cum_log_prob += log_probs.iter().copied().map(f64::from).sum::<f64>();
                Some(sequence.cum_log_prob as f32)
            }
            None => output.cum_log_prob,
        };
        let log_probs = output.log_probs.filter(|_| self.log_probs);
        let log_probs = log_probs.and_then(|all| all.get(sequence.log_probs..end)).map(<[f32]>::to_vec);
        let log_probs = scores.log_probs.or(log_probs);
        sequence.log_probs = end;
        sequence.ended = is_final;
        let ended_by_end_id = sequence.last_token.is_some_and(|token| self.end_ids.contains(&token));
        let reason = is_final.then(|| match finish_reason(output.finish_reason) {
            // End ids but the first are stop words there.
            FinishReason::StopWords if ended_by_end_id => FinishReason::EndId,
            FinishReason::StopWords | FinishReason::EndId if !self.generates => FinishReason::Length,
            reason => reason,
        });
        Some(TokenResult {
            request_id: id,
            sequence_index: index,
            // Nothing chosen has no log-probabilities to miss.
            log_probs: log_probs.or_else(|| (self.log_probs && tokens.is_empty()).then(Vec::new)),
            output_token_ids: tokens,
            top_log_probs: scores.top_log_probs,
            cum_log_prob: cum_log_prob.filter(|_| is_final && self.log_probs && self.generates),
            generation_logits: scores.logits,
            prompt_log_probs: None,
            prompt_top_log_probs: None,
            prompt_ranks: None,
            context_logits: None,
            perf_metrics: None,
            finish_reason: reason,
            is_sequence_final: is_final,
            is_final: false,
        })
    }
}

/// `tensorrt_llm::executor::FinishReason`.
fn finish_reason(number: i32) -> FinishReason {
    match number {
        1 => FinishReason::EndId,
        2 => FinishReason::StopWords,
        3 => FinishReason::Length,
        4 => FinishReason::TimedOut,
        5 => FinishReason::Cancelled,
        other => FinishReason::Unknown(other),
    }
}

fn to_metrics(metrics: GpuPerfMetrics, cached_prompt_tokens: u64) -> PerfMetrics {
    use std::time::Duration;
    PerfMetrics {
        first_scheduled: Duration::from_nanos(metrics.first_scheduled_ns),
        first_token: Duration::from_nanos(metrics.first_token_ns),
        last_token: Duration::from_nanos(metrics.last_token_ns),
        iterations: (metrics.first_iter, metrics.last_iter),
        new_blocks: metrics.new_blocks,
        reused_blocks: metrics.reused_blocks,
        missed_blocks: metrics.missed_blocks,
        cached_prompt_tokens,
        draft_tokens: metrics.draft_tokens,
        accepted_draft_tokens: metrics.accepted_draft_tokens,
    }
}

#[cfg(test)]
mod tests {
    use trtllm_sys::gpu::{GpuLogits, LogitValues};

    use super::*;
    use crate::executor::OutputConfig;

    const TOKENS: &[i32] = &[1];

    fn spec(output: OutputConfig) -> RequestSpec {
        RequestSpec { output, ..RequestSpec::new(vec![1, 2], 3) }
    }

    /// A response with a token, and maybe with a prompt's logits.
    fn result<'a>(logits: Option<&'a [f32]>) -> Result<GpuResult<'a>, GpuFailure> {
        let token = GpuOutput {
            token_ids: TOKENS,
            log_probs: None,
            cum_log_prob: None,
            finish_reason: 0,
            generation_logits: None,
        };
        let (sequence_index, is_sequence_final, is_final, outputs) = (0, false, false, vec![token]);
        let context_logits = logits.map(|logits| GpuLogits { values: LogitValues::F32(logits), columns: 2 });
        Ok(GpuResult { sequence_index, is_sequence_final, is_final, outputs, context_logits, perf_metrics: None })
    }

    #[test]
    fn responses_stay_behind_the_one_whose_prompt_is_scored() {
        let mut route =
            Route::new(&spec(OutputConfig { return_prompt_log_probs: true, ..OutputConfig::default() }), 2, false);
        let logits = [0.0; 4];
        assert_eq!(route.holds(&result(None)), None, "nothing is scored yet");
        assert_eq!(route.holds(&result(Some(&logits))), Some(Lane::Prompts));
        let failed = Err(GpuFailure { message: "failed".to_owned(), is_final: true });
        assert_eq!(
            [route.holds(&result(None)), route.holds(&failed)],
            [Some(Lane::Prompts); 2],
            "they would pass it by"
        );
        assert!(route.take_unscored(&result(None).unwrap()).is_none());
        assert!(route.take_unscored(&result(Some(&logits)).unwrap()).is_some());
        route.held -= 3;
        assert_eq!([route.holds(&result(None)), route.holds(&result(Some(&logits)))], [None; 2], "it is scored once");
        let mut unasked = Route::new(&spec(OutputConfig::default()), 2, false);
        assert_eq!(unasked.holds(&result(Some(&logits))), None);
    }

    #[test]
    fn tokens_whose_logits_are_wanted_wait_apart_from_prompts_but_behind_their_own() {
        let output = OutputConfig { top_log_probs: 1, return_prompt_log_probs: true, ..OutputConfig::default() };
        let mut route = Route::new(&spec(output), 2, false);
        let logits = [0.0; 4];
        assert_eq!(route.holds(&result(Some(&logits))), Some(Lane::Prompts));
        assert_eq!(route.holds(&result(None)), Some(Lane::Prompts));
        assert!(route.take_unscored(&result(Some(&logits)).unwrap()).is_some());
        route.held -= 2;
        assert_eq!(route.holds(&result(None)), Some(Lane::Tokens));
    }
}
