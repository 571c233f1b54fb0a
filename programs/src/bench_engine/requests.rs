//! What is asked, whoever serves it: prompts and options, from what was typed. The same flags and the same seed ask the same of an
//! engine and of a server.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use args::SamplingArgs;
use runner::generation_options::GenerationOptions;
use runner::request_builder::Prompt;

use super::flags::WorkloadArgs;
use super::report::WorkloadFacts;
use super::workload::{Lengths, Material, Random, Stream, draw_lengths};
use crate::prompts::{Given, PromptsFile};

const DEFAULT_REQUESTS: usize = 64;
const DEFAULT_INPUT: Lengths = Lengths { min: 128, max: 128 };

/// Tokens that a warm-up generates at most.
const WARM_UP_TOKENS: usize = 8;

/// What one request asks.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub prompt: Prompt,
    /// With `max_new_tokens`, or `max_length` of a line of a file.
    pub options: GenerationOptions,
    /// The line of a file that it comes from.
    pub origin: Option<String>,
}

impl Asked {
    /// The same with an error's origin in front.
    pub(super) fn blame<T>(&self, result: Result<T>) -> Result<T> {
        match &self.origin {
            Some(origin) => result.with_context(|| origin.clone()),
            None => result,
        }
    }
}

/// What all requests of a load ask, in order of arrival.
///
/// # Errors
/// Lengths that contradict each other, prompts that are invalid, options that a measured request cannot have.
pub(super) fn asked(args: &WorkloadArgs, sampling: &SamplingArgs, material: &Material) -> Result<Vec<Asked>> {
    let options = options(args, sampling);
    match &args.prompts {
        None => synthetic(args, &options, material),
        Some(path) => from_file(path, args, &options),
    }
}

/// What goes before a load: a prompt of `len` ids or words that are no other's, so that nothing of it can be reused, and some of the
/// tokens that are generated for `asked`.
pub(super) fn warm_up(
    args: &WorkloadArgs,
    sampling: &SamplingArgs,
    material: &Material,
    len: usize,
    output: usize,
) -> Result<Asked> {
    let prompt = material.prompts(0, args.seed, Stream::WarmUp)?(len);
    let max_new_tokens = Some(output.min(WARM_UP_TOKENS));
    Ok(Asked { prompt, options: GenerationOptions { max_new_tokens, ..options(args, sampling) }, origin: None })
}

/// What the report says of it.
pub(super) fn facts(args: &WorkloadArgs, sampling: &SamplingArgs, requests: usize) -> WorkloadFacts {
    WorkloadFacts {
        requests,
        source: args.prompts.as_ref().map_or_else(|| "synthetic".to_owned(), |path| path.display().to_string()),
        prompt_tokens: None,
        output_tokens: 0,
        shared_prefix_len: args.shared_prefix_len,
        temperature: sampling.options.temperature_or_default(),
        top_p: sampling.options.top_p.unwrap_or(1.0),
        sampling: sampling.typed.clone(),
        chat: args.chat,
        seed: args.seed,
    }
}

fn options(args: &WorkloadArgs, sampling: &SamplingArgs) -> GenerationOptions {
    GenerationOptions { seed: Some(args.seed), ignore_eos: Some(true), ..sampling.options.clone() }
}

fn synthetic(args: &WorkloadArgs, options: &GenerationOptions, material: &Material) -> Result<Vec<Asked>> {
    let count = args.requests.map_or(DEFAULT_REQUESTS, |count| count as usize);
    let input = args.input_len.unwrap_or(DEFAULT_INPUT);
    let prefix = args.shared_prefix_len;
    ensure!(prefix < input.min, "--shared-prefix-len {prefix} must be below the shortest prompt, {}", input.min);
    let mut random = Random::new(args.seed, Stream::Lengths);
    let prompts = draw_lengths(input, count, &mut random);
    let outputs = draw_lengths(args.output_len, count, &mut random);
    let mut prompt = material.prompts(prefix, args.seed, Stream::Prompts)?;
    let requests = prompts.into_iter().zip(outputs).map(|(len, output)| Asked {
        prompt: prompt(len),
        options: GenerationOptions { max_new_tokens: Some(output), ..options.clone() },
        origin: None,
    });
    Ok(requests.collect())
}

/// The longest synthetic prompt, in ids or words.
pub(super) fn longest_input(args: &WorkloadArgs) -> usize {
    args.input_len.unwrap_or(DEFAULT_INPUT).max
}

fn from_file(path: &Path, args: &WorkloadArgs, options: &GenerationOptions) -> Result<Vec<Asked>> {
    let mut prompts = Vec::new();
    // A measurement needs every one of them.
    for given in PromptsFile::open(path, args.chat, &GenerationOptions::default())? {
        let Given { name, prompt } = given?;
        let origin = name.unwrap_or_default();
        let prompt = prompt.with_context(|| origin.clone())?;
        check(&prompt.options).with_context(|| origin.clone())?;
        prompts.push((prompt, origin));
    }
    let count = args.requests.map_or(prompts.len(), |count| count as usize);
    let outputs = draw_lengths(args.output_len, count, &mut Random::new(args.seed, Stream::Lengths));
    let requests = prompts.iter().cycle().zip(outputs).map(|((prompt, origin), output)| {
        let defaults = GenerationOptions { max_new_tokens: Some(output), ..options.clone() };
        let prompt = prompt.clone().or(&defaults);
        Asked { prompt: prompt.prompt, options: prompt.options, origin: Some(origin.clone()) }
    });
    Ok(requests.collect())
}

/// Checks that a request is one sequence that ends by its length.
fn check(options: &GenerationOptions) -> Result<()> {
    let is_empty = |length: Option<usize>| length.unwrap_or(0) == 0;
    ensure!(
        is_empty(options.stop.as_ref().map(Vec::len))
            && is_empty(options.end_id.as_ref().map(Vec::len))
            && options.ignore_eos != Some(false)
            && options.guides().is_empty(),
        "a measured request ends by its length: leave out `stop`, `end_id`, `ignore_eos` and what guides the output"
    );
    ensure!(
        options.n.unwrap_or(1) == 1 && options.beam_width.unwrap_or(1) == 1,
        "a measured request has one sequence: leave out `n` and `beam_width`"
    );
    Ok(())
}
