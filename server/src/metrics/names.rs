//! The names of metrics, which are those of TensorRT-LLM's server where it has one, and their text.

use std::fmt::{Display, Write};
use std::time::Duration;

use runner::executor::{InflightBatchingStats, KvCacheDtype, Limits, Load};
use serde_json::{Value as Json, json};

use super::registry::{CAUSES, Histogram, Metrics, REASONS};

/// What metrics are about, beside what was counted.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The model's name; empty while it is loaded.
    pub model_name: &'a str,
    /// The executor's.
    pub load: Load,
    /// The executor's.
    pub limits: Limits,
    /// The executor's, where it is known.
    pub kv_cache_dtype: Option<KvCacheDtype>,
}

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0, in which a family of counters has no `_total` in its name, and one of facts no `_info`.
    OpenMetrics,
}

impl Format {
    /// As a header says it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

struct Page<'a> {
    text: String,
    model: &'a str,
    format: Format,
}

/// A label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let (name, kind) = match (self.format, kind) {
            (Format::OpenMetrics, "counter") => (name.strip_suffix("_total").unwrap_or(name), kind),
            (Format::OpenMetrics, "info") => (name.strip_suffix("_info").unwrap_or(name), kind),
            (Format::Text, "info") => (name, "gauge"),
            _ => (name, kind),
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A line; `labels` come after the model's name and begin with a comma if there are any.
    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let model = escaped(self.model);
        let _ = writeln!(self.text, "{name}{{model_name=\"{model}\"{labels}}} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        self.buckets(name, "", histogram);
    }

    /// A histogram's lines; `labels` as in [`Page::line`].
    fn buckets(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let (counts, sum) = histogram.cumulative();
        let total = counts.last().copied().unwrap_or(0);
        for (bound, count) in histogram.bounds.iter().zip(&counts) {
            self.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound:?}\""), count);
        }
        self.line(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), total);
        self.line(&format!("{name}_sum"), labels, sum);
        self.line(&format!("{name}_count"), labels, total);
    }
}

/// The page of metrics. Every family is there from the start.
pub fn render(metrics: &Metrics, facts: &Facts<'_>, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(16 << 10), model: facts.model_name, format };
    executor(&mut page, metrics, facts);
    requests(&mut page, metrics);
    server(&mut page, metrics);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn executor(page: &mut Page<'_>, metrics: &Metrics, facts: &Facts<'_>) {
    let (load, newest) = (&facts.load, metrics.newest());
    // The last iteration is over; its numbers stay until the next one, which may be long in coming.
    let is_idle = load.num_active_requests == 0 && load.num_queued_requests == 0;
    let batching = if is_idle { InflightBatchingStats::default() } else { newest.batching };
    let cache = &newest.kv_cache;
    let waiting = load.num_queued_requests as u64 + metrics.preparing.get();
    let utilization =
        if load.max_num_blocks == 0 { 0.0 } else { load.used_num_blocks as f64 / load.max_num_blocks as f64 };
    page.one("trtllm_num_requests_waiting", "gauge", "Requests that wait, those in preparation among them", waiting);
    page.one("trtllm_num_requests_running", "gauge", "Requests that are worked on", load.num_active_requests);
    page.one("trtllm_kv_cache_utilization", "gauge", "Share of KV-cache blocks that sequences hold", utilization);
    page.one("trtllm_kv_cache_hit_rate", "gauge", "Share of prompt blocks that were found", cache.cache_hit_rate());
    page.one("trtllm_kv_cache_max_blocks", "gauge", "KV-cache blocks", load.max_num_blocks);
    page.one("trtllm_kv_cache_free_blocks", "gauge", "KV-cache blocks that no sequence holds", load.free_num_blocks);
    page.one("trtllm_kv_cache_used_blocks", "gauge", "KV-cache blocks that sequences hold", load.used_num_blocks);
    page.one("trtllm_kv_cache_tokens_per_block", "gauge", "Tokens of a KV-cache block", cache.tokens_per_block);
    page.one("trtllm_kv_cache_reused_blocks_total", "counter", "Prompt blocks that were found", cache.reused_blocks);
    page.one(
        "trtllm_kv_cache_missed_blocks_total",
        "counter",
        "Prompt blocks that were not found",
        cache.missed_blocks,
    );
    page.one("trtllm_num_context_requests", "gauge", "Sequences in their context phase", batching.num_context_requests);
    page.one(
        "trtllm_num_generation_requests",
        "gauge",
        "Sequences in their generation phase",
        batching.num_gen_requests,
    );
    page.one("trtllm_num_paused_requests", "gauge", "Sequences that were paused", batching.num_paused_requests);
    page.one(
        "trtllm_num_scheduled_requests",
        "gauge",
        "Sequences of the last iteration",
        batching.num_scheduled_requests,
    );
    page.histogram("trtllm_iteration_latency_seconds", "Time of an iteration", &metrics.iteration_latency);
    page.head("trtllm_model_config_info", "info", "The engine's limits, and what a CPU engine's KV cache stores");
    let limits = facts.limits;
    let dtype = facts.kv_cache_dtype.map_or_else(String::new, |dtype| format!(",kv_cache_dtype=\"{dtype}\""));
    let labels = format!(
        ",max_seq_len=\"{}\",max_batch_size=\"{}\",max_num_tokens=\"{}\"{dtype}",
        limits.max_seq_len, limits.max_batch_size, limits.max_num_tokens
    );
    page.line("trtllm_model_config_info", &labels, 1);
}

fn requests(page: &mut Page<'_>, metrics: &Metrics) {
    page.head("trtllm_request_success_total", "counter", "Sequences that ended, by their reason");
    for (reason, count) in REASONS.iter().zip(metrics.success()) {
        page.line("trtllm_request_success_total", &format!(",finished_reason=\"{reason}\""), count);
    }
    page.head("trtllm_request_error_total", "counter", "Errors, by their code");
    for (code, count) in metrics.errors() {
        page.line("trtllm_request_error_total", &format!(",code=\"{code}\""), count);
    }
    page.one("trtllm_prompt_tokens_total", "counter", "Tokens of prompts", metrics.prompt_tokens.get());
    page.one(
        "trtllm_generation_tokens_total",
        "counter",
        "Tokens that were generated",
        metrics.generation_tokens.get(),
    );
    let cached = metrics.prompt_cached_tokens.get();
    page.one("trtllm_prompt_cached_tokens_total", "counter", "Tokens of prompts that were in the KV cache", cached);
    let histograms = [
        ("e2e_request_latency_seconds", "From a request's arrival to its end", &metrics.e2e_request_latency),
        ("time_to_first_token_seconds", "From a request's arrival to its first token", &metrics.time_to_first_token),
        ("time_per_output_token_seconds", "Between tokens of a request", &metrics.time_per_output_token),
        ("request_queue_time_seconds", "In the executor's queue", &metrics.request_queue_time),
        ("request_prefill_time_seconds", "From the first scheduling to the first token", &metrics.request_prefill_time),
        ("request_decode_time_seconds", "From the first token to the last", &metrics.request_decode_time),
        (
            "request_inference_time_seconds",
            "From the first scheduling to the last token",
            &metrics.request_inference_time,
        ),
        ("request_prompt_tokens", "Tokens of a request's prompt", &metrics.request_prompt_tokens),
        ("request_generation_tokens", "Tokens of a sequence", &metrics.request_generation_tokens),
    ];
    for (name, help, histogram) in histograms {
        page.histogram(&format!("trtllm_{name}"), help, histogram);
    }
}

fn server(page: &mut Page<'_>, metrics: &Metrics) {
    page.head("serve_http_requests_total", "counter", "Answers, by route, method and status");
    for ((route, method, status), count) in metrics.http() {
        let labels = format!(",route=\"{route}\",method=\"{method}\",status=\"{status}\"");
        page.line("serve_http_requests_total", &labels, count);
    }
    page.histogram("serve_http_request_seconds", "From a request's head to its answer's head", &metrics.http_request);
    page.head("serve_prepare_seconds", "histogram", "Waiting for a request's preparation, and the preparation");
    page.buckets("serve_prepare_seconds", ",stage=\"queue\"", &metrics.prepare_queue);
    page.buckets("serve_prepare_seconds", ",stage=\"work\"", &metrics.prepare_work);
    page.histogram(
        "serve_guide_seconds",
        "Submission of a guided request, in which its guide is compiled",
        &metrics.guide,
    );
    let lag = "From a request's last token to its delivery, of requests without a guide";
    page.histogram("serve_router_lag_seconds", lag, &metrics.router_lag);
    let coalesced = metrics.coalesced_chunks.get();
    page.one(
        "serve_coalesced_chunks_total",
        "counter",
        "Outputs that joined others in one chunk of a stream",
        coalesced,
    );
    page.one("serve_connections", "gauge", "Open connections", metrics.connections.get());
    page.one("serve_sse_streams", "gauge", "Open streams", metrics.sse_streams.get());
    page.head(
        "serve_admission_rejections_total",
        "counter",
        "Requests that were refused because too much was under way",
    );
    for (reason, count) in metrics.rejections() {
        page.line("serve_admission_rejections_total", &format!(",reason=\"{reason}\""), count);
    }
    page.head("serve_cancelled_total", "counter", "Requests that were cancelled, by what led to it");
    for (cause, count) in CAUSES.iter().zip(metrics.cancelled()) {
        page.line("serve_cancelled_total", &format!(",cause=\"{cause}\""), count);
    }
    page.head("serve_build_info", "info", "The program's version");
    page.line("serve_build_info", concat!(",version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
}

/// The newest iteration, as trtllm-serve's list of them.
pub fn iterations(metrics: &Metrics) -> Json {
    let Some(newest) = metrics.newest().iteration else { return json!([]) };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let (cache, batching) = (newest.kv_cache, newest.inflight_batching);
    json!([{
        "iter": newest.iter,
        "iterLatencyMS": milliseconds(newest.iter_latency),
        "newActiveRequestsQueueLatencyMS": milliseconds(newest.new_active_requests_queue_latency),
        "numNewActiveRequests": newest.num_new_active_requests,
        "numActiveRequests": newest.num_active_requests,
        "numQueuedRequests": newest.num_queued_requests,
        "numCompletedRequests": newest.num_completed_requests,
        "kvCacheStats": {
            "maxNumBlocks": cache.max_num_blocks,
            "freeNumBlocks": cache.free_num_blocks,
            "usedNumBlocks": cache.used_num_blocks,
            "tokensPerBlock": cache.tokens_per_block,
            "allocTotalBlocks": cache.alloc_total_blocks,
            "allocNewBlocks": cache.alloc_new_blocks,
            "reusedBlocks": cache.reused_blocks,
            "missedBlocks": cache.missed_blocks,
            "cacheHitRate": cache.cache_hit_rate(),
        },
        "inflightBatchingStats": {
            "numScheduledRequests": batching.num_scheduled_requests,
            "numContextRequests": batching.num_context_requests,
            "numGenRequests": batching.num_gen_requests,
            "numPausedRequests": batching.num_paused_requests,
            "numCtxTokens": batching.num_ctx_tokens,
        },
    }])
}
