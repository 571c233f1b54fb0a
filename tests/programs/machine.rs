//! What a run says about itself and the machine.

use cpu_kernels::{Isa, Kernels};
use trtllm::engine_format::WeightType;

use crate::common;
use crate::support::{demo, json_line, refused, run_engine, succeeded};

#[test]
fn stats_have_times_rates_and_memory() {
    let engine = demo();
    // So many that not all can come in one response, whatever else the machine does: a rate needs two.
    let arguments = ["--prompt", "Mars", "--prompt", "Venus", "--max-new-tokens", "97", "--ignore-eos", "--stats"];
    let output = succeeded(&mut run_engine(&engine.path, &arguments));
    let line = |name: &str| {
        let line = output.stderr.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no `{name}`: {}", output.stderr)).trim_start_matches(name).trim().to_owned()
    };
    let number = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    assert!(number(&line("load")) > 0.0);
    assert!(line("prompts").starts_with("2 ("), "{}", line("prompts"));
    assert!(number(&line("time to first token")) > 0.0 && line("time to first token").ends_with("ms"));
    let generation = line("generation");
    assert!(
        number(&generation) > 0.0 && generation.contains("tokens/s for each sequence (194 tokens in "),
        "{generation}"
    );
    assert!(number(&line("requests")) > 0.0 && line("requests").ends_with("requests/s"), "{}", line("requests"));
    // Two contexts and 2 x 96 further tokens.
    let iterations = number(&line("iterations").replace(',', ""));
    assert!((97.0..=194.0).contains(&iterations), "{}", line("iterations"));
    assert!(line("iterations").contains(" sequences in each on average, 0 paused"), "{}", line("iterations"));
    let occupancy = number(line("KV cache ").as_str());
    assert!(occupancy > 0.0 && line("KV cache ").contains("blocks reused"), "{}", line("KV cache "));
    assert!(number(&line("memory")) >= 1.0 && line("memory").contains("MiB"), "{}", line("memory"));
    assert!(!output.stdout.contains("tokens/s"));
    // Quiet is about talk; statistics were asked for.
    assert!(succeeded(run_engine(&engine.path, &arguments).arg("--quiet")).stderr.contains("tokens/s"));
}

#[test]
fn threads_are_as_many_as_asked_for() {
    let engine = demo();
    for threads in ["1", "3"] {
        let arguments = ["--prompt", "Mars", "--max-new-tokens", "2", "--threads", threads];
        let output = succeeded(&mut run_engine(&engine.path, &arguments));
        assert!(output.stderr.contains(&format!("{threads} thread")), "{}", output.stderr);
    }
}

/// Where weights are codes, and nowhere else.
#[test]
fn what_multiplies_codes_is_told() {
    let kernels = Kernels::detect().unwrap();
    let (isa, codes) = (kernels.isa(), kernels.code_instructions());
    let request = ["--prompt-ids", "1,2", "--max-new-tokens", "2", "--threads", "1"];
    let workload = ["--requests", "1", "--input-len", "3", "--output-len", "2", "--threads", "1", "--quiet"];
    for (weights, said) in [
        (WeightType::Int8, format!("int8 weights; CPU ({isa}, codes by {codes}, 1 thread)")),
        (WeightType::Bf16, format!("bf16 weights; CPU ({isa}, 1 thread)")),
    ] {
        let engine = common::build_with(&common::fixture("parity/mistral-gqa"), 64, weights);
        let output = succeeded(&mut run_engine(&engine.path, &request));
        assert!(output.stderr.contains(&said), "{said}: {}", output.stderr);
        let mut bench = common::program("bench-engine");
        bench.arg("--engine").arg(&engine.path).args(workload).args(["--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&succeeded(&mut bench).stdout).unwrap();
        let expected = (weights == WeightType::Int8).then_some(codes);
        assert_eq!(
            (&report["engine"]["isa"], report["engine"]["code_instructions"].as_str()),
            (&isa.name().into(), expected)
        );
    }
}

#[test]
fn an_instruction_set_that_the_cpu_lacks_is_the_machines_fault() {
    let engine = demo();
    for isa in Isa::ALL.into_iter().filter(|&isa| Kernels::for_isa(isa).is_none()) {
        let output = common::run(run_engine(&engine.path, &["--prompt", "Mars"]).env("TRTLLM_CPU_ISA", isa.name()));
        assert_eq!((output.code, output.stdout.as_str()), (3, ""), "{}", output.stderr);
        assert!(output.stderr.contains(isa.name()) && output.stderr.contains("lacks"), "{}", output.stderr);
    }
    // Set to nothing is not set.
    let mut command = run_engine(&engine.path, &["--prompt", "Mars", "--max-new-tokens", "2", "--format", "json"]);
    let output = succeeded(command.env("TRTLLM_CPU_ISA", ""));
    assert_eq!(
        json_line(&engine, &["--prompt", "Mars", "--max-new-tokens", "2"])["output_ids"],
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()["output_ids"]
    );
}

#[test]
fn usage_is_explained() {
    let mut command = common::program("run-engine");
    refused(&mut command, 2, &["--engine", "--help"]);
    let help = succeeded(common::program("run-engine").arg("--help"));
    for part in ["--engine", "--prompt-ids", "--max-length", "--chat", "Exit codes", "130"] {
        assert!(help.stdout.contains(part), "{}", help.stdout);
    }
    let version = succeeded(common::program("run-engine").arg("--version"));
    assert_eq!(version.stdout, format!("run-engine {}\n", env!("CARGO_PKG_VERSION")));
}
