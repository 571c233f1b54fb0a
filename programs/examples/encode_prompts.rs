//! Prints what the model reads of each prompt: its token ids, and the text that the chat template made of a conversation.
//!
//! ```text
//! cargo run --release -p programs --example encode_prompts -- ENGINE < prompts.jsonl
//! ```
//!
//! A line is as in a prompts file of `run-engine`, with `prompt` or `messages`. For each there is one line
//! `{"ids": […], "text": "…"}`, or `{"error": "…"}`. `scripts/prove-real-model` compares them with Transformers'.

#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;

use runner::engine::Engine;
use runner::executor::ExecutorConfig;
use runner::generation_options::GenerationOptions;
use runner::request_builder::{Prompt, RequestBuilder};
use serde_json::{Map, Value, json};
use text::chat;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: encode_prompts ENGINE < PROMPTS")?;
    let engine = Engine::open(Path::new(&dir), &ExecutorConfig::default())?;
    for line in std::io::stdin().lines() {
        let encoded = encode(&engine, serde_json::from_str(&line?)?);
        println!("{}", encoded.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    }
    Ok(())
}

fn encode(engine: &Engine, mut line: Map<String, Value>) -> Result<Value, Box<dyn Error>> {
    let (prompt, messages) = (line.remove("prompt"), line.remove("messages"));
    let options = GenerationOptions::from_json(line)?;
    let (prompt, text) = match (prompt, messages) {
        (Some(Value::String(text)), None) => (Prompt::Text(text), None),
        (None, Some(Value::Array(list))) => {
            let text = engine.chat()?.render(&chat::messages_from_json(list.clone())?, &options.chat())?;
            (Prompt::Messages(Value::Array(list).to_string()), Some(text.into_string()))
        }
        _ => return Err("a line needs `prompt`, a text, or `messages`, a list".into()),
    };
    let executor = engine.executor();
    let ids = RequestBuilder::new(engine, executor.as_ref()).spec(&prompt, &options)?.input_token_ids;
    Ok(json!({ "ids": ids, "text": text }))
}
