//! `run-engine`, `bench-engine` and the doctor, with the stand-in where TensorRT-LLM would be.

use std::path::{Path, PathBuf};
use std::process::Command;

use trtllm::engine_format::Mapping;

use crate::common::{Output, program, run};
use crate::stand_in::{StandInEngine, prefix, shim};

const MODEL: &str = "parity/mistral-gqa";

fn with_shim(name: &str, shim: &Path) -> Command {
    let mut command = program(name);
    command.env("TRTLLM_GPU_LIB", shim);
    command
}

fn run_engine(engine: &StandInEngine, arguments: &[&str]) -> Output {
    let mut command = with_shim("run-engine", &shim());
    run(command.arg("--engine").arg(engine.path()).args(arguments))
}

#[test]
fn a_tensorrt_engine_is_run_like_any_other() {
    let engine = StandInEngine::new(MODEL, "");
    let arguments =
        ["--prompt-ids", "1,2,3", "--prompt-ids", "4,5", "--max-new-tokens", "5", "--format", "json", "--logprobs"];
    let output = run_engine(&engine, &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    // Nothing that TensorRT-LLM says is among the data.
    let lines: Vec<serde_json::Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["output_ids"].as_array().unwrap().len() == 5));
    assert!(lines.iter().all(|line| line["logprobs"].as_array().unwrap().len() == 5));
    assert!(output.stderr.contains("TensorRT-LLM 1.2.0-trtllm-stand-in"), "{}", output.stderr);
    assert!(!output.stderr.contains("[INFO]"), "{}", output.stderr);

    let output = run_engine(&engine, &[&arguments[..], &["--verbose", "--stats"]].concat());
    assert_eq!(output.stdout.lines().count(), 2);
    assert!(output.stderr.contains("[TensorRT-LLM][INFO] stand-in: engine"), "{}", output.stderr);
    assert!(output.stderr.contains("tokens/s"), "{}", output.stderr);
    // Ranks and MPI end in order only when the executor is closed before the program ends.
    assert!(output.stderr.contains("stand-in: closed"), "{}", output.stderr);
}

#[test]
fn a_configuration_file_is_read_and_a_wrong_name_in_it_told() {
    let engine = StandInEngine::new(MODEL, "");
    let file = engine.path().join("executor.toml");
    std::fs::write(&file, "[tensorrt_llm]\nguided_decoding = false\n").unwrap();
    let arguments = ["--prompt-ids", "1", "--regex", "a+", "--config", file.to_str().unwrap()];
    let output = run_engine(&engine, &arguments);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("guided_decoding is off"), "{}", output.stderr);
    std::fs::write(&file, "[tensorrt_llm]\nguided_decodign = false\n").unwrap();
    let output = run_engine(&engine, &arguments);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("guided_decodign"), "{}", output.stderr);
}

#[test]
fn a_setting_that_cannot_work_with_the_engine_is_bad_input() {
    let engine = StandInEngine::new(MODEL, "");
    let output = run_engine(&engine, &["--prompt-ids", "1", "--kv-cache-dtype", "int8"]);
    assert_eq!(output.code, 2, "{}", output.stderr);
    for words in ["kv_cache.dtype (--kv-cache-dtype)", "a KV cache in int8", "is built in, so leave the setting out"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    let output = run_engine(&engine, &["--prompt-ids", "1", "--max-new-tokens", "2", "--kv-cache-dtype", "bf16"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let file = engine.path().join("executor.toml");
    std::fs::write(&file, "[tensorrt_llm.kv_cache]\nonboard_blocks = false\n").unwrap();
    let output = run_engine(&engine, &["--prompt-ids", "1", "--config", file.to_str().unwrap()]);
    assert_eq!(output.code, 2, "{}", output.stderr);
    assert!(output.stderr.contains("`kv_cache.onboard_blocks`"), "{}", output.stderr);
}

#[test]
fn it_is_measured_like_any_other() {
    let engine = StandInEngine::new(MODEL, "");
    let mut command = with_shim("bench-engine", &shim());
    command.arg("--engine").arg(engine.path());
    let output =
        run(command.args(["--requests", "8", "--concurrency", "2,4", "--input-len", "4", "--output-len", "8"]));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("TensorRT-LLM 1.2.0-trtllm-stand-in"), "{}", output.stdout);
}

#[test]
fn without_the_library_the_doctor_is_named() {
    let engine = StandInEngine::new(MODEL, "");
    let mut command = with_shim("run-engine", Path::new("/no/such/libtrtllm_gpu.so"));
    let output = run(command.arg("--engine").arg(engine.path()).args(["--prompt-ids", "1"]));
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains("run-engine doctor") && output.stderr.contains("/no/such"), "{}", output.stderr);
}

#[test]
fn ranks_are_spawned_and_their_log_is_kept_when_they_do_not_start() {
    let ranks = |settings: &str| StandInEngine::with_ranks(MODEL, settings, Mapping { tp_size: 2, pp_size: 1 });
    let arguments = ["--prompt-ids", "1", "--max-new-tokens", "3", "--format", "json", "--start-up-timeout", "3"];
    let output = run_engine(&ranks("workers 2\n"), &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 1);
    assert!(output.stderr.contains("2 ranks"), "{}", output.stderr);

    for (worker, words) in [("crash", "told to crash"), ("hang", "worker of")] {
        let output = run_engine(&ranks(&format!("workers 2\nworker {worker}\n")), &arguments);
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert!(output.stderr.contains("start_up_timeout") && output.stderr.contains(words), "{}", output.stderr);
        let log = output.stderr.split('`').find(|part| part.ends_with("workers.log")).unwrap();
        assert!(std::fs::read_to_string(log).unwrap().contains(words));
        std::fs::remove_dir_all(Path::new(log).parent().unwrap()).unwrap();
    }
    let output = run_engine(&ranks(""), &[&arguments[..], &["--worker-executable", "/no/such/worker"]].concat());
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains("/no/such/worker"), "{}", output.stderr);
}

#[test]
fn ranks_that_cannot_be_spawned_are_an_error_and_ranks_that_abort_do_not_end_their_orchestrator() {
    let ranks = |settings: &str| StandInEngine::with_ranks(MODEL, settings, Mapping { tp_size: 2, pp_size: 1 });
    let run_with = |engine: &StandInEngine, slots: &str| {
        let file = engine.path().join("executor.toml");
        std::fs::write(&file, "[tensorrt_llm]\nstall_timeout = 1\nshutdown_timeout = 1\n").unwrap();
        let mut command = with_shim("run-engine", &shim());
        command.env("TRTLLM_STAND_IN_SLOTS", slots).arg("--engine").arg(engine.path());
        run(command.args(["--prompt-ids", "1", "--max-new-tokens", "3"]).arg("--config").arg(&file))
    };
    let output = run_with(&ranks("workers 2\n"), "2");
    assert_eq!(output.code, 0, "{}", output.stderr);
    // MPI alone would have ended the process, with 50.
    let output = run_with(&ranks("workers 2\n"), "1");
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("MPI error 50 in MPI_Comm_spawn"), "{}", output.stderr);
    // TensorRT-LLM's worker kills its parent before it aborts. Where that is MPI's daemon, the process ends with 195.
    let output = run_with(&ranks("workers 2\nworker abort\nstall_after 0\n"), "2");
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("stall_timeout"), "{}", output.stderr);
}

#[test]
fn under_mpirun_the_leader_answers_and_the_others_serve() {
    let engine = StandInEngine::with_ranks(MODEL, "", Mapping { tp_size: 2, pp_size: 1 });
    for (rank, lines) in [("0", 1), ("1", 0)] {
        let mut command = with_shim("run-engine", &shim());
        command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", rank);
        command.arg("--engine").arg(engine.path());
        let output = run(command.args(["--prompt-ids", "1", "--max-new-tokens", "3", "--format", "json"]));
        assert_eq!((output.code, output.stdout.lines().count()), (0, lines), "{}", output.stderr);
    }
}

#[test]
fn the_doctor_tells_what_does_not_fit() {
    let examine = |shim: &Path, engine: Option<&StandInEngine>, variables: &[(&str, &str)]| {
        let mut command = with_shim("run-engine", shim);
        command.arg("doctor").env_remove("LD_LIBRARY_PATH").envs(variables.iter().copied());
        if let Some(engine) = engine {
            command.arg("--engine").arg(engine.path());
        }
        let output = run(&mut command);
        // Where tests run there is no GPU, or one with everything: the stand-in is never what a machine needs.
        assert!(output.code == 3 || output.code == 0, "{}", output.stderr);
        output.stdout
    };
    let engine = StandInEngine::new(MODEL, "");
    let report = examine(&shim(), Some(&engine), &[]);
    assert!(report.contains("ok  TensorRT-LLM") && report.contains("1.2.0-trtllm-stand-in"), "{report}");
    assert!(report.contains("for `tensorrt-llm`, TensorRT-LLM 1.2"), "{report}");
    engine.edit(|config| config["version"] = "1.0.0".into());
    let report = examine(&shim(), Some(&engine), &[]);
    assert!(report.contains("built by TensorRT-LLM 1.0.0, but 1.2.0"), "{report}");
    let report = examine(Path::new("/no/such/shim.so"), None, &[]);
    assert!(report.contains("missing  libtrtllm_gpu.so") && report.contains("no such file"), "{report}");

    // The same shim, and less and less of what it needs.
    let report = examine(&shim(), None, &[("TRTLLM_STAND_IN_VERSION", "1.1.0-trtllm-stand-in")]);
    assert!(
        report.contains("compiled against TensorRT-LLM 1.2.0") && report.contains("1.1.0-trtllm-stand-in was"),
        "{report}"
    );
    let dir = tempfile::tempdir().unwrap();
    let lost = shim_without_libraries(dir.path());
    let empty = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libtensorrt_llm.so", "-x", "c", "/dev/null", "-o"])
        .arg(dir.path().join("libtensorrt_llm.so"))
        .status();
    assert!(empty.unwrap().success());
    let libraries = format!("{}:{}", dir.path().display(), prefix().join("lib").display());
    let report = examine(&lost, None, &[("LD_LIBRARY_PATH", &libraries)]);
    assert!(report.contains("undefined symbol") && report.contains("another release or C++ ABI"), "{report}");
    let report = examine(&lost, None, &[]);
    assert!(report.contains("libtensorrt_llm.so") && report.contains("LD_LIBRARY_PATH"), "{report}");
}

/// A copy of the shim in `dir` that does not know where TensorRT-LLM's libraries are: its search path names another folder.
fn shim_without_libraries(dir: &Path) -> PathBuf {
    let mut shim = std::fs::read(shim()).unwrap();
    let folder = prefix().join("lib");
    let known = folder.to_str().unwrap().as_bytes();
    let places: Vec<_> = (0..shim.len() - known.len()).filter(|&start| shim[start..].starts_with(known)).collect();
    assert!(!places.is_empty());
    for start in places {
        shim[start + known.len() - "lib".len()..start + known.len()].copy_from_slice(b"non");
    }
    let lost = dir.join("libtrtllm_gpu.so");
    std::fs::write(&lost, shim).unwrap();
    lost
}

#[test]
fn a_rank_that_only_serves_needs_no_prompt() {
    let engine = StandInEngine::with_ranks(MODEL, "", Mapping { tp_size: 2, pp_size: 1 });
    // mpirun gives standard input to the first rank.
    for (rank, code) in [("0", 2), ("1", 0)] {
        let mut command = with_shim("run-engine", &shim());
        command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", rank);
        let output = run(command.arg("--engine").arg(engine.path()));
        assert_eq!(output.code, code, "{}", output.stderr);
    }
}
