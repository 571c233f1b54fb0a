//! What has to hold for any bytes that claim to be a request's body, and for any text that goes out as an event.
//!
//! There is one function for each API and one for events. It says why the bytes were refused, or checks what the rest of the server
//! relies on once they are accepted, and panics where that does not hold. Nothing of it needs a network. An API's function is called
//! by a target in `fuzz_targets`, and by `server/tests/promises/fuzz.rs` with the committed corpus and with random changes of it. A new
//! API is a function here, by its reader, and a row there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use engine_format::manifest::Limits;
use runner::executor::{Executor, ExecutorConfig};
use runner::inflight::CpuExecutor;
use runner::request_builder::Prompt;
use runner::scripted_model::{Script, ScriptedModel};
use runner::session::Session;
use server::config::Settings;
use server::error::ApiError;
use server::http::record::Record;
use server::http::routes::Call;
use server::http::sse;
use server::metrics::Metrics;
use server::model::{Model, Parts};
use server::openai::start::{Input, Read, Reader, read_body};
use server::openai::{messages, prompt};
use server::tgi::request;
use text::chat::{ChatOptions, ChatTemplate, parse_messages};
use text::tokenizer::{LazyTokenizer, Tokenizer};

/// A body of `/v1/completions`.
///
/// # Errors
/// Why it is refused.
pub fn completions_body(bytes: &[u8]) -> Result<(), ApiError> {
    let read = body(bytes, prompt::read)?;
    for input in &read.inputs {
        let Input::Ids { ids, .. } = input else { panic!("a prompt of completions is not encoded: {input:?}") };
        assert!(!ids.is_empty() && ids.iter().all(|&id| (id as usize) < VOCAB_SIZE), "{ids:?}");
    }
    Ok(())
}

/// A body of `/v1/chat/completions`, and its messages through the demo model's chat template, which has one BOS whatever they say.
///
/// # Errors
/// Why it is refused.
pub fn chat_body(bytes: &[u8]) -> Result<(), ApiError> {
    let read = body(bytes, messages::read)?;
    let [Input::Prompt(Prompt::Messages(messages))] = &read.inputs[..] else { panic!("{:?}", read.inputs) };
    let messages = parse_messages(messages).expect("messages that were accepted are messages");
    static TEMPLATE: OnceLock<(ChatTemplate, Tokenizer)> = OnceLock::new();
    let open = || {
        (ChatTemplate::open(&demo_model()).expect("a template"), Tokenizer::open(&demo_model()).expect("a tokenizer"))
    };
    let (template, tokenizer) = TEMPLATE.get_or_init(open);
    // The template may refuse them.
    if let Ok(rendered) = template.render(&messages, &ChatOptions::default()) {
        let ids = tokenizer.encode_rendered(&rendered).expect("what was rendered can be encoded");
        assert_eq!(ids.iter().filter(|&&id| id == BOS).count(), 1, "{ids:?}");
    }
    Ok(())
}

/// A body of TGI's root, which `/generate` and `/generate_stream` read in the same way.
///
/// # Errors
/// Why it is refused.
pub fn generate_body(bytes: &[u8]) -> Result<(), ApiError> {
    let read = body(bytes, request::root)?;
    let [Input::Ids { ids, text: Some(_) }] = &read.inputs[..] else { panic!("{:?}", read.inputs) };
    assert!(!ids.is_empty() && ids.iter().all(|&id| (id as usize) < VOCAB_SIZE), "{ids:?}");
    assert!(read.asked.wanted.best_of == 1 || !read.asked.wanted.stream, "{:?}", read.asked.wanted);
    Ok(())
}

/// Any text as an event: one frame, which says it without loss.
///
/// # Errors
/// Never.
pub fn sse_event(bytes: &[u8]) -> Result<(), ApiError> {
    let text = String::from_utf8_lossy(bytes);
    let mut out = b": before\n\n".to_vec();
    let start = out.len();
    sse::event(&mut out, &serde_json::json!({ "text": text, &*text: [text] }));
    let frame = std::str::from_utf8(&out[start..]).expect("an event is text");
    let data =
        frame.strip_prefix("data: ").and_then(|frame| frame.strip_suffix("\n\n")).expect("an event is one frame");
    assert!(!data.contains(['\n', '\r']), "{data:?}");
    let read: serde_json::Value = serde_json::from_str(data).expect("its data are JSON");
    assert_eq!(read[&*text][0], *text);
    Ok(())
}

/// Of the demo model.
const VOCAB_SIZE: usize = 2560;
const BOS: u32 = 1;

fn body<T>(bytes: &[u8], reader: Reader<T>) -> Result<Read<T>, ApiError> {
    let call = Call::new(Arc::new(Record::new("fuzz".to_owned(), "POST", "", false)));
    let (read, fields) = read_body(model(), &call, bytes, reader).inspect_err(check_error)?;
    let wanted = &read.asked.wanted;
    assert!((1..=128).contains(&wanted.n) && (wanted.n..=128).contains(&wanted.best_of), "{wanted:?}");
    assert!(!read.inputs.is_empty() && read.inputs.len() <= 1024);
    assert!(wanted.logprobs.max(wanted.prompt_logprobs).is_none_or(|most| most <= 20), "{wanted:?}");
    assert!(fields.left().iter().all(|name| !name.is_empty() || bytes.windows(2).any(|pair| pair == b"\"\"")));
    Ok(read)
}

/// An error is the caller's fault, in words for people, and short.
fn check_error(error: &ApiError) {
    assert!(error.status.is_client_error(), "{error:?}");
    assert!(!error.message.is_empty(), "{error:?}");
    for word in ["Some(", "Number(", "EOF while", "invalid type", "recursion limit", "expected value"] {
        // Unless the caller said it.
        let is_repeated = error.message.contains('`') || error.message.contains('"');
        assert!(is_repeated || !error.message.contains(word), "{error:?}");
    }
}

fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model")
}

/// A model that generates nothing, with the demo model's tokenizer.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let script = Script { vocab_size: VOCAB_SIZE, ..Script::default() };
        let limits = Limits { max_seq_len: 1024, max_batch_size: 4, max_num_tokens: 1024 };
        let executor =
            CpuExecutor::with_model(ScriptedModel::new(script).expect("a script"), limits, &ExecutorConfig::default());
        let executor: Arc<dyn Executor> = Arc::new(executor.expect("an executor"));
        let session = Session::start(executor, Some(LazyTokenizer::of(&demo_model()))).expect("a session");
        let parts = Parts { session: Arc::new(session), engine: None, name: "fuzz".to_owned(), tokens_per_block: 16 };
        Model::new(parts, &Settings::default(), &Arc::<Metrics>::default())
    })
}
