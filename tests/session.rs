//! A session over the CPU engine: stop strings stop what is computed, and not only what is shown.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine_format::EngineDir;
use runner::engine::Engine;
use runner::executor::{Executor, ExecutorConfig, FinishReason, LogitsPostProcessor, Request, RequestSpec, Response};
use runner::generation_options::GenerationOptions;
use runner::request_builder::{Prompt, RequestBuilder};
use runner::session::{Awaited, Output, Session, Submission};

const MAX_NEW_TOKENS: usize = 300;

/// Iterations that the executor may be ahead of the session: each lasts [`STEP`] at least, and the session needs microseconds.
const AHEAD: usize = 30;
const STEP: Duration = Duration::from_millis(2);

/// Completes a prompt of the demo model and ends the session: the outputs, and how many sequences were in each iteration.
fn complete(options: &GenerationOptions, streaming: bool) -> (Vec<Output>, Vec<usize>) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let built = common::build(&model, 64);
    let engine = Engine::open(&built.path, &ExecutorConfig::default()).unwrap();
    let executor = engine.executor();
    let session = Session::start(executor.clone(), engine.tokenizer().cloned()).unwrap();
    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let prompt = Prompt::Text("Complete the paragraph: Jupiter is".to_owned());
    let mut spec = builder.spec(&prompt, options).unwrap();
    spec.streaming = streaming;
    // Slow enough that the session is never far behind.
    spec.logits_post_processor = Some(LogitsPostProcessor::new(|_, _| {
        std::thread::sleep(STEP);
        Ok(())
    }));
    session.submit(builder.submission(spec, options, true).unwrap()).unwrap();
    let mut outputs: Vec<Output> = Vec::new();
    while !outputs.last().is_some_and(|output| output.response.is_final()) {
        match session.await_outputs(Some(Duration::from_secs(60))) {
            Awaited::Outputs(more) => outputs.extend(more),
            other => panic!("{other:?}"),
        }
    }
    drop(session);
    let iterations = executor.iteration_stats();
    (outputs, iterations.iter().map(|iteration| iteration.inflight_batching.num_scheduled_requests).collect())
}

fn options() -> GenerationOptions {
    GenerationOptions {
        max_new_tokens: Some(MAX_NEW_TOKENS),
        ignore_eos: Some(true),
        stop: Some(vec![" planet".into()]),
        ..GenerationOptions::default()
    }
}

fn tokens(outputs: &[Output]) -> usize {
    let of = |output: &Output| match &output.response {
        Response::Result(result) => result.output_token_ids.len(),
        Response::Error { message, .. } => panic!("{message}"),
    };
    outputs.iter().map(of).sum()
}

#[test]
fn a_stop_string_ends_the_computation_streaming_or_not() {
    let (streamed, _) = complete(&options(), true);
    let (whole, iterations) = complete(&options(), false);
    let text: String = streamed.iter().map(|output| output.text.as_str()).collect();
    let [output] = &whole[..] else { panic!("{} outputs of a request that does not stream", whole.len()) };
    assert_eq!(output.text, text);
    assert_eq!(tokens(&whole), tokens(&streamed));
    let Response::Result(result) = &output.response else { panic!("{output:?}") };
    assert_eq!(result.finish_reason, Some(FinishReason::StopWords));
    assert!(tokens(&whole) + 2 * AHEAD < MAX_NEW_TOKENS, "the text stops early: {text}");
    assert!(iterations.len() <= tokens(&whole) + AHEAD, "{} iterations for {}", iterations.len(), tokens(&whole));
}

#[test]
fn a_sequence_that_has_stopped_is_not_computed_while_others_run() {
    let options = GenerationOptions { n: Some(4), temperature: Some(1.0), seed: Some(11), ..options() };
    let (outputs, iterations) = complete(&options, true);
    let (steps, kept) = (iterations.iter().sum::<usize>(), tokens(&outputs));
    assert!(steps <= kept + 4 * AHEAD, "{steps} steps of sequences for {kept} tokens");
    let longest = iterations.len();
    assert!(
        4 * longest > kept + 4 * AHEAD,
        "the sequences end at different times: {longest} iterations, {kept} tokens"
    );
}

#[test]
fn token_ids_in_and_out_parse_no_tokenizer() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let built = common::build(&model, 64);
    let engine = Engine::open(&built.path, &ExecutorConfig::default()).unwrap();
    let (executor, tokenizer) = (engine.executor(), engine.tokenizer().unwrap());
    let session = Session::start(executor.clone(), Some(tokenizer.clone())).unwrap();
    let run = |text: bool| {
        let request =
            Request::new(RequestSpec::new(vec![1, 47, 430, 292], 8), executor.limits(), executor.vocab_size());
        session.submit(Submission { text, ..Submission::new(request.unwrap()) }).unwrap();
        let (mut found, mut is_over) = (String::new(), false);
        while !is_over {
            let Awaited::Outputs(outputs) = session.await_outputs(Some(Duration::from_secs(60))) else {
                panic!("none")
            };
            found.extend(outputs.iter().map(|output| output.text.as_str()));
            is_over = outputs.iter().any(|output| output.response.is_final());
        }
        found
    };
    assert_eq!(run(false), "");
    assert!(!tokenizer.is_parsed(), "nobody asked for text");
    assert_ne!(run(true), "");
    assert!(tokenizer.is_parsed());
    let ahead = Engine::start_with_text(EngineDir::open(&built.path).unwrap(), &ExecutorConfig::default()).unwrap();
    assert!(ahead.tokenizer().unwrap().is_parsed(), "parsed beside the opening of the weights");
}

#[test]
fn what_a_request_cannot_have_is_told_by_the_options_name() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let built = common::build(&model, 64);
    let engine = Engine::open(&built.path, &ExecutorConfig::default()).unwrap();
    let executor: Arc<dyn Executor> = engine.executor();
    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let check = |prompt: Prompt, options: GenerationOptions, expected: &str| {
        let error = builder.build(&prompt, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let ids = || Prompt::Ids(vec![1, 2, 3]);
    let none = GenerationOptions::default;
    check(ids(), GenerationOptions { allowed_token_ids: Some(Vec::new()), ..none() }, "allowed_token_ids is empty");
    check(ids(), GenerationOptions { max_length: Some(3), ..none() }, "max_length 3 leaves none");
    check(ids(), GenerationOptions { n: Some(1 << 20), ..none() }, "num_return_sequences must be at most 65536");
    check(
        ids(),
        GenerationOptions { beam_width: Some(1 << 20), ..none() },
        "beam_width is 1048576, but the executor runs",
    );
    check(ids(), GenerationOptions { bad_words: Some(vec!["a".into(), String::new()]), ..none() }, "bad word number 2");
    check(ids(), GenerationOptions { stop: Some(vec![String::new()]), ..none() }, "stop string number 1");
    check(ids(), GenerationOptions { top_p: Some(2.0), ..none() }, "top_p must be from 0 to 1");
    check(Prompt::Text(String::new()), none(), "the prompt is empty");
    check(Prompt::Messages(String::new()), none(), "the prompt is empty");
    check(
        ids(),
        GenerationOptions { lora: Some("/no/such/adapter".into()), ..none() },
        "the CPU engine has no LoRA adapters",
    );
    let without = RequestBuilder { tokenizer: None, ..builder };
    let error = without.build(&Prompt::Text("a".into()), &none()).unwrap_err().to_string();
    assert!(
        error.contains("no tokenizer") && error.contains("token ids") && error.contains("tokenizer.json"),
        "{error}"
    );
    let filters = builder.build(&ids(), &GenerationOptions { top_k: Some(5), ..none() }).unwrap();
    assert_eq!(filters.request.spec().sampling.temperature, 1.0, "whoever filters wants to draw");
    assert_eq!(builder.build(&ids(), &none()).unwrap().request.spec().max_tokens, 128);
}
