//! What is asked, as a request of OpenAI's API.

use anyhow::{Result, ensure};
use runner::generation_options::GenerationOptions;
use runner::request_builder::Prompt;
use serde_json::{Map, Value as Json, json};
use text::chat;

use super::super::requests::Asked;

/// A request's route below `/v1`, and its body.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub path: &'static str,
    pub body: Vec<u8>,
}

/// What goes into a body besides what is asked.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub model: String,
    /// Fields that OpenAI's API does not have: vLLM's, which many servers take.
    pub extensions: bool,
}

impl Form {
    /// The call that asks this. `salt` keeps its prompt apart from those of other salts in the server's cache.
    ///
    /// # Errors
    /// An option that servers have no field for.
    pub(super) fn call(&self, asked: &Asked, salt: &str) -> Result<Call> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Json| body.insert(name.to_owned(), value);
        set("model", json!(self.model));
        set("stream", json!(true));
        let path = match &asked.prompt {
            Prompt::Ids(ids) => {
                set("prompt", json!(ids));
                COMPLETIONS
            }
            Prompt::Text(text) => {
                set("prompt", json!(text));
                COMPLETIONS
            }
            Prompt::Messages(text) => {
                let messages = asked.blame(chat::parse_messages(text).map_err(Into::into))?;
                set("messages", messages.into_iter().map(|message| Json::Object(message.into_fields())).collect());
                CHAT
            }
        };
        if self.extensions {
            set("stream_options", json!({ "include_usage": true, "continuous_usage_stats": true }));
            set("ignore_eos", json!(true));
            set("cache_salt", json!(salt));
        } else {
            set("stream_options", json!({ "include_usage": true }));
        }
        body.extend(asked.blame(fields(&asked.options, path == CHAT))?);
        Ok(Call { path, body: Json::Object(body).to_string().into_bytes() })
    }
}

pub(super) const COMPLETIONS: &str = "/completions";
pub(super) const CHAT: &str = "/chat/completions";

/// The fields of a request's options. What is not given is left to the server, except temperature and top_p.
fn fields(options: &GenerationOptions, is_chat: bool) -> Result<Map<String, Json>> {
    // Every option is either sent or refused; a new one does not compile until that is decided.
    let GenerationOptions {
        max_new_tokens,
        max_length,
        temperature: _,
        top_k,
        top_p,
        min_p,
        seed,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        prompt_ignore_length,
        no_repeat_ngram_size,
        logit_bias,
        bad_words,
        // Checked already: a measured request is one sequence, and ends by its length.
        stop: _,
        include_stop_str_in_output: _,
        end_id: _,
        ignore_eos: _,
        n: _,
        beam_width: _,
        length_penalty: _,
        early_stopping: _,
        json: _,
        json_schema: _,
        regex: _,
        grammar: _,
        skip_special_tokens,
        allowed_token_ids,
        min_tokens,
        priority,
        allotted_time_ms,
        cache_salt_id,
        lora,
        retention_priority,
        chat_template,
        chat_template_kwargs,
        tools,
        documents,
        system,
        add_generation_prompt,
        continue_final_message,
        allow_special_tokens_in_messages,
        logprobs,
        top_logprobs,
        prompt_logprobs,
        prompt_top_logprobs,
    } = options;
    for (name, is_given, advice) in [
        ("max_length", max_length.is_some(), "give max_new_tokens"),
        ("allotted_time_ms", allotted_time_ms.is_some(), "a measured request ends by its length"),
        ("cache_salt_id", cache_salt_id.is_some(), "each load has a salt of its own"),
        ("lora", lora.is_some(), "give the adapter's name as --model"),
        ("retention_priority", retention_priority.is_some(), "servers have no such field"),
        ("chat_template", chat_template.is_some(), "servers take no template from requests"),
        ("tools", tools.is_some(), "a measured request calls none"),
        ("system", system.is_some(), "give it as the first of the messages"),
        (
            "allow_special_tokens_in_messages",
            *allow_special_tokens_in_messages == Some(true),
            "servers have no such field",
        ),
        ("prompt_logprobs", *prompt_logprobs == Some(true), "streams do not carry them"),
        ("prompt_top_logprobs", prompt_top_logprobs.unwrap_or(0) > 0, "streams do not carry them"),
    ] {
        ensure!(!is_given, "`{name}` cannot be asked of a server: {advice}");
    }
    if !is_chat && let Some(field) = options.chat_only() {
        anyhow::bail!("`{field}` is for conversations, but the prompt is none: add --chat, or give `messages`");
    }
    let biases = logit_bias.as_ref().map(|biases| {
        Json::Object(biases.iter().map(|(id, bias)| (id.to_string(), number(*bias))).collect::<Map<_, _>>())
    });
    let most_probable = top_logprobs.unwrap_or(0);
    let wants_log_probs = *logprobs == Some(true) || most_probable > 0;
    let (log_probs, top_log_probs) = match is_chat {
        true => (json!(true), (most_probable > 0).then(|| json!(most_probable))),
        false => (json!(most_probable), None),
    };
    let given = [
        ("max_tokens", max_new_tokens.map(|tokens| json!(tokens))),
        ("temperature", Some(number(options.temperature_or_default()))),
        ("top_p", Some(number(top_p.unwrap_or(1.0)))),
        ("top_k", top_k.map(|k| json!(k))),
        ("min_p", min_p.map(number)),
        ("seed", seed.map(|seed| json!(seed))),
        ("repetition_penalty", repetition_penalty.map(number)),
        ("presence_penalty", presence_penalty.map(number)),
        ("frequency_penalty", frequency_penalty.map(number)),
        ("prompt_ignore_length", prompt_ignore_length.map(|length| json!(length))),
        ("no_repeat_ngram_size", no_repeat_ngram_size.map(|size| json!(size))),
        ("logit_bias", biases),
        ("bad_words", bad_words.as_ref().map(|words| json!(words))),
        ("skip_special_tokens", skip_special_tokens.map(|skip| json!(skip))),
        ("allowed_token_ids", allowed_token_ids.as_ref().map(|ids| json!(ids))),
        ("min_tokens", min_tokens.map(|tokens| json!(tokens))),
        ("priority", priority.map(number)),
        ("chat_template_kwargs", chat_template_kwargs.clone().map(Json::Object)),
        ("documents", documents.as_ref().map(|documents| json!(documents))),
        ("continue_final_message", continue_final_message.map(|goes_on| json!(goes_on))),
        (
            "add_generation_prompt",
            add_generation_prompt.or(continue_final_message.map(|goes_on| !goes_on)).map(|begins| json!(begins)),
        ),
        ("logprobs", wants_log_probs.then_some(log_probs)),
        ("top_logprobs", top_log_probs),
    ];
    Ok(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// A number as it was typed: 0.1, and not 0.10000000149011612.
fn number(value: f32) -> Json {
    value.to_string().parse::<f64>().map_or(Json::Null, |value| json!(value))
}
