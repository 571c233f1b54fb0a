//! What a build writes and says.

use std::ffi::OsStr;
use std::fs;

use engine_format::EngineDir;
use serde_json::Value;

use crate::support::{entries, fixture, program, run};

#[test]
fn an_engine_is_built_and_the_next_command_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    let built = run(dir.path(), ["--model", &model, "--gpu", "none", "--output", "out"]);
    let built = built.expect(
        0,
        &[
            "model: ",
            "MistralForCausalLM, 2 layers, 17 064 parameters",
            "writing rank0.weights",
            "done: ",
            "wrote the CPU engine `out`",
            "limits: max_seq_len 256, max_batch_size 64, max_num_tokens 2048",
            "run-engine --engine out --prompt-ids",
        ],
    );
    assert_eq!(built.stdout, "");
    assert_eq!(entries(dir.path()), ["out"]);
    let engine = EngineDir::open(&dir.path().join("out")).unwrap();
    assert!(engine.verify(|_| std::ops::ControlFlow::Continue(())).unwrap().is_continue());
    assert_eq!(engine.manifest().target, "none");
    assert_eq!(engine.manifest().model, model);
}

#[test]
fn an_engine_with_a_tokenizer_is_run_with_text() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("my model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(format!("{}/{file}", fixture("parity/mistral-nemo")), model.join(file)).unwrap();
    }
    fs::copy(fixture("tokenizer/tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let built = run(dir.path(), ["--model", "my model", "--gpu", "none", "--output", "an engine"]);
    built.expect(0, &["run-engine --engine 'an engine' --prompt \"Complete the paragraph"]);
    assert!(dir.path().join("an engine/tokenizer.json").is_file());
}

#[test]
fn limits_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/llama-tied");
    let limits = ["--max-seq-len", "100", "--max-batch-size", "3", "--max-num-tokens", "7"];
    let args = ["--model", &model, "--gpu", "none", "--output", "out"];
    run(dir.path(), args.iter().chain(&limits)).expect(0, &[]);
    let engine = EngineDir::open(&dir.path().join("out")).unwrap();
    let limits = engine.manifest().limits;
    assert_eq!((limits.max_seq_len, limits.max_batch_size, limits.max_num_tokens), (100, 3, 7));
}

#[test]
fn without_a_target_the_cpu_is_chosen_and_it_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-gqa");
    let built = run(dir.path(), ["--model", &model, "--output", "out"]);
    built.expect(0, &["building for this machine's CPU (target none): "]);
    EngineDir::open(&dir.path().join("out")).unwrap();
}

#[test]
fn a_checkpoint_and_an_engine_are_written_in_one_run_and_the_checkpoint_builds_the_same_engine() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/llama-bias-fp16");
    let args = ["--model", &model, "--gpu", "none", "--checkpoint", "ckpt", "--output", "out"];
    run(dir.path(), args).expect(0, &["wrote the TensorRT-LLM checkpoint `ckpt`", "wrote the CPU engine `out`"]);
    assert_eq!(entries(dir.path()), ["ckpt", "out"]);
    assert!(dir.path().join("ckpt/rank0.safetensors").is_file());
    run(dir.path(), ["--model", "ckpt", "--gpu", "none", "--output", "again"]).expect(0, &[]);
    let weights = |name: &str| fs::read(dir.path().join(name).join("rank0.weights")).unwrap();
    assert!(weights("out") == weights("again"), "the weights differ");
}

#[test]
fn a_split_checkpoint_is_written_for_any_target_and_keeps_its_split() {
    for target in [&["--gpu", "a100"][..], &["--gpu", "none"], &["--gpu", "auto"], &[]] {
        let dir = tempfile::tempdir().unwrap();
        let model = fixture("checkpoint/mistral");
        let split =
            ["--model", &model, "--tp-size", "2", "--pp-size", "3", "--checkpoint", "ckpt", "--checkpoint-only"];
        let written = run(dir.path(), split.iter().chain(target));
        written.expect(0, &["checkpoint of 6 ranks `ckpt`", "trtllm-build --checkpoint_dir ckpt"]);
        assert_eq!(entries(dir.path()), ["ckpt"]);
        let text = fs::read_to_string(dir.path().join("ckpt/config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&config["mapping"]["tp_size"], &config["mapping"]["pp_size"]), (&2.into(), &3.into()));
        assert!(dir.path().join("ckpt/rank5.safetensors").is_file());

        let copy = ["--model", "ckpt", "--checkpoint", "copy", "--checkpoint-only"];
        run(dir.path(), copy).expect(0, &["checkpoint of 6 ranks `copy`"]);
        let rank = |name: &str| fs::read(dir.path().join(name).join("rank4.safetensors")).unwrap();
        assert!(rank("ckpt") == rank("copy"), "the ranks differ");
        let engine = run(dir.path(), ["--model", "ckpt", "--gpu", "none", "--output", "out"]);
        engine.expect(2, &["split over 2 tensor-parallel and 3 pipeline-parallel ranks"]);
        assert_eq!(entries(dir.path()), ["ckpt", "copy"]);
    }
}

#[test]
fn quiet_says_nothing_and_verbose_says_more() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-odd");
    let quiet = run(dir.path(), ["-q", "--model", &model, "--output", "quiet"]).expect(0, &[]);
    assert_eq!(quiet.stderr, "");
    let verbose = run(dir.path(), ["-v", "--model", &model, "--output", "verbose", "--threads", "1"]);
    verbose.expect(0, &["model directory: "]);
    let file = |name: &str| fs::read(dir.path().join(name).join("rank0.weights")).unwrap();
    assert!(file("quiet") == file("verbose"), "the weights differ");
}

#[test]
fn force_replaces_an_engine_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-gqa");
    let build = |more: &[&str]| {
        let args = ["--model", &model, "--gpu", "none", "--output", "out"];
        run(dir.path(), args.iter().chain(more))
    };
    fs::create_dir(dir.path().join("out")).unwrap();
    build(&[]).expect(0, &[]);
    build(&[]).expect(2, &["`out` exists already", "--force"]);
    build(&["--force", "--max-seq-len", "9"]).expect(0, &[]);
    assert_eq!(EngineDir::open(&dir.path().join("out")).unwrap().manifest().limits.max_seq_len, 9);
    assert_eq!(entries(dir.path()), ["out"]);
    fs::remove_file(dir.path().join("out/engine.json")).unwrap();
    build(&["--force"]).expect(2, &["engine.json", "move it away yourself"]);
    assert!(dir.path().join("out/rank0.weights").is_file());
}

#[test]
fn every_format_is_built_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let formats = [
        ("parity/mistral-gqa", "Hugging Face"),
        ("gguf/llama3.gguf", "GGUF version 3"),
        ("nemo/mistral-gqa.nemo", "NeMo"),
        ("nemo/llama-tied", "NeMo"),
    ];
    let mut weights = Vec::new();
    for (number, (model, format)) in formats.into_iter().enumerate() {
        let (model, output) = (fixture(model), format!("engine {number}"));
        run(dir.path(), ["--model", &model, "--gpu", "none", "--output", &output]).expect(0, &[format]);
        weights.push(fs::read(dir.path().join(output).join("rank0.weights")).unwrap());
        let plan = run(dir.path(), ["--model", &model, "--gpu", "none", "--dry-run"]).expect(0, &[]);
        assert!(plan.stdout.contains(format), "{}", plan.stdout);
    }
    assert!(weights[0] == weights[2], "the same weights as a NeMo archive");
}

#[test]
fn any_path_is_a_path() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let not_utf8 = OsStr::from_bytes(b"model \xff");
    let checkpoint = OsStr::from_bytes(b"ckpt \xff");
    let engine = OsStr::from_bytes(b"engine \xff");
    std::os::unix::fs::symlink(fixture("parity/mistral-gqa"), dir.path().join(not_utf8)).unwrap();
    let words = |words: &'static [&'static str]| words.iter().map(OsStr::new).collect::<Vec<_>>();
    let args =
        [words(&["--gpu", "none", "--checkpoint"]), vec![checkpoint], words(&["--output"]), vec![engine]].concat();
    run(dir.path(), args.iter().copied().chain([OsStr::new("--model"), not_utf8])).expect(0, &[]);
    let again = [words(&["--gpu", "none", "--output", "again", "--model"]), vec![checkpoint]].concat();
    run(dir.path(), again).expect(0, &[]);
    EngineDir::open(&dir.path().join(engine)).unwrap();
}

#[test]
fn version_and_help_go_to_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let version = run(dir.path(), ["--version"]).expect(0, &[]);
    assert_eq!(version.stdout, format!("build-engine {}\n", env!("CARGO_PKG_VERSION")));
    let help = program(dir.path()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("rtx-pro-6000") && help.contains("Exit codes"), "{help}");
}
