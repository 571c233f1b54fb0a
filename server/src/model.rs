//! The engine as requests see it: its names, its defaults, and what makes requests of prompts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use engine_format::engine_dir::GENERATION_CONFIG_FILE;
use engine_format::json;
use runner::engine::{Engine, Running};
use runner::executor::{ExecutorConfig, KvCacheDtype, TokenId};
use runner::generation_options::GenerationOptions;
use runner::request_builder::RequestBuilder;
use runner::session::Session;
use text::tokenizer::{LazyTokenizer, Tokenizer};

use crate::config::Settings;
use crate::error::ApiError;
use crate::generate::Generator;
use crate::generate::admission::{Admission, Limits};
use crate::generate::queue::Queue;
use crate::metrics::Metrics;

/// Names by which clients that cannot name a model ask for one.
const PLACEHOLDERS: [&str; 4] = ["", "tgi", "dummy", "default"];

/// Sampling settings where a request has none.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Defaults {
    /// OpenAI's is 1; 0 where the file says `do_sample`: false.
    pub temperature: f32,
    /// The fewest best tokens whose probabilities reach this.
    pub top_p: f32,
    /// The best tokens, so many; 0 for all.
    pub top_k: usize,
    /// Tokens at least this times as probable as the best.
    pub min_p: f32,
    /// Divides the logits of tokens already seen.
    pub repetition_penalty: f32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl Defaults {
    /// Those of a model's `generation_config.json`. What is missing, or no number that could be used, has its own default.
    fn of_file(path: &Path) -> Self {
        let Ok(value) = json::read_file(path, "") else { return Self::default() };
        let number = |name: &str, low: f64, high: f64| {
            value.get(name).and_then(serde_json::Value::as_f64).filter(|number| (low..=high).contains(number))
        };
        let default = Self::default();
        // As in Transformers, which has no use for a temperature then.
        let is_greedy = value.get("do_sample").and_then(serde_json::Value::as_bool) == Some(false);
        let temperature = if is_greedy { Some(0.0) } else { number("temperature", 0.0, 100.0) };
        Self {
            temperature: temperature.map_or(default.temperature, |number| number as f32),
            top_p: number("top_p", 0.0, 1.0).map_or(default.top_p, |number| number as f32),
            top_k: number("top_k", 0.0, 1e9).map_or(default.top_k, |number| number as usize),
            min_p: number("min_p", 0.0, 1.0).map_or(default.min_p, |number| number as f32),
            repetition_penalty: number("repetition_penalty", 1e-3, 1e3)
                .map_or(default.repetition_penalty, |number| number as f32),
        }
    }
}

/// What requests may ask for, as the server's settings say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The highest temperature.
    pub max_temperature: f64,
    /// Whether a priority is vLLM's: a whole number, lower first.
    pub vllm_priority: bool,
    /// Whether `prompt_cache_key` separates cached prefixes.
    pub salt_from_cache_key: bool,
    /// Whether special tokens in messages may be tokens.
    pub special_tokens_in_messages: bool,
}

impl Rules {
    fn of(settings: &Settings) -> Self {
        Self {
            max_temperature: if settings.lenient { 100.0 } else { 2.0 },
            vllm_priority: settings.priority_style == "vllm",
            salt_from_cache_key: settings.salt_from == "prompt_cache_key",
            special_tokens_in_messages: settings.allow_special_tokens_in_messages,
        }
    }
}

/// An engine that is open.
#[derive(Debug)]
pub struct Model {
    /// The first is what answers call it.
    names: Vec<String>,
    adapters: Vec<(String, PathBuf)>,
    any_name: bool,
    created: u64,
    engine: Option<Arc<Engine>>,
    session: Arc<Session>,
    generator: Generator,
    admission: Arc<Admission>,
    queue: Option<Arc<Queue>>,
    end_ids: Vec<TokenId>,
    defaults: Defaults,
    rules: Rules,
    fingerprint: String,
}

/// What a model is made of.
#[derive(Debug)]
pub struct Parts {
    /// The executor, shared.
    pub session: Arc<Session>,
    /// The engine; none behind an executor that has none, which has no chat template either.
    pub engine: Option<Arc<Engine>>,
    /// What the model is called where nobody has given it a name.
    pub name: String,
    /// Tokens of a KV-cache block.
    pub tokens_per_block: usize,
}

impl Parts {
    /// Of an engine that was opened.
    ///
    /// # Errors
    /// The session's thread cannot be started.
    pub fn of_engine(engine: Engine, config: &ExecutorConfig) -> std::io::Result<Self> {
        let name = engine.dir().path().file_name().map(|name| name.to_string_lossy().into_owned());
        let session = Session::start(engine.executor(), engine.tokenizer().cloned())?;
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "engine".to_owned());
        let tokens_per_block = config.kv_cache.tokens_per_block;
        Ok(Self { session: Arc::new(session), engine: Some(Arc::new(engine)), name, tokens_per_block })
    }
}

impl Model {
    /// Makes a model of its parts.
    pub fn new(parts: Parts, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        let Parts { session, engine, name, tokens_per_block } = parts;
        metrics.set_tokens_per_block(tokens_per_block);
        let names = match settings.served_model_name.is_empty() {
            true => vec![name],
            false => settings.served_model_name.clone(),
        };
        let limits = session.executor().limits();
        let or = |asked: usize, default: usize| if asked == 0 { default } else { asked };
        let admission = Admission::new(Limits {
            running: limits.max_batch_size,
            queued: or(settings.max_queued_requests, limits.max_batch_size.saturating_mul(4)),
            queued_tokens: or(settings.max_queued_tokens, limits.max_num_tokens.saturating_mul(8)),
        });
        let queue = (settings.max_queue_wait > 0.0).then(Arc::<Queue>::default);
        let dir = engine.as_ref().map(|engine| engine.dir());
        let config = dir.filter(|dir| settings.generation_config == "engine" && dir.has_file(GENERATION_CONFIG_FILE));
        let adapters = settings.adapters().map(|(name, dir)| (name.to_owned(), PathBuf::from(dir))).collect();
        Self {
            fingerprint: fingerprint(engine.as_deref()),
            rules: Rules::of(settings),
            defaults: config
                .map_or_else(Defaults::default, |dir| Defaults::of_file(&dir.path().join(GENERATION_CONFIG_FILE))),
            end_ids: engine.as_ref().map(|engine| engine.end_ids().to_vec()).unwrap_or_default(),
            generator: Generator::new(session.clone(), metrics.clone(), queue.clone()),
            queue,
            created: seconds_now(),
            any_name: settings.any_model,
            names,
            adapters,
            engine,
            session,
            admission,
        }
    }

    /// What makes requests of prompts.
    pub fn builder(&self) -> RequestBuilder<'_> {
        RequestBuilder {
            executor: self.session.executor(),
            tokenizer: self.session.tokenizer(),
            engine: self.engine.as_deref(),
        }
    }

    /// The adapter that a model name asks for, if it is one.
    ///
    /// # Errors
    /// Nothing here has that name.
    pub fn resolve(&self, name: &str) -> Result<Option<&Path>, ApiError> {
        if let Some((_, dir)) = self.adapters.iter().find(|(adapter, _)| adapter == name) {
            return Ok(Some(dir));
        }
        let is_url = name.starts_with("http://") || name.starts_with("https://");
        if self.any_name || is_url || PLACEHOLDERS.contains(&name) || self.names.iter().any(|known| known == name) {
            return Ok(None);
        }
        let known: Vec<_> = self.all_names().map(|(name, _)| format!("`{name}`")).collect();
        let message = format!("the model `{name}` does not exist; this server has {}", known.join(", "));
        let error = ApiError::of(http::StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        Err(ApiError { param: Some("model".to_owned()), ..error })
    }

    /// The adapter of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn adapter(&self, name: &str) -> Result<&Path, ApiError> {
        let found = self.adapters.iter().find(|(adapter, _)| adapter == name);
        found.map(|(_, dir)| dir.as_path()).ok_or_else(|| {
            let known: Vec<_> = self.adapters.iter().map(|(name, _)| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            ApiError::invalid("lora", format!("`lora`: there is no adapter `{name}`; this server has {known}"))
        })
    }

    /// Every name, and of adapters the name of the model below.
    pub fn all_names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let parent = Some(self.name());
        let names = self.names.iter().map(|name| (name.as_str(), None));
        names.chain(self.adapters.iter().map(move |(name, _)| (name.as_str(), parent)))
    }

    /// What answers call it.
    pub fn name(&self) -> &str {
        self.names.first().map_or("engine", String::as_str)
    }

    /// When it was opened, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// The executor, shared.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What starts requests.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// What counts them.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Requests that may not wait for ever, where there is such a limit.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    /// The tokens that end a sequence.
    pub fn end_ids(&self) -> &[TokenId] {
        &self.end_ids
    }

    /// Sampling settings where a request has none.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// What requests may ask for.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the chat template does not read, by the fields that it came in: of its variables, and of `message_fields`, which are
    /// paths and names.
    pub fn unread(&self, options: &GenerationOptions, message_fields: &[(String, String)]) -> Vec<String> {
        if options.documents.is_none() && options.chat_template_kwargs.is_none() && message_fields.is_empty() {
            return Vec::new();
        }
        // Without a template the request fails anyway.
        let Some(Ok(template)) = self.engine.as_ref().map(|engine| engine.chat()) else { return Vec::new() };
        let chat = options.chat();
        let is_unread = |name: &str| matches!(template.reads(&chat, name), Ok(false));
        let documents = chat.documents.is_some() && is_unread("documents");
        let more = chat.chat_template_kwargs.keys().filter(|name| is_unread(name));
        let more = more.map(|name| format!("chat_template_kwargs.{name}"));
        let is_unread = |name: &str| matches!(template.reads_field(&chat, name), Ok(false));
        let of_messages = message_fields.iter().filter(|(_, name)| is_unread(name)).map(|(path, _)| path.clone());
        documents.then(|| "documents".to_owned()).into_iter().chain(more).chain(of_messages).collect()
    }

    /// Whether conversations can be made prompts.
    pub fn has_chat_template(&self) -> bool {
        self.session.tokenizer().is_some() && self.engine.as_ref().is_some_and(|engine| engine.chat().is_ok())
    }

    /// The chat template that is used where nobody asks for another, as it came with the model.
    pub fn chat_template(&self) -> Option<&str> {
        self.engine.as_ref()?.chat().ok()?.source("default")
    }

    /// What the model's files call the tokenizer.
    pub fn tokenizer_class(&self) -> Option<String> {
        let dir = self.engine.as_ref()?.dir();
        let config = json::read_file(&dir.path().join("tokenizer_config.json"), "").ok()?;
        config.get("tokenizer_class")?.as_str().map(str::to_owned)
    }

    /// What computes: `cpu` or `gpu`.
    pub fn compute_type(&self) -> &'static str {
        match self.engine.as_ref().map(|engine| engine.running()) {
            Some(Running::TensorRtLlm(_)) => "gpu",
            _ => "cpu",
        }
    }

    /// What the KV cache stores keys and values as, where it is known.
    pub fn kv_cache_dtype(&self) -> Option<KvCacheDtype> {
        match self.engine.as_ref()?.running() {
            Running::Cpu(executor) => Some(executor.facts().kv_cache_dtype),
            Running::TensorRtLlm(_) => None,
        }
    }

    /// A name of everything that an output depends on beside its request.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn tokenizer(&self, param: &str) -> Result<&Tokenizer, ApiError> {
        let none = || {
            let message =
                "the engine has no tokenizer: give token ids, or build it again from a model with `tokenizer.json`";
            ApiError::unsupported(param, message)
        };
        let tokenizer: &LazyTokenizer = self.session.tokenizer().ok_or_else(none)?;
        tokenizer.get().map_err(|error| ApiError::unsupported(param, error.to_string()))
    }
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Equal ones, with equal seeds and bodies, mean equal outputs.
fn fingerprint(engine: Option<&Engine>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    if let Some(engine) = engine {
        for (name, record) in &engine.dir().manifest().files {
            hasher.update(name.as_bytes());
            hasher.update(record.blake3.as_bytes());
        }
        let kind = match engine.running() {
            // Bits differ between instruction sets, and with what the KV cache stores.
            Running::Cpu(executor) => {
                let facts = executor.facts();
                format!("{}{}", facts.isa, facts.kv_cache_dtype.mention())
            }
            running @ Running::TensorRtLlm(_) => running.to_string(),
        };
        hasher.update(kind.as_bytes());
    }
    format!("fp_{}", &hasher.finalize().to_hex()[..16])
}

/// Refuses what the settings ask of an engine that cannot do it.
///
/// # Errors
/// A sentence.
pub fn check(engine: &Engine, settings: &Settings) -> Result<(), String> {
    if let (Running::Cpu(_), Some((name, _))) = (engine.running(), settings.adapters().next()) {
        return Err(format!("lora `{name}`: the CPU engine has no LoRA adapters; build the engine for a GPU"));
    }
    for (_, dir) in settings.adapters() {
        engine.lora(Path::new(dir)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_sample_is_greedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GENERATION_CONFIG_FILE);
        let temperature = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Defaults::of_file(&path).temperature
        };
        assert_eq!(temperature("{}"), 1.0);
        assert_eq!(temperature(r#"{"do_sample": true}"#), 1.0);
        assert_eq!(temperature(r#"{"temperature": 0.5}"#), 0.5);
        assert_eq!(temperature(r#"{"do_sample": true, "temperature": 0.5}"#), 0.5);
        assert_eq!(temperature(r#"{"do_sample": false}"#), 0.0);
        assert_eq!(temperature(r#"{"do_sample": false, "temperature": 0.5}"#), 0.0);
    }
}
