//! The tensors of a CPU engine's weights file: which weights, whole or in parts, and what each is stored as.

use engine_format::weights_file::Layout;
use engine_format::{ModelConfig, Part, Weight, WeightType};

/// A tensor of the file: parts of a weight, stacked by rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedTensor {
    pub(super) weight: Weight,
    pub(super) parts: &'static [Part],
    pub(super) layout: Layout,
}

impl PackedTensor {
    pub(super) fn name(&self) -> String {
        match self.parts {
            [part] => self.weight.part_name(*part, 0),
            _ => self.weight.name(0),
        }
    }

    pub(super) fn shape(&self, config: &ModelConfig) -> Vec<usize> {
        match self.parts {
            [part] => self.weight.part_shape(*part, config),
            _ => self.weight.shape(config),
        }
    }
}

/// All of them, in the order in which a forward pass reads them. A tied head is stored once, packed: rows of the embedding are
/// gathered from it. A weight whose parts are not of one type is a tensor for each part.
pub(super) fn packed_tensors(config: &ModelConfig, weights: WeightType) -> Vec<PackedTensor> {
    let mut all = Weight::all(config);
    all.retain(|weight| !(config.tie_word_embeddings && *weight == Weight::Embedding));
    let of_weight = |weight: Weight| {
        let layout = |part| layout(config, weight, part, weights);
        let parts = weight.parts();
        let one_type = parts.iter().all(|&part| layout(part) == layout(parts[0]));
        let tensors = parts.chunks(if one_type { parts.len() } else { 1 });
        tensors.map(move |parts| PackedTensor { weight, parts, layout: layout(parts[0]) }).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(of_weight).collect()
}

/// The layout of a part of a weight.
fn layout(config: &ModelConfig, weight: Weight, part: Part, weights: WeightType) -> Layout {
    match weights {
        _ if !weight.is_matmul() => Layout::RowMajor,
        WeightType::Bf16 => Layout::Panels,
        WeightType::Int8 => Layout::PanelsInt8,
        WeightType::Int4 if in_eight_bits(config, weight, part) => Layout::PanelsInt8,
        WeightType::Int4 => Layout::PanelsInt4,
    }
}

/// What an engine of `int4` has in eight bits, because errors there cost more than bytes. How much of the Kullback-Leibler divergence
/// from bf16 each choice takes away (`scripts/accuracy`, the head in eight bits in all rows), and what it adds to the bytes that a
/// token reads:
///
/// ```text
///                                              SmolLM2-135M        demo model          Minitron-8B
/// values                                       33 % for 1.7 %      18 % for 2.5 %      for 1.6 %
/// values, down of the first and last layer     46 % for 2.6 %      42 % for 8.0 %      for 2.5 %    chosen
/// values, all of the first and last layer      57 % for 5.1 %      82 % for 26 %       for 5.0 %
/// values, down of half of the layers           64 % for 7.9 %      27 % for 8.0 %      for 11 %     as llama.cpp's Q4_K_M
/// values, down of all layers                   67 % for 15 %       44 % for 16 %       for 20 %
/// values and keys                              36 % for 3.3 %      23 % for 5.0 %      for 3.2 %
/// queries, keys and values                     39 % for 8.3 %      28 % for 12 %       for 9.6 %
/// values and attention's output                38 % for 6.7 %      34 % for 9.9 %      for 8.0 %
/// ```
///
/// A per cent of bytes costs about one of generation speed, so the choice is what takes most away per byte on both models. Four bits
/// would cost the head alone nearly as much as all other matrices together.
fn in_eight_bits(config: &ModelConfig, weight: Weight, part: Part) -> bool {
    match weight {
        Weight::LmHead => true,
        Weight::Qkv(_) => part == Part::Value,
        Weight::MlpProj(layer) => layer == 0 || layer + 1 == config.num_hidden_layers,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_plan::tests::minitron;

    #[test]
    fn int4_has_the_head_values_and_two_down_projections_in_eight_bits() {
        let tensors = packed_tensors(&minitron(), WeightType::Int4);
        let stored = |layout| tensors.iter().filter(move |tensor| tensor.layout == layout).map(PackedTensor::name);
        let values = (0..40).map(|layer| format!("transformer.layers.{layer}.attention.v.weight"));
        let down = [0, 39].map(|layer| format!("transformer.layers.{layer}.mlp.proj.weight"));
        let mut expected: Vec<_> = values.chain(down).chain(["lm_head.weight".to_owned()]).collect();
        let mut found: Vec<_> = stored(Layout::PanelsInt8).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(stored(Layout::PanelsInt4).count(), 40 * 6 - 2);
        assert_eq!(stored(Layout::Panels).count(), 0);
    }

    #[test]
    fn parts_are_tensors_of_their_own_where_their_types_differ() {
        for (weights, of_layer) in [(WeightType::Bf16, 7), (WeightType::Int8, 7), (WeightType::Int4, 9)] {
            let tensors = packed_tensors(&minitron(), weights);
            assert_eq!(tensors.len(), 3 + 40 * of_layer, "{weights}");
            let elements = |shape: Vec<usize>| shape.into_iter().product::<usize>() as u64;
            let parameters: u64 = tensors.iter().map(|tensor| elements(tensor.shape(&minitron()))).sum();
            assert_eq!(parameters, minitron().parameters(), "{weights}");
        }
    }
}
