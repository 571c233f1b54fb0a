//! What is in an engine directory, and that it runs.

use trtllm::engine_format::{EngineDir, Manifest};

use crate::common::{program, run};
use crate::stand_in::shim;
use crate::support::{A100, build_engine, built, entries, json, model};

#[test]
fn an_engine_is_built_whole_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let output = built(dir.path(), A100, &["--model", &model(), "--gpu", "a100", "--output", "engine"]);
    for text in ["limits on NVIDIA A100-SXM4-80GB", "max_position_embeddings", "TensorRT engine", "next:"] {
        assert!(output.stderr.contains(text), "no `{text}`: {}", output.stderr);
    }
    assert_eq!(output.stdout, "");
    // The checkpoint that TensorRT read is gone.
    assert_eq!(entries(dir.path()), ["engine"]);
    let engine = dir.path().join("engine");
    let config = json(engine.join("config.json"));
    let build = &config["build_config"];
    assert_eq!(config["version"], "1.2.0-trtllm-stand-in");
    assert_eq!(build["gather_context_logits"], false);
    assert_eq!(build["plugin_config"]["gpt_attention_plugin"], "bfloat16");
    assert_eq!(build["plugin_config"]["nccl_plugin"], serde_json::Value::Null);
    assert_eq!(build["max_beam_width"], 1);

    let manifest = engine.join("engine.json");
    let manifest = Manifest::from_bytes(&manifest, &std::fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(manifest.target, "a100");
    assert_eq!(manifest.versions["gpu"], "NVIDIA A100-SXM4-80GB");
    assert_eq!(manifest.versions["tensorrt"], "10.14.1");
    assert!(manifest.tensors.contains_key("transformer.layers.0.attention.qkv.weight"));
    let plan = std::fs::read(engine.join("rank0.engine")).unwrap();
    assert_eq!(manifest.files["rank0.engine"].blake3, blake3_of(&plan));

    let opened = EngineDir::open(&engine).unwrap();
    opened.check_ranks().unwrap();
    let mut command = program("run-engine");
    command.env("TRTLLM_GPU_LIB", shim()).arg("--engine").arg(&engine);
    let output = run(command.args(["--prompt-ids", "1,2,3", "--max-new-tokens", "4", "--format", "json"]));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 1);
}

/// The engine format's own hash.
fn blake3_of(content: &[u8]) -> String {
    trtllm::engine_format::manifest::hash(content)
}

#[test]
fn options_reach_the_network_and_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "--gather-context-logits",
        "--gather-generation-logits",
        "--gemm-plugin",
        "--max-beam-width",
        "3",
        "--max-batch-size",
        "8",
        "--max-seq-len",
        "64",
        "--max-num-tokens",
        "128",
        "--network",
        "network.json",
    ];
    let model = model();
    let arguments = [&["--model", &model, "--gpu", "a100", "--output", "engine"], &arguments[..]].concat();
    let said = built(dir.path(), A100, &arguments).stderr;
    for words in ["tokens of a step: 1 to 64, 64 to 128", "reuses no KV-cache block of any request"] {
        assert!(said.contains(words), "{said}");
    }
    let build = &json(dir.path().join("engine/config.json"))["build_config"];
    for (name, expected) in [("max_beam_width", 3), ("max_batch_size", 8), ("max_seq_len", 64), ("max_num_tokens", 128)]
    {
        assert_eq!(build[name], expected, "{name}");
    }
    // Between the runtime's split points.
    assert_eq!(build["plugin_config"]["multiple_profiles"], true);
    assert_eq!(build["gather_context_logits"], true);
    assert_eq!(build["gather_generation_logits"], true);
    assert_eq!(build["plugin_config"]["gemm_plugin"], "bfloat16");
    let network = json(dir.path().join("network.json"));
    let inputs = network["inputs"].as_array().unwrap();
    let ranges: Vec<_> =
        inputs[0]["profiles"].as_array().unwrap().iter().map(|p| (&p["min"][0], &p["max"][0])).collect();
    assert_eq!(ranges, [(&1.into(), &64.into()), (&64.into(), &128.into())]);
    assert!(inputs.iter().all(|input| input["name"] != "last_token_ids"));
    let layers = network["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["kind"] == "Plugin:Gemm"));
    assert!(layers.iter().all(|layer| layer["kind"] != "MatrixMultiply"));
}

#[test]
fn lora_is_in_the_configuration_and_what_does_not_go_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = crate::common::fixture("parity").join("mistral-gqa");
    let adapter = crate::common::fixture("lora").join("query-and-value");
    let (model, adapter) = (model.to_str().unwrap(), adapter.to_str().unwrap());
    let arguments = ["--model", model, "--gpu", "a100", "--output", "engine", "--lora-dir", adapter];
    let said = built(dir.path(), A100, &arguments).stderr;
    assert!(said.contains("LoRA adapters of rank 4 at most may change attn_q, attn_k, attn_v"), "{said}");
    let build = &json(dir.path().join("engine/config.json"))["build_config"];
    assert_eq!(build["plugin_config"]["lora_plugin"], "bfloat16");
    assert_eq!(build["lora_config"]["max_lora_rank"], 4);
    assert_eq!(build["lora_config"]["lora_target_modules"], serde_json::json!(["attn_q", "attn_k", "attn_v"]));
    for (more, words) in [
        (&["--lora-dir", adapter, "--max-lora-rank", "3"][..], "--max-lora-rank 3 is less than rank 4"),
        (&["--lora-dir", adapter, "--lora-target-modules", "mlp_gate"], "--lora-target-modules lacks attn_q"),
        (&["--lora-target-modules", "attn_qkv"], "mlp_h_to_4h"),
        (&["--max-lora-rank", "8", "--tp-size", "4"], "more ranks than key-value heads, 2"),
    ] {
        let arguments = [&["--model", model, "--gpu", "a100", "--output", "other"], more].concat();
        let output = run(&mut build_engine(dir.path(), A100, &arguments));
        assert!(output.code == 2 && output.stderr.contains(words), "{words}: {}", output.stderr);
    }
}

#[test]
fn every_rank_has_its_engine_whatever_the_workers() {
    let gpus = format!("{A100};{A100}");
    let mut plans = Vec::new();
    for workers in ["1", "3"] {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--tp-size", "2", "--pp-size", "2", "--workers", workers, "--output", "engine"];
        let model = model();
        built(dir.path(), &gpus, &[&["--model", &model, "--gpu", "a100"], &arguments[..]].concat());
        let config = json(dir.path().join("engine/config.json"));
        assert_eq!(config["pretrained_config"]["mapping"]["world_size"], 4);
        assert_eq!(config["build_config"]["plugin_config"]["nccl_plugin"], "bfloat16");
        let manifest = json(dir.path().join("engine/engine.json"));
        assert!(manifest["tensors"].as_object().unwrap().keys().any(|name| name.starts_with("rank3/lm_head")));
        let plan = |rank| std::fs::read(dir.path().join(format!("engine/rank{rank}.engine"))).unwrap();
        plans.push((0..4).map(plan).collect::<Vec<_>>());
    }
    assert!(plans[0] == plans[1], "the order of the ranks shows");
}

#[test]
fn a_checkpoint_is_compiled_without_another_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, model) = (dir.path(), model());
    built(dir, A100, &["--model", &model, "--tp-size", "2", "--checkpoint", "ckpt", "--checkpoint-only"]);
    built(dir, A100, &["--model", "ckpt", "--gpu", "a100", "--output", "from-checkpoint"]);
    let arguments =
        ["--model", &model, "--gpu", "a100", "--tp-size", "2", "--checkpoint", "kept", "--output", "direct"];
    built(dir, A100, &arguments);
    assert_eq!(entries(dir), ["ckpt", "direct", "from-checkpoint", "kept"]);
    for rank in ["rank0.engine", "rank1.engine"] {
        let plan = |engine: &str| std::fs::read(dir.join(engine).join(rank)).unwrap();
        assert!(plan("direct") == plan("from-checkpoint"), "{rank}");
    }
}

#[test]
fn a_timing_cache_is_kept_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--gpu", "a100", "--timing-cache", "timing.cache", "--force", "--output", "engine"];
    let model = model();
    let arguments = [&["--model", &model], &arguments[..]].concat();
    built(dir.path(), A100, &arguments);
    let first = std::fs::read(dir.path().join("timing.cache")).unwrap();
    assert!(!first.is_empty());
    built(dir.path(), A100, &arguments);
    assert_eq!(entries(dir.path()), ["engine", "timing.cache"]);
}

#[test]
fn the_gpu_that_is_here_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let output = built(dir.path(), A100, &["--model", &model(), "--output", "engine"]);
    assert!(output.stderr.contains("(target auto)"), "{}", output.stderr);
    assert_eq!(json(dir.path().join("engine/engine.json"))["target"], "a100");
    // One that no target is for is built for all the same.
    let unknown = "NVIDIA GeForce RTX 4090:25757220864:8.9";
    built(dir.path(), unknown, &["--model", &model(), "--gpu", "auto", "--output", "other"]);
    let manifest = json(dir.path().join("other/engine.json"));
    assert_eq!(
        (&manifest["target"], &manifest["versions"]["gpu"]),
        (&"auto".into(), &"NVIDIA GeForce RTX 4090".into())
    );
}

#[test]
fn the_network_is_printed_without_a_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    for (file, begins) in [("n.txt", "network Mistral"), ("n.json", "{"), ("n.dot", "digraph")] {
        let arguments = ["--model", &model, "--gpu", "h100", "--network", file];
        let output = run(build_engine(dir.path(), "", &arguments).env_remove("TRTLLM_GPU_LIB"));
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert!(std::fs::read_to_string(dir.path().join(file)).unwrap().starts_with(begins));
    }
    let output = run(&mut build_engine(dir.path(), "", &["--model", &model, "--network", "-"]));
    assert!(output.code == 0 && output.stdout.contains("host_context_progress"), "{}", output.stderr);
    let arguments = ["--model", &model, "--gpu", "h100", "--tp-size", "2", "--network", "r.json"];
    assert_eq!(run(&mut build_engine(dir.path(), "", &arguments)).code, 0);
    assert_eq!(entries(dir.path()), ["n.dot", "n.json", "n.txt", "r.rank0.json", "r.rank1.json"]);
    let output = run(&mut build_engine(dir.path(), "", &["--model", &model, "--gpu", "none", "--network", "-"]));
    assert!(
        output.code == 2 && output.stderr.contains("--network applies to TensorRT engines only"),
        "{}",
        output.stderr
    );
}
