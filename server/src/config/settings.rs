//! Every setting of the server, with its default and its help, in one list: fields of `[server]`, flags, and variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rates::KeyLimits;

/// Makes the struct, its default and its flags of one list. A field's documentation is its help.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr, $value_name:literal $(, $extra:ident = $given:expr)*;
    )+) => {
        /// The server's settings.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $type,)+
            /// Limits of API keys, by their names; in the file only.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub keys: BTreeMap<String, KeyLimits>,
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)+ keys: BTreeMap::new() }
            }
        }

        /// The settings as flags.
        #[derive(Debug, Clone, Default, clap::Args)]
        #[command(next_help_heading = "Server")]
        pub struct SettingsArgs {
            $($(#[doc = $doc])+ #[arg(long, value_name = $value_name $(, $extra = $given)*)] pub $name: Option<$type>,)+
        }

        impl SettingsArgs {
            /// The settings with what was given as flags over them.
            pub fn over(self, mut settings: Settings) -> Settings {
                $(if let Some(value) = self.$name { settings.$name = value; })+
                settings
            }
        }
    };
}

settings! {
    /// Address to listen on [default: 127.0.0.1]
    host: String = "127.0.0.1".to_owned(), "ADDRESS";
    /// Port to listen on; 0 for any that is free [default: the variable PORT, or 8000]
    port: u16 = 8000, "PORT";
    /// Listen at this path, on a Unix socket, and not on an address
    unix_socket: String = String::new(), "PATH";
    /// Write the address to this file, one line, as soon as the server listens
    ready_file: String = String::new(), "FILE";
    /// Name of the model in requests and answers; may be given several times [default: the engine directory's name]
    served_model_name: Vec<String> = Vec::new(), "NAME";
    /// Take any model name for the engine's [default: false]
    any_model: bool = false, "BOOL", num_args = 0..=1, default_missing_value = "true";
    /// A LoRA adapter and the model name that asks for it (TensorRT engines); may be given several times
    lora: Vec<String> = Vec::new(), "NAME=DIR";
    /// Sampling defaults of requests: those of the engine's generation_config.json (`engine`), or `none` [default: engine]
    generation_config: String = "engine".to_owned(), "WHICH", value_parser = ["engine", "none"];
    /// File of API keys, one `NAME:KEY` on each line; the variable SERVE_API_KEYS has them separated by commas
    api_key_file: String = String::new(), "FILE";
    /// Listen on other addresses than loopback without API keys [default: false]
    no_auth: bool = false, "BOOL", num_args = 0..=1, default_missing_value = "true";
    /// Ask for an API key for /metrics too [default: false]
    protect_metrics: bool = false, "BOOL", num_args = 0..=1, default_missing_value = "true";
    /// A name in the header `Host` that is this server's; may be given several times
    allowed_host: Vec<String> = Vec::new(), "NAME";
    /// What to do with fields of requests that nobody knows: name them in X-Ignored-Fields (`accept`), or `reject` [default: accept]
    unknown_fields: String = "accept".to_owned(), "HOW", value_parser = ["accept", "reject"];
    /// Take temperatures up to 100, not 2 [default: false]
    lenient: bool = false, "BOOL", num_args = 0..=1, default_missing_value = "true";
    /// What `priority` is in requests: from 0 to 1, higher first (`trtllm`), or a whole number, lower first (`vllm`) [default: trtllm]
    priority_style: String = "trtllm".to_owned(), "STYLE", value_parser = ["trtllm", "vllm"];
    /// Field whose value separates cached prefixes where a request has no cache_salt: none (`cache_salt`), or `prompt_cache_key`
    /// [default: cache_salt]
    salt_from: String = "cache_salt".to_owned(), "FIELD", value_parser = ["cache_salt", "prompt_cache_key"];
    /// Take allow_special_tokens_in_messages from requests: whoever sends one can write control tokens [default: false]
    allow_special_tokens_in_messages: bool = false, "BOOL", num_args = 0..=1, default_missing_value = "true";
    /// Bytes of a request's body at most [default: 8388608]
    max_body_bytes: usize = 8 << 20, "BYTES";
    /// Connections at once at most; one more is answered 503 [default: 4096]
    max_connections: usize = 4096, "N";
    /// Sequences that one HTTP request may ask for: its prompts times `n` or `best_of` [default: 4096]
    max_num_sequences: usize = 4096, "N";
    /// Sequences that may wait beyond those that run; 0 for 4 x max_batch_size [default: 0]
    max_queued_requests: usize = 0, "N";
    /// Prompt tokens that may wait; 0 for 8 x max_num_tokens [default: 0]
    max_queued_tokens: usize = 0, "N";
    /// Seconds that a request may wait in the executor's queue before it is refused like those that find it full; 0 for no limit [default: 0]
    max_queue_wait: f64 = 0.0, "SECONDS";
    /// Requests of one API key at once; 0 for no limit [default: 0]
    max_requests_per_key: usize = 0, "N";
    /// Status of the answer when the server is full: 503, 429 or 529 [default: 503]
    overload_status: u16 = 503, "STATUS";
    /// Seconds for a request's head to come [default: 10]
    header_timeout: f64 = 10.0, "SECONDS";
    /// Seconds without a byte of a request's body [default: 30]
    body_timeout: f64 = 30.0, "SECONDS";
    /// Seconds that a connection may be idle between requests [default: 75]
    idle_timeout: f64 = 75.0, "SECONDS";
    /// Seconds that a reader may take nothing of an answer that waits for it [default: 60]
    write_timeout: f64 = 60.0, "SECONDS";
    /// Seconds without a chunk after which a stream sends a comment; 0 for never [default: 15]
    sse_keep_alive: f64 = 15.0, "SECONDS";
    /// Threads that prepare requests; 0 for half of the processors, at least 2 [default: 0]
    prepare_threads: usize = 0, "N";
    /// Threads that speak HTTP; 0 for half of the processors, from 1 to 4 [default: 0]
    http_threads: usize = 0, "N";
    /// Seconds after SIGTERM in which requests are still taken, for load balancers to move away [default: 5]
    drain_grace: f64 = 5.0, "SECONDS";
    /// Seconds after that for running requests to end before they are cancelled [default: 20]
    drain_timeout: f64 = 20.0, "SECONDS";
    /// Seconds between the executor's failure and the server's exit [default: 5]
    fail_grace: f64 = 5.0, "SECONDS";
    /// Seconds without an iteration, with work at hand, after which the server is not ready [default: 60]
    stall_timeout: f64 = 60.0, "SECONDS";
    /// Format of the log: `text` or `json` [default: text]
    log_format: String = "text".to_owned(), "FORMAT", value_parser = ["text", "json"];
}

impl Settings {
    /// Checks what has a range.
    ///
    /// # Errors
    /// The first setting that is outside its range, as a sentence.
    pub fn validate(&self) -> Result<(), String> {
        let seconds = [
            ("max_queue_wait", self.max_queue_wait),
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", self.write_timeout),
            ("sse_keep_alive", self.sse_keep_alive),
            ("drain_grace", self.drain_grace),
            ("drain_timeout", self.drain_timeout),
            ("fail_grace", self.fail_grace),
            ("stall_timeout", self.stall_timeout),
        ];
        // A year is as good as for ever, and no clock overflows.
        if let Some((name, value)) = seconds.into_iter().find(|(_, value)| !(0.0..=31_536_000.0).contains(value)) {
            return Err(format!("{name} must be a number of seconds from 0 to 31536000, not {value}"));
        }
        let counts = [
            ("max_body_bytes", self.max_body_bytes, usize::MAX),
            ("max_connections", self.max_connections, 1 << 20),
            ("max_num_sequences", self.max_num_sequences, 65_536),
        ];
        if let Some((name, value, most)) = counts.into_iter().find(|&(_, value, most)| value == 0 || value > most) {
            return Err(format!("{name} must be from 1 to {most}, not {value}"));
        }
        let threads = [("prepare_threads", self.prepare_threads), ("http_threads", self.http_threads)];
        if let Some((name, value)) = threads.into_iter().find(|&(_, value)| value > 1024) {
            return Err(format!("{name} must be from 0 to 1024, not {value}"));
        }
        let words = [
            ("generation_config", &self.generation_config, ["engine", "none"]),
            ("priority_style", &self.priority_style, ["trtllm", "vllm"]),
            ("salt_from", &self.salt_from, ["cache_salt", "prompt_cache_key"]),
            ("unknown_fields", &self.unknown_fields, ["accept", "reject"]),
            ("log_format", &self.log_format, ["text", "json"]),
        ];
        if let Some((name, value, known)) = words.into_iter().find(|(_, value, known)| !known.contains(&value.as_str()))
        {
            return Err(format!("{name} must be `{}` or `{}`, not `{value}`", known[0], known[1]));
        }
        if ![429, 503, 529].contains(&self.overload_status) {
            return Err(format!("overload_status must be 429, 503 or 529, not {}", self.overload_status));
        }
        for (name, limits) in &self.keys {
            limits.validate().map_err(|problem| format!("keys.{name}: {problem}"))?;
        }
        for adapter in &self.lora {
            if !adapter.split_once('=').is_some_and(|(name, dir)| !name.is_empty() && !dir.is_empty()) {
                return Err(format!("lora must be NAME=DIR, not `{adapter}`"));
            }
        }
        Ok(())
    }

    /// The names and folders of [`lora`](Self::lora).
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lora.iter().filter_map(|adapter| adapter.split_once('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_named() {
        let check = |text: &str, expected: &str| {
            let settings: Settings = toml::from_str(text).unwrap();
            assert_eq!(settings.validate().unwrap_err(), expected);
        };
        check("drain_grace = -1.0", "drain_grace must be a number of seconds from 0 to 31536000, not -1");
        check("header_timeout = nan", "header_timeout must be a number of seconds from 0 to 31536000, not NaN");
        check("max_body_bytes = 0", &format!("max_body_bytes must be from 1 to {}, not 0", usize::MAX));
        check("http_threads = 1025", "http_threads must be from 0 to 1024, not 1025");
        check("unknown_fields = 'drop'", "unknown_fields must be `accept` or `reject`, not `drop`");
        check("overload_status = 500", "overload_status must be 429, 503 or 529, not 500");
        check("keys.ann.max_requests = 0", "keys.ann: max_requests must be at least 1; leave it out for no limit");
        check("keys.ann.max_priority = 2.0", "keys.ann: max_priority must be from 0 to 1, not 2");
        check("lora = ['x']", "lora must be NAME=DIR, not `x`");
        assert_eq!(Settings::default().validate(), Ok(()));
    }
}
