//! Which rank holds which rows and columns of which weight.
//!
//! Source: TensorRT-LLM 1.x, `mapping.py` and the loaders (`layers/linear.py`, `layers/attention.py`): queries, keys and
//! values are split by heads and then stacked, key and value heads are repeated when there are fewer of them than
//! ranks, the MLP is split by its intermediate width, the head by rows of a vocabulary padded to a multiple of the
//! tensor-parallel size, and the embedding not at all. Layers go to pipeline ranks as evenly as possible, the first
//! ranks taking one more each.

use std::ops::Range;

use crate::error::{FormatError, Result, counted};
use crate::model_config::ModelConfig;
use crate::weight::{Part, Weight};

/// How a model is spread over GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Ranks that share each layer.
    pub tp_size: usize,
    /// Groups of consecutive layers.
    pub pp_size: usize,
}

/// Rows and columns of one part of a weight; they are stacked, in order, to make a rank's tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which stored part the rows come from.
    pub part: Part,
    /// Rows of the part.
    pub rows: Range<usize>,
    /// Columns of the part (`0..1` for a vector).
    pub columns: Range<usize>,
    /// Rows of zeros that follow.
    pub zero_rows: usize,
}

/// What one rank stores of one weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Shape of the rank's tensor.
    pub shape: Vec<usize>,
    /// Where its rows come from.
    pub pieces: Vec<Piece>,
}

impl Mapping {
    /// One GPU, or the CPU.
    pub const SINGLE: Self = Self { tp_size: 1, pp_size: 1 };

    /// Number of ranks.
    pub const fn world_size(self) -> usize {
        self.tp_size * self.pp_size
    }

    /// The world rank: tensor-parallel neighbours are next to each other.
    pub const fn rank(self, pp_rank: usize, tp_rank: usize) -> usize {
        pp_rank * self.tp_size + tp_rank
    }

    /// The layers of a pipeline rank.
    pub const fn layers(self, config: &ModelConfig, pp_rank: usize) -> Range<usize> {
        let (share, extra) = (config.num_hidden_layers / self.pp_size, config.num_hidden_layers % self.pp_size);
        let start = pp_rank * share + if pp_rank < extra { pp_rank } else { extra };
        start..start + share + (pp_rank < extra) as usize
    }

    /// The weights that the ranks of one pipeline stage hold, in the order of [`Weight::all`].
    pub fn weights(self, config: &ModelConfig, pp_rank: usize) -> Vec<Weight> {
        let layers = self.layers(config, pp_rank);
        let is_held = |weight: &Weight| match (weight, weight.layer()) {
            (_, Some(layer)) => layers.contains(&layer),
            (Weight::Embedding, None) => pp_rank == 0,
            (_, None) => pp_rank + 1 == self.pp_size,
        };
        Weight::all(config).into_iter().filter(is_held).collect()
    }

    /// Rows of the head with padding: the vocabulary rounded up to a multiple of the tensor-parallel size.
    pub const fn padded_vocab_size(self, config: &ModelConfig) -> usize {
        config.vocab_size.next_multiple_of(self.tp_size)
    }

    /// Bytes of keys and values of one token in bfloat16, on the rank with most layers. Heads are repeated when there are more
    /// ranks than heads.
    pub const fn kv_bytes_per_token(self, config: &ModelConfig) -> usize {
        let heads = config.num_key_value_heads / self.tp_size;
        let (heads, layers) = (if heads > 0 { heads } else { 1 }, self.layers(config, 0));
        2 * 2 * heads * config.head_size * (layers.end - layers.start)
    }

    /// Checks that the model can be split this way.
    ///
    /// # Errors
    /// [`FormatError::Mapping`] with what does not divide.
    pub fn validate(self, config: &ModelConfig) -> Result<()> {
        let Self { tp_size, pp_size } = self;
        let refuse = |problem: String| Err(FormatError::Mapping { tp_size, pp_size, problem });
        if tp_size == 0 || pp_size == 0 {
            return refuse("both must be at least 1".into());
        }
        if pp_size > config.num_hidden_layers {
            return refuse(format!("the model has only {}", counted(config.num_hidden_layers, "layer")));
        }
        let heads = config.num_attention_heads;
        if !heads.is_multiple_of(tp_size) {
            return refuse(format!("tp_size must divide the {heads} attention heads"));
        }
        let kv_heads = config.num_key_value_heads;
        if !kv_heads.is_multiple_of(tp_size) && !tp_size.is_multiple_of(kv_heads) {
            return refuse(format!("tp_size must divide the {kv_heads} key-value heads, or be a multiple of them"));
        }
        if !config.intermediate_size.is_multiple_of(tp_size) {
            return refuse(format!("tp_size must divide the intermediate size {}", config.intermediate_size));
        }
        if self.padded_vocab_size(config) / tp_size * (tp_size - 1) >= config.vocab_size {
            return refuse(format!(
                "the vocabulary of {} is too small: a rank would hold none of it",
                config.vocab_size
            ));
        }
        Ok(())
    }

    /// What tensor-parallel rank `tp_rank` stores of `weight`. The mapping must have passed [`Mapping::validate`].
    pub fn shard(self, config: &ModelConfig, weight: Weight, tp_rank: usize) -> Shard {
        let full = weight.shape(config);
        let columns = full.get(1).copied().unwrap_or(1);
        let rank_range = |size: usize| size / self.tp_size * tp_rank..size / self.tp_size * (tp_rank + 1);
        let piece = |part, rows, columns| Piece { part, rows, columns, zero_rows: 0 };
        let pieces = match weight {
            Weight::Qkv(_) | Weight::QkvBias(_) => {
                let queries = rank_range(config.query_size());
                let keys = self.key_value_rows(config, tp_rank);
                vec![
                    piece(Part::Query, queries, 0..columns),
                    piece(Part::Key, keys.clone(), 0..columns),
                    piece(Part::Value, keys, 0..columns),
                ]
            }
            Weight::MlpFc(_) | Weight::MlpGate(_) => {
                vec![piece(Part::Whole, rank_range(full[0]), 0..columns)]
            }
            Weight::Dense(_) | Weight::MlpProj(_) => {
                vec![piece(Part::Whole, 0..full[0], rank_range(columns))]
            }
            Weight::LmHead => {
                let rank_rows = self.padded_vocab_size(config) / self.tp_size;
                let rows = rank_rows * tp_rank..(rank_rows * (tp_rank + 1)).min(config.vocab_size);
                let zero_rows = rank_rows - rows.len();
                vec![Piece { part: Part::Whole, rows, columns: 0..columns, zero_rows }]
            }
            Weight::Embedding
            | Weight::InputNorm(_)
            | Weight::PostNorm(_)
            | Weight::FinalNorm
            | Weight::DenseBias(_) => vec![piece(Part::Whole, 0..full[0], 0..columns)],
        };
        let mut shape = full;
        shape[0] = pieces.iter().map(|piece| piece.rows.len() + piece.zero_rows).sum();
        if let Some(columns) = shape.get_mut(1) {
            *columns = pieces[0].columns.len();
        }
        Shard { shape, pieces }
    }

    /// Rows of the key (or value) projection of one rank; ranks share a head when there are more ranks than heads.
    fn key_value_rows(self, config: &ModelConfig, tp_rank: usize) -> Range<usize> {
        let heads = config.num_key_value_heads;
        let (first, count) = if heads >= self.tp_size {
            (heads / self.tp_size * tp_rank, heads / self.tp_size)
        } else {
            (tp_rank / (self.tp_size / heads), 1)
        };
        first * config.head_size..(first + count) * config.head_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_config::tests::minitron;

    #[test]
    fn uneven_layers_go_to_the_first_ranks() {
        let mut config = minitron();
        config.num_hidden_layers = 5;
        let mapping = Mapping { tp_size: 1, pp_size: 3 };
        let layers: Vec<_> = (0..3).map(|rank| mapping.layers(&config, rank)).collect();
        assert_eq!(layers, [0..2, 2..4, 4..5]);
        assert_eq!(mapping.weights(&config, 0)[0], Weight::Embedding);
        assert!(!mapping.weights(&config, 1).contains(&Weight::Embedding));
        assert!(mapping.weights(&config, 2).contains(&Weight::LmHead));
    }

    #[test]
    fn key_value_heads_are_repeated_for_more_ranks() {
        let mut config = minitron();
        config.num_key_value_heads = 2;
        let mapping = Mapping { tp_size: 8, pp_size: 1 };
        mapping.validate(&config).unwrap();
        let rows: Vec<_> =
            (0..8).map(|rank| mapping.shard(&config, Weight::Qkv(0), rank).pieces[1].rows.start / 128).collect();
        assert_eq!(rows, [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(mapping.shard(&config, Weight::Qkv(0), 3).shape, [(4 + 2) * 128, 4096]);
    }

    #[test]
    fn the_last_rank_pads_the_head() {
        let mut config = minitron();
        config.vocab_size = 99;
        let mapping = Mapping { tp_size: 8, pp_size: 1 };
        let shard = mapping.shard(&config, Weight::LmHead, 7);
        assert_eq!(shard.shape, [13, 4096]);
        assert_eq!((shard.pieces[0].rows.clone(), shard.pieces[0].zero_rows), (91..99, 5));
    }

    #[test]
    fn impossible_splits_say_what_does_not_divide() {
        let config = minitron();
        let check = |tp_size, pp_size, word: &str| {
            let error = Mapping { tp_size, pp_size }.validate(&config).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        check(0, 1, "at least 1");
        check(3, 1, "attention heads");
        check(1, 41, "40 layers");
    }
}
