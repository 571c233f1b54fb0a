//! Logits, and what is made of them.

use trtllm::runner::executor::tensorrt_llm::TensorRtLlmExecutor;
use trtllm::runner::executor::{Executor, ExecutorConfig, OutputConfig, RequestSpec, Response, TokenResult};

use crate::deadline::{enqueue, gather, within};
use crate::requests::{results, tokens};
use crate::stand_in::StandInEngine;

const MODEL: &str = "parity/mistral-gqa";

fn open(settings: &str) -> TensorRtLlmExecutor {
    StandInEngine::new(MODEL, settings).open(&ExecutorConfig::default())
}

fn asking(output: OutputConfig) -> RequestSpec {
    RequestSpec { output, ..RequestSpec::new(vec![3, 1, 4, 1, 5], 4) }
}

/// The log-probability of a logit, where the stand-in's chosen token has 10 and the one of an id i else i % 7.
fn log_prob(logit: f64, chosen: u32, vocab_size: usize) -> f64 {
    let all = (0..vocab_size).map(|id| if id == chosen as usize { 10.0 } else { (id % 7) as f64 });
    logit - all.map(f64::exp).sum::<f64>().ln()
}

/// That the tokens' own are first, and that the log-probabilities are those of the raw logits.
fn check_top(results: &[TokenResult], vocab_size: usize) {
    let chosen = tokens(results);
    let top: Vec<_> = results.iter().flat_map(|result| result.top_log_probs.clone().unwrap()).collect();
    let log_probs: Vec<_> = results.iter().flat_map(|result| result.log_probs.clone().unwrap()).collect();
    assert_eq!((chosen.len(), top.len(), log_probs.len()), (4, 4, 4));
    for ((&token, top), log_prob_of_token) in chosen.iter().zip(&top).zip(log_probs) {
        assert_eq!((top.len(), top[0].token_id, top[0].log_prob), (3, token, log_prob_of_token));
        assert!(top[1].token_id % 7 == 6 && top[2].token_id % 7 == 6);
        for (one, logit) in top.iter().zip([10.0, 6.0, 6.0]) {
            assert!((f64::from(one.log_prob) - log_prob(logit, token, vocab_size)).abs() < 1e-4, "{one:?}");
        }
    }
    let sum = results.iter().filter_map(|result| result.cum_log_prob).collect::<Vec<_>>();
    let expected: f64 = chosen.iter().map(|&token| log_prob(10.0, token, vocab_size)).sum();
    assert!(sum.len() == 1 && (f64::from(sum[0]) - expected).abs() < 1e-3, "{sum:?}");
}

#[test]
fn the_most_probable_tokens_are_made_of_the_logits() {
    for settings in ["", "logits_columns 1024\n", "tokens_per_response 3\n", "empty_final 1\n"] {
        let executor = open(settings);
        let output = OutputConfig { top_log_probs: 3, return_log_probs: true, ..OutputConfig::default() };
        for streaming in [true, false] {
            let results = results(&executor, RequestSpec { streaming, ..asking(output) });
            check_top(&results, executor.vocab_size());
            assert!(results.iter().all(|result| result.generation_logits.is_none()), "they were not asked for");
        }
    }
}

#[test]
fn scored_responses_of_many_requests_keep_their_order() {
    within(60, || {
        let executor = open("latency_us 100\n");
        let output = OutputConfig {
            top_log_probs: 1,
            return_log_probs: true,
            return_prompt_log_probs: true,
            ..OutputConfig::default()
        };
        let ids: Vec<_> = (0..50)
            .map(|number| {
                let mut spec = asking(output);
                (spec.input_token_ids[0], spec.max_tokens) = (number, 20);
                spec.sampling.num_return_sequences = 1 + number as usize % 2;
                enqueue(&executor, spec)
            })
            .collect();
        let responses = gather(&executor, ids.len());
        for (number, &id) in ids.iter().enumerate() {
            for sequence in 0..=number % 2 {
                let of_sequence = responses.iter().filter_map(|response| match response {
                    Response::Result(result) if result.request_id == id && result.sequence_index == sequence => {
                        Some(result)
                    }
                    Response::Result(_) => None,
                    error => panic!("{error:?}"),
                });
                let results: Vec<_> = of_sequence.cloned().collect();
                let top = results.iter().flat_map(|result| result.top_log_probs.iter().flatten());
                assert_eq!(top.map(|best| best[0].token_id).collect::<Vec<_>>(), tokens(&results));
                assert!(results.last().unwrap().is_sequence_final && tokens(&results).len() == 20);
            }
        }
    });
}

/// With every type and memory that logits are known in: host memory is read where it is, and the stand-in refuses to copy it.
#[test]
fn logits_of_every_type_are_the_same() {
    for settings in ["", "logits_dtype float16\n", "logits_dtype bfloat16\n", "logits_memory gpu\n"] {
        let executor = open(settings);
        let output = OutputConfig { top_log_probs: 3, return_log_probs: true, ..OutputConfig::default() };
        check_top(&results(&executor, asking(output)), executor.vocab_size());
        let output = OutputConfig { return_generation_logits: true, return_prompt_log_probs: true, ..output };
        let results = results(&executor, asking(output));
        check_top(&results, executor.vocab_size());
        let log_probs = results[0].prompt_log_probs.as_ref().unwrap();
        assert!(log_probs.len() == 4 && log_probs.iter().all(|&log_prob| log_prob < 0.0), "{log_probs:?}");
        let (logits, token) = (results[0].generation_logits.as_ref().unwrap(), results[0].output_token_ids[0]);
        assert_eq!((logits.rows(), logits.values[token as usize]), (1, 10.0));
    }
}

#[test]
fn a_response_that_cannot_be_converted_ends_its_own_request_only() {
    within(30, || {
        let executor = open("logits_dtype int8\nlatency_us 2000\n");
        let other = enqueue(&executor, RequestSpec::new(vec![1], 40));
        let asked = OutputConfig { return_generation_logits: true, ..OutputConfig::default() };
        let long = RequestSpec { streaming: false, ..RequestSpec::new(vec![1, 2], 20) };
        let bad = [
            enqueue(&executor, RequestSpec { max_tokens: 400, ..asking(asked) }),
            enqueue(&executor, RequestSpec { output: asked, ..long }),
        ];
        for response in gather(&executor, 3) {
            match response {
                Response::Error { request_id, message } => {
                    assert!(bad.contains(&request_id), "{message}");
                    assert!(message.contains("neither fp32 nor fp16 nor bf16"), "{message}");
                }
                Response::Result(result) => assert_eq!(result.request_id, other),
            }
        }
        // It is asked for the end of the one that would run on, and takes more.
        assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![2], 3))).len(), 3);
    });
}

#[test]
fn a_prompts_log_probabilities_do_not_depend_on_the_cache() {
    let executor = open("");
    let mut spec = RequestSpec::new(vec![3, 1, 4, 1, 5], 2);
    results(&executor, spec.clone());
    spec.output.return_prompt_log_probs = true;
    let first = results(&executor, spec.clone())[0].prompt_log_probs.clone().unwrap();
    let second = results(&executor, spec)[0].prompt_log_probs.clone().unwrap();
    assert_eq!((first.len(), &first), (4, &second));
    assert!(first.iter().all(|&log_prob| log_prob < 0.0));
}

#[test]
fn logits_are_cut_to_the_vocabulary() {
    // As TensorRT-LLM pads it.
    let executor = open("logits_columns 1024\ntokens_per_response 2\n");
    let vocab_size = executor.vocab_size();
    assert!(vocab_size < 1024);
    let mut spec = RequestSpec::new(vec![3, 1, 4, 1, 5], 4);
    spec.output.prompt_top_log_probs = 2;
    (spec.output.return_context_logits, spec.output.return_generation_logits) = (true, true);
    let results = results(&executor, spec);
    let context = results[0].context_logits.as_ref().unwrap();
    assert_eq!((context.vocab_size, context.rows()), (vocab_size, 5));
    let top = results[0].prompt_top_log_probs.iter().flatten().flatten();
    assert!(top.clone().count() == 8 && top.clone().all(|one| (one.token_id as usize) < vocab_size));
    assert_eq!(results.iter().map(|result| result.output_token_ids.len()).collect::<Vec<_>>(), [2, 2]);
    for result in &results {
        let logits = result.generation_logits.as_ref().unwrap();
        assert_eq!((logits.vocab_size, logits.rows()), (vocab_size, 2));
        for (row, &token) in logits.values.chunks_exact(vocab_size).zip(&result.output_token_ids) {
            let expected = |id: usize| if id == token as usize { 10.0 } else { (id % 7) as f32 };
            assert!(row.iter().enumerate().all(|(id, &logit)| logit == expected(id)));
        }
    }
}
