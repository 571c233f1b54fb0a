//! A request of C as a submission of the session. What both know as text goes through [`RequestBuilder`], as in the programs; what a
//! host thinks of in tokens is added here.

use std::sync::Arc;

use runner::executor::{
    EarlyStopping, EnqueueError, GuidedDecodingParams, OutputConfig, RequestError, RequestSpec, TokenId,
};
use runner::generation_options::GenerationOptions;
use runner::request_builder::{BuildRequestError, Prompt};
use runner::session::{Destination, OutputQueue, Submission};

use super::engine::OpenEngine;
use super::logits::{UserData, post_processor};
use super::pointers::{elements, optional_text, texts};
use super::request::{
    TRTLLM_EARLY_STOPPING_NEVER, TRTLLM_EARLY_STOPPING_NO, TRTLLM_EARLY_STOPPING_YES, TRTLLM_GUIDE_EBNF_GRAMMAR,
    TRTLLM_GUIDE_JSON, TRTLLM_GUIDE_JSON_SCHEMA, TRTLLM_GUIDE_LARK_GRAMMAR, TRTLLM_GUIDE_NONE, TRTLLM_GUIDE_REGEX,
    trtllm_request,
};
use super::response::output_callback;
use super::status::{
    Failure, TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_FILES, TRTLLM_STATUS_QUEUE_FULL,
    TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_SYSTEM, TRTLLM_STATUS_UNSUPPORTED,
};
use super::strings::trtllm_ids;

/// Why the executor did not take a request.
pub(super) fn refused(error: &EnqueueError) -> Failure {
    let status = match error {
        EnqueueError::QueueFull { .. } => TRTLLM_STATUS_QUEUE_FULL,
        EnqueueError::ShutDown => TRTLLM_STATUS_SHUT_DOWN,
        EnqueueError::Failed { .. } | EnqueueError::Stalled { .. } | EnqueueError::Logits { .. } => {
            TRTLLM_STATUS_SYSTEM
        }
        EnqueueError::Unsupported { .. } => TRTLLM_STATUS_UNSUPPORTED,
        _ => TRTLLM_STATUS_INVALID_ARGUMENT,
    };
    let failure = Failure::from_error(status, error);
    match error {
        EnqueueError::Guide { .. } => Failure::new(status, format!("guide: {}", failure.message)),
        _ => failure,
    }
}

fn invalid(error: &BuildRequestError) -> Failure {
    let status = match error {
        BuildRequestError::NoTokenizer { .. }
        | BuildRequestError::ChatTemplate(_)
        | BuildRequestError::NoEngine { .. }
        // The executor has no adapters; one that cannot be used is `Lora`.
        | BuildRequestError::Option { field: "lora", .. } => TRTLLM_STATUS_UNSUPPORTED,
        BuildRequestError::Lora(_) => TRTLLM_STATUS_INVALID_FILES,
        _ => TRTLLM_STATUS_INVALID_ARGUMENT,
    };
    let failure = Failure::from_error(status, error);
    match field(error) {
        Some(field) if !failure.message.contains(field) => {
            Failure::new(status, format!("{field}: {}", failure.message))
        }
        _ => failure,
    }
}

/// The field of `trtllm_request` that an error is about, where its message does not name it already.
fn field(error: &BuildRequestError) -> Option<&'static str> {
    Some(match error {
        BuildRequestError::Option { field, .. } => field,
        BuildRequestError::StopString(_) => "stop",
        BuildRequestError::ChatTemplate(_) | BuildRequestError::Messages(_) => "messages",
        BuildRequestError::Lora(_) => "lora",
        BuildRequestError::Request(error) => match error {
            RequestError::NoAllowedTokens => "allowed_token_ids",
            RequestError::UnknownToken { what: "prompt id", .. } => "token_ids",
            RequestError::UnknownToken { what: "end id", .. } => "end_ids",
            RequestError::UnknownToken { what: "stop word's id", .. }
            | RequestError::EmptyWord { what: "stop word" } => "stop_words",
            RequestError::UnknownToken { what: "bad word's id", .. } | RequestError::EmptyWord { what: "bad word" } => {
                "bad_token_words"
            }
            RequestError::UnknownToken { what: "biased token", .. } | RequestError::Bias { .. } => "embedding_bias",
            RequestError::Excluded { .. } => "beam_width",
            _ => return None,
        },
        _ => return None,
    })
}

/// A request of C as a submission.
///
/// # Safety
/// Everything that the request points to can be read, as the header has it.
pub(super) unsafe fn submission(
    open: &OpenEngine,
    request: &trtllm_request,
    queue: Option<Arc<OutputQueue>>,
) -> Result<Submission, Failure> {
    // SAFETY: as the caller promises, for every call here.
    unsafe {
        let stop = texts(request.stop, request.num_stop, "stop")?;
        let has_text = request.return_text.get() && open.session.tokenizer().is_some();
        if !stop.is_empty() && !has_text {
            return Err(Failure::argument("stop needs text: set return_text, and use an engine with a tokenizer"));
        }
        let builder = open.request_builder();
        let prompt = prompt(request)?;
        let options = GenerationOptions { stop: Some(stop), ..options(request)? };
        let spec = builder.spec(&prompt, &options).map_err(|error| invalid(&error))?;
        let spec = with_tokens(spec, request)?;
        let submission = builder.submission(spec, &options, has_text).map_err(|error| invalid(&error))?;
        let user_data = UserData::new(request.user_data);
        let destination = match (output_callback(request.on_response, user_data), queue) {
            (None, None) => Destination::Session,
            (Some(on_response), None) => Destination::Callback(on_response),
            (None, Some(queue)) => Destination::Queue(queue),
            (Some(_), Some(_)) => {
                return Err(Failure::argument("the request has both on_response and queue: its responses go to one"));
            }
        };
        Ok(Submission { destination, tag: request.user_data as usize as u64, ..submission })
    }
}

/// # Safety
/// As [`submission`].
unsafe fn prompt(request: &trtllm_request) -> Result<Prompt, Failure> {
    // SAFETY: as the caller promises.
    let (prompt, messages, ids) = unsafe {
        let ids = elements(request.token_ids.data, request.token_ids.len, "token_ids")?;
        (optional_text(request.prompt, "prompt")?, optional_text(request.messages, "messages")?, ids)
    };
    match (prompt, messages, ids) {
        (Some(text), None, []) => Ok(Prompt::Text(text.to_owned())),
        (None, Some(messages), []) => Ok(Prompt::Messages(messages.to_owned())),
        (None, None, []) => Err(Failure::argument("the request has no prompt: set prompt, messages or token_ids")),
        (None, None, ids) => Ok(Prompt::Ids(ids.to_vec())),
        _ => Err(Failure::argument("the request has several prompts: set one of prompt, messages and token_ids")),
    }
}

/// The options that programs have too. A number that means "none" in C is left out.
///
/// # Safety
/// As [`submission`].
unsafe fn options(request: &trtllm_request) -> Result<GenerationOptions, Failure> {
    let given = |number: usize| (number > 0).then_some(number);
    // SAFETY: as the caller promises.
    let (bad_words, bias, lora, end_id, allowed) = unsafe {
        let bad_words = texts(request.bad_words, request.num_bad_words, "bad_words")?;
        let bias = elements(request.embedding_bias, request.num_embedding_bias, "embedding_bias")?;
        let (end_id, allowed) =
            (ids(request.end_ids, "end_ids")?, ids(request.allowed_token_ids, "allowed_token_ids")?);
        (bad_words, bias, optional_text(request.lora, "lora")?, end_id, allowed)
    };
    let mut options = GenerationOptions {
        max_new_tokens: Some(request.max_new_tokens),
        temperature: Some(request.temperature).filter(|temperature| *temperature >= 0.0 || temperature.is_nan()),
        top_k: given(request.top_k),
        top_p: Some(request.top_p).filter(|&top_p| top_p != 1.0),
        min_p: Some(request.min_p).filter(|&min_p| min_p != 0.0),
        seed: Some(request.seed),
        repetition_penalty: Some(request.repetition_penalty),
        presence_penalty: Some(request.presence_penalty),
        frequency_penalty: Some(request.frequency_penalty),
        prompt_ignore_length: Some(request.prompt_ignore_length),
        no_repeat_ngram_size: Some(request.no_repeat_ngram_size),
        logit_bias: Some(bias.iter().map(|bias| (bias.token_id, bias.bias)).collect()),
        bad_words: Some(bad_words),
        min_tokens: Some(request.min_tokens),
        ignore_eos: Some(request.ignore_eos.get()),
        end_id: Some(end_id).filter(|ids| !ids.is_empty()),
        allowed_token_ids: Some(allowed).filter(|ids| !ids.is_empty()),
        include_stop_str_in_output: Some(request.include_stop_str_in_output.get()),
        skip_special_tokens: Some(request.skip_special_tokens.get()),
        n: given(request.num_return_sequences),
        beam_width: Some(request.beam_width),
        length_penalty: Some(request.length_penalty),
        early_stopping: Some(match request.early_stopping {
            TRTLLM_EARLY_STOPPING_NO => EarlyStopping::No,
            TRTLLM_EARLY_STOPPING_YES => EarlyStopping::Yes,
            TRTLLM_EARLY_STOPPING_NEVER => EarlyStopping::Never,
            other => return Err(Failure::argument(format!("{other} is no trtllm_early_stopping"))),
        }),
        priority: Some(request.priority),
        allotted_time_ms: Some(request.allotted_time_ms).filter(|&milliseconds| milliseconds > 0),
        cache_salt_id: request.has_cache_salt_id.get().then_some(request.cache_salt_id),
        lora: lora.filter(|path| !path.is_empty()).map(Into::into),
        retention_priority: retention_priority(request.retention_priority)?,
        logprobs: Some(request.return_log_probs.get()),
        top_logprobs: Some(request.top_log_probs),
        prompt_logprobs: Some(request.return_prompt_log_probs.get()),
        prompt_top_logprobs: Some(request.prompt_top_log_probs),
        // Set below.
        chat_template: None,
        chat_template_kwargs: None,
        tools: None,
        documents: None,
        system: None,
        add_generation_prompt: None,
        continue_final_message: None,
        allow_special_tokens_in_messages: None,
        // Guides have kinds of their own here, and stop texts are read before these.
        json: None,
        json_schema: None,
        regex: None,
        grammar: None,
        stop: None,
        max_length: None,
    };
    // SAFETY: as the caller promises.
    unsafe { set_chat_options(&mut options, request)? };
    Ok(options)
}

/// Sets what the chat template is given.
///
/// # Safety
/// As [`submission`].
unsafe fn set_chat_options(options: &mut GenerationOptions, request: &trtllm_request) -> Result<(), Failure> {
    for (name, field) in [
        ("chat_template", request.chat_template),
        ("chat_template_kwargs", request.chat_template_kwargs),
        ("tools", request.tools),
        ("documents", request.documents),
        ("system", request.system),
    ] {
        // SAFETY: as the caller promises.
        if let Some(text) = unsafe { optional_text(field, name) }?.filter(|text| !text.is_empty()) {
            options.set(name, text).map_err(|problem| Failure::argument(format!("{name} {problem}")))?;
        }
    }
    options.continue_final_message = Some(request.continue_final_message.get());
    options.allow_special_tokens_in_messages = Some(request.allow_special_tokens_in_messages.get());
    Ok(())
}

fn retention_priority(priority: i32) -> Result<Option<u8>, Failure> {
    if priority < 0 {
        return Ok(None);
    }
    let priority = u8::try_from(priority).ok().filter(|&priority| priority <= 100);
    priority.map(Some).ok_or_else(|| Failure::argument("retention_priority must be at most 100"))
}

/// What a host asks for in tokens, its guide and its hook.
///
/// # Safety
/// As [`submission`].
unsafe fn with_tokens(spec: RequestSpec, request: &trtllm_request) -> Result<RequestSpec, Failure> {
    // SAFETY: as the caller promises.
    unsafe {
        let mut bad_words = id_lists(request.bad_token_words, request.num_bad_token_words, "bad_token_words")?;
        bad_words.extend(spec.bad_words);
        Ok(RequestSpec {
            stop_words: id_lists(request.stop_words, request.num_stop_words, "stop_words")?,
            bad_words,
            guided_decoding: guide(request)?,
            logits_post_processor: post_processor(request.logits_post_processor, UserData::new(request.user_data)),
            streaming: request.streaming.get(),
            output: OutputConfig {
                return_context_logits: request.return_context_logits.get(),
                return_generation_logits: request.return_generation_logits.get(),
                ..spec.output
            },
            ..spec
        })
    }
}

/// # Safety
/// As [`submission`].
unsafe fn guide(request: &trtllm_request) -> Result<Option<GuidedDecodingParams>, Failure> {
    // SAFETY: as the caller promises.
    let text = unsafe { optional_text(request.guide, "guide") }?.unwrap_or_default().to_owned();
    Ok(Some(match request.guide_kind {
        TRTLLM_GUIDE_NONE if text.is_empty() => return Ok(None),
        TRTLLM_GUIDE_JSON if text.is_empty() => GuidedDecodingParams::Json,
        TRTLLM_GUIDE_NONE | TRTLLM_GUIDE_JSON => {
            return Err(Failure::argument("guide is given, but its guide_kind takes none"));
        }
        TRTLLM_GUIDE_JSON_SCHEMA => GuidedDecodingParams::JsonSchema(text),
        TRTLLM_GUIDE_REGEX => GuidedDecodingParams::Regex(text),
        TRTLLM_GUIDE_EBNF_GRAMMAR => GuidedDecodingParams::EbnfGrammar(text),
        TRTLLM_GUIDE_LARK_GRAMMAR => GuidedDecodingParams::LarkGrammar(text),
        other => return Err(Failure::argument(format!("{other} is no trtllm_guide_kind"))),
    }))
}

/// # Safety
/// As [`elements`].
unsafe fn ids(ids: trtllm_ids, name: &str) -> Result<Vec<TokenId>, Failure> {
    // SAFETY: as the caller promises.
    unsafe { elements(ids.data, ids.len, name) }.map(<[TokenId]>::to_vec)
}

/// # Safety
/// As [`elements`], for the list and each of its lists.
unsafe fn id_lists(lists: *const trtllm_ids, len: usize, name: &str) -> Result<Vec<Vec<TokenId>>, Failure> {
    // SAFETY: as the caller promises.
    let lists = unsafe { elements(lists, len, name) }?;
    // SAFETY: as the caller promises.
    lists.iter().map(|&list| unsafe { ids(list, name) }).collect()
}
