//! Engines side by side over the windows of a text. At any time there are logits of [`ROWS`] positions of each engine, whatever the text.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine_format::EngineDir;
use indicatif::{ProgressBar, ProgressStyle};
use runner::cpu_model::{CpuModel, ForwardPass, KvCache, StepSequence};
use runner::executor::KvCacheDtype;
use serde_json::{Value, json};
use text::tokenizer::Tokenizer;

use crate::figures::{Figures, log_probs};
use crate::windows::windows;

/// Positions whose logits are computed together.
const ROWS: usize = 32;

const TOKENS_PER_BLOCK: usize = 32;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The text; two empty lines divide documents.
    #[arg(long)]
    text: PathBuf,
    /// The most tokens that are read in a row.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Worker threads of each engine [all physical cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Where the rows are written.
    #[arg(long)]
    rows: PathBuf,
    /// Where the token ids of each window are written, as a list of lists.
    #[arg(long)]
    windows: Option<PathBuf>,
    /// The engine that the others are compared with; it has a row too.
    reference: Engine,
    /// Other engines of the same model.
    engines: Vec<Engine>,
    /// Engines that keep keys and values in int8, not in bf16.
    #[arg(long, value_name = "ENGINE")]
    int8_cache: Vec<Engine>,
}

/// An engine directory and the name of its row.
#[derive(Clone)]
struct Engine {
    name: String,
    path: PathBuf,
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("must be NAME=DIR")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

/// An engine that runs, and what is gathered of it.
struct Opened {
    name: String,
    bytes: u64,
    model: CpuModel,
    pass: ForwardPass,
    cache: KvCache,
    logits: Vec<f32>,
    figures: Figures,
}

impl Opened {
    fn open(engine: &Engine, dtype: KvCacheDtype, window: usize, threads: Option<usize>) -> Result<Self> {
        let dir = EngineDir::open(&engine.path)?;
        let bytes = dir.weights()?.file().bytes().len() as u64;
        let model = CpuModel::open(&dir, threads)?;
        let positions = model.config().max_position_embeddings;
        ensure!(window <= positions, "a window of {window} tokens is longer than the model's {positions} positions");
        let cache = KvCache::new(model.config(), dtype, window.div_ceil(TOKENS_PER_BLOCK), TOKENS_PER_BLOCK)?;
        let (name, pass, figures) = (engine.name.clone(), ForwardPass::default(), Figures::default());
        Ok(Self { name, bytes, model, pass, cache, logits: Vec::new(), figures })
    }

    fn read(&mut self, tokens: &[u32]) -> Result<()> {
        let blocks: Vec<u32> = (0..self.cache.num_blocks() as u32).collect();
        let step = [StepSequence { tokens, start: 0, blocks: &blocks }];
        Ok(self.model.forward(&mut self.pass, &mut self.cache, &step, &mut || false)?)
    }

    fn compute_logits(&mut self, rows: &[usize]) -> Result<()> {
        let logits = self.model.logits(&mut self.pass, rows, &mut self.logits);
        ensure!(logits.iter().all(|logit| logit.is_finite()), "{}: the model's logits are not numbers", self.name);
        Ok(())
    }

    fn row(&self, row: usize) -> &[f32] {
        let vocab_size = self.model.config().vocab_size;
        &self.logits[row * vocab_size..][..vocab_size]
    }

    /// Adds the rows whose logits were computed, each with the token that came next in the text.
    fn gather(&mut self, expected: &[Vec<f64>], next: &[usize]) {
        for (row, (expected, &next)) in expected.iter().zip(next).enumerate() {
            self.figures.add(expected, &log_probs(self.row(row)), next);
        }
    }

    fn as_json(&self) -> Value {
        let figures = &self.figures;
        json!({
            "name": self.name,
            "bytes": self.bytes,
            "positions": figures.positions(),
            "mean_kl": figures.mean_kl(),
            "kl_99": figures.kl_99(),
            "same_best": figures.same_best(),
            "mean_difference": figures.mean_difference(),
            "perplexity": figures.perplexity(),
        })
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let text = std::fs::read_to_string(&args.text).with_context(|| format!("cannot read {}", args.text.display()))?;
    let windows = windows(&Tokenizer::open(&args.reference.path)?, &text, args.window)
        .with_context(|| args.text.display().to_string())?;
    if let Some(path) = &args.windows {
        write(path, &json!(windows))?;
    }
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let open = |(engine, dtype): (&Engine, KvCacheDtype)| {
        Opened::open(engine, dtype, longest, args.threads).with_context(|| format!("engine {}", engine.path.display()))
    };
    let mut reference = open((&args.reference, KvCacheDtype::Bf16))?;
    let in_bf16 = args.engines.iter().map(|engine| (engine, KvCacheDtype::Bf16));
    let in_int8 = args.int8_cache.iter().map(|engine| (engine, KvCacheDtype::Int8));
    let mut others = in_bf16.chain(in_int8).map(open).collect::<Result<Vec<_>>>()?;
    for other in &others {
        let sizes = [&reference, other].map(|engine| engine.model.config().vocab_size);
        ensure!(sizes[0] == sizes[1], "{} and {} are not of one model", reference.name, other.name);
    }

    let bar = ProgressBar::new(windows.iter().map(|tokens| tokens.len() as u64).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos} of {len} tokens, {eta} left")?);
    for tokens in &windows {
        for engine in others.iter_mut().chain([&mut reference]) {
            engine.read(tokens)?;
        }
        // The last position's token comes from nowhere.
        let positions: Vec<_> = (0..tokens.len() - 1).collect();
        for rows in positions.chunks(ROWS) {
            reference.compute_logits(rows)?;
            for engine in &mut others {
                engine.compute_logits(rows)?;
            }
            let expected: Vec<_> = (0..rows.len()).map(|row| log_probs(reference.row(row))).collect();
            let next: Vec<_> = rows.iter().map(|&position| tokens[position + 1] as usize).collect();
            std::thread::scope(|scope| {
                for engine in others.iter_mut().chain([&mut reference]) {
                    scope.spawn(|| engine.gather(&expected, &next));
                }
            });
            bar.inc(rows.len() as u64);
        }
    }
    bar.finish_and_clear();
    let rows: Vec<_> = [&reference].into_iter().chain(&others).map(Opened::as_json).collect();
    write(&args.rows, &json!(rows))
}

fn write(path: &Path, content: &Value) -> Result<()> {
    std::fs::write(path, content.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
