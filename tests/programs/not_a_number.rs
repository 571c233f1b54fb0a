//! Models that compute what is no number.

use std::path::Path;

use crate::common::{self, Engine};
use crate::support::{json_lines, refused, run_engine, succeeded};

const TENSOR: &str = "model.layers.2.mlp.down_proj.weight";

fn demo_model() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-model"))
}

#[test]
fn a_weight_that_is_no_number_is_named_by_the_build() {
    let model = common::with_nan(demo_model(), TENSOR, 5);
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (model.path().to_str().unwrap(), dir.path().join("out"));
    let build = |arguments: &[&str]| {
        let mut command = common::program("build-engine");
        command.args(["--model", model]).args(arguments);
        command
    };
    let out = output.to_str().unwrap();
    let says = ["model.safetensors", TENSOR, "NaN at [0, 5]", "1 weight", "--allow-non-finite"];
    refused(&mut build(&["--gpu", "none", "--output", out]), 2, &says);
    refused(&mut build(&["--checkpoint", out, "--checkpoint-only"]), 2, &says);
    assert!(!output.exists());
    let built = succeeded(&mut build(&["--gpu", "none", "--output", out, "--allow-non-finite"]));
    assert!(built.stderr.contains(TENSOR) && built.stderr.contains("NaN at [0, 5]"), "{}", built.stderr);
    assert!(output.join("engine.json").exists());
}

/// An engine of the bundled model with a weight that makes every logit NaN.
fn damaged() -> Engine {
    common::build(common::with_nan(demo_model(), TENSOR, 5).path(), 512)
}

#[test]
fn whatever_is_asked_of_such_a_model_the_model_is_named_as_the_cause() {
    let engine = damaged();
    let ways: [&[&str]; 9] = [
        &[],
        &["--format", "json", "--logprobs"],
        &["--format", "json", "--top-logprobs", "3"],
        &["--format", "json", "--prompt-logprobs"],
        &["--beam-width", "2"],
        &["--json"],
        &["--temperature", "1", "--n", "2"],
        &["--temperature", "1", "--top-k", "5", "--top-p", "0.5", "--repetition-penalty", "1.2"],
        &["--bad-words", "the", "--min-tokens", "2", "--no-repeat-ngram-size", "2"],
    ];
    for way in ways {
        let mut command = run_engine(&engine.path, &["--prompt", "Jupiter is", "--max-new-tokens", "4"]);
        let output = common::run(command.args(way));
        assert_eq!(output.code, 1, "{way:?}: {}", output.stderr);
        let said = output.stderr + &output.stdout;
        assert!(said.contains("the model's logits are not numbers: it computed NaN for token "), "{way:?}: {said}");
        assert!(!said.contains("guide") && !said.contains("output_ids"), "{way:?}: {said}");
    }
}

#[test]
fn numbers_that_are_large_are_numbers() {
    let engine = crate::support::demo();
    let plain = ["--prompt", "Jupiter is", "--max-new-tokens", "4", "--logprobs"];
    let biased = ["--logit-bias", "5=-3e38", "--logit-bias", "6=-3e38"];
    let lines = json_lines(&engine, &[&plain[..], &biased].concat());
    assert_eq!(lines[0]["output_ids"], json_lines(&engine, &plain)[0]["output_ids"]);
}
