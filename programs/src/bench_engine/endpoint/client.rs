//! The HTTP client: connections that are kept, a thread for each request that is under way.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::address::Address;
use super::answer::{Answer, AnswerReader};
use super::body::Call;
use super::events::EventReader;
use super::problem::Problem;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes of an answer that does not stream.
const MOST_BYTES: u64 = 4 << 20;

/// Bytes that are read at a time.
const BLOCK: usize = 16 << 10;

/// A server's client.
pub(super) struct Client {
    agent: Agent,
    address: Address,
    authorization: Option<String>,
}

impl Client {
    /// A client of which each request may take `timeout`, and `connections` are under way at most.
    pub(super) fn new(address: Address, key: Option<&str>, timeout: Duration, connections: usize) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT.min(timeout)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            // What is measured is the server, not what stands between.
            .proxy(None)
            .accept_encoding("")
            .user_agent(concat!("bench-engine/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .build();
        let authorization = key.map(|key| format!("Bearer {key}"));
        Self { agent: config.new_agent(), address, authorization }
    }

    /// The first of the server's models.
    pub(super) fn first_model(&self) -> Result<String, Problem> {
        let mut request = self.agent.get(format!("{}/models", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let body = content(good(request.call().map_err(|error| Problem::of_transport(&error))?)?)?;
        let list: Option<Json> = serde_json::from_slice(&body).ok();
        let id = list.as_ref().and_then(|list| list.pointer("/data/0/id")).and_then(Json::as_str);
        id.map(str::to_owned).ok_or_else(|| Problem::broken("the server names no model: give --model NAME"))
    }

    /// Asks for a streamed answer, and reads it to its end. Its times are from `began`.
    pub(super) fn ask(&self, call: &Call, began: Instant) -> Result<Answer, Problem> {
        let mut request = self.agent.post(format!("{}{}", self.address, call.path));
        request = request.header("content-type", "application/json").header("accept", "text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let response = good(request.send(call.body.as_slice()).map_err(|error| Problem::of_transport(&error))?)?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return Err(Problem::broken(format!("the answer is no stream of events, but `{kind}`")));
        }
        let mut body = response.into_body().into_reader();
        let (mut events, mut answer) = (EventReader::default(), AnswerReader::default());
        let mut block = [0; BLOCK];
        loop {
            // To the end of the body and not only of the answer: the connection is used again then.
            let length = match body.read(&mut block) {
                Ok(0) => return answer.end(),
                Ok(length) => length,
                Err(error) => return Err(cut(error)),
            };
            let now = began.elapsed();
            events.read(&block[..length], |data| answer.event(now, data))?;
        }
    }
}

/// An answer of status 200, or why there is none.
fn good(response: Response<Body>) -> Result<Response<Body>, Problem> {
    let status = response.status().as_u16();
    if status == 200 {
        return Ok(response);
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after");
    let body = content(response).unwrap_or_default();
    Err(Problem::of_status(status, &body, retry_after.as_deref()))
}

fn content(response: Response<Body>) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    response.into_body().into_reader().take(MOST_BYTES).read_to_end(&mut body).map_err(cut)?;
    Ok(body)
}

/// Why a body could not be read on.
fn cut(error: std::io::Error) -> Problem {
    match ureq::Error::from(error) {
        error @ ureq::Error::Timeout(_) => Problem::of_transport(&error),
        error => Problem::broken(format!("the stream was cut off: {error}")),
    }
}
