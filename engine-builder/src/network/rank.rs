//! One rank: which layers and which part of each weight it holds.

use engine_format::{Mapping, ModelConfig, Weight};

use super::options::NetworkOptions;

/// One rank of a model whose network is being made.
pub struct Rank<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// How the model is split over ranks.
    pub mapping: Mapping,
    /// The pipeline rank: which group of layers it has.
    pub pp_rank: usize,
    /// The tensor-parallel rank: which part of each layer it has.
    pub tp_rank: usize,
    /// What the network is made for.
    pub options: NetworkOptions,
}

impl Rank<'_> {
    /// The rank among all ranks.
    pub const fn world_rank(&self) -> usize {
        self.mapping.rank(self.pp_rank, self.tp_rank)
    }

    /// World ranks of those that share its layers, in order.
    pub fn tp_group(&self) -> Vec<i32> {
        (0..self.mapping.tp_size).map(|tp_rank| self.mapping.rank(self.pp_rank, tp_rank) as i32).collect()
    }

    /// The first of its layers.
    pub const fn first_layer(&self) -> usize {
        self.mapping.layers(self.config, self.pp_rank).start
    }

    /// Number of its layers.
    pub fn num_layers(&self) -> usize {
        self.mapping.layers(self.config, self.pp_rank).len()
    }

    /// Whether its layers are the first ones: it begins with token ids.
    pub const fn is_first(&self) -> bool {
        self.pp_rank == 0
    }

    /// Whether its layers are the last ones: it ends with logits.
    pub const fn is_last(&self) -> bool {
        self.pp_rank + 1 == self.mapping.pp_size
    }

    /// Shape of the rank's shard of a weight; a vector of n elements is `[n, 1]`.
    pub fn shape_of(&self, weight: Weight) -> [usize; 2] {
        let shape = self.mapping.shard(self.config, weight, self.tp_rank).shape;
        [shape[0], shape.get(1).copied().unwrap_or(1)]
    }
}
