//! Where weights come from: a model in one of several formats, checked whole before the first of its weights is used.
//!
//! A format is a folder of this crate that implements `WeightSource`. It gives weights by the decoder's names as [`PartView`]s, and
//! whatever reads those knows nothing of formats.

mod encoding;
mod format;
mod part_view;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use engine_format::json::{self, Object};
use engine_format::manifest::MANIFEST_FILE;
use engine_format::{FormatError, Mapping, ModelConfig, Part, Weight, bf16};
use rayon::prelude::*;
use serde_json::Value;

use crate::checkpoint::source::Checkpoint;
use crate::companions::{self, Companions};
use crate::error::{BuildError, Result};
use crate::gguf;
use crate::gguf::source::Gguf;
use crate::huggingface::config::CONFIG_FILE;
use crate::huggingface::source::HuggingFace;
use crate::lookalike;
use crate::nemo;
use crate::nemo::source::Nemo;
use crate::non_finite::{Findings, all_within};

pub(crate) use encoding::Encoding;
pub use format::SourceFormat;
pub use part_view::PartView;
pub(crate) use part_view::RowOrder;

/// The weights of an opened model, in one of the formats.
pub(crate) trait WeightSource: Debug + Send + Sync {
    /// What the format is, and which types the tensors have.
    fn format(&self) -> SourceFormat;

    /// Bytes of all of the source's weight files.
    fn total_bytes(&self) -> u64;

    /// One part of a weight, of a source that is not split over ranks. A tied head is not asked for.
    fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>>;

    /// Every tensor that is stored.
    fn tensors(&self) -> Vec<PartView<'_>>;

    /// How a checkpoint is split over ranks.
    fn mapping(&self) -> Option<Mapping> {
        None
    }

    /// The tensor of a checkpoint that rank `rank` stores under `name`.
    fn rank_tensor(&self, _rank: usize, _name: &str) -> Result<Option<PartView<'_>>> {
        Ok(None)
    }
}

/// An opened model: its configuration, and its weights by part.
///
/// Every tensor has been found, with the right shape and a readable type; no weight has been read. Tokenizer, chat template
/// and end ids are what a run can open.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    config: ModelConfig,
    weights: Box<dyn WeightSource>,
    companions: Companions,
}

/// What a path is as a model, by what is there.
pub(crate) enum Kind {
    /// Transformers' layout, with the content of its `config.json`.
    HuggingFace(Value),
    /// A TensorRT-LLM checkpoint, with the content of its `config.json`.
    Checkpoint(Value),
    /// GGUF: all parts of one file.
    Gguf(Vec<PathBuf>),
    /// NeMo: an archive, or a directory that was unpacked of one.
    Nemo(PathBuf),
}

impl Kind {
    /// Of formats whose models can be a single file, that which the path is: the file, or a directory with it.
    pub(crate) fn of_single_file(path: &Path) -> Result<Option<Self>> {
        if let Some(files) = gguf::files::find(path)? {
            return Ok(Some(Self::Gguf(files)));
        }
        Ok(nemo::archive::find(path)?.map(Self::Nemo))
    }

    fn of(path: &Path) -> Result<Self> {
        if let Some(kind) = Self::of_single_file(path)? {
            return Ok(kind);
        }
        if !path.is_dir() {
            let hint = lookalike::describe(path).unwrap_or_else(|| {
                "a model is a directory with `config.json` and safetensors files, a GGUF file, or a NeMo archive"
                    .to_owned()
            });
            return Err(BuildError::Format(FormatError::Missing { path: path.to_owned(), hint }));
        }
        if path.join(MANIFEST_FILE).is_file() {
            let tried = lookalike::describe(path).unwrap_or_default();
            return Err(BuildError::NoModel { model: path.to_owned(), tried });
        }
        let config_path = path.join(CONFIG_FILE);
        let value = json::read_file(&config_path, "a model directory needs one")
            .map_err(|error| lookalike::explain(path, error))?;
        let root = Object::root(&config_path, &value)?;
        let is_checkpoint = root.get("architecture").is_some() && root.get("mapping").is_some();
        Ok(if is_checkpoint { Self::Checkpoint(value) } else { Self::HuggingFace(value) })
    }
}

/// What is known of a model without its weights.
#[derive(Debug, Clone)]
pub struct Outline {
    /// Its configuration.
    pub config: ModelConfig,
    /// How it is split over ranks where it is a checkpoint of ours.
    pub mapping: Option<Mapping>,
    /// What it is stored as, as far as its files are here.
    pub format: SourceFormat,
}

impl Outline {
    /// Reads the outline of the model at `path`; its weights need not be there where they are files of their own.
    ///
    /// # Errors
    /// Whatever is wrong with its configuration.
    pub fn read(path: &Path) -> Result<Self> {
        match Kind::of(path)? {
            Kind::HuggingFace(value) => HuggingFace::outline(path, &value),
            Kind::Checkpoint(value) => Checkpoint::outline(path, &value),
            Kind::Gguf(files) => Ok(Gguf::open(&files)?.0.outline()),
            Kind::Nemo(path) => Ok(Nemo::open(&path, None)?.outline()),
        }
    }
}

impl Source {
    /// Opens a model: Transformers' layout, a TensorRT-LLM checkpoint that this program wrote, GGUF files, or NeMo's archive.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration or with any tensor, before anything is written anywhere.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, None)
    }

    /// As [`Source::open`]; tokenizer, chat template and end ids are those of the directory `tokenizer` where it is given.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_with(path: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        let mut own = None;
        let (config, weights): (_, Box<dyn WeightSource>) = match Kind::of(path)? {
            Kind::HuggingFace(value) => {
                let (config, weights) = HuggingFace::open(path, &value)?;
                (config, Box::new(weights))
            }
            Kind::Checkpoint(value) => {
                let (config, weights) = Checkpoint::open(path, &value)?;
                (config, Box::new(weights))
            }
            Kind::Gguf(files) => {
                let (weights, read) = Gguf::open(&files)?;
                let config = weights.config().clone();
                if tokenizer.is_none() {
                    own = Some(gguf::tokenizer::companions(&files[0], &read, &config)?);
                }
                (config, Box::new(weights))
            }
            Kind::Nemo(path) => {
                let weights = Nemo::open(&path, tokenizer)?;
                if tokenizer.is_none() {
                    own = Some(weights.companions()?);
                }
                (weights.config().clone(), Box::new(weights))
            }
        };
        let companions = match own {
            Some(companions) => companions,
            None => companions::read(tokenizer.unwrap_or(path), config.vocab_size)?,
        };
        Ok(Self { path: path.to_owned(), config, weights, companions })
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

    /// What the model is stored as.
    pub fn format(&self) -> SourceFormat {
        self.weights.format()
    }

    /// How the source is split over ranks; `None` for all but checkpoints of ours.
    pub fn mapping(&self) -> Option<Mapping> {
        self.weights.mapping()
    }

    /// Bytes of all of the source's weight files.
    pub fn total_bytes(&self) -> u64 {
        self.weights.total_bytes()
    }

    /// One part of a weight; of a tied head, the embedding.
    ///
    /// # Errors
    /// [`BuildError::SplitCheckpoint`] when the source is split over ranks, so that no whole weights are in it.
    pub fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        match self.mapping() {
            Some(mapping) if mapping != Mapping::SINGLE => Err(self.split_error(mapping)),
            _ if weight == Weight::LmHead && self.config.tie_word_embeddings => {
                self.weights.part(Weight::Embedding, part)
            }
            _ => self.weights.part(weight, part),
        }
    }

    /// The tensor that rank `rank` of this checkpoint stores of `weight`, where the source is one split like `mapping`.
    pub(crate) fn rank_tensor(&self, mapping: Mapping, rank: usize, name: &str) -> Result<Option<PartView<'_>>> {
        match self.mapping() {
            Some(own) if own == mapping => self.weights.rank_tensor(rank, name),
            Some(own) if own != Mapping::SINGLE => Err(self.split_error(own)),
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
        self.weights.tensors().into_par_iter().for_each(|view| {
            let rows = 0..view.row_count();
            if view.as_bf16(rows.clone()).is_none_or(|weights| !all_within(weights, bf16::MAX)) {
                findings.note(&view, rows.clone(), 0..view.column_count(), bf16::MAX);
            }
            view.release(rows);
        });
        findings
    }

    fn split_error(&self, mapping: Mapping) -> BuildError {
        BuildError::SplitCheckpoint { path: self.path.clone(), tp_size: mapping.tp_size, pp_size: mapping.pp_size }
    }
}
