//! NeMo models as a source of weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine_format::{FormatError, ModelConfig, Part, Weight};
use serde_json::Value;
use text::tokenizer::Tokenizer;

use super::archive::{Archive, MODEL_CONFIG};
use super::config::{self, Facts};
use super::torch::{self, StoredTensor};
use super::weights::{self, EMBEDDING, HEAD};
use super::{tokenizer, yaml};
use crate::companions::{self, Companions, File};
use crate::error::Result;
use crate::source::{Encoding, Outline, PartView, SourceFormat, WeightSource};

/// The member with the weights of a model that is not split.
const WEIGHTS: &str = "model_weights.ckpt";

/// The folder of a distributed checkpoint.
pub(super) const DISTRIBUTED: &str = "model_weights";

/// The weights of a NeMo model.
#[derive(Debug)]
pub(crate) struct Nemo {
    archive: Archive,
    /// By Megatron-core's names, with the number of the file that holds each.
    tensors: BTreeMap<String, (usize, StoredTensor)>,
    config: ModelConfig,
    version: Option<String>,
    yaml: Value,
    tokenizer_files: Vec<File>,
}

impl Nemo {
    /// Opens the model at `path`, whose tokenizer is that of the directory `tokenizer` where it is given.
    pub(crate) fn open(path: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let config = archive.required(MODEL_CONFIG)?;
        let (config_path, yaml) = (config.path.clone(), yaml::parse(&config.path, config.bytes)?);
        let tensors = tensors(&archive, &config_path, &yaml)?;
        let tokenizer_files = tokenizer::files(&archive);
        let missing = || FormatError::MissingTensor { path: archive.path().to_owned(), tensor: EMBEDDING.to_owned() };
        let (_, embedding) = tensors.get(EMBEDDING).ok_or_else(missing)?;
        let facts = Facts {
            rows: embedding.shape.first().copied().unwrap_or(1),
            has_head: tensors.contains_key(HEAD),
            tokens: tokens(tokenizer, &tokenizer_files)?,
        };
        let config = config::parse(&config_path, &yaml, facts)?;
        let shape = |name: &str| tensors.get(name).map(|(_, tensor)| tensor.shape.as_slice());
        weights::check(archive.path(), &config, shape, tensors.keys().map(String::as_str))?;
        let version = yaml.get("nemo_version").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { archive, tensors, config, version, yaml, tokenizer_files })
    }

    /// The model.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is known of the model but its weights.
    pub(crate) fn outline(self) -> Outline {
        let format = self.format();
        Outline { config: self.config, mapping: None, format }
    }

    /// The files that travel with the model, of those in the archive.
    pub(crate) fn companions(&self) -> Result<Companions> {
        tokenizer::companions(self.archive.path(), &self.yaml, &self.tokenizer_files, self.config.vocab_size)
    }

    fn view<'a>(&'a self, name: &'a str, (file, tensor): &'a (usize, StoredTensor)) -> PartView<'a> {
        let file = self.archive.file(*file);
        let bytes = &file.bytes()[tensor.range.clone()];
        PartView::new(file, name, bytes, &tensor.shape, Encoding::Plain(tensor.dtype))
    }
}

/// Tokens of the tokenizer in the directory `given`, or in `files`; `None` where there is none that can be read.
fn tokens(given: Option<&Path>, files: &[File]) -> Result<Option<usize>> {
    let size = |dir: &Path| Tokenizer::open(dir).ok().map(|tokenizer| tokenizer.vocab_size());
    match given {
        Some(dir) => Ok(size(dir)),
        None => companions::with_files(files, |dir| size(dir)),
    }
}

/// The tensors of all members that hold weights, by Megatron-core's names.
fn tensors(archive: &Archive, config_path: &Path, yaml: &Value) -> Result<BTreeMap<String, (usize, StoredTensor)>> {
    let Some(member) = archive.member(WEIGHTS) else {
        return Err(not_read(archive));
    };
    let (tensor_parallel, pipeline_parallel) = config::ranks(config_path, yaml)?;
    if tensor_parallel * pipeline_parallel != 1 {
        let problem = format!(
            "says {tensor_parallel} ranks, times {pipeline_parallel} of a pipeline, but there is one `{WEIGHTS}`"
        );
        return Err(FormatError::field(config_path, "tensor_model_parallel_size", problem).into());
    }
    let mut tensors = BTreeMap::new();
    for (name, mut tensor) in torch::tensors(&member.path, member.bytes, weights::is_put_aside)? {
        tensor.range = tensor.range.start + member.start..tensor.range.end + member.start;
        let plain = weights::plain(&name).to_owned();
        weights::refuse_other_kind(&member.path, &plain)?;
        if tensors.insert(plain, (member.file, tensor)).is_some() {
            let problem = "is there twice, under two prefixes";
            return Err(FormatError::tensor(&member.path, name, problem).into());
        }
    }
    Ok(tensors)
}

/// The error for a model without [`WEIGHTS`], by what is there instead.
fn not_read(archive: &Archive) -> crate::error::BuildError {
    let folder = archive.names().filter_map(|name| name.split_once('/')).map(|(folder, _)| folder);
    let folder = folder.into_iter().find(|folder| *folder == DISTRIBUTED || folder.contains("_rank_"));
    let path: PathBuf = archive.path().join(WEIGHTS);
    let hint = match folder {
        Some(DISTRIBUTED) => {
            format!("the weights are a distributed checkpoint, `{DISTRIBUTED}/`, which is not read: {CONVERT}")
        }
        Some(folder) => format!("the weights are split over ranks, as in `{folder}/`, which is not read: {CONVERT}"),
        None => "the archive holds no weights".to_owned(),
    };
    FormatError::Missing { path, hint }.into()
}

/// What to do with weights that are stored in a way that is not read.
const CONVERT: &str =
    "use the model's safetensors files, or save it with NeMo on one rank with `dist_ckpt_format` unset";

impl WeightSource for Nemo {
    fn format(&self) -> SourceFormat {
        SourceFormat::new("NeMo", self.version.clone(), &self.tensors())
    }

    fn total_bytes(&self) -> u64 {
        self.archive.total_bytes()
    }

    fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        let name = weights::name(weight).unwrap_or_else(|| weight.name(0));
        let missing = || FormatError::MissingTensor { path: self.archive.path().to_owned(), tensor: name.clone() };
        let (name, tensor) = self.tensors.get_key_value(&name).ok_or_else(missing)?;
        let (order, rows) = weights::rows(weight, part, &self.config);
        let view = self.view(name, tensor);
        Ok(view.in_order(order).rows(rows))
    }

    fn tensors(&self) -> Vec<PartView<'_>> {
        self.tensors.iter().map(|(name, tensor)| self.view(name, tensor)).collect()
    }
}
