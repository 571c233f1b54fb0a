//! TensorRT-LLM's plugins: their fields and inputs. The tables are in the files below, one for each of upstream's folders.
//!
//! Source: TensorRT-LLM 1.x, `functional.py` (what upstream's Python gives) and the plugins' creators in
//! `cpp/tensorrt_llm/plugins` (what they read: each field by name, of exactly this type; a missing one is refused). The three
//! releases read the same fields; `docs/network.md` says how far that could be checked.

mod field;
mod gemm;
mod gpt_attention;
mod lora;
mod nccl;

use super::error::NetworkError;
use super::options::Release;
use super::rank::Rank;
use super::tensor::{DYNAMIC, DataType, Tensor};
use field::{FieldRow, fields};
use gemm::GEMM;
use lora::LORA;
use nccl::{ALL_GATHER, ALL_REDUCE, RECV, SEND};

pub use field::{Field, FieldType, FieldValues};
pub use gpt_attention::{ATTENTION_INPUTS, AttentionInput};

/// A plugin with its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Its name in TensorRT's registry.
    pub name: &'static str,
    /// Its fields, in upstream's order.
    pub fields: Vec<Field>,
}

/// The version that every plugin has in the registry.
pub const PLUGIN_VERSION: &str = "1";

/// The namespace that every plugin has in the registry.
pub const PLUGIN_NAMESPACE: &str = "tensorrt_llm";

/// The fields that a plugin of this release wants, by name and type, in upstream's order; `None` where the release has no such
/// plugin. Every release that is known wants the same.
pub fn wanted_fields(_release: Release, plugin: &str) -> Option<Vec<(&'static str, FieldType)>> {
    let names_and_types = |table: &[FieldRow]| table.iter().map(|&(name, kind, _)| (name, kind)).collect();
    Some(match plugin {
        "GPTAttention" => gpt_attention::wanted_fields(),
        "AllReduce" => names_and_types(&ALL_REDUCE),
        "AllGather" => names_and_types(&ALL_GATHER),
        "Send" => names_and_types(&SEND),
        "Recv" => names_and_types(&RECV),
        "Gemm" => names_and_types(&GEMM),
        "Lora" => names_and_types(&LORA),
        _ => return None,
    })
}

impl Plugin {
    /// Attention of the rank's layer `layer`.
    pub fn gpt_attention(rank: &Rank<'_>, layer: usize) -> Self {
        Self { name: "GPTAttention", fields: gpt_attention::fields(rank, layer) }
    }

    /// The sum over the ranks of `group`.
    pub fn all_reduce(group: Vec<i32>) -> Self {
        Self { name: "AllReduce", fields: fields(&ALL_REDUCE, &rank_numbers(&group)) }
    }

    /// The tensors of the ranks of `group`, one below the other.
    pub fn all_gather(group: Vec<i32>) -> Self {
        Self { name: "AllGather", fields: fields(&ALL_GATHER, &rank_numbers(&group)) }
    }

    /// Sends a tensor to the rank `target`.
    pub fn send(target: usize) -> Self {
        Self { name: "Send", fields: fields(&SEND, &[target as f64]) }
    }

    /// Receives a tensor from the rank `source`.
    pub fn recv(source: usize) -> Self {
        Self { name: "Recv", fields: fields(&RECV, &[source as f64]) }
    }

    /// A matrix product, the second matrix transposed.
    pub fn gemm() -> Self {
        Self { name: "Gemm", fields: fields(&GEMM, &[]) }
    }

    /// What the adapter of each sequence makes of a tensor.
    pub fn lora(inputs: i64, outputs: i64, max_rank: usize) -> Self {
        Self { name: "Lora", fields: lora::fields(inputs, outputs, max_rank) }
    }

    /// Checks the fields against the release's table.
    ///
    /// # Errors
    /// [`NetworkError::Field`] with the first that is missing, unknown, or of another type or length.
    pub fn check_fields(&self, release: Release, node: &str) -> Result<(), NetworkError> {
        let refuse = |field: &str, problem: String| {
            Err(NetworkError::Field { node: node.to_owned(), plugin: self.name, field: field.to_owned(), problem })
        };
        let Some(wanted) = wanted_fields(release, self.name) else {
            let problem = format!("TensorRT-LLM {} has no plugin {}", release.name(), self.name);
            return Err(NetworkError::Node { node: node.to_owned(), problem });
        };
        for &(name, kind) in &wanted {
            let Some(field) = self.fields.iter().find(|field| field.name == name) else {
                return refuse(name, format!("is missing: TensorRT-LLM {} wants it", release.name()));
            };
            if field.values.kind() != kind {
                return refuse(name, format!("is {}, not {}", field.values.kind().name(), kind.name()));
            }
            let is_list = name == "group";
            if field.values.is_empty() || !is_list && field.values.len() > 1 {
                return refuse(name, format!("has {} values, not one", field.values.len()));
            }
        }
        match self.fields.iter().find(|field| wanted.iter().all(|&(name, _)| name != field.name)) {
            Some(field) => refuse(field.name, format!("is unknown to TensorRT-LLM {}", release.name())),
            None => Ok(()),
        }
    }

    /// Type and shape of the output, or what is wrong with the inputs.
    pub(super) fn infer(&self, inputs: &[&Tensor]) -> Result<Tensor, String> {
        let tensor = |shape| Ok(Tensor { dtype: DataType::Bf16, shape });
        let first = inputs.first().ok_or("it has no inputs")?;
        if first.dtype != DataType::Bf16 || first.shape.len() != 2 {
            return Err(format!("it takes a BF16 matrix, not {} {:?}", first.dtype.name(), first.shape));
        }
        match (self.name, inputs) {
            ("GPTAttention", _) => tensor(gpt_attention::output_shape(&self.fields, inputs)?),
            ("Lora", _) => tensor(lora::output_shape(&self.fields, inputs)?),
            ("Gemm", &[a, b]) if b.dtype == DataType::Bf16 && b.shape.len() == 2 && a.shape[1] == b.shape[1] => {
                tensor(vec![a.shape[0], b.shape[0]])
            }
            ("Gemm", &[a, b]) => {
                Err(format!("matrices of shapes {:?} and {:?} transposed do not multiply", a.shape, b.shape))
            }
            ("AllReduce", [x, workspace]) if workspace.dtype == DataType::Int64 => tensor(x.shape.clone()),
            ("Send" | "Recv", [x]) => tensor(x.shape.clone()),
            ("AllGather", [x]) => tensor(vec![DYNAMIC, x.shape[1]]),
            (_, inputs) => Err(format!("it does not take {} inputs", inputs.len())),
        }
    }
}

fn rank_numbers(group: &[i32]) -> Vec<f64> {
    group.iter().map(|&rank| f64::from(rank)).collect()
}
