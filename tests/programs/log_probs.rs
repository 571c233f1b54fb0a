//! Ids in, JSON out: field by field, and the numbers against Transformers' reference.

use std::process::Command;

use cpu_kernels::Isa;
use serde_json::Value;

use crate::common::{self, Engine};
use crate::support::{
    comma_separated, demo, ids, json_line, numbers, output_ids, parity, parse_lines, refused, run_engine, succeeded,
};

/// Runs every prompt of a fixture through the program and compares tokens and log-probabilities with the reference.
///
/// The bar is 1.25 times Transformers' own largest error in bfloat16; a greedy token may differ where two
/// log-probabilities, each wrong by that much, can change places.
fn check(name: &str, engine: &Engine, change: impl Fn(&mut Command)) {
    let dir = common::fixture("parity").join(name);
    let reference: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
    let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bar = 1.25 * reference["hf_bf16"]["max_abs_error"].as_f64().unwrap();
    let prompts = reference["prompts"].as_array().unwrap();

    let mut command = run_engine(&engine.path, &["--max-new-tokens", "16", "--logprobs", "--prompt-logprobs"]);
    command.args(["--format", "json", "--ignore-eos", "--prompt-top-logprobs", "4"]);
    for prompt in prompts {
        command.args(["--prompt-ids", &comma_separated(&ids(&prompt["ids"]))]);
    }
    change(&mut command);
    let lines = parse_lines(&succeeded(&mut command).stdout);
    assert_eq!(lines.len(), prompts.len());

    for (index, (line, prompt)) in lines.iter().zip(prompts).enumerate() {
        let place = format!("{name}, prompt {index}");
        let prompt_ids = ids(&prompt["ids"]);
        assert_eq!(line["index"], index, "{place}");
        assert_eq!(line["prompt_tokens"], prompt_ids.len(), "{place}");
        assert_eq!(line["finish_reason"], "length", "{place}");

        let tensor = tensors.tensor(&format!("prompts.{index}.log_probs")).unwrap();
        let expected: Vec<f32> = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let vocab_size = tensor.shape()[1];
        let prompt_log_probs = numbers(&line["prompt_logprobs"]);
        assert_eq!(prompt_log_probs.len(), prompt_ids.len() - 1, "{place}");
        for (position, log_prob) in prompt_log_probs.iter().enumerate() {
            let expected = expected[position * vocab_size + prompt_ids[position + 1] as usize];
            assert!((log_prob - f64::from(expected)).abs() <= bar, "{place}: {log_prob}, not {expected}");
        }

        let top = line["prompt_top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), prompt_ids.len() - 1, "{place}");
        for (position, best) in top.iter().enumerate() {
            let best: Vec<_> = best.as_array().unwrap().iter().map(|one| (&one["id"], &one["logprob"])).collect();
            assert_eq!(best.len(), 4, "{place}");
            assert!(best.windows(2).all(|pair| pair[0].1.as_f64() >= pair[1].1.as_f64()), "{place}: {best:?}");
            for (id, log_prob) in best {
                let id = id.as_u64().unwrap();
                let expected = expected[position * vocab_size + id as usize];
                assert!((log_prob.as_f64().unwrap() - f64::from(expected)).abs() <= bar, "{place}: {id}");
                if id == u64::from(prompt_ids[position + 1]) {
                    assert_eq!(
                        log_prob.as_f64().unwrap(),
                        prompt_log_probs[position],
                        "{place}: one number for a token"
                    );
                }
            }
        }

        let (found, expected) = (output_ids(line), ids(&prompt["greedy"]["ids"]));
        let log_probs = numbers(&line["logprobs"]);
        assert_eq!((found.len(), log_probs.len()), (16, 16), "{place}");
        let margins = numbers(&prompt["greedy"]["margins"]);
        for (step, expected_log_prob) in numbers(&prompt["greedy"]["log_probs"]).into_iter().enumerate() {
            if found[step] != expected[step] {
                assert!(margins[step] <= 2.0 * bar, "{place}, step {step}: another token despite {}", margins[step]);
                break;
            }
            let error = (log_probs[step] - expected_log_prob).abs();
            assert!(error <= bar, "{place}, step {step}: {}, not {expected_log_prob}", log_probs[step]);
        }
    }
}

#[test]
fn ids_and_log_probabilities_agree_with_transformers() {
    for name in common::parity_fixtures() {
        check(&name, &parity(&name), |_| {});
    }
}

#[test]
fn every_instruction_set_is_chosen_by_its_name() {
    let engine = parity("mistral-nemo");
    let mut ran = 0;
    for isa in Isa::ALL.map(Isa::name) {
        let mut command = run_engine(&engine.path, &["--prompt-ids", "1,2,3", "--max-new-tokens", "2"]);
        let output = common::run(command.env("TRTLLM_CPU_ISA", isa));
        match output.code {
            0 => {
                assert!(output.stderr.contains(&format!("CPU ({isa},")), "{}", output.stderr);
                check("mistral-nemo", &engine, |command| {
                    command.env("TRTLLM_CPU_ISA", isa);
                });
                ran += 1;
            }
            3 => {
                assert!(isa != "portable" && output.stderr.contains(isa), "{}", output.stderr);
                common::discarded(&format!(
                    "every_instruction_set_is_chosen_by_its_name for {isa}, which this CPU lacks"
                ));
            }
            code => panic!("{isa}: {code}: {}", output.stderr),
        }
    }
    assert!(ran > 0);
}

/// Of instruction sets that multiply in fp32 between two matrices, as 0.1.0 did, the log-probabilities of `fixtures/engine-0.1`
/// differ in the order of additions only. (The others round attention's weights; they are held to Transformers above.)
#[test]
fn an_engine_of_0_1_gives_the_log_probabilities_that_it_gave() {
    let expected = parse_lines(&std::fs::read_to_string(common::fixture("engine-0.1/expected.jsonl")).unwrap());
    let prompts =
        ["21", "1,26,37,31,3", "1,25,9,2,46,10,28,45,32", "26,29,6,41,34,27,51,26,1,16,38,3,18,16,20,32,1,8,34,3"];
    let request = prompts.iter().flat_map(|ids| ["--prompt-ids", ids]);
    let request: Vec<_> = request.chain(["--format", "json", "--logprobs", "--max-new-tokens", "16"]).collect();
    for isa in ["portable", "avx2", "avx512f"] {
        let mut command = run_engine(&common::fixture("engine-0.1/engine"), &request);
        let output = common::run(command.env("TRTLLM_CPU_ISA", isa));
        if output.code == 3 && isa != "portable" {
            let test = "an_engine_of_0_1_gives_the_log_probabilities_that_it_gave";
            common::discarded(&format!("{test} for {isa}, which this CPU lacks"));
            continue;
        }
        assert_eq!(output.code, 0, "{}", output.stderr);
        let found = parse_lines(&output.stdout);
        assert_eq!(found.len(), prompts.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found["output_ids"], expected["output_ids"], "{isa}");
            let [found, expected] = [found, expected].map(|line| line["logprobs"].as_array().unwrap().clone());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let error = (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
                assert!(error < 1e-3, "{isa}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn instruction_sets_that_cannot_be_had_are_refused() {
    let engine = parity("mistral-gqa");
    let mut command = run_engine(&engine.path, &["--prompt-ids", "1,2"]);
    refused(command.env("TRTLLM_CPU_ISA", "nonsense"), 2, &["TRTLLM_CPU_ISA", "nonsense", "portable"]);
    refused(command.env("TRTLLM_CPU_ISA", "AVX2"), 2, &["TRTLLM_CPU_ISA", "AVX2", "avx2"]);
}

#[test]
fn the_fields_are_the_documented_ones() {
    let engine = demo();
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let plain = ["index", "prompt_tokens", "output_ids", "text", "finish_reason"];
    let arguments = ["--prompt", "Mars is a planet", "--max-new-tokens", "4"];
    assert_eq!(keys(&json_line(&engine, &arguments)), plain);
    let with = |more: &[&str]| json_line(&engine, &[&arguments, more].concat());
    assert_eq!(keys(&with(&["--logprobs"])), [&plain[..], &["logprobs"]].concat());
    assert_eq!(keys(&with(&["--prompt-logprobs"])), [&plain[..], &["prompt_logprobs"]].concat());
    let both = with(&["--prompt-logprobs", "--logprobs"]);
    assert_eq!(keys(&both), [&plain[..], &["logprobs", "prompt_logprobs"]].concat());

    let count = |field: &str| both[field].as_array().unwrap().len();
    assert_eq!(count("logprobs"), count("output_ids"));
    assert_eq!(count("prompt_logprobs") as u64, both["prompt_tokens"].as_u64().unwrap() - 1);
    assert!(numbers(&both["logprobs"]).iter().all(|log_prob| *log_prob <= 0.0));
}

#[test]
fn an_engine_without_a_tokenizer_gives_ids_and_no_text() {
    let engine = parity("llama-tied");
    let arguments = ["--prompt-ids", "1,2,3", "--max-new-tokens", "5"];
    let line = json_line(&engine, &arguments);
    assert_eq!(line["text"], Value::Null);
    let text = crate::support::printed(&engine, &arguments);
    assert_eq!(text, comma_separated(&output_ids(&line)) + "\n");
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    // The same first token has the same log-probability however it was chosen.
    let engine = parity("mistral-gqa");
    let prompt = ["--prompt-ids", "5,6,7", "--max-new-tokens", "1", "--logprobs"];
    let greedy = json_line(&engine, &prompt);
    for settings in [
        &["--temperature", "0.3"][..],
        &["--temperature", "4", "--top-k", "1"],
        &["--temperature", "1", "--top-p", "0"],
        &["--repetition-penalty", "1.01"],
    ] {
        let line = json_line(&engine, &[&prompt, settings].concat());
        if line["output_ids"] == greedy["output_ids"] {
            assert_eq!(line["logprobs"], greedy["logprobs"], "{settings:?}");
        } else {
            assert_eq!(settings[0], "--temperature");
            assert!(settings.len() == 2, "{settings:?} is greedy");
            assert!(numbers(&line["logprobs"]) < numbers(&greedy["logprobs"]), "{settings:?}");
        }
    }
}

#[test]
fn log_probabilities_need_json() {
    let engine = parity("mistral-gqa");
    for flag in ["--logprobs", "--prompt-logprobs"] {
        refused(&mut run_engine(&engine.path, &["--prompt-ids", "1", flag]), 2, &["--format json", flag]);
    }
}
