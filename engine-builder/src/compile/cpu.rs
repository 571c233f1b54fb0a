//! The CPU engine: every weight packed for `cpu-kernels`, in one pass from the mapped source to one file.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cpu_kernels::Quantization;
use cpu_kernels::packed::{PANEL_COLUMNS, pack_panels};
use engine_format::checkpoint::CONFIG_FILE;
use engine_format::engine_dir::config_json;
use engine_format::manifest::{FORMAT_VERSION, FileRecord, Limits, MANIFEST_FILE, Manifest, TENSORRT_LLM_SCHEMA};
use engine_format::staging::StagedDir;
use engine_format::weights_file::{Layout, Plan, WEIGHTS_FILE};
use engine_format::{Mapping, ModelConfig, WeightType, bf16};

use super::packed_tensors::{PackedTensor, packed_tensors};
use crate::error::Result;
use crate::non_finite::{Findings, all_within};
use crate::output::{Written, check_free_space, pretty};
use crate::progress::{Interrupt, Progress};
use crate::source::{PartView, Source};
use crate::stream::{self, Fill, Hashes, Job, Piece};

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct CpuEngineRequest {
    /// The engine directory to make.
    pub output: PathBuf,
    /// Whether an engine that is there already is replaced.
    pub force: bool,
    /// Whether weights may be infinite or NaN.
    pub allow_non_finite: bool,
    /// Limits that the engine records.
    pub limits: Limits,
    /// What matrices are stored as.
    pub weights: WeightType,
    /// The model, as the user named it, for the record.
    pub model: String,
}

/// Builds the CPU engine of `source`.
///
/// # Errors
/// An output that exists or does not fit, weights that are not finite, an interrupt, or what the system said. Then the output
/// is as it was.
pub fn build_cpu_engine(
    source: &Source,
    request: &CpuEngineRequest,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Written> {
    let start = Instant::now();
    let output = &request.output;
    let engine = PackedEngine::new(source, output, request.weights)?;
    if let Some(summary) = engine.codes_summary() {
        progress.note(&summary);
    }
    let staged = StagedDir::create(output, request.force, MANIFEST_FILE)?;
    let weights_bytes = engine.plan.total_bytes as u64;
    check_free_space(output, staged.path(), weights_bytes)?;

    let findings = Findings::default();
    let job = Job {
        path: &staged.path().join(WEIGHTS_FILE),
        head: &engine.plan.head,
        pieces: &engine.pieces,
        total_bytes: engine.plan.total_bytes,
        findings: &findings,
    };
    let hashes = stream::write(&job, &engine, true, progress, interrupt)?;
    findings.finish(request.allow_non_finite, progress)?;

    let mut small_files = source.companions().to_vec();
    let config = config_json(source.config(), Mapping::SINGLE, request.limits);
    small_files.push((CONFIG_FILE.to_owned(), pretty(&config)));
    for (name, content) in &small_files {
        staged.write(name, content)?;
    }
    let manifest = manifest(source, request, &engine.plan, hashes, &small_files)?;
    let manifest = manifest.to_bytes(&staged.path().join(MANIFEST_FILE))?;
    staged.write(MANIFEST_FILE, &manifest)?;
    interrupt.check()?;
    staged.commit()?;

    let small_bytes: usize = small_files.iter().map(|(_, content)| content.len()).sum();
    Ok(Written {
        files: small_files.len() + 2,
        bytes: weights_bytes + (small_bytes + manifest.len()) as u64,
        elapsed: start.elapsed(),
    })
}

fn manifest(
    source: &Source,
    request: &CpuEngineRequest,
    plan: &Plan,
    hashes: Hashes,
    small_files: &[(String, Vec<u8>)],
) -> Result<Manifest> {
    let mut files: BTreeMap<_, _> =
        small_files.iter().map(|(name, content)| (name.clone(), FileRecord::of(content))).collect();
    let weights = FileRecord { bytes: plan.total_bytes as u64, blake3: hashes.file, head_blake3: Some(hashes.head) };
    files.insert(WEIGHTS_FILE.to_owned(), weights);
    let names = plan.tensors.iter().map(|tensor| tensor.name.clone());
    let version = env!("CARGO_PKG_VERSION");
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        created_by: format!("build-engine {version}"),
        target: "none".to_owned(),
        model: request.model.clone(),
        versions: BTreeMap::from([
            ("trtllm".to_owned(), version.to_owned()),
            ("tensorrt_llm_schema".to_owned(), TENSORRT_LLM_SCHEMA.to_owned()),
            ("source_dtype".to_owned(), source.format().main_type().unwrap_or_default().to_owned()),
            ("weights".to_owned(), request.weights.name().to_owned()),
        ]),
        limits: request.limits,
        attention_window: source.config().sliding_window,
        files,
        tensors: names.zip(hashes.tensors).collect(),
    })
}

/// Size in bytes of the weights file that [`build_cpu_engine`] would write for this model.
///
/// # Errors
/// A size that does not fit this machine's address space; `path` is named.
pub fn weights_bytes(config: &ModelConfig, path: &Path, weights: WeightType) -> Result<u64> {
    Ok(plan(config, path, weights)?.1.total_bytes as u64)
}

/// How the codes of a layout are made; `None` where it has none.
fn quantization(layout: Layout) -> Option<Quantization> {
    match layout {
        Layout::RowMajor | Layout::Panels => None,
        Layout::PanelsInt8 => Some(Quantization::Int8),
        Layout::PanelsInt4 => Some(Quantization::Int4),
    }
}

/// The tensors of the file, and their places.
fn plan(config: &ModelConfig, path: &Path, weights: WeightType) -> Result<(Vec<PackedTensor>, Plan)> {
    let tensors = packed_tensors(config, weights);
    let entries = tensors.iter().map(|tensor| (tensor.name(), tensor.layout, tensor.shape(config)));
    let plan = Plan::new(&path.join(WEIGHTS_FILE), entries)?;
    Ok((tensors, plan))
}

/// The largest weight that a layout can hold.
fn largest(layout: Layout) -> bf16 {
    quantization(layout).map_or(bf16::MAX, Quantization::largest_weight)
}

/// The weights file before it is written.
struct PackedEngine<'a> {
    plan: Plan,
    pieces: Vec<Piece>,
    /// The parts that each tensor's rows are stacked from.
    tensors: Vec<Vec<PartView<'a>>>,
}

impl<'a> PackedEngine<'a> {
    fn new(source: &'a Source, output: &Path, weight_type: WeightType) -> Result<Self> {
        let (stored, plan) = plan(source.config(), output, weight_type)?;
        let mut tensors = Vec::new();
        let mut pieces = Vec::new();
        for (index, (tensor, entry)) in stored.iter().zip(&plan.tensors).enumerate() {
            let parts =
                tensor.parts.iter().map(|&part| source.part(tensor.weight, part)).collect::<Result<Vec<_>>>()?;
            let columns = entry.shape.get(1).copied().unwrap_or(1);
            let (row_bytes, step) = match entry.layout {
                Layout::RowMajor => (columns * size_of::<bf16>(), 1),
                // Each panel holds 16 rows, and all are of the same size.
                _ => (entry.bytes / entry.shape[0].next_multiple_of(PANEL_COLUMNS), PANEL_COLUMNS),
            };
            pieces.extend(stream::cut(index, entry.offset, entry.shape[0], row_bytes, step));
            tensors.push(parts);
        }
        Ok(Self { plan, pieces, tensors })
    }

    /// Which matrices keep the codes that the source has, and which are rounded anew; `None` where the source has no codes, or the
    /// engine none.
    fn codes_summary(&self) -> Option<String> {
        let mut counts = [BTreeMap::new(), BTreeMap::new()];
        for (entry, parts) in self.plan.tensors.iter().zip(&self.tensors) {
            let Some(quantization) = quantization(entry.layout) else { continue };
            if parts.iter().any(PartView::has_codes) {
                let kept = keeps_codes(parts, quantization);
                let mut types: Vec<_> = parts.iter().map(PartView::type_name).collect();
                types.dedup();
                *counts[usize::from(!kept)].entry(types.join(", ")).or_insert(0_u64) += 1;
            }
        }
        let told = |what: &str, counts: &BTreeMap<String, u64>| {
            let each: Vec<_> = counts.iter().map(|(types, count)| format!("{count} of {types}")).collect();
            (!each.is_empty()).then(|| format!("{what}: {}", each.join("; ")))
        };
        let sentences = [told("matrices whose codes stay as they are", &counts[0]), told("rounded anew", &counts[1])];
        let sentences: Vec<_> = sentences.into_iter().flatten().collect();
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    /// Calls `act` with each part that has some of `rows`, which are counted over the stacked parts: the part, which of its
    /// rows they are, and how many of `rows` come before them.
    fn for_each_part(
        &self,
        tensor: usize,
        rows: std::ops::Range<usize>,
        mut act: impl FnMut(&PartView<'a>, std::ops::Range<usize>, usize),
    ) {
        let mut part_start = 0;
        for part in &self.tensors[tensor] {
            let part_end = part_start + part.row_count();
            let (from, to) = (rows.start.max(part_start), rows.end.min(part_end));
            if from < to {
                act(part, from - part_start..to - part_start, from - rows.start);
            }
            part_start = part_end;
        }
    }

    /// Rows of a tensor as the source orders them, rounded to bfloat16; whether all are finite.
    fn gather(&self, tensor: usize, rows: std::ops::Range<usize>, out: &mut [bf16]) -> bool {
        self.for_each_part(tensor, rows, |part, part_rows, before| {
            let columns = part.column_count();
            let out = &mut out[before * columns..(before + part_rows.len()) * columns];
            part.convert(part_rows, 0..columns, out);
        });
        all_within(out, bf16::MAX)
    }

    /// Rows of a matrix whose codes are the source's own; whether all scales are finite. `None` where a layout cannot hold them.
    fn pack_codes(
        &self,
        tensor: usize,
        rows: std::ops::Range<usize>,
        columns: usize,
        quantization: Quantization,
        out: &mut [u8],
    ) -> Option<bool> {
        if !keeps_codes(&self.tensors[tensor], quantization) {
            return None;
        }
        let mut readers = Vec::with_capacity(rows.len());
        self.for_each_part(tensor, rows.clone(), |part, part_rows, _| {
            let read = part.codes(quantization);
            readers.extend(read.into_iter().flat_map(|read| part_rows.clone().map(move |row| (read.clone(), row))));
        });
        let finite = Cell::new(true);
        quantization.pack_codes(rows.len(), columns, out, |row, block| {
            let (read, row) = &readers[row];
            let codes = read(*row, block);
            finite.set(finite.get() & codes.scale.is_finite());
            codes
        });
        Some(finite.get())
    }

    /// Rows of a matrix, rounded to bfloat16 and then packed in its layout; whether all are finite.
    fn pack(&self, tensor: usize, rows: std::ops::Range<usize>, columns: usize, out: &mut [bf16]) -> bool {
        let layout = self.plan.tensors[tensor].layout;
        let (quantization, largest) = (quantization(layout), largest(layout));
        if let Some(quantization) = quantization
            && let Some(finite) =
                self.pack_codes(tensor, rows.clone(), columns, quantization, bytemuck::cast_slice_mut(out))
        {
            return finite;
        }
        let pack_rows = |rows: &[bf16], out: &mut [bf16]| {
            match quantization {
                None => pack_panels(rows, columns, out),
                Some(quantization) => quantization.pack(rows, columns, bytemuck::cast_slice_mut(out)),
            }
            all_within(rows, largest)
        };
        let mut finite = None;
        self.for_each_part(tensor, rows.clone(), |part, part_rows, _| {
            // All rows in one part, and readable where they are: the usual case, without a copy.
            if part_rows.len() == rows.len()
                && let Some(stored) = part.as_bf16(part_rows)
            {
                finite = Some(pack_rows(stored, out));
            }
        });
        if let Some(finite) = finite {
            return finite;
        }
        // A panel's rows at a time, so that the copy stays in the cache.
        let mut copy = vec![bf16::ZERO; PANEL_COLUMNS.min(rows.len()) * columns];
        let panel_len = out.len() / rows.len().div_ceil(PANEL_COLUMNS);
        let panels = rows.clone().step_by(PANEL_COLUMNS).zip(out.chunks_exact_mut(panel_len));
        panels.fold(true, |finite, (first, out)| {
            let panel_rows = first..(first + PANEL_COLUMNS).min(rows.end);
            let copy = &mut copy[..panel_rows.len() * columns];
            self.gather(tensor, panel_rows, copy);
            finite & pack_rows(copy, out)
        })
    }
}

/// Whether a layout holds the codes of all parts as they are.
fn keeps_codes(parts: &[PartView<'_>], quantization: Quantization) -> bool {
    parts.iter().all(|part| part.codes(quantization).is_some())
}

impl Fill for PackedEngine<'_> {
    fn fill(&self, piece: &Piece, out: &mut [bf16]) -> bool {
        let entry = &self.plan.tensors[piece.tensor];
        let finite = match (entry.layout, entry.shape.as_slice()) {
            (Layout::Panels | Layout::PanelsInt8 | Layout::PanelsInt4, &[_, columns]) => {
                self.pack(piece.tensor, piece.rows.clone(), columns, out)
            }
            _ => self.gather(piece.tensor, piece.rows.clone(), out),
        };
        self.for_each_part(piece.tensor, piece.rows.clone(), |part, rows, _| {
            part.release(rows);
        });
        finite
    }

    fn prefetch(&self, piece: &Piece) {
        self.for_each_part(piece.tensor, piece.rows.clone(), |part, rows, _| {
            part.prefetch(rows);
        });
    }

    fn note_non_finite(&self, piece: &Piece, findings: &Findings) {
        self.for_each_part(piece.tensor, piece.rows.clone(), |part, rows, _| {
            findings.note(part, rows, 0..part.column_count(), largest(self.plan.tensors[piece.tensor].layout));
        });
    }
}
