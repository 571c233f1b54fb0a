//! A served endpoint, measured as its clients see it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `address` | the URL and the key |
//! | `vocabulary` | what prompts of ids are made of, without an engine |
//! | `body` | what is asked, in the API's fields |
//! | `client`, `events`, `answer` | a request sent; a stream cut into events; the tokens in them |
//! | `problem` | why a request has no answer |
//! | `drive` | requests sent as a load says |
//! | `figures` | what came of them |
//!
//! Nothing of the engine is opened. The server's prefix cache outlives a load and the program: where the server takes a `cache_salt`, each
//! load has its own.

mod address;
mod answer;
mod body;
mod client;
mod drive;
mod events;
mod figures;
mod problem;
mod vocabulary;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use args::exit::{Failure, input, say};
use runner::request_builder::Prompt;

use super::flags::{Args, EndpointArgs};
use super::load::{self, Load, Pace};
use super::report::{Report, RunReport, Seen, Subject};
use super::requests::{self, Asked};
use super::workload::Material;
use super::{Measured, progress_bar};
use crate::memory::processor;

use answer::Answer;
use body::Form;
use client::Client;

pub(super) use address::Address;
pub(super) use figures::{EndpointFacts, EndpointFigures};

/// Puts the server under the loads.
pub(super) fn measure(args: &Args, url: &Address, loads: &[Load]) -> Result<Measured, Failure> {
    let EndpointArgs { model, tokenizer, api_key_file, timeout, .. } = &args.endpoint;
    let key = address::key(api_key_file.as_deref()).map_err(input)?;
    let vocabulary = tokenizer.as_deref().map(vocabulary::of).transpose().map_err(input)?;
    let workloads = vocabulary.iter().chain([&Material::Words]).map(|material| Workload::new(args, material));
    let mut workloads = workloads.collect::<Result<Vec<_>>>().map_err(input)?;
    if args.workload.prompts.is_some() {
        workloads.truncate(1);
    }

    let requests = workloads[0].asked.len();
    let width = |load: &Load| if let Load::Concurrency(width) = load { *width } else { requests };
    let connections = loads.iter().map(width).max().unwrap_or(1);
    let client = Client::new(url.clone(), key.as_deref(), Duration::from_secs(*timeout), connections);
    let model = match model {
        Some(name) => name.clone(),
        None => client.first_model().map_err(|problem| problem.into_failure(&format!("{url}/models")))?,
    };
    let run = format!("bench-engine-{}-{}", std::process::id(), nanoseconds());
    let (workload, form, answer) = agree(&client, workloads, &model, &run).map_err(|error| match error {
        Refused::Here(error) => input(error),
        Refused::There(problem) => problem.into_failure(&format!("{url}: the warm-up request was not answered")),
    })?;
    let facts = facts(url, &form, &workload, &answer);
    if !args.quiet {
        say(format_args!("{url}: model {model}; prompts as {}", facts.prompts));
    }

    let bar = progress_bar(args.quiet, loads.len() * requests);
    let mut runs: Vec<RunReport> = Vec::new();
    for (number, &load) in loads.iter().enumerate() {
        bar.set_message(load.label());
        let salt = format!("{run}-{number}");
        let calls: Result<Vec<_>> = workload.asked.iter().map(|asked| form.call(asked, &salt)).collect();
        let calls = calls.map_err(input)?;
        if number > 0 {
            let warm_up = form.call(&workload.warm_up, &run).map_err(input)?;
            let warmed = client.ask(&warm_up, Instant::now());
            warmed.map_err(|problem| problem.into_failure("the warm-up request was not answered"))?;
        }
        let pace: Pace = load::pace(load, requests, args.workload.seed);
        let sent = drive::drive(&client, &calls, &pace, &|| bar.inc(1));
        let sent = sent.context("cannot start a thread for each request under way").map_err(Failure::Other)?;
        runs.push(figures::summarize(load, &workload.asked, sent));
    }
    bar.finish_and_clear();

    let mut asked = requests::facts(&args.workload, &args.sampling, requests);
    asked.output_tokens = workload.asked.iter().filter_map(|asked| asked.options.max_new_tokens).sum();
    asked.prompt_tokens = figures_of(&runs).find(|run| run.answered == requests).map(|run| run.prompt_tokens);
    let failure = failure(&runs, requests * loads.len());
    let report = Report { subject: Subject::Endpoint { endpoint: facts }, workload: asked, runs };
    Ok(Measured { report, occupancy: None, failure })
}

/// What the server is asked.
struct Workload {
    /// In order of arrival.
    asked: Vec<Asked>,
    warm_up: Asked,
}

impl Workload {
    fn new(args: &Args, material: &Material) -> Result<Self> {
        let (workload, sampling) = (&args.workload, &args.sampling);
        let asked = requests::asked(workload, sampling, material)?;
        let shortest = asked.iter().filter_map(|asked| asked.options.max_new_tokens).min().unwrap_or(1);
        let mut warm_up = requests::warm_up(workload, sampling, material, requests::longest_input(workload), shortest)?;
        // How many tokens a line has is the server's to say; the warm-up is the longest of them.
        if args.workload.prompts.is_some()
            && let Some(longest) = asked.iter().max_by_key(|asked| length(&asked.prompt))
        {
            let max_new_tokens = warm_up.options.max_new_tokens;
            warm_up = longest.clone();
            warm_up.options.max_new_tokens = max_new_tokens;
        }
        Ok(Self { asked, warm_up })
    }

    fn described(&self, of: impl Fn(&Prompt) -> &'static str) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.asked.iter().map(|asked| of(&asked.prompt)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn length(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Text(text) | Prompt::Messages(text) => text.len(),
        Prompt::Ids(ids) => ids.len() * 4,
    }
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

/// Why nothing can be measured.
enum Refused {
    /// A request cannot be put into the API's fields.
    Here(anyhow::Error),
    /// The server does not take it.
    There(problem::Problem),
}

/// Finds the form in which the server takes requests, with a warm-up request: ids before words, and with vLLM's fields before OpenAI's
/// alone.
fn agree(
    client: &Client,
    workloads: Vec<Workload>,
    model: &str,
    salt: &str,
) -> Result<(Workload, Form, Answer), Refused> {
    let mut first = None;
    for workload in workloads {
        for extensions in [true, false] {
            let form = Form { model: model.to_owned(), extensions };
            // Each is checked before anything is sent.
            for asked in &workload.asked {
                form.call(asked, salt).map_err(Refused::Here)?;
            }
            let call = form.call(&workload.warm_up, salt).map_err(Refused::Here)?;
            match client.ask(&call, Instant::now()) {
                Ok(answer) => return Ok((workload, form, answer)),
                Err(problem) if problem.is_about_form() => first = first.or(Some(problem)),
                Err(problem) => return Err(Refused::There(problem)),
            }
        }
    }
    Err(first.map_or_else(|| Refused::Here(anyhow!("there is nothing to ask")), Refused::There))
}

fn facts(url: &Address, form: &Form, workload: &Workload, answer: &Answer) -> EndpointFacts {
    let route = |prompt: &Prompt| if matches!(prompt, Prompt::Messages(_)) { body::CHAT } else { body::COMPLETIONS };
    let kind = |prompt: &Prompt| match prompt {
        Prompt::Ids(_) => "token ids",
        Prompt::Text(_) => "text",
        Prompt::Messages(_) => "messages",
    };
    EndpointFacts {
        url: url.to_string(),
        model: form.model.clone(),
        routes: workload.described(route),
        prompts: workload.described(kind).join(" and "),
        token_counts: if answer.is_counted_by_chunk { "usage of each chunk" } else { "usage at the end" },
        extensions: form.extensions,
        measured_at: "client",
        client: processor(),
    }
}

fn figures_of(runs: &[RunReport]) -> impl Iterator<Item = &EndpointFigures> {
    runs.iter().filter_map(|run| if let Seen::Endpoint(figures) = &run.seen { Some(figures) } else { None })
}

/// What the program ends with after its report. A refusal for lack of room is a result; anything else that has no answer is not.
fn failure(runs: &[RunReport], requests: usize) -> Option<anyhow::Error> {
    let failed: usize = figures_of(runs).map(|run| run.failed).sum();
    let is_failure = |problem: &&figures::ProblemCount| !matches!(problem.status, Some(429 | 503 | 529));
    let first = figures_of(runs).flat_map(|run| run.problems.iter().find(is_failure)).next()?;
    Some(anyhow!("{failed} of {requests} requests failed: {}", first.message))
}
