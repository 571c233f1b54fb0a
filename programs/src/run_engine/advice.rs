//! What a run says beside its output: what a user may not expect of it. Each thing is said once, on standard error.

use engine_format::EngineDir;
use engine_format::engine_dir::GENERATION_CONFIG_FILE;
use runner::generation_options::GenerationOptions;
use runner::request_builder::RequestBuilder;
use runner::session::Submission;
use serde_json::{Map, Value};

use crate::format::counted;

/// What has been said in a run already.
#[derive(Default)]
pub(super) struct Advice {
    said_sampling: bool,
    said_endless: bool,
    said_equal: bool,
}

impl Advice {
    /// What there is to say of the next request, called `name`, before it runs.
    pub(super) fn of(
        &mut self,
        name: &str,
        options: &GenerationOptions,
        submission: &Submission,
        builder: &RequestBuilder<'_>,
    ) -> Vec<String> {
        let request = &submission.request;
        let (spec, max_seq_len) = (request.spec(), builder.executor.limits().max_seq_len);
        let mut said = Vec::new();
        if request.is_shortened() {
            said.push(format!(
                "warning: {name} has {}, which leaves room for {} of output (max_seq_len {max_seq_len})",
                counted(spec.input_token_ids.len(), "token"),
                counted(spec.max_tokens, "token"),
            ));
        }
        if let Some(stop) = builder.out_of_reach(submission) {
            let tokens = spec.max_tokens;
            said.push(format!(
                "warning: {name} can never reach the stop text {stop:?}: it is longer than an output of max_new_tokens {tokens}"
            ));
        }
        let is_endless = spec.end_ids.is_empty() && options.ignore_eos != Some(true) && spec.guided_decoding.is_none();
        if is_endless && !self.said_endless {
            self.said_endless = true;
            said.push(format!(
                "warning: the model's files name no end token that it has, so {name} runs to its length: --end-id sets one"
            ));
        }
        let sequences = spec.sampling.num_return_sequences;
        if !self.said_equal && sequences > 1 && spec.sampling.beam_width == 1 && spec.sampling.is_greedy() {
            self.said_equal = true;
            said.push(format!(
                "warning: the {sequences} sequences of {name} will be the same: without --temperature nothing is drawn"
            ));
        }
        if !self.said_sampling
            && let Some(engine) = builder.engine
            && let Some(suggestion) = suggested_sampling(engine.dir(), options)
        {
            self.said_sampling = true;
            said.push(suggestion);
        }
        said
    }
}

/// The sampling that the model's `generation_config.json` suggests, where a prompt is greedy because nothing was said.
fn suggested_sampling(dir: &EngineDir, options: &GenerationOptions) -> Option<String> {
    let GenerationOptions { temperature, top_k, top_p, min_p, beam_width, .. } = options;
    let is_decided =
        temperature.is_some() || top_k.is_some() || top_p.is_some() || min_p.is_some() || beam_width.is_some();
    if is_decided || !dir.has_file(GENERATION_CONFIG_FILE) {
        return None;
    }
    // The engine was opened, so the file is one that can be read.
    let read = std::fs::read(dir.path().join(GENERATION_CONFIG_FILE)).ok()?;
    let flags = suggested_flags(&serde_json::from_slice(&read).ok()?);
    (!flags.is_empty())
        .then(|| format!("note: the model's generation_config.json suggests {flags}; without them, output is greedy"))
}

/// The flags for what `generation_config.json` says about sampling, in the order of help.
fn suggested_flags(config: &Map<String, Value>) -> String {
    let number = |name: &str| config.get(name).and_then(Value::as_f64);
    let samples = match config.get("do_sample").and_then(Value::as_bool) {
        Some(samples) => samples,
        None => ["temperature", "top_p", "top_k", "min_p"].iter().any(|name| number(name).is_some()),
    };
    if !samples {
        return String::new();
    }
    let flags = [
        ("--temperature", number("temperature").or(Some(1.0))),
        ("--top-k", number("top_k").filter(|&k| k > 0.0)),
        ("--top-p", number("top_p").filter(|&p| p < 1.0)),
        ("--min-p", number("min_p").filter(|&p| p > 0.0)),
        ("--repetition-penalty", number("repetition_penalty").filter(|&penalty| penalty != 1.0)),
    ];
    let flags = flags.into_iter().filter_map(|(flag, value)| Some(format!("{flag} {}", value?)));
    flags.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flags_are_those_of_the_models_sampling() {
        let flags = |config: Value| suggested_flags(config.as_object().unwrap());
        assert_eq!(
            flags(json!({"temperature": 0.7, "top_p": 0.9, "eos_token_id": 2})),
            "--temperature 0.7 --top-p 0.9"
        );
        assert_eq!(flags(json!({"do_sample": true, "top_k": 20})), "--temperature 1 --top-k 20");
        assert_eq!(flags(json!({"do_sample": false, "temperature": 0.6})), "");
        assert_eq!(flags(json!({"eos_token_id": 2, "repetition_penalty": 1.1})), "");
        let all = json!({"do_sample": true, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.05});
        assert_eq!(flags(all), "--temperature 1 --repetition-penalty 1.05");
    }
}
