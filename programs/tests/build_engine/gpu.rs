//! Engines for GPUs on a machine without one.

use crate::support::{entries, fixture, run};

#[test]
fn without_a_gpu_it_says_why_and_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    let args = ["--model", &model, "--gpu", "h100", "--tp-size", "2", "--max-seq-len", "64", "--output", "out"];
    let refused = run(dir.path(), args).expect(
        3,
        &[
            "error: this machine cannot build an engine for `h100`: ",
            "hint: ",
            "--gpu h100 --tp-size 2 --max-seq-len 64 --output out",
        ],
    );
    assert!(refused.stderr.contains(&format!("build-engine --model {model}")), "{refused:#?}");
    assert!(!refused.stderr.contains("trtllm-build"), "{refused:#?}");
    assert!(entries(dir.path()).is_empty());
}

#[test]
fn a_dry_run_refuses_the_adapters_that_a_build_would() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    let args = ["--model", &model, "--gpu", "h100", "--dry-run", "--lora-dir", "nowhere"];
    run(dir.path(), args).expect(2, &["nowhere", "adapter_config.json"]);
}

#[test]
fn with_a_checkpoint_directory_the_checkpoint_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("checkpoint/mistral");
    let args = ["--model", &model, "--gpu", "a100", "--tp-size", "2", "--checkpoint", "ckpt", "--output", "out"];
    let refused = run(dir.path(), args).expect(
        3,
        &[
            "wrote the TensorRT-LLM checkpoint of 2 ranks `ckpt`",
            "build-engine --model ckpt --gpu a100 --output out",
            "trtllm-build --checkpoint_dir ckpt --output_dir out",
        ],
    );
    assert_eq!(refused.stderr.matches("error:").count(), 1);
    assert_eq!(entries(dir.path()), ["ckpt"]);
    let again = run(dir.path(), ["--model", "ckpt", "--gpu", "a100", "--output", "out"]);
    again.expect(3, &["build-engine --model ckpt --gpu a100 --output out"]);
}

#[test]
fn auto_is_refused_where_nothing_can_be_built() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    run(dir.path(), ["--model", &model, "--gpu", "auto", "--output", "out"]).expect(3, &["this machine cannot build"]);
    assert!(entries(dir.path()).is_empty());
}

#[test]
fn bad_input_is_found_before_the_gpu_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    let a100 = |more: &[&str]| run(dir.path(), ["--gpu", "a100", "--output", "out"].iter().chain(more));
    a100(&["--model", "nowhere"]).expect(2, &["nowhere"]);
    a100(&["--model", &model, "--tp-size", "3"]).expect(2, &["--tp-size 3", "attention heads"]);
    a100(&["--model", &model, "--max-seq-len", "257"]).expect(2, &["max_position_embeddings"]);
    assert!(entries(dir.path()).is_empty());
}
