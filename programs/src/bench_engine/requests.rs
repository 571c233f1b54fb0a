//! From what was typed to the requests of a load.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use args::SamplingArgs;

use super::flags::WorkloadArgs;
use super::report::WorkloadFacts;
use super::workload::{Lengths, PromptMaker, Random, Stream, draw_lengths};
use crate::format::counted;
use crate::prompts::{self, Given, PromptsFile};
use runner::engine::Engine;
use runner::executor::Request;
use runner::generation_options::GenerationOptions;
use runner::request_builder::{Prompt, RequestBuilder};

const DEFAULT_REQUESTS: usize = 64;
const DEFAULT_INPUT: Lengths = Lengths { min: 128, max: 128 };

/// Tokens that the warm-up generates at most.
const WARM_UP_TOKENS: usize = 8;

/// What the engine is asked.
#[derive(Debug)]
pub(super) struct Workload {
    /// In order of arrival.
    pub requests: Vec<Request>,
    /// As long as the longest request, but of other ids, so that nothing of it can be reused.
    pub warm_up: Request,
    pub facts: WorkloadFacts,
}

impl Workload {
    /// Makes the requests, or reads and encodes them.
    ///
    /// # Errors
    /// Lengths that the engine does not allow, prompts that are invalid.
    pub(super) fn new(args: &WorkloadArgs, sampling: &SamplingArgs, builder: RequestBuilder<'_>) -> Result<Self> {
        let options = GenerationOptions { seed: Some(args.seed), ignore_eos: Some(true), ..sampling.options.clone() };
        let (requests, source) = match &args.prompts {
            None => (synthetic(args, &options, builder)?, "synthetic".to_owned()),
            Some(path) => (from_file(path, args, &options, builder)?, path.display().to_string()),
        };
        for (index, request) in requests.iter().enumerate() {
            let spec = request.spec();
            ensure!(
                !request.is_shortened(),
                "request {index}: a prompt of {} leaves room for {} of output, fewer than asked for (max_seq_len {})",
                counted(spec.input_token_ids.len(), "token"),
                spec.max_tokens,
                builder.executor.limits().max_seq_len
            );
        }
        let prompt_tokens = |request: &Request| request.spec().input_token_ids.len();
        let output_tokens = |request: &Request| request.spec().max_tokens;
        let longest = requests.iter().map(prompt_tokens).max().unwrap_or(1);
        let tokens = requests.iter().map(output_tokens).min().unwrap_or(1).min(WARM_UP_TOKENS);
        let end_ids = builder.engine.map_or(&[][..], Engine::end_ids);
        let mut maker = PromptMaker::new(builder.executor.vocab_size(), end_ids, 0, args.seed, Stream::WarmUp)?;
        let warm_up = request(builder, Prompt::Ids(maker.prompt(longest)), tokens, &options)?;
        let facts = WorkloadFacts {
            requests: requests.len(),
            source,
            prompt_tokens: requests.iter().map(prompt_tokens).sum(),
            output_tokens: requests.iter().map(output_tokens).sum(),
            shared_prefix_len: args.shared_prefix_len,
            temperature: warm_up.spec().sampling.temperature,
            top_p: warm_up.spec().sampling.top_p,
            sampling: sampling.typed.clone(),
            chat: args.chat,
            seed: args.seed,
        };
        Ok(Self { requests, warm_up, facts })
    }

    /// Whether a prompt's own log-probabilities are asked for.
    pub(super) fn scores_prompts(&self) -> bool {
        self.requests.iter().any(|request| request.spec().output.return_prompt_log_probs)
    }
}

fn synthetic(args: &WorkloadArgs, options: &GenerationOptions, builder: RequestBuilder<'_>) -> Result<Vec<Request>> {
    let count = args.requests.map_or(DEFAULT_REQUESTS, |count| count as usize);
    let input = args.input_len.unwrap_or(DEFAULT_INPUT);
    let prefix = args.shared_prefix_len;
    ensure!(prefix < input.min, "--shared-prefix-len {prefix} must be below the shortest prompt, {}", input.min);
    let mut random = Random::new(args.seed, Stream::Lengths);
    let prompts = draw_lengths(input, count, &mut random);
    let outputs = draw_lengths(args.output_len, count, &mut random);
    let vocab_size = builder.executor.vocab_size();
    let end_ids = builder.engine.map_or(&[][..], Engine::end_ids);
    let mut maker = PromptMaker::new(vocab_size, end_ids, prefix, args.seed, Stream::Prompts)?;
    let requests = prompts
        .into_iter()
        .zip(outputs)
        .map(|(prompt, output)| request(builder, Prompt::Ids(maker.prompt(prompt)), output, options));
    requests.collect()
}

fn request(
    builder: RequestBuilder<'_>,
    prompt: Prompt,
    max_new_tokens: usize,
    options: &GenerationOptions,
) -> Result<Request> {
    let options = GenerationOptions { max_new_tokens: Some(max_new_tokens), ..options.clone() };
    Ok(builder.build(&prompt, &options).map_err(prompts::refused)?.request)
}

fn from_file(
    path: &Path,
    args: &WorkloadArgs,
    options: &GenerationOptions,
    builder: RequestBuilder<'_>,
) -> Result<Vec<Request>> {
    let mut prompts = Vec::new();
    // A measurement needs every one of them.
    for given in PromptsFile::open(path, args.chat, &GenerationOptions::default())? {
        let Given { name, prompt } = given?;
        let name = name.unwrap_or_default();
        prompts.push((prompt.with_context(|| name.clone())?, name));
    }
    let count = args.requests.map_or(prompts.len(), |count| count as usize);
    let outputs = draw_lengths(args.output_len, count, &mut Random::new(args.seed, Stream::Lengths));
    let requests = prompts.iter().cycle().zip(outputs).map(|((prompt, origin), output)| {
        let defaults = GenerationOptions { max_new_tokens: Some(output), ..options.clone() };
        let prompt = prompt.clone().or(&defaults);
        let submission =
            builder.build(&prompt.prompt, &prompt.options).map_err(prompts::refused).with_context(|| origin.clone())?;
        let spec = submission.request.spec();
        ensure!(
            spec.end_ids.is_empty() && submission.stop_strings.is_empty() && spec.guided_decoding.is_none(),
            "{origin}: a measured request ends by its length: leave out `stop`, `ignore_eos` and what guides the output"
        );
        ensure!(
            spec.sampling.num_return_sequences == 1 && spec.sampling.beam_width == 1,
            "{origin}: a measured request has one sequence: leave out `n` and `beam_width`"
        );
        Ok(submission.request)
    });
    requests.collect()
}
