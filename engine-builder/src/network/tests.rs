use engine_format::manifest::Limits;
use engine_format::rope::{Rope, RopeScaling};
use engine_format::{Architecture, Mapping, ModelConfig, Weight};

use super::ops::{ElementWise, Op, Value};
use super::plugin::{ATTENTION_INPUTS, AttentionInput, FieldType, FieldValues, wanted_fields};
use super::print::{Format, print};
use super::validate::validate;
use super::{DataType, Graph, NetworkError, NetworkOptions, Release, decoder};

fn small() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Mistral,
        hidden_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_size: 32,
        intermediate_size: 224,
        vocab_size: 320,
        max_position_embeddings: 256,
        norm_epsilon: 1e-5,
        attention_bias: false,
        tie_word_embeddings: false,
        sliding_window: None,
        rope: Rope { theta: 1e6, scaling: RopeScaling::None },
    }
}

fn options() -> NetworkOptions {
    NetworkOptions::new(Release::V1_2, Limits { max_seq_len: 256, max_batch_size: 16, max_num_tokens: 512 })
}

fn graph(config: &ModelConfig) -> Graph {
    decoder(config, Mapping::SINGLE, options()).unwrap().remove(0).graph
}

/// Shapes of the rank's weights, as its checkpoint has them.
fn stored(config: &ModelConfig, mapping: Mapping, rank: usize) -> impl Fn(&str) -> Option<Vec<usize>> + use<> {
    let (pp_rank, tp_rank) = (rank / mapping.tp_size, rank % mapping.tp_size);
    let first = mapping.layers(config, pp_rank).start;
    let weights: Vec<_> = mapping
        .weights(config, pp_rank)
        .into_iter()
        .map(|weight: Weight| (weight.name(first), mapping.shard(config, weight, tp_rank).shape))
        .collect();
    move |name| weights.iter().find(|(stored, _)| stored == name).map(|(_, shape)| shape.clone())
}

fn refused(graph: &Graph) -> NetworkError {
    validate(graph, Release::V1_2, stored(&small(), Mapping::SINGLE, 0)).unwrap_err()
}

#[test]
fn every_split_of_every_option_holds() {
    let mut config = small();
    for attention_bias in [false, true] {
        config.attention_bias = attention_bias;
        for (tp_size, pp_size) in [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)] {
            for gather_context_logits in [false, true] {
                for gemm_plugin in [false, true] {
                    let mapping = Mapping { tp_size, pp_size };
                    let options = NetworkOptions { gather_context_logits, gemm_plugin, ..options() };
                    for network in decoder(&config, mapping, options).unwrap() {
                        validate(&network.graph, Release::V1_2, stored(&config, mapping, network.rank)).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn a_tied_head_reads_the_embedding() {
    let weights = |tied| {
        let graph = graph(&ModelConfig { tie_word_embeddings: tied, ..small() });
        let is_large = |op: &Op| matches!(op, Op::Constant { shape, .. } if shape == &[320, 96]);
        graph.nodes.iter().filter(|node| is_large(&node.op)).count()
    };
    assert_eq!((weights(false), weights(true)), (2, 1));
}

#[test]
fn a_vocabulary_that_the_runtime_would_pad_otherwise_is_refused() {
    let config = ModelConfig { vocab_size: 321, ..small() };
    assert!(decoder(&config, Mapping { tp_size: 2, pp_size: 1 }, options()).is_ok());
    let error = decoder(&config, Mapping { tp_size: 1, pp_size: 2 }, options()).unwrap_err().to_string();
    assert!(error.contains("321") && error.contains("pp_size"), "{error}");
}

/// The names and types that each release's creators read, as the notes on TensorRT-LLM's sources have them.
#[test]
fn plugin_fields_of_each_release() {
    let attention = "layer_idx:32 num_heads:32 vision_start:32 vision_length:32 num_kv_heads:32 num_kv_heads_origin:32 head_size:32 unidirectional:32 q_scaling:f attn_logit_softcapping_scale:f position_embedding_type:8 rotary_embedding_dim:32 rotary_embedding_base:f rotary_embedding_scale_type:8 rotary_embedding_scale:f rotary_embedding_short_m_scale:f rotary_embedding_long_m_scale:f rotary_embedding_max_positions:32 rotary_embedding_original_max_positions:32 tp_size:32 tp_rank:32 unfuse_qkv_gemm:8 context_fmha_type:8 kv_cache_quant_mode:32 remove_input_padding:8 mask_type:32 block_sparse_block_size:32 block_sparse_homo_head_pattern:8 block_sparse_num_local_blocks:32 block_sparse_vertical_stride:32 paged_kv_cache:32 tokens_per_block:32 type_id:32 max_context_length:32 qkv_bias_enabled:8 do_cross_attention:8 max_distance:32 pos_shift_enabled:8 dense_context_fmha:8 use_paged_context_fmha:8 use_fp8_context_fmha:8 has_full_attention_mask:8 use_cache:32 is_spec_decoding_enabled:8 spec_decoding_is_generation_length_variable:8 spec_decoding_max_generation_length:32 is_mla_enabled:8 q_lora_rank:32 kv_lora_rank:32 qk_nope_head_dim:32 qk_rope_head_dim:32 v_head_dim:32 fuse_fp4_quant:8 skip_attn:8 cp_size:32 cp_rank:32 cp_group:32 use_logn_scaling:8";
    let others = [
        ("AllReduce", "group:32 type_id:32 strategy:8 fusion_op:8 eps:f affine:8 bias:8 scale:8"),
        ("AllGather", "group:32 type_id:32"),
        ("Send", "tgt_rank:32 type_id:32"),
        ("Recv", "src_rank:32 type_id:32"),
        (
            "Lora",
            "in_hidden_size:32 transa:32 transb:32 num_lora_modules:32 type_id:32 remove_input_padding:8 max_low_rank:32 weight_index:32 out_hidden_size_0:32",
        ),
        ("Gemm", "transa:32 transb:32 pad_lda:32 pad_ldb:32 pad_ldc:32 type_id:32 use_fp8:32 alpha:f"),
    ];
    for release in Release::ALL {
        for (plugin, expected) in [("GPTAttention", attention)].into_iter().chain(others) {
            let wanted = wanted_fields(release, plugin).unwrap();
            let short = |kind: &FieldType| match kind {
                FieldType::Int8 => "8",
                FieldType::Int32 => "32",
                FieldType::Float32 => "f",
            };
            let found: Vec<_> = wanted.iter().map(|(name, kind)| format!("{name}:{}", short(kind))).collect();
            assert_eq!(found.join(" "), expected, "{plugin} of {}", release.name());
        }
    }
    assert_eq!(wanted_fields(Release::V1_2, "GemmSwiglu"), None);
}

#[test]
fn network_inputs_of_each_release() {
    let expected = [
        ("input_ids", "INT32", vec![-1]),
        ("last_token_ids", "INT32", vec![-1]),
        ("kv_cache_block_offsets", "INT32", vec![-1, -1, 2, -1]),
        ("host_kv_cache_block_offsets", "INT32", vec![-1, -1, 2, -1]),
        ("host_kv_cache_pool_pointers", "INT64", vec![-1, 2]),
        ("host_kv_cache_pool_mapping", "INT32", vec![2, 2]),
        ("sequence_length", "INT32", vec![-1]),
        ("host_request_types", "INT32", vec![-1]),
        ("host_past_key_value_lengths", "INT32", vec![-1]),
        ("context_lengths", "INT32", vec![-1]),
        ("host_runtime_perf_knobs", "INT64", vec![16]),
        ("host_context_progress", "INT64", vec![1]),
        ("host_context_lengths", "INT32", vec![-1]),
        ("host_max_attention_window_sizes", "INT32", vec![2]),
        ("host_sink_token_length", "INT32", vec![1]),
        ("cache_indirection", "INT32", vec![-1, -1, -1]),
    ];
    for release in Release::ALL {
        let options = NetworkOptions { release, ..options() };
        let graph = decoder(&small(), Mapping::SINGLE, options).unwrap().remove(0).graph;
        let described = graph.inputs.iter().map(|input| {
            let tensor = graph.tensor(input.tensor);
            (input.name.as_str(), tensor.dtype.name(), tensor.shape.clone())
        });
        let found: Vec<_> = described.collect();
        assert_eq!(found, expected, "{}", release.name());
        for input in ATTENTION_INPUTS {
            if let AttentionInput::Network(name, dtype) = input {
                assert_eq!(graph.tensor(graph.input(name).unwrap().tensor).dtype, dtype, "{name}");
            }
        }
    }
}

#[test]
fn profiles_are_those_of_the_limits() {
    let limits = Limits { max_seq_len: 8192, max_batch_size: 2048, max_num_tokens: 8192 };
    let config = ModelConfig { num_hidden_layers: 40, max_position_embeddings: 8192, ..small() };
    let graph = decoder(&config, Mapping::SINGLE, NetworkOptions::new(Release::V1_2, limits)).unwrap().remove(0).graph;
    let profile = |name| {
        let profiles = &graph.input(name).unwrap().profiles;
        assert_eq!(profiles.len(), 6);
        let profile = &profiles[5];
        (profile.min.clone(), profile.opt.clone(), profile.max.clone())
    };
    assert_eq!(profile("input_ids"), (vec![1024], vec![8192], vec![8192]));
    assert_eq!(profile("last_token_ids"), (vec![1], vec![1024], vec![2048]));
    assert_eq!(profile("cache_indirection"), (vec![1, 1, 1], vec![1024, 1, 4096], vec![2048, 1, 8192]));
    let offsets = (vec![1, 1, 2, 1], vec![1, 1024, 2, 128], vec![40, 2048, 2, 256]);
    assert_eq!(profile("kv_cache_block_offsets"), offsets);
    assert_eq!(profile("host_kv_cache_pool_pointers"), (vec![1, 2], vec![1, 2], vec![40, 2]));
}

#[test]
fn a_missing_field_is_refused_by_name() {
    let mut graph = graph(&small());
    let plugin = graph.nodes.iter_mut().find_map(|node| match &mut node.op {
        Op::Plugin(plugin) => Some(plugin),
        _ => None,
    });
    let fields = &mut plugin.unwrap().fields;
    let taken = fields.remove(5);
    let text = refused(&graph).to_string();
    assert!(text.contains("`num_kv_heads_origin` of plugin GPTAttention is missing"), "{text}");
    assert!(text.contains("transformer.layers.0.attention"), "{text}");

    let plugin = graph.nodes.iter_mut().find_map(|node| match &mut node.op {
        Op::Plugin(plugin) => Some(plugin),
        _ => None,
    });
    let fields = &mut plugin.unwrap().fields;
    fields.push(super::plugin::Field { values: FieldValues::Int8(vec![2]), ..taken });
    let text = refused(&graph).to_string();
    assert!(text.contains("is INT8, not INT32"), "{text}");
}

#[test]
fn a_wrong_type_is_refused_by_its_node() {
    let mut graph = graph(&small());
    let is_square = |node: &super::graph::Node| node.name == "transformer.layers.1.input_layernorm.square";
    let square = graph.nodes.iter().position(is_square).unwrap();
    let is_narrow = |node: &&super::graph::Node| node.name == "transformer.layers.0.mlp.proj";
    let narrow = graph.nodes.iter().find(is_narrow).unwrap().output;
    graph.nodes[square].inputs[0] = narrow;
    let text = refused(&graph).to_string();
    assert!(text.contains("layers.1.input_layernorm.square") && text.contains("BF16 and FLOAT"), "{text}");
}

#[test]
fn a_profile_that_cannot_hold_is_refused_by_its_input() {
    let mut wrong = graph(&small());
    let input = wrong.inputs.iter_mut().find(|input| input.name == "sequence_length").unwrap();
    input.profiles[1].opt = vec![17];
    let text = refused(&wrong).to_string();
    assert!(text.contains("`sequence_length`") && text.contains("1 to 16, best 17"), "{text}");

    let mut wrong = graph(&small());
    let input = wrong.inputs.iter_mut().find(|input| input.name == "context_lengths").unwrap();
    input.profiles[1].max = vec![32];
    let text = refused(&wrong).to_string();
    assert!(text.contains("`context_lengths`") && text.contains("batch_size_beam_width"), "{text}");
}

#[test]
fn a_weight_that_is_missing_or_of_another_shape_is_refused_by_name() {
    let graph = graph(&small());
    let stored = stored(&small(), Mapping::SINGLE, 0);
    let name = "transformer.layers.1.mlp.gate.weight";
    let without = |weight: &str| stored(weight).filter(|_| weight != name);
    let text = validate(&graph, Release::V1_2, without).unwrap_err().to_string();
    assert!(text.contains(name) && text.contains("not in the rank's checkpoint"), "{text}");
    let other = |weight: &str| stored(weight).map(|shape| if weight == name { vec![96, 224] } else { shape });
    let text = validate(&graph, Release::V1_2, other).unwrap_err().to_string();
    assert!(text.contains(name) && text.contains("[96, 224]") && text.contains("[224, 96]"), "{text}");
}

#[test]
fn operations_that_do_not_fit_are_refused_where_they_are_added() {
    let mut graph = Graph::new("test".into());
    let floats = |graph: &mut Graph, name: &str, shape: Vec<i64>| {
        let count = shape.iter().product::<i64>() as usize;
        graph.constant(name.into(), shape, Value::Floats(vec![0.0; count])).unwrap()
    };
    let (a, b) = (floats(&mut graph, "a", vec![2, 3]), floats(&mut graph, "b", vec![3, 2]));
    for op in [Op::MatrixMultiply, Op::ElementWise(ElementWise::Sum), Op::Gather(0), Op::Sqrt] {
        let error = graph.add("node".into(), op, &[a, b]).unwrap_err();
        assert!(matches!(&error, NetworkError::Node { node, .. } if node == "node"), "{error}");
    }
    let uneven = Op::Shuffle { reshape: vec![4, -1], permutation: Vec::new() };
    assert!(graph.add("node".into(), uneven, &[a]).is_err());
    assert!(graph.constant("c".into(), vec![2], Value::Integers(vec![1])).is_err());
    assert_eq!(DataType::Bf16.name(), "BF16");
}

#[test]
fn every_format_has_every_node() {
    let graph = graph(&small());
    let json: serde_json::Value = serde_json::from_str(&print(&graph, Format::Json)).unwrap();
    assert_eq!(json["layers"].as_array().unwrap().len(), graph.nodes.len());
    for format in [Format::Text, Format::Dot] {
        let text = print(&graph, format);
        for node in &graph.nodes {
            assert!(text.contains(&node.name), "{}", node.name);
        }
        assert!(text.contains("host_context_progress"));
    }
}

#[test]
fn releases_are_known_by_their_versions() {
    assert_eq!(Release::of_version("1.2.1"), Some(Release::V1_2));
    assert_eq!(Release::of_version("1.0.0rc3"), Some(Release::V1_0));
    assert_eq!(Release::of_version("1.20.0"), None);
    assert_eq!(Release::of_version("0.21.0"), None);
}
