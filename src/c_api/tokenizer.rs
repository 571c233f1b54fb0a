//! Text to tokens, tokens to text, conversations to text.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use text::chat::{ChatOptions, parse_messages};
use text::detokenizer::Detokenizer;
use text::tokenizer::Tokenizer;

use super::engine::{ENGINES, trtllm_engine};
use super::entry::entry;
use super::handles::{Kind, Table};
use super::pointers::{Out, elements, text};
use super::status::{Failure, TRTLLM_STATUS_INVALID_ARGUMENT, trtllm_status};
use super::strings::{CBool, new_string, new_token_ids, trtllm_ids, trtllm_str, trtllm_string, trtllm_token_ids};

/// The text of a sequence while its tokens arrive. Made by `trtllm_new_detokenizer`, freed by `trtllm_free_detokenizer`.
pub struct trtllm_detokenizer(());

static DETOKENIZERS: Table<Mutex<Detokenizer>, trtllm_detokenizer> = Table::new(Kind::Detokenizer);

fn failed(error: impl std::error::Error + 'static) -> Failure {
    Failure::from_error(TRTLLM_STATUS_INVALID_ARGUMENT, &error)
}

/// Encodes a text: writes its token ids to `ids`, as a new list. `add_special_tokens` adds what the tokenizer puts around a
/// prompt; a text of `trtllm_apply_chat_template` has it already.
///
/// Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_encode(
    engine: *const trtllm_engine,
    input: trtllm_str,
    add_special_tokens: CBool,
    ids: *mut *mut trtllm_token_ids,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for both.
        let (input, out) = unsafe { (text(input, "input")?, Out::new(ids, "ids")?) };
        let encoded = open.tokenizer()?.encode(input, add_special_tokens.get()).map_err(failed)?;
        out.write(new_token_ids(encoded)?);
        Ok(())
    })
}

/// Decodes a whole list of ids: writes its text to `output`, as a new string. Ids that the vocabulary lacks are left out, and
/// bytes that are no UTF-8 become U+FFFD. For text that grows token by token use a detokenizer.
///
/// Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_decode(
    engine: *const trtllm_engine,
    ids: trtllm_ids,
    skip_special_tokens: CBool,
    output: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for both.
        let (ids, out) = unsafe { (elements(ids.data, ids.len, "ids")?, Out::new(output, "output")?) };
        let text = open.tokenizer()?.decode(ids, skip_special_tokens.get()).map_err(failed)?;
        out.write(new_string(&text)?);
        Ok(())
    })
}

/// Looks a token up as the vocabulary spells it (`Ġworld`, `▁world`, a special token's name), and writes its id to `id`.
///
/// Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` where there is no such token, `TRTLLM_STATUS_UNSUPPORTED` for an engine without a
/// tokenizer. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_token_to_id(
    engine: *const trtllm_engine,
    token: trtllm_str,
    id: *mut u32,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for both.
        let (token, out) = unsafe { (text(token, "token")?, Out::new(id, "id")?) };
        let found = open.tokenizer()?.token_to_id(token);
        out.write(found.ok_or_else(|| Failure::argument(format!("the vocabulary has no token `{token}`")))?);
        Ok(())
    })
}

/// Writes a token as the vocabulary spells it to `token`, as a new string.
///
/// Errors: as `trtllm_token_to_id`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_id_to_token(
    engine: *const trtllm_engine,
    id: u32,
    token: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(token, "token") }?;
        let found = open.tokenizer()?.id_to_token(id);
        let found = found.ok_or_else(|| Failure::argument(format!("the vocabulary has no id {id}")))?;
        out.write(new_string(&found)?);
        Ok(())
    })
}

/// Puts a conversation into the model's chat template: writes the text to `output`, as a new string. `messages` is a JSON list
/// of objects with `role` and `content`, or a text, which is the user's message. `add_generation_prompt` ends it where the
/// assistant's answer begins. Encode it without special tokens. The text does not say what of it came from the messages, so
/// special tokens that stand in them become tokens where it is encoded; `messages` of a request does not have that fault.
///
/// Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a template that can be used, `TRTLLM_STATUS_INVALID_ARGUMENT` for
/// messages that the template refuses. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_apply_chat_template(
    engine: *const trtllm_engine,
    messages: trtllm_str,
    add_generation_prompt: CBool,
    output: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for both.
        let (messages, out) = unsafe { (text(messages, "messages")?, Out::new(output, "output")?) };
        let messages = parse_messages(messages).map_err(failed)?;
        let rendered = open
            .chat()?
            .render_at(&messages, &ChatOptions::default(), add_generation_prompt.get(), SystemTime::now())
            .map_err(failed)?;
        out.write(new_string(rendered.as_str())?);
        Ok(())
    })
}

/// Starts the text of a sequence that follows `prompt`, whose ids may be none: writes a new detokenizer to `detokenizer`. It
/// stays valid when the engine is closed.
///
/// Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_new_detokenizer(
    engine: *const trtllm_engine,
    prompt: trtllm_ids,
    skip_special_tokens: CBool,
    detokenizer: *mut *mut trtllm_detokenizer,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for both.
        let (prompt, out) =
            unsafe { (elements(prompt.data, prompt.len, "prompt")?, Out::new(detokenizer, "detokenizer")?) };
        let tokenizer: &Tokenizer = open.tokenizer()?;
        let new = Detokenizer::after_prompt(tokenizer, prompt, skip_special_tokens.get());
        out.write(DETOKENIZERS.insert(Mutex::new(new))?);
        Ok(())
    })
}

/// Takes the next ids of a sequence in, and writes the text that they make certain to `output`, as a new string: whole
/// characters, empty in the middle of one. With `is_last` also what was held back, with U+FFFD for an unfinished character.
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_detokenize(
    detokenizer: *mut trtllm_detokenizer,
    ids: trtllm_ids,
    is_last: CBool,
    output: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let detokenizer = DETOKENIZERS.get(detokenizer)?;
        // SAFETY: as the caller promises, for both.
        let (ids, out) = unsafe { (elements(ids.data, ids.len, "ids")?, Out::new(output, "output")?) };
        let mut detokenizer = detokenizer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&detokenizer.push(id));
        }
        if is_last.get() {
            text.push_str(&detokenizer.finish());
        }
        out.write(new_string(&text)?);
        Ok(())
    })
}

/// Frees a detokenizer. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_detokenizer(detokenizer: *mut trtllm_detokenizer) -> trtllm_status {
    entry(|| DETOKENIZERS.remove(detokenizer).map(drop))
}
