//! What can be typed.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use super::endpoint::Address;
use super::load::{Arrivals, Load, Rate};
use super::workload::Lengths;
use ::args::number::whole;
use ::args::{ExecutorArgs, SamplingArgs};

/// Measure an engine, or a server of OpenAI's API: latency and throughput under load; of an engine beside this machine's limits.
///
/// The result goes to standard output, everything else to standard error. Exit codes: 0 done; 2 bad input or usage;
/// 3 this machine lacks what was asked for; 130 interrupted; 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "bench-engine", version, max_term_width = 110)]
#[command(override_usage = "bench-engine [OPTIONS] --engine <DIR>\n       bench-engine [OPTIONS] --url <URL>")]
pub(super) struct Args {
    /// Engine directory, made by `build-engine`
    // A required group of both would be asked for beside `--generate`, too.
    #[arg(long, value_name = "DIR", required_unless_present = "url", conflicts_with = "url")]
    pub engine: Option<PathBuf>,

    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Also write the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also draw the result: throughput_latency and, of an engine, occupancy, as .svg and .png, in this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print the result and errors only
    #[arg(long, short)]
    pub quiet: bool,

    /// A server in an engine's place
    #[command(flatten)]
    pub endpoint: EndpointArgs,

    /// What is asked of the engine, and when
    #[command(flatten)]
    pub workload: WorkloadArgs,

    /// How tokens are chosen
    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// How the executor runs
    #[command(flatten)]
    pub executor: ExecutorArgs,
}

/// A server in an engine's place. Each names `--engine` as its conflict: clap does not require `--url` of a flag beside `--engine`, which
/// excludes it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Served endpoint")]
pub(super) struct EndpointArgs {
    /// Measure the server of OpenAI's API at http://HOST:PORT, with or without /v1
    #[arg(long, value_name = "URL", conflicts_with = "ExecutorArgs")]
    pub url: Option<Address>,

    /// Name of the model [default: the first of the server's]
    #[arg(long, value_name = "NAME", requires = "url", conflicts_with = "engine")]
    pub model: Option<String>,

    /// Make synthetic prompts of the token ids of this engine's or model's directory, as for an engine [default: of words]
    #[arg(long, value_name = "DIR", requires = "url", conflicts_with_all = ["engine", "prompts"])]
    pub tokenizer: Option<PathBuf>,

    /// File with the server's API key [default: the variable OPENAI_API_KEY]
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "engine")]
    pub api_key_file: Option<PathBuf>,

    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", requires = "url", conflicts_with = "engine", default_value_t = 3600, value_parser = whole::<u64>(1..=31_536_000))]
    pub timeout: u64,
}

/// What is asked of the engine, and when.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Workload")]
pub(super) struct WorkloadArgs {
    /// Requests of one load [default: 64, or as many as --prompts has]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=u32::MAX.into()))]
    pub requests: Option<u32>,

    /// Tokens, or words, of a synthetic prompt: a number, or a range to draw from [default: 128]
    #[arg(long, value_name = "N|MIN:MAX", conflicts_with = "prompts")]
    pub input_len: Option<Lengths>,

    /// Tokens to generate for a prompt: a number, or a range to draw from; end ids do not end a sequence
    #[arg(long, value_name = "N|MIN:MAX", default_value = "64")]
    pub output_len: Lengths,

    /// Make the first N tokens of all synthetic prompts equal
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "prompts", value_parser = whole::<usize>(0..=u64::MAX))]
    pub shared_prefix_len: usize,

    /// Read prompts from a file, as `run-engine` does; start over if --requests asks for more
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,

    /// Apply the model's chat template to the prompts of the file, as `run-engine` does
    #[arg(long, requires = "prompts")]
    pub chat: bool,

    /// How requests arrive [default: all, or poisson with --rate]
    #[arg(long, value_enum, conflicts_with = "concurrency")]
    pub arrivals: Option<Arrivals>,

    /// Requests that arrive each second, on average; several values are several loads
    #[arg(long, value_name = "R[,R...]", value_delimiter = ',', conflicts_with = "concurrency")]
    pub rate: Vec<Rate>,

    /// Keep N requests running; several values are several loads
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', value_parser = whole::<u32>(1..=u32::MAX.into()))]
    pub concurrency: Vec<u32>,

    /// Seed of prompts, lengths, arrivals and draws
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX))]
    pub seed: u64,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table.
    Table,
    /// One JSON object.
    Json,
}

impl WorkloadArgs {
    /// The loads asked for, in the order given.
    ///
    /// # Errors
    /// Arrivals and rates that contradict each other.
    pub(super) fn loads(&self) -> Result<Vec<Load>> {
        if !self.concurrency.is_empty() {
            return Ok(self.concurrency.iter().map(|&width| Load::Concurrency(width as usize)).collect());
        }
        let default = if self.rate.is_empty() { Arrivals::All } else { Arrivals::Poisson };
        match self.arrivals.unwrap_or(default) {
            Arrivals::All => {
                ensure!(self.rate.is_empty(), "--rate contradicts --arrivals all");
                Ok(vec![Load::AllAtOnce])
            }
            arrivals => {
                ensure!(!self.rate.is_empty(), "--arrivals fixed, uniform and poisson need --rate");
                Ok(self.rate.iter().map(|&Rate(rate)| Load::Rate(arrivals, rate)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(arguments: &[&str]) -> Result<Vec<Load>> {
        let typed = ["bench-engine", "--engine", "e"].iter().chain(arguments);
        Args::try_parse_from(typed)?.workload.loads()
    }

    #[test]
    fn loads_follow_from_what_was_typed() {
        assert_eq!(loads(&[]).unwrap(), [Load::AllAtOnce]);
        assert_eq!(loads(&["--concurrency", "1,8"]).unwrap(), [Load::Concurrency(1), Load::Concurrency(8)]);
        assert_eq!(loads(&["--rate", "0.5"]).unwrap(), [Load::Rate(Arrivals::Poisson, 0.5)]);
        let uniform = [Load::Rate(Arrivals::Uniform, 1.0), Load::Rate(Arrivals::Uniform, 2.0)];
        assert_eq!(loads(&["--rate", "1,2", "--arrivals", "uniform"]).unwrap(), uniform);
    }

    #[test]
    fn what_is_an_engines_is_refused_beside_a_url() {
        let parse = |arguments: &[&str]| Args::try_parse_from([&["bench-engine"], arguments].concat());
        let url = ["--url", "http://a:1"];
        let args = parse(&url).unwrap();
        assert_eq!((args.engine, args.endpoint.timeout), (None, 3600));
        for more in [
            ["--engine", "e"],
            ["--threads", "2"],
            ["--config", "f"],
            ["--max-batch-size", "2"],
            ["--kv-cache-tokens", "64"],
            ["--enable-chunked-context", "true"],
        ] {
            let error = parse(&[&url[..], &more].concat()).unwrap_err().to_string();
            assert!(error.contains("--url") && error.contains(more[0]), "{error}");
        }
        for more in [["--model", "m"], ["--tokenizer", "d"], ["--api-key-file", "f"], ["--timeout", "5"]] {
            parse(&[&url[..], &more].concat()).unwrap();
            let error = parse(&[&["--engine", "e"][..], &more].concat()).unwrap_err().to_string();
            assert!(error.contains("--engine") && error.contains(more[0]), "{error}");
            let error = parse(&more).unwrap_err().to_string();
            assert!(error.contains("--url"), "{error}");
        }
        assert!(parse(&[]).unwrap_err().to_string().contains("--engine"));
    }

    #[test]
    fn contradictions_are_refused() {
        for wrong in [
            &["--arrivals", "fixed"] as &[_],
            &["--arrivals", "all", "--rate", "1"],
            &["--concurrency", "2", "--rate", "1"],
            &["--concurrency", "0"],
            &["--rate", "0"],
            &["--rate", "nan"],
            &["--requests", "0"],
            &["--input-len", "0"],
            &["--output-len", "5:4"],
            &["--prompts", "f", "--input-len", "5"],
        ] {
            assert!(loads(wrong).is_err(), "{wrong:?}");
        }
    }
}
