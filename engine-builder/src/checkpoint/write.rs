//! Writes a TensorRT-LLM checkpoint: `config.json`, `rank{R}.safetensors` for every rank, the tokenizer's files.

use std::path::Path;
use std::time::Instant;

use engine_format::checkpoint::{CONFIG_FILE, rank_file, to_json};
use engine_format::shard::Shard;
use engine_format::staging::StagedDir;
use engine_format::{Mapping, Weight, bf16, shape};

use super::header;
use crate::error::Result;
use crate::non_finite::{Findings, all_within};
use crate::output::{Written, check_free_space, pretty};
use crate::progress::{Interrupt, Progress};
use crate::source::{PartView, Source};
use crate::stream::{self, Fill, Job, Piece};

/// The file that shows that a directory is a checkpoint, so that it may be replaced on request.
pub const MARKER: &str = "rank0.safetensors";

/// What to write, and where.
#[derive(Debug, Clone)]
pub struct CheckpointRequest<'a> {
    /// The directory to make.
    pub output: &'a Path,
    /// How the weights are split over ranks.
    pub mapping: Mapping,
    /// Whether a checkpoint that is there already is replaced.
    pub force: bool,
    /// Whether weights may be infinite or NaN.
    pub allow_non_finite: bool,
}

/// Writes `source` as a checkpoint. Weights are rounded to bfloat16.
///
/// # Errors
/// A mapping that does not work out, a source that is split another way, weights that are not finite, an output that exists or
/// does not fit. Then the output is as it was.
pub fn write_checkpoint(
    source: &Source,
    request: &CheckpointRequest<'_>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Written> {
    let start = Instant::now();
    let &CheckpointRequest { output, mapping, force, allow_non_finite } = request;
    let config = source.config();
    mapping.validate(config)?;
    let mut ranks = Vec::new();
    for pp_rank in 0..mapping.pp_size {
        for tp_rank in 0..mapping.tp_size {
            ranks.push(Rank::new(source, mapping, pp_rank, tp_rank)?);
        }
    }
    let staged = StagedDir::create(output, force, MARKER)?;
    let total = ranks.iter().map(|rank| rank.layout.total_bytes as u64).sum();
    check_free_space(output, staged.path(), total)?;
    let findings = Findings::default();
    for (index, rank) in ranks.iter().enumerate() {
        let job = Job {
            path: &staged.path().join(rank_file(index)),
            head: &rank.layout.head,
            pieces: &rank.pieces,
            total_bytes: rank.layout.total_bytes,
            findings: &findings,
        };
        stream::write(&job, rank, false, progress, interrupt)?;
    }
    findings.finish(allow_non_finite, progress)?;
    let config = pretty(&to_json(config, mapping));
    staged.write(CONFIG_FILE, &config)?;
    let companions = source.companions();
    for (name, content) in companions {
        staged.write(name, content)?;
    }
    interrupt.check()?;
    staged.commit()?;
    let companion_bytes: usize = companions.iter().map(|(_, content)| content.len()).sum();
    Ok(Written {
        files: ranks.len() + 1 + companions.len(),
        bytes: total + (config.len() + companion_bytes) as u64,
        elapsed: start.elapsed(),
    })
}

/// One rank's file: its layout, and where each of its tensors comes from.
struct Rank<'a> {
    layout: header::Layout,
    pieces: Vec<Piece>,
    tensors: Vec<Tensor<'a>>,
}

/// The runs of rows that a tensor is stacked from.
struct Tensor<'a> {
    columns: usize,
    runs: Vec<Run<'a>>,
}

/// Rows of the source with some of its columns, followed by rows of zeros.
struct Run<'a> {
    view: PartView<'a>,
    columns: std::ops::Range<usize>,
    zero_rows: usize,
}

impl<'a> Rank<'a> {
    fn new(source: &'a Source, mapping: Mapping, pp_rank: usize, tp_rank: usize) -> Result<Self> {
        let config = source.config();
        let first_layer = mapping.layers(config, pp_rank).start;
        let rank = mapping.rank(pp_rank, tp_rank);
        let mut tensors = Vec::new();
        let mut names_and_shapes = Vec::new();
        for weight in mapping.weights(config, pp_rank) {
            let name = weight.name(first_layer);
            let shard = mapping.shard(config, weight, tp_rank);
            let runs = match source.rank_tensor(mapping, rank, &name)? {
                Some(view) => vec![Run { columns: 0..view.column_count(), view, zero_rows: 0 }],
                None => runs(source, weight, &shard)?,
            };
            tensors.push(Tensor { columns: shard.shape.get(1).copied().unwrap_or(1), runs });
            names_and_shapes.push((name, shard.shape));
        }
        let layout = header::layout(names_and_shapes.iter().map(|(name, shape)| {
            // A shard is no larger than the tensor of the source that it comes from, or a few rows of padding larger.
            let bytes = shape::bytes(shape, size_of::<bf16>()).unwrap_or(usize::MAX);
            (name.clone(), shape.as_slice(), bytes)
        }));
        let mut pieces = Vec::new();
        for (index, ((_, shape), offset)) in names_and_shapes.iter().zip(&layout.offsets).enumerate() {
            let row_bytes = tensors[index].columns * size_of::<bf16>();
            pieces.extend(stream::cut(index, *offset, shape[0], row_bytes, 1));
        }
        Ok(Self { layout, pieces, tensors })
    }

    /// Calls `act` with each run that has rows in `piece`: the run, which rows of its view they are, and which elements of
    /// the piece they fill, zero rows included.
    fn for_each_run(
        &self,
        piece: &Piece,
        mut act: impl FnMut(&Run<'a>, std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let tensor = &self.tensors[piece.tensor];
        let mut run_start = 0;
        for run in &tensor.runs {
            let run_end = run_start + run.view.row_count() + run.zero_rows;
            let (from, to) = (piece.rows.start.max(run_start), piece.rows.end.min(run_end));
            if from < to {
                let stored = run.view.row_count();
                let rows = (from - run_start).min(stored)..(to - run_start).min(stored);
                let position = |row: usize| (row - piece.rows.start) * tensor.columns;
                act(run, rows, position(from)..position(to));
            }
            run_start = run_end;
        }
    }
}

/// The runs of a shard that is cut from whole weights.
fn runs<'a>(source: &'a Source, weight: Weight, shard: &Shard) -> Result<Vec<Run<'a>>> {
    shard
        .pieces
        .iter()
        .map(|piece| {
            Ok(Run {
                view: source.part(weight, piece.part)?.rows(piece.rows.clone()),
                columns: piece.columns.clone(),
                zero_rows: piece.zero_rows,
            })
        })
        .collect()
}

impl Fill for Rank<'_> {
    fn fill(&self, piece: &Piece, out: &mut [bf16]) -> bool {
        self.for_each_run(piece, |run, rows, range| {
            let (stored, zeros) = out[range].split_at_mut(rows.len() * run.columns.len());
            run.view.convert(rows.clone(), run.columns.clone(), stored);
            zeros.fill(bf16::ZERO);
            run.view.release(rows);
        });
        all_within(out, bf16::MAX)
    }

    fn prefetch(&self, piece: &Piece) {
        self.for_each_run(piece, |run, rows, _| run.view.prefetch(rows));
    }

    fn note_non_finite(&self, piece: &Piece, findings: &Findings) {
        self.for_each_run(piece, |run, rows, _| findings.note(&run.view, rows, run.columns.clone(), bf16::MAX));
    }
}
