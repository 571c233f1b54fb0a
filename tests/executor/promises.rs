//! The promises, each as a function of an executor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trtllm::runner::executor::{
    EnqueueError, Executor, ExecutorConfig, FinishReason, LogitsPostProcessor, OutputConfig, RequestId, RequestSpec,
    Response, SamplingConfig, Shutdown,
};

use crate::subject::{Subject, enqueue, enqueue_if_known, gather, output_of, request, tokens, tokens_of};

/// A request that would run for long.
fn long(executor: &dyn Executor) -> RequestSpec {
    RequestSpec::new(vec![1], executor.limits().max_seq_len - 1)
}

fn drawing(seed: u64, max_tokens: usize) -> RequestSpec {
    let sampling = SamplingConfig { temperature: 1.0, top_p: 0.95, seed, ..SamplingConfig::default() };
    RequestSpec { sampling, ..RequestSpec::new(vec![7, 8, 9], max_tokens) }
}

pub(crate) fn every_request_and_every_sequence_ends_once(subject: &Subject) {
    let executor = subject.default();
    let mut expected = Vec::new();
    for number in 0..60 {
        let mut spec = drawing(number, 1 + number as usize % 13);
        spec.sampling.num_return_sequences = 1 + number as usize % 3;
        spec.streaming = number % 2 == 0;
        spec.input_token_ids = (0..1 + number as u32 % 20).collect();
        let sequences = spec.sampling.num_return_sequences;
        let id = enqueue(executor.as_ref(), spec);
        if number % 5 == 0 {
            executor.cancel(id);
        }
        expected.push((id, sequences));
    }
    let all = gather(executor.as_ref(), expected.len());
    for (id, sequences) in expected {
        let mut ended: Vec<_> =
            all[&id].iter().filter(|result| result.is_sequence_final).map(|result| result.sequence_index).collect();
        ended.sort_unstable();
        assert_eq!(ended, (0..sequences).collect::<Vec<_>>());
        assert!(all[&id].last().unwrap().is_final);
    }
}

pub(crate) fn tokens_come_in_order_streamed_or_whole(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec::new(vec![3, 1, 4, 1, 5], 12);
    let streamed = enqueue(executor.as_ref(), spec.clone());
    let whole = enqueue(executor.as_ref(), RequestSpec { streaming: false, ..spec });
    let all = gather(executor.as_ref(), 2);
    assert_eq!(all[&whole].len(), 1);
    assert!(all[&streamed].len() > 1);
    assert_eq!(tokens(&all[&streamed]), tokens(&all[&whole]));
    assert_eq!(tokens(&all[&whole]).len(), 12);
    assert_eq!(all[&streamed].last().unwrap().finish_reason, Some(FinishReason::Length));
}

pub(crate) fn any_end_id_ends_and_is_delivered(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec::new(vec![3, 1, 4], 10);
    let output = output_of(executor.as_ref(), spec.clone());
    let never = (0..).find(|id| !output.contains(id)).unwrap();
    for place in [0, 4] {
        let end = output[place];
        let first = output.iter().position(|&token| token == end).unwrap();
        let ended = enqueue(executor.as_ref(), RequestSpec { end_ids: vec![never, end], ..spec.clone() });
        let results = &gather(executor.as_ref(), 1)[&ended];
        assert_eq!(tokens(results), output[..=first]);
        assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::EndId));
    }
}

pub(crate) fn a_stop_word_ends_and_is_delivered(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec::new(vec![3, 1, 4], 10);
    let output = output_of(executor.as_ref(), spec.clone());
    let word = output[3..5].to_vec();
    let end = output.windows(2).position(|pair| pair == word).unwrap() + 2;
    let id = enqueue(executor.as_ref(), RequestSpec { stop_words: vec![word], ..spec });
    let results = &gather(executor.as_ref(), 1)[&id];
    assert_eq!(tokens(results), output[..end]);
    assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::StopWords));
}

pub(crate) fn bad_words_and_banned_tokens_do_not_come(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec::new(vec![3, 1, 4], 10);
    let output = output_of(executor.as_ref(), spec.clone());
    let without = RequestSpec { bad_words: vec![vec![output[0]]], ..spec.clone() };
    assert!(!output_of(executor.as_ref(), without).contains(&output[0]));
    let biased = RequestSpec { embedding_bias: vec![(output[0], -1e4)], ..spec };
    assert!(!output_of(executor.as_ref(), biased).contains(&output[0]));
}

pub(crate) fn the_seed_decides_the_draws(subject: &Subject) {
    let executor = subject.default();
    let run = |seed| output_of(executor.as_ref(), drawing(seed, 20));
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
}

pub(crate) fn sequences_are_what_their_seeds_draw_alone(subject: &Subject) {
    let executor = subject.default();
    let mut several = drawing(5, 10);
    several.sampling.num_return_sequences = 4;
    let id = enqueue(executor.as_ref(), several);
    let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
    for sequence in 0..4 {
        let alone = output_of(executor.as_ref(), drawing(5 + sequence as u64, 10));
        assert_eq!(tokens_of(&results, sequence), alone, "sequence {sequence}");
    }
}

pub(crate) fn log_probabilities_come_with_their_tokens(subject: &Subject) {
    let executor = subject.default();
    let output = OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() };
    let spec = RequestSpec { output, ..RequestSpec::new(vec![3, 1, 4, 1, 5], 12) };
    let streamed = enqueue(executor.as_ref(), spec.clone());
    let whole = enqueue(executor.as_ref(), RequestSpec { streaming: false, ..spec.clone() });
    let all = gather(executor.as_ref(), 2);
    for result in all.values().flatten() {
        let log_probs = result.log_probs.as_ref().unwrap();
        assert_eq!(log_probs.len(), result.output_token_ids.len());
        assert!(log_probs.iter().all(|&log_prob| log_prob <= 0.0));
    }
    let log_probs: Vec<f32> = all[&streamed].iter().flat_map(|result| result.log_probs.clone().unwrap()).collect();
    assert_eq!(Some(&log_probs), all[&whole][0].log_probs.as_ref());
    let sum = all[&whole][0].cum_log_prob.unwrap();
    assert!((sum - log_probs.iter().sum::<f32>()).abs() < 1e-3);
    assert_eq!(all[&streamed][0].prompt_log_probs, all[&whole][0].prompt_log_probs);
    assert_eq!(all[&whole][0].prompt_log_probs.as_ref().map(Vec::len), Some(4));
    assert!(all[&streamed][1..].iter().all(|result| result.prompt_log_probs.is_none()));

    let output = OutputConfig { top_log_probs: 3, ..OutputConfig::default() };
    if let Some(id) = enqueue_if_known(executor.as_ref(), RequestSpec { output, ..spec }) {
        for result in &gather(executor.as_ref(), 1)[&id] {
            let rows = result.top_log_probs.as_ref().unwrap();
            assert_eq!(rows.len(), result.output_token_ids.len());
            assert!(rows.iter().all(|row| row.len() == 3 && row.is_sorted_by(|a, b| a.log_prob >= b.log_prob)));
        }
    }
}

pub(crate) fn beams_come_whole_and_best_first(subject: &Subject) {
    let executor = subject.default();
    let sampling = SamplingConfig { beam_width: 3, num_return_sequences: 3, ..SamplingConfig::default() };
    let output = OutputConfig { return_log_probs: true, ..OutputConfig::default() };
    let spec = RequestSpec { sampling, output, ..RequestSpec::new(vec![3, 1, 4], 6) };
    let Some(id) = enqueue_if_known(executor.as_ref(), spec) else { return };
    let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
    assert_eq!(results.iter().map(|result| result.sequence_index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(results.iter().all(|result| result.is_sequence_final && result.output_token_ids.len() == 6));
    assert!(results.is_sorted_by(|a, b| a.cum_log_prob >= b.cum_log_prob));
}

pub(crate) fn a_post_processor_decides_or_is_refused_by_name(subject: &Subject) {
    let executor = subject.default();
    let count = LogitsPostProcessor::new(|context, logits| {
        logits[context.token_ids.len()] = 1e6;
        Ok(())
    });
    let spec = RequestSpec { logits_post_processor: Some(count), ..RequestSpec::new(vec![3, 1, 4], 5) };
    if let Some(id) = enqueue_if_known(executor.as_ref(), spec) {
        assert_eq!(tokens(&gather(executor.as_ref(), 1)[&id]), [3, 4, 5, 6, 7]);
    }
}

pub(crate) fn cancelled_requests_still_end_once(subject: &Subject) {
    let executor = subject.default();
    let ids: Vec<_> = (0..20).map(|_| enqueue(executor.as_ref(), long(executor.as_ref()))).collect();
    ids.iter().rev().for_each(|&id| executor.cancel(id));
    executor.cancel(RequestId(u64::MAX));
    let all = gather(executor.as_ref(), 20);
    let reasons: Vec<_> = ids.iter().map(|id| all[id].last().unwrap().finish_reason.unwrap()).collect();
    assert!(reasons[1..].iter().all(|&reason| reason == FinishReason::Cancelled), "{reasons:?}");
    ids.iter().for_each(|&id| executor.cancel(id));
    gather(executor.as_ref(), 0);
}

pub(crate) fn an_allotted_time_ends_a_request(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec { allotted_time: Some(Duration::from_nanos(1)), ..long(executor.as_ref()) };
    let id = enqueue(executor.as_ref(), spec);
    let results = &gather(executor.as_ref(), 1)[&id];
    assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::TimedOut));
}

pub(crate) fn a_full_queue_refuses_and_names_its_limit(subject: &Subject) {
    let executor = (subject.open)(&ExecutorConfig { max_queue_size: 2, ..ExecutorConfig::default() });
    let mut accepted = 0;
    let refused = loop {
        match executor.enqueue(request(executor.as_ref(), long(executor.as_ref()))) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "the queue is never full");
    };
    assert_eq!(refused, EnqueueError::QueueFull { max_queue_size: 2 });
    assert!(refused.to_string().contains("max_queue_size is 2"));
    executor.shutdown(Shutdown::Cancel);
    gather(executor.as_ref(), accepted);
}

pub(crate) fn shutdown_drains_or_cancels_then_refuses(subject: &Subject) {
    for (how, expected) in [(Shutdown::Drain, FinishReason::Length), (Shutdown::Cancel, FinishReason::Cancelled)] {
        let executor = subject.default();
        let ids: Vec<_> = (0..3).map(|_| enqueue(executor.as_ref(), RequestSpec::new(vec![2; 9], 100))).collect();
        executor.shutdown(how);
        executor.shutdown(how);
        let late = executor.enqueue(request(executor.as_ref(), RequestSpec::new(vec![2], 1)));
        assert_eq!(late, Err(EnqueueError::ShutDown));
        let all = gather(executor.as_ref(), 3);
        assert_eq!(all[&ids[2]].last().unwrap().finish_reason, Some(expected));
        assert!(executor.await_responses(None).is_empty(), "nothing more can come");
    }
}

pub(crate) fn a_shutdown_wakes_who_waits(subject: &Subject) {
    let executor = subject.default();
    let waiting = executor.clone();
    let waiter = std::thread::spawn(move || waiting.await_responses(None));
    std::thread::sleep(Duration::from_millis(20));
    executor.shutdown(Shutdown::Drain);
    assert!(waiter.join().unwrap().is_empty());
}

pub(crate) fn dropping_an_executor_ends_its_work(subject: &Subject) {
    let began = Instant::now();
    let executor = subject.default();
    for _ in 0..20 {
        enqueue(executor.as_ref(), long(executor.as_ref()));
    }
    drop(executor);
    assert!(began.elapsed() < Duration::from_secs(30));
}

pub(crate) fn waiting_uses_no_processor_time(subject: &Subject) {
    let executor = subject.default();
    gather(executor.as_ref(), 0);
    let processor_time = || {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = processor_time();
    assert!(executor.await_responses(Some(Duration::from_millis(500))).is_empty());
    // Clock ticks of 10 ms: a spin would take fifty.
    assert!(processor_time() - before <= 5);
}

pub(crate) fn threads_share_an_executor(subject: &Subject) {
    let executor = subject.default();
    let alone = output_of(executor.as_ref(), drawing(3, 6));
    let submit = |_| {
        let executor: Arc<dyn Executor> = executor.clone();
        std::thread::spawn(move || (0..25).map(|_| enqueue(executor.as_ref(), drawing(3, 6))).collect::<Vec<_>>())
    };
    let submitters: Vec<_> = (0..4).map(submit).collect();
    let await_some = |_| {
        let executor: Arc<dyn Executor> = executor.clone();
        std::thread::spawn(move || {
            let (mut finals, mut tokens) = (0, 0);
            loop {
                let responses = executor.await_responses(None);
                if responses.is_empty() {
                    return (finals, tokens);
                }
                for response in responses {
                    let Response::Result(result) = response else { panic!("{response:?}") };
                    finals += usize::from(result.is_final);
                    tokens += result.output_token_ids.len();
                }
            }
        })
    };
    let waiters: Vec<_> = (0..2).map(await_some).collect();
    let ids: std::collections::HashSet<_> =
        submitters.into_iter().flat_map(|thread| thread.join().unwrap()).map(|id| id.0).collect();
    assert_eq!(ids.len(), 100, "every request has an id of its own");
    executor.shutdown(Shutdown::Drain);
    let seen = waiters.into_iter().map(|thread| thread.join().unwrap());
    let (finals, tokens) = seen.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!((finals, tokens), (100, 100 * alone.len()));
}

pub(crate) fn statistics_are_taken_once(subject: &Subject) {
    let executor = subject.default();
    enqueue(executor.as_ref(), RequestSpec::new(vec![1; 10], 5));
    gather(executor.as_ref(), 1);
    let stats = executor.iteration_stats();
    assert!(!stats.is_empty());
    assert!(stats.iter().is_sorted_by(|a, b| a.iter < b.iter));
    assert_eq!(stats.iter().map(|step| step.num_completed_requests).sum::<usize>(), 1);
    assert!(executor.iteration_stats().is_empty());

    let executor = (subject.open)(&ExecutorConfig { iter_stats_max_iterations: 0, ..ExecutorConfig::default() });
    enqueue(executor.as_ref(), RequestSpec::new(vec![1; 10], 5));
    gather(executor.as_ref(), 1);
    assert!(executor.iteration_stats().is_empty());
}
