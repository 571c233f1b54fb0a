//! Every path, and what it leads to.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use uuid::Uuid;

use crate::error::ApiError;
use crate::keys::{Key, KeyPlace};
use crate::state::State;
use crate::{fields, health, openai, openapi, tgi, tokens, ui};

use super::caught::caught;
use super::record::Record;
use super::reply::{self, Body};
use super::{guard, read};

/// A request, beside its body.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose it is, where keys are asked for.
    pub key: Option<Arc<Key>>,
    /// When its head came.
    pub arrived: Instant,
    /// Seconds that it may take, if the header says so.
    pub timeout: Option<String>,
    /// What the log will say of it.
    pub record: Arc<Record>,
}

/// Whether these first bytes of a connection ask whether the process lives.
pub fn is_live(first: &[u8]) -> bool {
    let line = first.split(|byte| b"\r\n".contains(byte)).next().and_then(|line| std::str::from_utf8(line).ok());
    let Some((method, rest)) = line.and_then(|line| line.split_once(' ')) else { return false };
    let path = rest.split([' ', '?']).next().unwrap_or_default();
    ["GET", "HEAD"].contains(&method) && rest.ends_with(" HTTP/1.1") && is_of_liveness(path)
}

/// Whether a path is that of a probe which only asks whether the process lives.
pub fn is_of_liveness(path: &str) -> bool {
    Route::of(path) == Some(Route::Live)
}

impl Call {
    /// Of somebody without a key.
    pub fn new(record: Arc<Record>) -> Self {
        Self { key: None, arrived: record.arrived, timeout: None, record }
    }

    /// The request's id.
    pub fn id(&self) -> &str {
        self.record.id()
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Root,
    Live,
    Ready,
    Health,
    HealthGenerate,
    Startup,
    Metrics,
    Version,
    OpenApi,
    Ui(&'static ui::File),
    UiModel,
    Models,
    Model,
    Completions,
    Chat,
    Tokenize,
    Detokenize,
    TokenizerInfo,
    ApplyTemplate,
    ChatTokenize,
    Generate,
    GenerateStream,
    Info,
    NotHere,
}

/// Every path but those with a name in them. A path of several is counted under its first.
const PATHS: &[(&str, Route)] = &[
    ("/", Route::Root),
    ("/live", Route::Live),
    ("/livez", Route::Live),
    ("/health/live", Route::Live),
    ("/v1/health/live", Route::Live),
    ("/ready", Route::Ready),
    ("/readyz", Route::Ready),
    ("/health/ready", Route::Ready),
    ("/v1/health/ready", Route::Ready),
    ("/health", Route::Health),
    ("/healthz", Route::Health),
    ("/health_generate", Route::HealthGenerate),
    ("/startup", Route::Startup),
    ("/startupz", Route::Startup),
    ("/health/startup", Route::Startup),
    ("/metrics", Route::Metrics),
    ("/prometheus/metrics", Route::Metrics),
    ("/version", Route::Version),
    ("/openapi.json", Route::OpenApi),
    ("/ui/model.json", Route::UiModel),
    ("/v1/models", Route::Models),
    ("/v1/completions", Route::Completions),
    ("/v1/chat/completions", Route::Chat),
    ("/tokenize", Route::Tokenize),
    ("/v1/tokenize", Route::Tokenize),
    ("/detokenize", Route::Detokenize),
    ("/v1/detokenize", Route::Detokenize),
    ("/tokenizer_info", Route::TokenizerInfo),
    ("/v1/tokenizer_info", Route::TokenizerInfo),
    ("/apply-template", Route::ApplyTemplate),
    ("/v1/apply-template", Route::ApplyTemplate),
    ("/chat_tokenize", Route::ChatTokenize),
    ("/generate", Route::Generate),
    ("/generate_stream", Route::GenerateStream),
    ("/info", Route::Info),
    ("/v1/embeddings", Route::NotHere),
    ("/embeddings", Route::NotHere),
    ("/v1/rerank", Route::NotHere),
    ("/rerank", Route::NotHere),
    ("/v1/score", Route::NotHere),
    ("/score", Route::NotHere),
    ("/v1/pooling", Route::NotHere),
    ("/pooling", Route::NotHere),
    ("/v1/moderations", Route::NotHere),
];

const MODEL: &str = "/v1/models/";

/// Every path, with the methods that it has.
pub fn paths() -> impl Iterator<Item = (&'static str, &'static str)> {
    let named = [Route::Model].into_iter().map(|route| (route.template(), route.allowed()));
    let files = ui::files().map(|file| (file.path, Route::Ui(file).allowed()));
    PATHS.iter().map(|&(path, route)| (path, route.allowed())).chain(files).chain(named)
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        // One slash at the end is tolerated; every other spelling is another path.
        let path = path.strip_suffix('/').filter(|path| !path.is_empty() && !path.ends_with('/')).unwrap_or(path);
        let known = PATHS.iter().find(|(known, _)| *known == path).map(|&(_, route)| route);
        let known = known.or_else(|| ui::find(path).map(Self::Ui));
        known.or_else(|| path.strip_prefix(MODEL).filter(|name| !name.is_empty()).map(|_| Self::Model))
    }

    /// The name under which it is counted.
    fn template(self) -> &'static str {
        match self {
            Self::Model => "/v1/models/{id}",
            Self::Ui(file) => file.path,
            other => PATHS.iter().find(|(_, route)| *route == other).map_or("", |&(path, _)| path),
        }
    }

    /// Whether it leads to the engine.
    fn generates(self, method: &Method) -> bool {
        match self {
            Self::Root => *method == Method::POST,
            _ => matches!(self, Self::Completions | Self::Chat | Self::Generate | Self::GenerateStream),
        }
    }

    fn is_open(self, method: &Method, state: &State) -> bool {
        match self {
            // As TGI's health, or its generation.
            Self::Root => *method != Method::POST,
            Self::Live | Self::Ready | Self::Health | Self::Startup => true,
            Self::Version | Self::OpenApi | Self::Ui(_) => true,
            Self::Metrics => !state.settings.protect_metrics,
            _ => false,
        }
    }

    /// Whether its errors have TGI's shape.
    fn is_tgi(self) -> bool {
        matches!(self, Self::Root | Self::Generate | Self::GenerateStream | Self::ChatTokenize | Self::Info)
    }

    /// The methods that it has.
    fn allowed(self) -> &'static str {
        match self {
            Self::Completions
            | Self::Chat
            | Self::Tokenize
            | Self::Detokenize
            | Self::ApplyTemplate
            | Self::ChatTokenize
            | Self::Generate
            | Self::GenerateStream
            | Self::NotHere => "POST, OPTIONS",
            Self::Root => "GET, HEAD, POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

/// Answers a request.
pub async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let id = request_id(&parts);
    let route = Route::of(parts.uri.path());
    let method = method_name(&parts.method);
    let (template, is_generation) =
        (route.map_or("", Route::template), route.is_some_and(|route| route.generates(&parts.method)));
    let record = Arc::new(Record::new(id, method, template, is_generation));
    let arrived = record.arrived;
    let mut call = Call::new(record.clone());
    let result = caught(dispatch(state, &parts, body, route, &mut call)).await;
    let mut response = result.unwrap_or_else(|error| {
        state.metrics.count_error(error.code);
        record.fail(error.code);
        let mut response = match route.is_some_and(Route::is_tgi) {
            true => tgi::error::response(&error),
            false => reply::error(&state.answered(error)),
        };
        if let Some(route) = route.filter(|_| response.status() == StatusCode::METHOD_NOT_ALLOWED) {
            reply::header(&mut response, "allow", route.allowed());
        }
        response
    });
    reply::header(&mut response, "x-request-id", call.id());
    let status = response.status().as_u16();
    state.metrics.count_http(template, method, status, arrived.elapsed());
    record.set_status(status);
    if let Some(key) = call.key.as_ref().filter(|_| is_generation) {
        for (name, value) in key.headers() {
            reply::header(&mut response, name, &value);
        }
    }
    drop(call);
    // The answer of a generation ends with its body.
    if is_generation { reply::holding(response, record) } else { response }
}

/// The methods that are counted by name.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The caller's id, if it is short and plain, or a new one.
fn request_id(parts: &Parts) -> String {
    let given = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    given.filter(|id| is_request_id(id)).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Whether a text can be a request's id.
pub fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

async fn dispatch(
    state: &Arc<State>,
    parts: &Parts,
    body: Incoming,
    route: Option<Route>,
    call: &mut Call,
) -> Result<Response<Body>, ApiError> {
    guard::check_site(state, parts)?;
    if !route.is_some_and(|route| route.is_open(&parts.method, state)) {
        call.key = guard::check_key(state, parts)?;
        if let Some(key) = &call.key {
            call.record.set_key(&key.name);
        }
    }
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        return Ok(options("GET, HEAD, POST, OPTIONS"));
    }
    let route = route.ok_or_else(|| not_found(parts.uri.path()))?;
    if parts.method == Method::OPTIONS {
        return Ok(options(route.allowed()));
    }
    if !route.allowed().split(", ").any(|allowed| allowed == parts.method.as_str()) {
        return Err(method_not_allowed(parts.method.as_str(), route));
    }
    match route {
        Route::Live => Ok(health::live()),
        Route::Ready => Ok(health::ready(state)),
        Route::Info => tgi::info::info(state),
        Route::Root if parts.method != Method::POST && wants_html(parts) => Ok(ui::redirect("ui")),
        Route::Root if parts.method != Method::POST => Ok(health::health(state)),
        Route::Health => Ok(health::health(state)),
        Route::HealthGenerate => health::generate(state, call).await,
        Route::Startup => Ok(health::startup(state)),
        Route::Metrics => Ok(health::metrics(state, &parts.headers)),
        Route::Version => Ok(health::version()),
        Route::OpenApi => Ok(openapi::document()),
        // What the page asks for is beside it, not below.
        Route::Ui(file) if parts.uri.path().ends_with('/') => Ok(ui::redirect(&file.from_below())),
        Route::Ui(file) => Ok(ui::file(file)),
        Route::UiModel => ui::model(state),
        Route::Models => openai::models::list(state),
        Route::Model => openai::models::one(state, &parts.uri.path()[MODEL.len()..]),
        Route::NotHere => Err(ApiError::of(
            StatusCode::NOT_IMPLEMENTED,
            "unsupported",
            "not_implemented",
            "this engine generates tokens only: it has no embeddings, scores or classes",
        )),
        Route::Completions
        | Route::Chat
        | Route::Root
        | Route::Generate
        | Route::GenerateStream
        | Route::Tokenize
        | Route::Detokenize
        | Route::TokenizerInfo
        | Route::ApplyTemplate
        | Route::ChatTokenize => {
            // Before a byte of the body is read.
            state.lifecycle.check()?;
            let limit = state.settings.max_requests_per_key;
            let place = call.key.as_ref().map(|key| enter(state, key, limit)).transpose()?;
            let timeout = parts.headers.get("x-request-timeout").map(|value| value.to_str().unwrap_or("?").to_owned());
            call.timeout = timeout;
            let body: Bytes = read::body(&parts.headers, body, &state.settings).await?;
            let response = match route {
                Route::Chat => openai::chat(state, call, body).await,
                Route::Root => tgi::generate(state, call, body, tgi::Kind::Root).await,
                Route::Generate => tgi::generate(state, call, body, tgi::Kind::Whole).await,
                Route::GenerateStream => tgi::generate(state, call, body, tgi::Kind::Stream).await,
                Route::Tokenize => tokens::answer(state, call, body, tokens::tokenize::answer).await,
                Route::Detokenize => tokens::answer(state, call, body, tokens::detokenize::answer).await,
                Route::TokenizerInfo => tokens::answer(state, call, body, tokens::info::answer).await,
                Route::ApplyTemplate => tokens::answer(state, call, body, tokens::template::apply).await,
                Route::ChatTokenize => tokens::answer(state, call, body, tokens::template::chat_tokenize).await,
                _ => openai::completions(state, call, body).await,
            }?;
            Ok(reply::holding(response, place))
        }
    }
}

fn options(allowed: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    reply::header(&mut response, "allow", allowed);
    response
}

/// Whether it is a browser that asks.
fn wants_html(parts: &Parts) -> bool {
    let mut accepted = parts.headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

fn enter(state: &State, key: &Arc<Key>, limit: usize) -> Result<KeyPlace, ApiError> {
    key.enter(limit).inspect_err(|_| state.metrics.count_rejection("key"))
}

fn method_not_allowed(method: &str, route: Route) -> ApiError {
    let message = format!("{method} is not allowed here: use {}", route.allowed());
    ApiError::of(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
}

fn not_found(path: &str) -> ApiError {
    let near = fields::nearest(path, paths().map(|(path, _)| path));
    let advice = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let shown: String = path.chars().take(100).collect();
    let message = format!("there is nothing at `{shown}`{advice}");
    ApiError::of(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message)
}
