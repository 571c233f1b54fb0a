//! The promises, each as a function of an executor.

use std::time::{Duration, Instant};

use trtllm::runner::executor::{
    EnqueueError, Executor, ExecutorConfig, FinishReason, Logits, LogitsPostProcessor, OutputConfig, Request,
    RequestId, RequestSpec, Response, SamplingConfig,
};

pub(crate) use crate::life::*;
use crate::subject::{Subject, enqueue, enqueue_if_known, gather, output_of, request, tokens, tokens_of};

/// A request that would run for long.
pub(crate) fn long(executor: &dyn Executor) -> RequestSpec {
    RequestSpec::new(vec![1], executor.limits().max_seq_len - 1)
}

pub(crate) fn drawing(seed: u64, max_tokens: usize) -> RequestSpec {
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

pub(crate) fn only_allowed_tokens_come(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec::new(vec![3, 1, 4], 10);
    let output = output_of(executor.as_ref(), spec.clone());
    let others: Vec<_> = (0..executor.vocab_size() as u32).filter(|id| !output.contains(id)).step_by(3).collect();
    let allowed = RequestSpec { allowed_token_ids: Some(others.clone()), ..spec.clone() };
    let restricted = output_of(executor.as_ref(), allowed.clone());
    assert_eq!(restricted.len(), 10);
    assert!(restricted.iter().all(|id| others.contains(id)), "{restricted:?}");
    // All that would come anyway changes nothing; bans choose among the allowed; an end id is one of them or does not come.
    let same = RequestSpec { allowed_token_ids: Some(output.clone()), ..spec.clone() };
    assert_eq!(output_of(executor.as_ref(), same), output);
    let banned = RequestSpec { bad_words: vec![vec![restricted[0]]], ..allowed.clone() };
    let banned = output_of(executor.as_ref(), banned);
    assert!(banned.iter().all(|id| others.contains(id) && *id != restricted[0]), "{banned:?}");
    let unreachable = RequestSpec { end_ids: vec![output[0]], ..allowed };
    assert_eq!(output_of(executor.as_ref(), unreachable), restricted);
}

pub(crate) fn without_tokens_to_generate_a_request_ends_with_its_prompt(subject: &Subject) {
    let executor = subject.default();
    let (none, prompt) =
        (OutputConfig::default(), OutputConfig { return_prompt_log_probs: true, ..Default::default() });
    let mut expected = None;
    for (max_tokens, output) in [(3, prompt), (0, prompt), (0, none)] {
        for (streaming, beam_width, sequences) in [(true, 1, 1), (false, 1, 1), (true, 1, 3), (false, 2, 2)] {
            let sampling = SamplingConfig { beam_width, num_return_sequences: sequences, ..SamplingConfig::default() };
            let spec = RequestSpec::new(vec![3, 1, 4, 1, 5], max_tokens);
            let id = enqueue(executor.as_ref(), RequestSpec { sampling, output, streaming, ..spec });
            let results = &gather(executor.as_ref(), 1)[&id];
            let log_probs: Vec<_> = results.iter().filter_map(|result| result.prompt_log_probs.clone()).collect();
            let log_probs = log_probs.first().cloned();
            assert_eq!(log_probs.is_some(), output.return_prompt_log_probs);
            if max_tokens > 0 {
                expected.get_or_insert(log_probs);
                continue;
            }
            if output.return_prompt_log_probs {
                assert_eq!(Some(&log_probs), expected.as_ref());
            }
            assert_eq!(tokens(results), [0; 0]);
            let mut ended: Vec<_> =
                results.iter().map(|result| (result.sequence_index, result.finish_reason)).collect();
            ended.sort_unstable_by_key(|end| end.0);
            let all: Vec<_> = (0..sequences).map(|index| (index, Some(FinishReason::Length))).collect();
            assert_eq!(ended, all, "{streaming} {beam_width}");
            assert!(results.iter().all(|result| result.is_sequence_final));
        }
    }
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

pub(crate) fn logits_come_with_their_tokens(subject: &Subject) {
    let executor = subject.default();
    let output = OutputConfig {
        return_log_probs: true,
        return_prompt_log_probs: true,
        prompt_top_log_probs: 3,
        return_context_logits: true,
        return_generation_logits: true,
        ..OutputConfig::default()
    };
    let (prompt, vocab_size) = ([3, 1, 4, 1, 5], executor.vocab_size());
    let spec = RequestSpec { output, ..RequestSpec::new(prompt.to_vec(), 12) };
    let streamed = enqueue(executor.as_ref(), spec.clone());
    let whole = enqueue(executor.as_ref(), RequestSpec { streaming: false, ..spec.clone() });
    let all = gather(executor.as_ref(), 2);
    let mut generation = Logits::default();
    for (place, result) in all[&streamed].iter().enumerate() {
        let logits = result.generation_logits.as_ref().unwrap();
        assert_eq!(logits.rows(), result.output_token_ids.len());
        generation.values.extend(&logits.values);
        assert_eq!(result.context_logits.is_some(), place == 0, "once");
    }
    let result = &all[&whole][0];
    let logits = result.generation_logits.as_ref().unwrap();
    assert_eq!((logits.vocab_size, logits.rows()), (vocab_size, 12));
    assert!(logits.values == generation.values, "streamed or whole");
    for (row, &token) in logits.values.chunks_exact(vocab_size).zip(&result.output_token_ids) {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(row[token as usize], best, "a greedy token is the one of the highest logit");
    }
    let context = result.context_logits.as_ref().unwrap();
    assert_eq!((context.vocab_size, context.rows()), (vocab_size, prompt.len()));
    assert!(all[&streamed][0].context_logits.as_ref() == Some(context));
    let (log_probs, top) = (result.prompt_log_probs.as_ref().unwrap(), result.prompt_top_log_probs.as_ref().unwrap());
    assert_eq!((log_probs.len(), top.len()), (4, 4));
    for (position, row) in context.values.chunks_exact(vocab_size).take(4).enumerate() {
        let sum = row.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        let log_prob = |token: u32| (f64::from(row[token as usize]) - sum) as f32;
        assert!((log_probs[position] - log_prob(prompt[position + 1])).abs() < 1e-4);
        let mut best: Vec<f32> = (0..vocab_size as u32).map(log_prob).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(top[position].len(), 3);
        for (found, expected) in top[position].iter().zip(best) {
            assert!(
                (found.log_prob - expected).abs() < 1e-4 && (found.log_prob - log_prob(found.token_id)).abs() < 1e-4
            );
        }
    }

    // Of several sequences each has its own logits, and the prompt's come once.
    let sampling = SamplingConfig { temperature: 1.0, num_return_sequences: 3, ..SamplingConfig::default() };
    let id = enqueue(executor.as_ref(), RequestSpec { sampling, ..spec.clone() });
    let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
    assert_eq!(results.iter().filter(|result| result.context_logits.is_some()).count(), 1);
    for sequence in 0..3 {
        let of = results.iter().filter(|result| result.sequence_index == sequence);
        assert_eq!(of.map(|result| result.generation_logits.as_ref().unwrap().rows()).sum::<usize>(), 12);
    }

    // A beam search has those of its prompt.
    let mut beams = RequestSpec { streaming: false, ..spec };
    beams.sampling.beam_width = 2;
    beams.sampling.num_return_sequences = 2;
    let error = Request::new(beams.clone(), executor.limits(), vocab_size).unwrap_err();
    assert!(error.to_string().contains("return_generation_logits"), "{error}");
    (beams.output.return_generation_logits, beams.output.return_log_probs) = (false, false);
    if let Some(id) = enqueue_if_known(executor.as_ref(), beams) {
        let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
        assert!(results[0].context_logits.as_ref() == Some(context) && results[1].context_logits.is_none());
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

/// The sequences run while the first one is ended: the others deliver what they deliver without that.
pub(crate) fn one_sequence_is_cancelled_alone(subject: &Subject) {
    for (streaming, return_prompt_log_probs) in [(true, false), (false, false), (true, true)] {
        let executor = subject.default();
        let mut spec = RequestSpec { streaming, ..drawing(5, 60) };
        spec.sampling.num_return_sequences = 3;
        spec.output.return_prompt_log_probs = return_prompt_log_probs;
        let id = enqueue(executor.as_ref(), spec.clone());
        let expected = gather(executor.as_ref(), 1).remove(&id).unwrap();
        // Once at once, before its prompt is computed, and once later.
        for pause in [0, 2] {
            for cancelled in [0, 2] {
                let id = enqueue(executor.as_ref(), spec.clone());
                std::thread::sleep(Duration::from_millis(pause));
                executor.cancel_sequence(id, cancelled);
                executor.cancel_sequence(id, cancelled);
                executor.cancel_sequence(id, 3);
                let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
                for sequence in 0..3 {
                    let (found, all) = (tokens_of(&results, sequence), tokens_of(&expected, sequence));
                    let last = results.iter().rfind(|result| result.sequence_index == sequence).unwrap();
                    if sequence == cancelled && last.finish_reason == Some(FinishReason::Cancelled) {
                        assert!(all.starts_with(&found) && found.len() < all.len());
                    } else {
                        assert_eq!((found, last.finish_reason), (all, Some(FinishReason::Length)));
                    }
                    assert!(last.is_sequence_final);
                }
                if return_prompt_log_probs {
                    let lengths = results.iter().filter_map(|result| result.prompt_log_probs.as_ref()).map(Vec::len);
                    let lengths: Vec<_> = lengths.collect();
                    assert!(!lengths.is_empty() && lengths.iter().all(|&length| length == 2), "{lengths:?}");
                }
            }
        }
    }
}

pub(crate) fn a_request_ends_with_the_last_of_its_sequences(subject: &Subject) {
    let executor = subject.default();
    for (num_return_sequences, beam_width) in [(1, 1), (3, 1), (2, 2)] {
        let mut spec = long(executor.as_ref());
        (spec.sampling.num_return_sequences, spec.sampling.beam_width) = (num_return_sequences, beam_width);
        let Some(id) = enqueue_if_known(executor.as_ref(), spec) else { continue };
        (0..num_return_sequences).rev().for_each(|sequence| executor.cancel_sequence(id, sequence));
        let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
        let ended = results.iter().filter(|result| result.finish_reason == Some(FinishReason::Cancelled));
        assert_eq!(ended.count(), num_return_sequences);
        executor.cancel_sequence(id, 0);
    }
    executor.cancel_sequence(RequestId(u64::MAX), 0);
    gather(executor.as_ref(), 0);
}

pub(crate) fn the_load_counts_requests_and_goes_back_to_zero(subject: &Subject) {
    let executor = (subject.open)(&ExecutorConfig { max_batch_size: Some(2), ..ExecutorConfig::default() });
    let load = executor.load();
    assert_eq!((load.num_queued_requests, load.num_active_requests, load.used_num_blocks), (0, 0, 0));
    let ids: Vec<_> = (0..5).map(|_| enqueue(executor.as_ref(), long(executor.as_ref()))).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let busy = loop {
        let load = executor.load();
        assert_eq!(load.num_queued_requests + load.num_active_requests, 5, "{load:?}");
        if load.num_queued_requests == 3 {
            break load;
        }
        assert!(Instant::now() < deadline, "{load:?}");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(busy.used_num_blocks > 0 && busy.last_iteration > Duration::ZERO, "{busy:?}");
    assert_eq!(busy.used_num_blocks + busy.free_num_blocks, busy.max_num_blocks);
    ids.iter().for_each(|&id| executor.cancel(id));
    gather(executor.as_ref(), 5);
    let load = executor.load();
    assert_eq!((load.num_queued_requests, load.num_active_requests, load.used_num_blocks), (0, 0, 0));
    assert_eq!(load.free_num_blocks, load.max_num_blocks);
    // Nobody else's statistics were taken for it.
    assert!(!executor.iteration_stats().is_empty());
}

pub(crate) fn a_panicking_post_processor_ends_its_request_only(subject: &Subject) {
    let executor = subject.default();
    let expected = output_of(executor.as_ref(), drawing(5, 40));
    let panics = LogitsPostProcessor::new(|context, _| {
        assert!(context.token_ids.len() < 8, "eight are enough");
        Ok(())
    });
    let spec = RequestSpec { logits_post_processor: Some(panics), ..drawing(5, 40) };
    let beside = enqueue(executor.as_ref(), drawing(5, 40));
    let failing = match executor.enqueue(request(executor.as_ref(), spec)) {
        Ok(id) => Some(id),
        Err(EnqueueError::Unsupported { .. }) => None,
        Err(error) => panic!("{error}"),
    };
    let (mut found, mut message, mut open) = (Vec::new(), None, 1 + usize::from(failing.is_some()));
    while open > 0 {
        for response in executor.await_responses(Some(Duration::from_secs(60))) {
            open -= usize::from(response.is_final());
            match response {
                Response::Result(result) if result.request_id == beside => found.extend(result.output_token_ids),
                Response::Result(_) => {}
                Response::Error { request_id, message: text } => {
                    assert_eq!(Some(request_id), failing);
                    message = Some(text);
                }
            }
        }
    }
    assert_eq!(found, expected);
    let told = "the logits post-processor panicked: eight are enough";
    assert_eq!(message.as_deref(), failing.map(|_| told));
    assert_eq!(output_of(executor.as_ref(), drawing(5, 40)), expected);
}
