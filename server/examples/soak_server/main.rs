//! Load and chaos for the server: what a streamed token costs, how many requests a second, what idle connections take, how overload is
//! refused, and whether a token is ever lost or doubled, or anything leaked, whatever clients do. `scripts/soak-server` runs it.
//!
//! Figures are of the server over a stand-in for an executor, in a process of its own; those that say so are of `serve-engine`.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures, and no library"
)]

mod chaos;
mod client;
mod figures;
mod load;
mod oracle;
mod peer;
mod process;
mod requests;
mod script;
mod serve;
mod stand_in;
mod start;
mod streams;
mod torment;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use text::tokenizer::Tokenizer;

use figures::Figure;
use script::Script;
use serve::StandInArgs;

/// Measures the server and torments it.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Serve a stand-in that says tokens of a script
    StandIn(Box<StandInArgs>),
    /// Measure: a table
    Figures {
        /// The program `serve-engine`
        #[arg(long)]
        serve_engine: PathBuf,
        /// A small CPU engine
        #[arg(long)]
        engine: PathBuf,
        /// Of streams, requests, idle, overload, disconnects and start; all by default
        #[arg(long)]
        only: Vec<String>,
    },
    /// Measure `serve-engine` and llama.cpp's server beside each other: a table
    Peer {
        /// The program `serve-engine`
        #[arg(long)]
        serve_engine: PathBuf,
        /// A CPU engine
        #[arg(long)]
        engine: PathBuf,
        /// The program `llama-server`
        #[arg(long)]
        llama_server: PathBuf,
        /// The engine's model as llama.cpp reads it, in the same type
        #[arg(long)]
        gguf: PathBuf,
        /// Repetitions, the best of which counts
        #[arg(long, default_value_t = 3)]
        turns: usize,
    },
    /// Let clients do what they should not, and check every answer
    Chaos {
        /// The program `serve-engine`
        #[arg(long)]
        serve_engine: PathBuf,
        /// A small CPU engine
        #[arg(long)]
        engine: PathBuf,
        /// How long, half of it over the stand-in and half over the engine
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// Of what is random [default: the time]
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    run(Args::parse().what).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(what: What) -> anyhow::Result<ExitCode> {
    match what {
        What::StandIn(args) => Ok(if serve::serve(&args)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        What::Figures { serve_engine, engine, only } => {
            let is_asked = |name: &str| only.is_empty() || only.iter().any(|asked| asked == name);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            println!("{}", figures::HEAD);
            let show = |figures: Vec<Figure>| figures.iter().for_each(|figure| println!("{}", figure.line()));
            runtime.block_on(async {
                if is_asked("streams") {
                    show(streams::figures().await?);
                }
                if is_asked("requests") {
                    show(requests::figures().await?);
                }
                if is_asked("idle") {
                    show(load::idle().await?);
                }
                if is_asked("overload") {
                    show(load::overload().await?);
                }
                if is_asked("disconnects") {
                    let server = start::stand_in(1, 5000, &[])?;
                    show(vec![load::disconnects(&server, 5.0, "Our solar system").await?]);
                    let arguments = ["--max-batch-size", "1", "--drain-grace", "0"];
                    let server = start::serve_engine(&serve_engine, &engine, &arguments).await?;
                    show(vec![load::disconnects(&server, 1.0, "Our solar system").await?]);
                }
                if is_asked("start") {
                    show(start::figures(&serve_engine, &engine).await?);
                }
                anyhow::Ok(())
            })?;
            Ok(ExitCode::SUCCESS)
        }
        What::Peer { serve_engine, engine, llama_server, gguf, turns } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            println!("{}", runtime.block_on(peer::compare(&serve_engine, &engine, &llama_server, &gguf, turns))?);
            Ok(ExitCode::SUCCESS)
        }
        What::Chaos { serve_engine, engine, minutes, seed } => {
            let seed =
                seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()));
            println!("seed {seed}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(torment_both(&serve_engine, &engine, minutes, seed))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Rounds over the stand-in and over the engine, in turn.
async fn torment_both(serve_engine: &Path, engine: &Path, minutes: f64, seed: u64) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let round = Duration::from_secs_f64((15.0 * minutes).min(60.0));
    let script = Script::of(&Tokenizer::open(&serve::demo_model())?);
    let quick_end = ["--drain-grace", "0.2", "--drain-timeout", "0.5", "--sse-keep-alive", "0.05"];
    for number in 0.. {
        // Its pace makes streams of several chunks, and leaves some that have not ended when the server ends.
        let server = start::stand_in(16, 1000, &quick_end)?;
        let seed = seed.wrapping_add(number);
        println!("stand-in, round {number}: {}", chaos::round(server, Some(&script), 1500, seed, round).await?);
        let server = start::serve_engine(serve_engine, engine, &quick_end).await?;
        println!("serve-engine, round {number}: {}", chaos::round(server, None, 300, seed, round).await?);
        if Instant::now() >= end {
            break;
        }
    }
    Ok(())
}
