//! `serve-engine` over TensorRT-LLM.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{fixture, program, run};
use crate::stand_in::{StandInEngine, shim};

const MODEL: &str = "parity/mistral-gqa";

/// With a tokenizer, and without logits of generated tokens.
fn engine() -> StandInEngine {
    let engine = StandInEngine::new(MODEL, "latency_us 1000\n");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("tokenizer").join(name), engine.path().join(name)).unwrap();
    }
    engine.edit(|config| config["build_config"]["gather_generation_logits"] = false.into());
    engine
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(engine: &Path, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let mut command = program("serve-engine");
        command
            .env("TRTLLM_GPU_LIB", shim())
            .arg("--engine")
            .arg(engine)
            .args(["--port", "0", "--ready-file"])
            .arg(&ready);
        let child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::fs::read_to_string(&ready).map_or(true, |text| !text.ends_with('\n')) {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let address = std::fs::read_to_string(&ready).unwrap().trim().to_owned();
        let server = Self { child, address };
        while server.ask("GET /ready", None).0 != 200 {
            assert!(Instant::now() < deadline, "it is not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// The status of the answer, and its body.
    fn ask(&self, what: &str, body: Option<&Value>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn complete(&self, fields: Value) -> (u16, Value) {
        let mut body =
            json!({ "prompt": [1, 2, 3], "max_tokens": 6, "seed": 5, "ignore_eos": true, "return_token_ids": true });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, body) = self.ask("POST /v1/completions", Some(&body));
        (status, serde_json::from_str(&body).unwrap())
    }

    fn token_ids(&self, fields: Value) -> Value {
        let (status, body) = self.complete(fields);
        assert_eq!(status, 200, "{body}");
        let ids = body["choices"][0]["token_ids"].clone();
        assert_eq!(ids.as_array().unwrap().len(), 6, "{body}");
        ids
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An adapter of the model's first attention, as PEFT writes it.
fn adapter() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "task_type": "CAUSAL_LM", "target_modules": ["q_proj"],
    });
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<u8> = (0_u8..64).flat_map(|number| f32::from(number).to_le_bytes()).collect();
    let tensor = |name: &str, shape: [usize; 2]| {
        let name = format!("base_model.model.model.layers.0.self_attn.q_proj.{name}.weight");
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes).unwrap())
    };
    let file = safetensors::serialize([tensor("lora_A", [2, 32]), tensor("lora_B", [32, 2])], None).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors"), file).unwrap();
    dir
}

#[test]
fn a_server_answers_and_names_the_field_of_what_it_cannot_do() {
    let (engine, adapter) = (engine(), adapter());
    let lora = format!("tuned={}", adapter.path().display());
    let server = Server::start(engine.path(), &["--lora", &lora]);
    let plain = server.token_ids(json!({}));
    assert_eq!(server.token_ids(json!({})), plain);
    // By the adapter's name in the place of the model's, and beside it.
    let tuned = server.token_ids(json!({ "model": "tuned" }));
    assert_ne!(tuned, plain);
    assert_eq!(server.token_ids(json!({ "lora": "tuned" })), tuned);

    for (fields, param) in [
        (json!({ "guided_regex": "[a-" }), "guided_regex"),
        (json!({ "guided_grammar": "start: /a/" }), "guided_grammar"),
        (json!({ "guided_json": { "type": "integer", "multipleOf": 2 } }), "guided_json"),
        (json!({ "logprobs": 2 }), "logprobs"),
        (json!({ "top_k": 5000, "temperature": 1.0 }), "top_k"),
    ] {
        let (status, body) = server.complete(fields);
        assert_eq!((status, body["error"]["param"].as_str()), (400, Some(param)), "{body}");
    }
    for fields in
        [json!({ "guided_choice": ["!", "\""] }), json!({ "guided_regex": "[!-~]+" }), json!({ "logprobs": 0 })]
    {
        let (status, body) = server.complete(fields);
        assert_eq!(status, 200, "{body}");
    }
}

#[test]
fn a_bad_guide_in_a_prompts_file_gets_a_line_of_its_own() {
    let engine = engine();
    let prompts = engine.path().join("prompts.jsonl");
    let line = |guide: &str| format!("{}\n", json!({ "prompt_ids": [1, 2], "regex": guide, "max_new_tokens": 4 }));
    std::fs::write(&prompts, ["[!-~]+", "[a-", "[!-#]*"].map(line).concat()).unwrap();
    let mut command = program("run-engine");
    command.env("TRTLLM_GPU_LIB", shim()).arg("--engine").arg(engine.path()).arg("--prompts").arg(&prompts);
    let output = run(command.args(["--format", "json"]));
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((output.code, lines.len()), (1, 3), "{}{}", output.stdout, output.stderr);
    for line in &lines {
        let error = line["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("the regex cannot be used"), line["index"] == 1, "{line}");
    }
}
