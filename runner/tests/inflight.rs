//! The in-flight executor over a scripted model: what an iteration batches, in which order requests are served, what a model's
//! failure does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it likes")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use runner::executor::{
    CapacitySchedulerPolicy, EnqueueError, Executor, ExecutorConfig, FinishReason, GuidedDecodingParams, Limits, Load,
    Request, RequestId, RequestSpec, Response, SamplingConfig, Shutdown, TokenId,
};
use runner::inflight::CpuExecutor;
use runner::scripted_model::{Script, ScriptedModel};

const LIMITS: Limits = Limits { max_seq_len: 512, max_batch_size: 8, max_num_tokens: 16 };

fn executor(script: Script, config: &ExecutorConfig) -> CpuExecutor {
    CpuExecutor::with_model(ScriptedModel::new(script).unwrap(), LIMITS, config).unwrap()
}

/// Long enough that requests sent in together are in one iteration.
fn unhurried() -> Script {
    Script { latency_per_step: Duration::from_millis(20), ..Script::default() }
}

fn enqueue(executor: &CpuExecutor, spec: RequestSpec) -> RequestId {
    executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap()
}

/// Every response until `finals` requests have ended.
fn gather(executor: &CpuExecutor, finals: usize) -> Vec<Response> {
    let mut all = Vec::new();
    while all.iter().filter(|response: &&Response| response.is_final()).count() < finals {
        let new = executor.await_responses(Some(Duration::from_secs(30)));
        assert!(!new.is_empty(), "nothing comes after {all:?}");
        all.extend(new);
    }
    all
}

fn tokens(responses: &[Response], id: RequestId, sequence_index: usize) -> Vec<TokenId> {
    let own = responses.iter().filter_map(|response| match response {
        Response::Result(result) if result.request_id == id && result.sequence_index == sequence_index => Some(result),
        _ => None,
    });
    own.flat_map(|result| result.output_token_ids.clone()).collect()
}

/// What the script says of a prompt.
fn expected(prompt: &[TokenId], count: usize) -> Vec<TokenId> {
    let next = Script::default().next_token;
    let mut sequence = prompt.to_vec();
    (0..count).for_each(|_| sequence.push(next(&sequence)));
    sequence.split_off(prompt.len())
}

#[test]
fn tokens_are_the_scripts_whatever_shares_and_pauses() {
    // Few blocks, so that sequences are paused; equal beginnings, so that blocks are shared.
    let script = Script { num_blocks: 30, tokens_per_block: 4, ..Script::default() };
    let config = ExecutorConfig {
        capacity_scheduler_policy: CapacitySchedulerPolicy::MaxUtilization,
        ..ExecutorConfig::default()
    };
    let executor = executor(script, &config);
    let mut prompts = HashMap::new();
    for number in 0..40_u32 {
        let prompt: Vec<_> = (0..number % 24).chain([number % 5, number % 7]).collect();
        let mut spec = RequestSpec::new(prompt.clone(), 20);
        spec.sampling.num_return_sequences = 1 + number as usize % 3;
        let sequences = spec.sampling.num_return_sequences;
        prompts.insert(enqueue(&executor, spec), (prompt, sequences));
    }
    let responses = gather(&executor, prompts.len());
    for (&id, (prompt, sequences)) in &prompts {
        for sequence in 0..*sequences {
            assert_eq!(tokens(&responses, id, sequence), expected(prompt, 20), "sequence {sequence} of {prompt:?}");
        }
    }
    let stats = executor.iteration_stats();
    assert!(stats.iter().any(|step| step.inflight_batching.num_paused_requests > 0), "nothing was paused");
    assert!(stats.last().unwrap().kv_cache.reused_blocks > 0, "nothing was shared");
}

#[test]
fn a_window_keeps_what_it_sees_only() {
    // A sequence of 400 tokens in a cache of 96, in blocks of 4: the window and the 16 tokens of an iteration are 9 blocks.
    let window = 16;
    let script = || Script { num_blocks: 24, tokens_per_block: 4, sliding_window: Some(window), ..Script::default() };
    for capacity_scheduler_policy in
        [CapacitySchedulerPolicy::GuaranteedNoEvict, CapacitySchedulerPolicy::MaxUtilization]
    {
        let config = ExecutorConfig { capacity_scheduler_policy, ..ExecutorConfig::default() };
        let executor = executor(script(), &config);
        assert_eq!(executor.limits().max_seq_len, LIMITS.max_seq_len);
        let prompts: Vec<Vec<_>> = (0..6).map(|number| (0..200).chain([number]).collect()).collect();
        let ids: Vec<_> =
            prompts.iter().map(|prompt| enqueue(&executor, RequestSpec::new(prompt.clone(), 200))).collect();
        let responses = gather(&executor, ids.len());
        for (prompt, id) in prompts.iter().zip(ids) {
            let mut sequence = prompt.clone();
            for _ in 0..200 {
                sequence.push((script().next_token)(&sequence[sequence.len() - window..]));
            }
            assert_eq!(tokens(&responses, id, 0), sequence[prompt.len()..], "{capacity_scheduler_policy:?}");
        }
        let most = executor.iteration_stats().iter().map(|step| step.inflight_batching.num_gen_requests).max();
        assert!(most >= Some(3), "{most:?} at once");
    }
}

#[test]
fn a_prompt_is_cut_by_time_while_another_generates() {
    // A token takes a millisecond, so a prompt of 2000 would take two seconds.
    let script = Script { num_blocks: 512, latency_per_token: Duration::from_millis(1), ..Script::default() };
    let limits = Limits { max_seq_len: 4096, max_batch_size: 8, max_num_tokens: 4096 };
    let executor =
        CpuExecutor::with_model(ScriptedModel::new(script).unwrap(), limits, &ExecutorConfig::default()).unwrap();
    let stream = enqueue(&executor, RequestSpec::new(vec![1, 2, 3], 2000));
    // It generates when the other comes.
    while executor.await_responses(None).is_empty() {}
    let prompt: Vec<_> = (0..2000).map(|position| position % 256).collect();
    let beside = enqueue(&executor, RequestSpec::new(prompt.clone(), 2));
    let mut responses = Vec::new();
    while !responses.iter().any(|response: &Response| response.request_id() == beside && response.is_final()) {
        responses.extend(executor.await_responses(None));
    }
    executor.cancel(stream);
    responses.extend(gather(&executor, 1));
    assert_eq!(tokens(&responses, beside, 0), expected(&prompt, 2));
    let stats = executor.iteration_stats();
    let chunks = stats.iter().skip(1).map(|step| step.inflight_batching.num_ctx_tokens).filter(|&tokens| tokens > 0);
    let chunks: Vec<_> = chunks.collect();
    // A token takes no less than its latency, so a chunk is never too long, whatever else the machine does.
    assert!(chunks.iter().all(|&tokens| tokens <= 250), "{chunks:?}");
    assert_eq!(chunks.iter().sum::<usize>(), 2000);
    // Alone it is not cut.
    let alone = enqueue(&executor, RequestSpec::new(prompt.iter().map(|token| token ^ 1).collect(), 2));
    gather(&executor, 1);
    let chunks: Vec<_> = executor.iteration_stats().iter().map(|step| step.inflight_batching.num_ctx_tokens).collect();
    assert_eq!(chunks, [2000, 0], "of {alone:?}");
}

#[test]
fn beams_go_on_from_copied_blocks() {
    // The best beam is the script's, and the blocks that beams part in are copies.
    let executor = executor(Script { tokens_per_block: 4, ..Script::default() }, &ExecutorConfig::default());
    let sampling = SamplingConfig { beam_width: 3, num_return_sequences: 3, ..SamplingConfig::default() };
    let id = enqueue(&executor, RequestSpec { sampling, ..RequestSpec::new(vec![1, 2, 3, 4, 5, 6], 9) });
    assert_eq!(tokens(&gather(&executor, 1), id, 0), expected(&[1, 2, 3, 4, 5, 6], 9));
}

#[test]
fn generation_goes_before_the_chunks_of_a_prompt() {
    let executor = executor(unhurried(), &ExecutorConfig::default());
    let first = enqueue(&executor, RequestSpec::new(vec![1, 2, 3], 6));
    // The first one generates when the second comes.
    let mut responses = executor.await_responses(None);
    let second = enqueue(&executor, RequestSpec::new((0..40).collect(), 2));
    responses.extend(gather(&executor, 2));
    assert_eq!(tokens(&responses, first, 0), expected(&[1, 2, 3], 6));
    assert_eq!(tokens(&responses, second, 0), expected(&(0..40).collect::<Vec<_>>(), 2));
    let stats = executor.iteration_stats();
    let batched =
        stats.iter().map(|step| (step.inflight_batching.num_gen_requests, step.inflight_batching.num_ctx_tokens));
    let batched: Vec<_> = batched.skip_while(|&(_, context)| context == 3).skip_while(|&step| step == (1, 0)).collect();
    assert_eq!(batched[..3], [(1, 15), (1, 15), (1, 10)]);
    assert!(stats.iter().all(|step| step.iter_latency >= Duration::from_millis(20)));
}

#[test]
fn higher_priority_is_served_first() {
    let config = ExecutorConfig { max_batch_size: Some(1), ..ExecutorConfig::default() };
    let executor = executor(unhurried(), &config);
    let running = enqueue(&executor, RequestSpec::new(vec![1], 3));
    let low = enqueue(&executor, RequestSpec { priority: 0.1, ..RequestSpec::new(vec![2], 2) });
    let high = enqueue(&executor, RequestSpec { priority: 0.9, ..RequestSpec::new(vec![3], 2) });
    let ended: Vec<_> =
        gather(&executor, 3).iter().filter(|response| response.is_final()).map(Response::request_id).collect();
    let place = |id| ended.iter().position(|&other| other == id);
    assert!(place(high) < place(low), "{ended:?}");
    assert!(ended.contains(&running));
}

#[test]
fn a_model_that_fails_ends_every_request_with_an_error() {
    let executor = executor(Script { panics_at_step: Some(5), ..unhurried() }, &ExecutorConfig::default());
    let short = enqueue(&executor, RequestSpec::new(vec![1], 2));
    let long = [2, 3].map(|token| enqueue(&executor, RequestSpec::new(vec![token], 100)));
    let responses = gather(&executor, 3);
    assert_eq!(tokens(&responses, short, 0), expected(&[1], 2));
    for id in long {
        let last = responses.iter().rfind(|response| response.request_id() == id).unwrap();
        assert!(matches!(last, Response::Error { message, .. } if message.contains("ended unexpectedly")), "{last:?}");
        let found = tokens(&responses, id, 0);
        assert!(!found.is_empty() && expected(if id == long[0] { &[2] } else { &[3] }, 100).starts_with(&found));
    }
    // It takes no more, and nobody waits for it.
    let late = Request::new(RequestSpec::new(vec![1], 2), executor.limits(), executor.vocab_size()).unwrap();
    assert!(matches!(executor.enqueue(late), Err(EnqueueError::Failed { .. })), "and says why");
    assert!(executor.await_responses(None).is_empty());
    let load = executor.load();
    assert_eq!((load.num_queued_requests, load.num_active_requests), (0, 0));
    executor.shutdown(Shutdown::Drain);
}

#[test]
fn the_load_waits_for_no_iteration() {
    let latency = Duration::from_millis(500);
    let executor = executor(Script { latency_per_step: latency, ..Script::default() }, &ExecutorConfig::default());
    let whole = executor.load();
    assert_eq!(whole, Load { free_num_blocks: 64, max_num_blocks: 64, ..Load::default() });
    enqueue(&executor, RequestSpec::new(vec![1], 2));
    std::thread::sleep(latency / 5);
    let asked = Instant::now();
    assert_eq!(executor.load().num_queued_requests + executor.load().num_active_requests, 1);
    assert!(asked.elapsed() < latency / 2, "{:?}", asked.elapsed());
    let first = executor.await_responses(None);
    let Some(Response::Result(result)) = first.first() else { panic!("{first:?}") };
    assert_eq!(result.finish_reason, None);
    let load = executor.load();
    assert_eq!((load.num_active_requests, load.used_num_blocks), (1, 1));
    assert!(load.last_iteration >= latency);
}

#[test]
fn latency_grows_with_the_tokens_of_a_pass() {
    let script = Script { latency_per_token: Duration::from_millis(2), ..Script::default() };
    let executor = executor(script, &ExecutorConfig::default());
    enqueue(&executor, RequestSpec::new((0..16).collect(), 2));
    gather(&executor, 1);
    let latencies: Vec<_> = executor.iteration_stats().iter().map(|step| step.model_latency).collect();
    assert!(latencies.len() == 2 && latencies[0] >= Duration::from_millis(32), "{latencies:?}");
    assert!(latencies[1] >= Duration::from_millis(2), "{latencies:?}");
}

#[test]
fn guides_need_a_tokenizer() {
    let executor = executor(Script::default(), &ExecutorConfig::default());
    let spec = RequestSpec { guided_decoding: Some(GuidedDecodingParams::Json), ..RequestSpec::new(vec![1], 2) };
    let request = Request::new(spec, executor.limits(), executor.vocab_size()).unwrap();
    let error = executor.enqueue(request).unwrap_err().to_string();
    assert_eq!(error, "the CPU executor does not know guides over a model without a tokenizer");
}

#[test]
fn an_end_that_comes_with_others_is_a_requests_own() {
    let executor = executor(unhurried(), &ExecutorConfig::default());
    let end = expected(&[9], 3)[2];
    let ends = enqueue(&executor, RequestSpec { end_ids: vec![end], ..RequestSpec::new(vec![9], 10) });
    let goes_on = enqueue(&executor, RequestSpec::new(vec![9], 10));
    let responses = gather(&executor, 2);
    assert!(tokens(&responses, ends, 0).len() <= 3);
    assert_eq!(tokens(&responses, ends, 0).last(), Some(&end));
    assert_eq!(tokens(&responses, goes_on, 0), expected(&[9], 10));
    let reasons: Vec<_> = responses
        .iter()
        .filter_map(|response| match response {
            Response::Result(result) if result.is_final => result.finish_reason,
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [FinishReason::EndId, FinishReason::Length]);
}

#[test]
fn the_next_sequence_scores_the_prompt_when_the_first_is_cancelled() {
    let executor = executor(unhurried(), &ExecutorConfig::default());
    let prompt: Vec<_> = (0..40).collect();
    let mut spec = RequestSpec::new(prompt.clone(), 4);
    spec.sampling.num_return_sequences = 3;
    spec.output.return_prompt_log_probs = true;
    let run = |is_cancelled: bool| {
        let id = enqueue(&executor, spec.clone());
        if is_cancelled {
            // A chunk of sixteen tokens takes twenty milliseconds: the prompt is computed in part.
            std::thread::sleep(Duration::from_millis(10));
            executor.cancel_sequence(id, 0);
        }
        let responses = gather(&executor, 1);
        let scores = responses.iter().filter_map(|response| match response {
            Response::Result(result) => result.prompt_log_probs.clone(),
            Response::Error { .. } => None,
        });
        let tokens: Vec<_> = (0..3).map(|sequence| tokens(&responses, id, sequence)).collect();
        (tokens, scores.collect::<Vec<_>>())
    };
    let (tokens, scores) = run(false);
    assert_eq!(tokens, [(); 3].map(|()| expected(&prompt, 4)));
    assert!(scores.len() == 3 && scores.iter().all(|scores| scores.len() == 39));
    let (rest, rest_scores) = run(true);
    assert_eq!(rest, [Vec::new(), tokens[1].clone(), tokens[2].clone()]);
    assert_eq!(rest_scores, scores[1..]);
}

#[test]
fn logits_that_do_not_fit_into_memory_are_refused() {
    let script = Script { vocab_size: 1 << 20, num_blocks: 1 << 10, tokens_per_block: 1 << 9, ..Script::default() };
    let limits = Limits { max_seq_len: 1 << 19, ..LIMITS };
    let executor =
        CpuExecutor::with_model(ScriptedModel::new(script).unwrap(), limits, &ExecutorConfig::default()).unwrap();
    // A terabyte for the prompt, and as much for what is generated.
    let (prompt, tokens) = (1 << 18, 1 << 17);
    let ask = |context: bool, generation: bool| {
        let mut spec = RequestSpec::new((0..prompt).collect(), tokens);
        (spec.output.return_context_logits, spec.output.return_generation_logits) = (context, generation);
        spec.sampling.num_return_sequences = 2;
        executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap())
    };
    for (context, generation, rows) in [(true, false, 1 << 18), (false, true, 1 << 18), (true, true, 1 << 19)] {
        let error = ask(context, generation).unwrap_err();
        let EnqueueError::Logits { bytes, free } = error else { panic!("{error}") };
        assert_eq!(bytes, rows * (1 << 20) * 4);
        assert!(free < bytes as u64 && error.to_string().contains(&bytes.to_string()), "{error}");
    }
}
