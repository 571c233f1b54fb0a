//! Guides. TensorRT-LLM compiles them in the middle of a batch, and ends all of it where it cannot.

use trtllm::runner::executor::tensorrt_llm::TensorRtLlmExecutor;
use trtllm::runner::executor::{EnqueueError, Executor, ExecutorConfig, GuidedDecodingParams, RequestSpec, Response};

use crate::common::fixture;
use crate::deadline::{enqueue, gather, request, within};
use crate::requests::{results, tokens};
use crate::stand_in::StandInEngine;

const MODEL: &str = "parity/mistral-gqa";

/// With a tokenizer, which is read from the directory when the first guide comes.
fn open(settings: &str) -> (StandInEngine, TensorRtLlmExecutor) {
    let engine = StandInEngine::new(MODEL, settings);
    std::fs::copy(fixture("tokenizer").join("tokenizer.json"), engine.path().join("tokenizer.json")).unwrap();
    let executor = engine.open(&ExecutorConfig::default());
    (engine, executor)
}

fn guided(guide: GuidedDecodingParams) -> RequestSpec {
    RequestSpec { guided_decoding: Some(guide), ..RequestSpec::new(vec![1, 2], 3) }
}

fn regex(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::Regex(text.to_owned())
}

fn ebnf(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::EbnfGrammar(text.to_owned())
}

fn schema(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::JsonSchema(text.to_owned())
}

#[test]
fn a_guide_that_cannot_be_compiled_ends_no_request_but_its_own() {
    within(60, || {
        let (_engine, executor) = open("latency_us 1000\n");
        for number in 0..5 {
            enqueue(&executor, RequestSpec::new(vec![1 + number], 100));
        }
        for (guide, problem) in [
            (regex("[a-"), "unclosed character class"),
            (regex(r"a\bc"), "lookarounds"),
            (schema("{"), "ends too early"),
            (schema(r#"{"type": "integer", "multipleOf": 2}"#), "would ignore `multipleOf`"),
            (ebnf("start: \"a\""), "`::=` was expected"),
            (ebnf("root ::= other"), "there is no rule `other`"),
        ] {
            let error = executor.enqueue(request(&executor, guided(guide))).unwrap_err();
            assert!(matches!(error, EnqueueError::Guide { .. }), "{error}");
            assert!(error.to_string().contains(problem), "{error}");
        }
        let lark = GuidedDecodingParams::LarkGrammar("start: /a/".to_owned());
        let error = executor.enqueue(request(&executor, guided(lark))).unwrap_err();
        assert!(matches!(&error, EnqueueError::Unsupported { field: Some("guided_decoding"), .. }), "{error}");
        assert!(error.to_string().contains("Lark grammars: it takes EBNF grammars"), "{error}");
        for guide in [regex(r"(?i)[^\p{Greek}]+"), ebnf("root ::= [!-~]+"), schema("true"), GuidedDecodingParams::Json]
        {
            enqueue(&executor, guided(guide));
        }
        let responses = gather(&executor, 9);
        assert!(responses.iter().all(|response| matches!(response, Response::Result(_))), "{responses:?}");
    });
}

/// What the library would do with a guide that we do not stop: this shows that the test above could fail.
#[test]
fn a_step_that_throws_ends_every_request_once() {
    within(60, || {
        let (_engine, executor) = open("latency_us 1000\nxgrammar_refuses [!-#]\n");
        for number in 0..5 {
            enqueue(&executor, RequestSpec::new(vec![1 + number], 200));
        }
        enqueue(&executor, guided(ebnf("root ::= [!-#]+")));
        let responses = gather(&executor, 6);
        let failed = |response: &&Response| matches!(response, Response::Error { message, .. } if message.contains("told to refuse"));
        assert_eq!(responses.iter().filter(failed).count(), 6);
        assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![2], 3))).len(), 3);
    });
}

#[test]
fn an_engine_whose_tokenizer_is_not_understood_opens_without_guides() {
    let (_engine, executor) = open("xgrammar_tokenizer unknown\n");
    assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![2], 3))).len(), 3);
    let error = executor.enqueue(request(&executor, guided(GuidedDecodingParams::Json))).unwrap_err();
    assert!(matches!(error, EnqueueError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("only without guides: XGrammar: cannot determine the type"), "{error}");
}
