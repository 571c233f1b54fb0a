//! Where weights come from: a Hugging Face model or a TensorRT-LLM checkpoint of ours, checked whole before the first
//! of them is used.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine_format::dtype::round_to_bf16;
use engine_format::json::{self, Object};
use engine_format::manifest::MANIFEST_FILE;
use engine_format::safetensors_dir::TensorView;
use engine_format::{Dtype, FormatError, Mapping, ModelConfig, Part, SafetensorsDir, Weight, bf16, checkpoint};
use rayon::prelude::*;
use serde_json::Value;

use crate::companions::{self, Companions};
use crate::error::{BuildError, Result};
use crate::huggingface;
use crate::huggingface::config::CONFIG_FILE;
use crate::lookalike;
use crate::non_finite::{Findings, all_within};

/// An opened model: its configuration, and its weights by part.
///
/// Every tensor has been found, with the right shape and a readable type; no weight has been read. Tokenizer, chat template
/// and end ids are what a run can open.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    config: ModelConfig,
    weights: Weights,
    companions: Companions,
}

#[derive(Debug)]
enum Weights {
    HuggingFace(SafetensorsDir),
    /// One set of tensors for each rank.
    Checkpoint(Mapping, Vec<SafetensorsDir>),
}

impl Source {
    /// Opens a model directory: Transformers' layout, or a TensorRT-LLM checkpoint that this program wrote.
    ///
    /// # Errors
    /// Whatever is wrong with `config.json` or with any tensor, before anything is written anywhere.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let hint = lookalike::describe(dir)
                .unwrap_or_else(|| "a model is a directory with `config.json` and safetensors files".to_owned());
            return Err(BuildError::Format(FormatError::Missing { path: dir.to_owned(), hint }));
        }
        let config_path = dir.join(checkpoint::CONFIG_FILE);
        let value = read_config_file(dir)?;
        let root = Object::root(&config_path, &value)?;
        let (config, weights) = if root.get("architecture").is_some() && root.get("mapping").is_some() {
            let (config, mapping) = checkpoint::from_json(&root)?;
            let ranks = open_ranks(dir, &config, mapping)?;
            (config, Weights::Checkpoint(mapping, ranks))
        } else {
            let mut config = huggingface::config::parse(&config_path, &value)?;
            let tensors = SafetensorsDir::open(dir).map_err(|error| said_of(dir, error))?;
            if config.tie_word_embeddings && huggingface::weights::has_own_head(&tensors)? {
                config.tie_word_embeddings = false;
            }
            huggingface::weights::check(&tensors, &config)?;
            (config, Weights::HuggingFace(tensors))
        };
        let companions = companions::read(dir, config.vocab_size)?;
        Ok(Self { path: dir.to_owned(), config, weights, companions })
    }

    /// The model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that travel with the model.
    pub(crate) fn companions(&self) -> &[(String, Vec<u8>)] {
        &self.companions.files
    }

    /// What a user is to know about the model's files, as sentences.
    pub fn warnings(&self) -> &[String] {
        &self.companions.warnings
    }

    /// How the source is split over ranks; `None` for a Hugging Face model.
    pub fn mapping(&self) -> Option<Mapping> {
        match &self.weights {
            Weights::HuggingFace(_) => None,
            Weights::Checkpoint(mapping, _) => Some(*mapping),
        }
    }

    /// Bytes of all of the source's weight files.
    pub fn total_bytes(&self) -> u64 {
        match &self.weights {
            Weights::HuggingFace(tensors) => tensors.total_bytes(),
            Weights::Checkpoint(_, ranks) => ranks.iter().map(SafetensorsDir::total_bytes).sum(),
        }
    }

    /// The element type that most of the weights are stored in: the type of the first layer's MLP.
    ///
    /// # Errors
    /// None that [`Source::open`] has not reported.
    pub fn dtype(&self) -> Result<Dtype> {
        match &self.weights {
            Weights::HuggingFace(_) => Ok(self.part(Weight::MlpFc(0), Part::Whole)?.dtype()),
            Weights::Checkpoint(..) => Ok(Dtype::Bf16),
        }
    }

    /// One part of a weight; of a tied head, the embedding.
    ///
    /// # Errors
    /// [`BuildError::SplitCheckpoint`] when the source is split over ranks, so that no whole weights are in it.
    pub fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        let weight =
            if weight == Weight::LmHead && self.config.tie_word_embeddings { Weight::Embedding } else { weight };
        match &self.weights {
            Weights::HuggingFace(tensors) => {
                let name = huggingface::weights::name(weight, part).ok_or_else(|| self.no_such_part(weight))?;
                Ok(PartView::new(tensors.tensor(&name)?))
            }
            Weights::Checkpoint(Mapping::SINGLE, ranks) => {
                let tensors = ranks.first().ok_or_else(|| self.no_such_part(weight))?;
                let view = PartView::new(tensors.tensor(&weight.name(0))?);
                let (first, rows) = self.rows_of(weight, part);
                Ok(view.rows(first..first + rows))
            }
            Weights::Checkpoint(mapping, _) => Err(self.split_error(*mapping)),
        }
    }

    /// The tensor that rank `rank` of this checkpoint stores of `weight`, where the source is one split like `mapping`.
    pub(crate) fn rank_tensor(&self, mapping: Mapping, rank: usize, name: &str) -> Result<Option<PartView<'_>>> {
        match &self.weights {
            Weights::Checkpoint(own, ranks) if *own == mapping => match ranks.get(rank) {
                Some(tensors) => Ok(Some(PartView::new(tensors.tensor(name)?))),
                None => Ok(None),
            },
            Weights::Checkpoint(own, _) if *own != Mapping::SINGLE => Err(self.split_error(*own)),
            _ => Ok(None),
        }
    }

    /// Whether `mlp.gate` follows `mlp.fc` in the file of each rank, in every layer, so that both can be used as one matrix.
    ///
    /// # Errors
    /// As [`Source::part`], for a checkpoint that is split otherwise than `mapping`.
    pub(crate) fn has_fused_mlp(&self, mapping: Mapping) -> Result<bool> {
        for pp_rank in 0..mapping.pp_size {
            let layers = mapping.layers(&self.config, pp_rank);
            for (tp_rank, layer) in (0..mapping.tp_size).flat_map(|rank| layers.clone().map(move |layer| (rank, layer)))
            {
                let rank = mapping.rank(pp_rank, tp_rank);
                let tensor = |weight: Weight| self.rank_tensor(mapping, rank, &weight.name(layers.start));
                let (fc, gate) = (tensor(Weight::MlpFc(layer))?, tensor(Weight::MlpGate(layer))?);
                if fc.zip(gate).is_none_or(|(fc, gate)| fc.followed_by(&gate).is_none()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What of the weights is no finite number: reads all of them.
    pub(crate) fn note_non_finite(&self) -> Findings {
        let findings = Findings::default();
        let sets = match &self.weights {
            Weights::HuggingFace(tensors) => std::slice::from_ref(tensors),
            Weights::Checkpoint(_, ranks) => ranks,
        };
        let views = sets.iter().flat_map(|tensors| tensors.names().filter_map(|(name, _)| tensors.tensor(name).ok()));
        views.map(PartView::new).par_bridge().for_each(|view| {
            let rows = 0..view.row_count();
            if view.as_bf16(rows.clone()).is_none_or(|weights| !all_within(weights, bf16::MAX)) {
                findings.note(&view, rows.clone(), 0..view.column_count(), bf16::MAX);
            }
            view.release(rows);
        });
        findings
    }

    /// First row and number of rows of a part in the whole weight.
    fn rows_of(&self, weight: Weight, part: Part) -> (usize, usize) {
        let rows = |part| weight.part_shape(part, &self.config)[0];
        let first = weight.parts().iter().take_while(|&&before| before != part).map(|&before| rows(before)).sum();
        (first, rows(part))
    }

    fn split_error(&self, mapping: Mapping) -> BuildError {
        BuildError::SplitCheckpoint { path: self.path.clone(), tp_size: mapping.tp_size, pp_size: mapping.pp_size }
    }

    fn no_such_part(&self, weight: Weight) -> BuildError {
        BuildError::Format(FormatError::MissingTensor { path: self.path.clone(), tensor: weight.name(0) })
    }
}

/// The content of the model's `config.json`.
///
/// # Errors
/// Where there is none: what the directory is instead, as far as that is known. An engine, which has one that means something
/// else.
pub(crate) fn read_config_file(dir: &Path) -> Result<Value> {
    if dir.join(MANIFEST_FILE).is_file() {
        let tried = lookalike::describe(dir).unwrap_or_default();
        return Err(BuildError::NoModel { model: dir.to_owned(), tried });
    }
    let hint = "a model directory needs one";
    Ok(json::read_file(&dir.join(CONFIG_FILE), hint).map_err(|error| said_of(dir, error))?)
}

/// The error of a model directory that lacks a file, with what the directory is instead.
fn said_of(dir: &Path, error: FormatError) -> FormatError {
    match error {
        FormatError::Missing { path, hint } => {
            FormatError::Missing { path, hint: lookalike::describe(dir).unwrap_or(hint) }
        }
        other => other,
    }
}

/// Opens and checks each rank's file of a checkpoint.
fn open_ranks(dir: &Path, config: &ModelConfig, mapping: Mapping) -> Result<Vec<SafetensorsDir>, FormatError> {
    let mut ranks = Vec::new();
    for pp_rank in 0..mapping.pp_size {
        for tp_rank in 0..mapping.tp_size {
            let file = dir.join(checkpoint::rank_file(mapping.rank(pp_rank, tp_rank)));
            if !file.is_file() {
                let hint = "`config.json` says that the checkpoint has this rank; write it again";
                return Err(FormatError::Missing { path: file, hint: hint.into() });
            }
            let tensors = SafetensorsDir::open_files(dir, std::slice::from_ref(&file))?;
            check_rank(&tensors, &file, config, mapping, (pp_rank, tp_rank))?;
            ranks.push(tensors);
        }
    }
    Ok(ranks)
}

fn check_rank(
    tensors: &SafetensorsDir,
    file: &Path,
    config: &ModelConfig,
    mapping: Mapping,
    (pp_rank, tp_rank): (usize, usize),
) -> Result<(), FormatError> {
    let first_layer = mapping.layers(config, pp_rank).start;
    let mut known = BTreeSet::new();
    for weight in mapping.weights(config, pp_rank) {
        let name = weight.name(first_layer);
        let tensor = tensors.tensor(&name).map_err(|error| match error {
            FormatError::MissingTensor { tensor, .. } => FormatError::MissingTensor { path: file.to_owned(), tensor },
            other => other,
        })?;
        tensor.expect_shape(&mapping.shard(config, weight, tp_rank).shape)?;
        if tensor.dtype != Dtype::Bf16 {
            return Err(FormatError::damaged(
                file,
                format!("tensor `{name}` is {}, but a checkpoint of ours is bfloat16", tensor.dtype.name()),
            ));
        }
        known.insert(name);
    }
    match tensors.names().find(|(name, _)| !known.contains(*name)) {
        None => Ok(()),
        Some((tensor, _)) => Err(FormatError::UnknownTensor { path: file.to_owned(), tensor: tensor.to_owned() }),
    }
}

/// Rows of a stored tensor, seen as a matrix (a vector of n elements is n rows of one column).
#[derive(Debug, Clone)]
pub struct PartView<'a> {
    tensor: TensorView<'a>,
    rows: Range<usize>,
    columns: usize,
}

impl<'a> PartView<'a> {
    fn new(tensor: TensorView<'a>) -> Self {
        let (rows, columns) = match tensor.shape {
            [] => (1, 1),
            [rows] => (*rows, 1),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        };
        Self { tensor, rows: 0..rows, columns }
    }

    /// Only some rows of this view.
    ///
    /// # Panics
    /// When the view has no such rows.
    #[must_use]
    pub fn rows(mut self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.row_count());
        self.rows = self.rows.start + rows.start..self.rows.start + rows.end;
        self
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Number of columns.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Element type, as stored.
    pub fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    /// The elements of some rows where they are stored as bfloat16 and can be used in place; `None` otherwise.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn as_bf16(&self, rows: Range<usize>) -> Option<&'a [bf16]> {
        if self.tensor.dtype != Dtype::Bf16 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.tensor.bytes[self.byte_range(&rows)]).ok()
    }

    /// The elements of this view and of `next` where both are whole tensors, stored as bfloat16 one after the other in one file.
    pub(crate) fn followed_by(&self, next: &Self) -> Option<&'a [bf16]> {
        let (first, second) = (self.as_bf16(0..self.row_count())?, next.as_bf16(0..next.row_count())?);
        let (file, bytes) = (self.tensor.file, size_of::<bf16>());
        let start = file.offset_of(bytemuck::cast_slice(first))?;
        let end = start + first.len() * bytes;
        if file.offset_of(bytemuck::cast_slice(second)) != Some(end) {
            return None;
        }
        bytemuck::try_cast_slice(&file.bytes()[start..end + second.len() * bytes]).ok()
    }

    /// Writes the given columns of the given rows to `out`, row by row, rounded to bfloat16.
    ///
    /// # Panics
    /// When the view has no such rows or columns, or `out` is not of their size.
    pub fn convert(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [bf16]) {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        assert_eq!(out.len(), rows.len() * columns.len());
        let bytes = &self.tensor.bytes[self.byte_range(&rows)];
        let size = self.tensor.dtype.size();
        if columns == (0..self.columns) {
            return self.tensor.dtype.convert_to_bf16(bytes, out);
        }
        if columns.is_empty() {
            return;
        }
        let stored = bytes.chunks_exact(self.columns * size);
        for (row, out) in stored.zip(out.chunks_exact_mut(columns.len())) {
            let row = &row[columns.start * size..columns.end * size];
            self.tensor.dtype.convert_to_bf16(row, out);
        }
    }

    /// Calls `found` with row and column in the stored tensor, and with the value, of each element in the given rows and
    /// columns that is not a number as a bfloat16, or above `largest` in magnitude.
    ///
    /// # Panics
    /// When the view has no such rows or columns.
    pub(crate) fn for_each_outside(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        largest: bf16,
        mut found: impl FnMut((usize, usize), f32),
    ) {
        let bytes = &self.tensor.bytes[self.byte_range(&rows)];
        let row_bytes = (self.columns * self.tensor.dtype.size()).max(1);
        for (row, bytes) in (self.rows.start + rows.start..).zip(bytes.chunks_exact(row_bytes)) {
            for (column, value) in self.tensor.dtype.values(bytes).enumerate() {
                if columns.contains(&column) && !all_within(&[round_to_bf16(value)], largest) {
                    found((row, column), value);
                }
            }
        }
    }

    /// The file that holds it, and the tensor's name there.
    pub(crate) fn name(&self) -> (&'a Path, &'a str) {
        (self.tensor.file.path(), self.tensor.name)
    }

    /// Asks the system to read some rows ahead of their use.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn prefetch(&self, rows: Range<usize>) {
        self.with_file_range(&rows, |range| self.tensor.file.prefetch(range));
    }

    /// Gives the memory of some rows back to the system; they may still be read again.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn release(&self, rows: Range<usize>) {
        self.with_file_range(&rows, |range| self.tensor.file.release(range));
    }

    fn with_file_range(&self, rows: &Range<usize>, act: impl FnOnce(Range<usize>)) {
        let range = self.byte_range(rows);
        if let Some(start) = self.tensor.file.offset_of(self.tensor.bytes) {
            act(start + range.start..start + range.end);
        }
    }

    fn byte_range(&self, rows: &Range<usize>) -> Range<usize> {
        assert!(rows.start <= rows.end && rows.end <= self.row_count());
        let row = self.columns * self.tensor.dtype.size();
        (self.rows.start + rows.start) * row..(self.rows.start + rows.end) * row
    }
}
