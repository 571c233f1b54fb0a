//! Advice about models and engines: commands and paths that a message gives are run as they stand, with the names that the user
//! has in place of `MODEL`, `DIR` and the like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common;
use crate::support::{copy, demo, file, parity_model, refused, run_engine, succeeded, text_model, write_json};

/// A program where no GPU can be seen.
fn program(name: &str) -> Command {
    let mut command = common::program(name);
    command.env("TRTLLM_GPU_LIB", "/no/such/library").env("HF_HUB_CACHE", "/no/such/cache");
    command
}

/// `build-engine` for the CPU.
fn build(model: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = program("build-engine");
    command.args(["--gpu", "none", "--model"]).arg(model).arg("--output").arg(output).args(more);
    command
}

/// Two tokens of an engine.
fn runs(engine: &Path, prompt: [&str; 2]) -> Command {
    run_engine(engine, &[prompt[0], prompt[1], "--max-new-tokens", "2"])
}

/// What the message of a command that must be refused has between the backticks behind `before`.
fn advised(command: &mut Command, before: &str) -> String {
    let said = common::run(command).stderr;
    refused(command, 2, &[before]);
    said.split(before).nth(1).unwrap().split('`').next().unwrap().to_owned()
}

/// A command line of a message.
fn command(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = program(words.next().unwrap());
    command.args(words);
    command
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    write_json(path, &value);
}

/// A directory, and a place in it that does not exist.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine");
    (dir, path)
}

#[test]
fn a_command_that_is_given_makes_what_was_missing() {
    let model = text_model("tokenizer");
    let (_dir, engine) = place();
    let line = advised(&mut runs(&engine, ["--prompt", "a"]), "is missing: `");
    let line = line.replace("MODEL", model.path().to_str().unwrap()).replace("DIR", engine.to_str().unwrap());
    succeeded(&mut command(&line));
    succeeded(&mut runs(&engine, ["--prompt", "a"]));

    // An engine of another version.
    let manifest = engine.join("engine.json");
    change(&manifest, |manifest| {
        manifest["format_version"] = json!(99);
        manifest["versions"]["weights"] = json!("int8");
    });
    let line = advised(&mut runs(&engine, ["--prompt", "a"]), "build the engine again with `");
    succeeded(&mut command(&line));
    succeeded(&mut runs(&engine, ["--prompt", "a"]));
    let built: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(built["versions"]["weights"], "int8", "it was built anew of another type");

    // An engine in the place of a model, and a model in the place of an engine.
    let (_other, other) = place();
    let line = advised(&mut build(&engine, &other, &[]), "run it with `");
    succeeded(command(&line).args(["--prompt", "a", "--max-new-tokens", "2"]));
    advised(&mut runs(model.path(), ["--prompt", "a"]), "the directory is not an engine; `");
}

#[test]
fn a_directory_that_is_given_is_the_model() {
    let model = parity_model("mistral-nemo");
    let (dir, engine) = place();
    let cache = dir.path().join("models--org--name");
    let snapshot = cache.join("snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    copy(model.path(), &snapshot);
    let path = advised(&mut build(&cache, &engine, &[]), "in the Hugging Face cache: give `");
    succeeded(&mut build(Path::new(&path), &engine, &[]));
    let path = advised(&mut build(&cache.join("snapshots"), &engine, &["--force"]), "the model may be `");
    succeeded(&mut build(Path::new(&path), &engine, &["--force"]));
    refused(
        &mut build(&model.path().join("config.json"), &engine, &["--force"]),
        2,
        &["give the directory that holds `config.json`"],
    );
}

#[test]
fn what_a_build_advises_is_accepted() {
    let model = parity_model("mistral-nemo");
    let (dir, engine) = place();
    succeeded(&mut build(model.path(), &engine, &[]));
    refused(&mut build(model.path(), &engine, &[]), 2, &["choose another directory, or set --force to replace it"]);
    succeeded(&mut build(model.path(), &engine, &["--force"]));
    succeeded(&mut build(model.path(), &dir.path().join("another"), &[]));

    let (_dir, engine) = place();
    let checkpoint = engine.to_str().unwrap().to_owned();
    refused(
        &mut build(model.path(), &engine, &["--checkpoint", &checkpoint]),
        2,
        &["are the same directory", "give two"],
    );
    succeeded(&mut build(model.path(), &engine, &["--checkpoint", &format!("{checkpoint}-checkpoint")]));

    refused(&mut build(model.path(), &engine, &["--force", "--max-seq-len", "257"]), 2, &["give at most 256"]);
    succeeded(&mut build(model.path(), &engine, &["--force", "--max-seq-len", "100"]));
    let ids = ["--prompt-ids", "1,2"];
    let long = || {
        let mut run = runs(&engine, ids);
        run.args(["--max-seq-len", "200"]);
        run
    };
    refused(&mut long(), 2, &["a run may only lower it; build the engine with a higher one"]);
    succeeded(&mut build(model.path(), &engine, &["--force", "--max-seq-len", "256"]));
    succeeded(&mut long());
    refused(
        &mut build(model.path(), &engine, &["--force", "--tp-size", "2"]),
        2,
        &["or --checkpoint without --output"],
    );
    let mut split = program("build-engine");
    split.arg("--model").arg(model.path()).args(["--tp-size", "2", "--checkpoint-only", "--checkpoint"]);
    succeeded(split.arg(dir.path().join("split")));
}

#[test]
fn an_engine_without_a_tokenizer_takes_ids_or_is_built_from_a_model_that_has_one() {
    let model = text_model("tokenizer");
    let (_dir, engine) = place();
    let tokenizer = fs::read(model.path().join("tokenizer.json")).unwrap();
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    succeeded(&mut build(model.path(), &engine, &[]));
    let advice = "give --prompt-ids, or build it again from a model with `tokenizer.json`";
    refused(&mut runs(&engine, ["--prompt", "a"]), 2, &[advice]);
    succeeded(&mut runs(&engine, ["--prompt-ids", "1,2"]));
    fs::write(model.path().join("tokenizer.json"), tokenizer).unwrap();
    succeeded(&mut build(model.path(), &engine, &["--force"]));
    succeeded(&mut runs(&engine, ["--prompt", "a"]));

    // A tokenizer whose text cannot be made token by token.
    change(&model.path().join("tokenizer.json"), |file| {
        file["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true})
    });
    succeeded(&mut build(model.path(), &engine, &["--force"]));
    refused(&mut runs(&engine, ["--prompt", "a"]), 2, &["give prompts as ids and read output ids instead"]);
    succeeded(&mut runs(&engine, ["--prompt-ids", "1,2"]));
}

#[test]
fn a_model_without_a_chat_template_takes_plain_text_or_is_given_one() {
    let (model, (_dir, engine)) = (text_model("tokenizer"), place());
    succeeded(&mut build(model.path(), &engine, &[]));
    let chat = || {
        let mut run = runs(&engine, ["--prompt", "a"]);
        run.arg("--chat");
        run
    };
    let advice =
        "leave out --chat and give the prompt as plain text, or put the template into chat_template.jinja there";
    refused(&mut chat(), 2, &[advice]);
    succeeded(&mut runs(&engine, ["--prompt", "a"]));
    fs::write(engine.join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    succeeded(&mut chat());
}

#[test]
fn damage_is_mended_by_copying_the_engine_again() {
    let (intact, (_dir, engine)) = (demo(), place());
    let run = || runs(&engine, ["--prompt", "Mars"]);
    let again = || {
        let _ = fs::remove_dir_all(&engine);
        fs::create_dir(&engine).unwrap();
        copy(&intact.path, &engine);
    };
    for name in ["tokenizer.json", "rank0.weights"] {
        let damages: [&dyn Fn(&Path); 2] =
            [&|path| fs::write(path, "short").unwrap(), &|path| fs::remove_file(path).unwrap()];
        for damage in damages {
            again();
            damage(&engine.join(name));
            refused(&mut run(), 2, &[name, "copy the engine directory again or build it again"]);
            again();
            succeeded(&mut run());
        }
    }
}

#[test]
fn a_tokenizer_setting_that_is_refused_is_set_to_false() {
    let (model, (_dir, engine)) = (text_model("tokenizer"), place());
    let config = model.path().join("tokenizer_config.json");
    change(&config, |config| config["split_special_tokens"] = json!(true));
    refused(&mut build(model.path(), &engine, &[]), 2, &["split_special_tokens", "set it to false"]);
    change(&config, |config| config["split_special_tokens"] = json!(false));
    succeeded(&mut build(model.path(), &engine, &[]));
}

#[test]
fn what_a_benchmark_advises_is_accepted() {
    let engine = demo();
    let bench = |line: &str| {
        let (dir, prompts) = file("prompts.jsonl", line);
        let mut command = program("bench-engine");
        command.arg("--engine").arg(&engine.path).arg("--prompts").arg(prompts).current_dir(dir.path());
        (dir, command)
    };
    for (line, advice) in [
        (
            r#"{"prompt": "Mars", "max_new_tokens": 2, "stop": "."}"#,
            "leave out `stop`, `end_id`, `ignore_eos` and what guides the output",
        ),
        (r#"{"prompt": "Mars", "max_new_tokens": 2, "n": 2}"#, "leave out `n` and `beam_width`"),
    ] {
        let (_dir, mut command) = bench(line);
        refused(&mut command, 2, &[advice]);
    }
    let (_dir, mut command) = bench(r#"{"prompt": "Mars", "max_new_tokens": 2}"#);
    succeeded(&mut command);
}
