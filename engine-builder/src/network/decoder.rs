//! The decoder, once for every family: what one rank computes.
//!
//! Source: TensorRT-LLM 1.x, `models/llama/model.py` and `models/modeling_utils.py`.

use engine_format::{Mapping, ModelConfig, Weight};

use super::attention::attention;
use super::error::NetworkError;
use super::graph::{Graph, Output};
use super::inputs::add_inputs;
use super::linear::{cast, product, weight};
use super::mlp::mlp;
use super::norm::rms_norm;
use super::ops::{ElementWise, Op, Value};
use super::options::NetworkOptions;
use super::plugin::Plugin;
use super::rank::Rank;
use super::rope::{RotaryTables, rotary_tables};
use super::tensor::{DYNAMIC, DataType, TensorId};

/// The network of one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct RankNetwork {
    /// The world rank.
    pub rank: usize,
    /// The network.
    pub graph: Graph,
}

/// The networks of every rank, in order.
///
/// # Errors
/// [`NetworkError::Model`] for a model that TensorRT-LLM's runtime would not run split this way.
pub fn decoder(
    config: &ModelConfig,
    mapping: Mapping,
    options: NetworkOptions,
) -> Result<Vec<RankNetwork>, NetworkError> {
    let padded = mapping.padded_vocab_size(config);
    if !padded.is_multiple_of(mapping.world_size()) {
        return Err(NetworkError::Model(format!(
            "TensorRT-LLM's runtime takes logits of a vocabulary that is padded to a multiple of all {} ranks, and the head is padded to {padded} for tp_size {}: choose pp_size so that tp_size x pp_size divides {padded}",
            mapping.world_size(),
            mapping.tp_size
        )));
    }
    let mut networks = Vec::new();
    for pp_rank in 0..mapping.pp_size {
        for tp_rank in 0..mapping.tp_size {
            let rank = Rank { config, mapping, pp_rank, tp_rank, options };
            networks.push(RankNetwork { rank: rank.world_rank(), graph: rank_graph(&rank)? });
        }
    }
    Ok(networks)
}

fn rank_graph(rank: &Rank<'_>) -> Result<Graph, NetworkError> {
    let mut graph = Graph::new(format!("{}, rank {}", rank.config.architecture.name(), rank.world_rank()));
    add_inputs(&mut graph, rank);
    let tables = rotary_tables(&mut graph, rank.config)?;
    let mut embedding = None;
    let mut x = match input(&graph, "input_ids") {
        Some(ids) => {
            let table = weight(&mut graph, &Weight::Embedding.name(0), rank.shape_of(Weight::Embedding))?;
            embedding = Some(table);
            graph.add("transformer.vocab_embedding".into(), Op::Gather(0), &[table, ids])?
        }
        None => receive(&mut graph, rank)?,
    };
    // In fp32, as in the CPU engine, it is not rounded twice in each layer.
    x = cast(&mut graph, "transformer.residual", rank.options.residual_dtype.data_type(), x)?;
    for layer in 0..rank.num_layers() {
        x = decoder_layer(&mut graph, rank, layer, x, tables)?;
    }
    if rank.is_last() {
        head(&mut graph, rank, x, embedding)?;
    } else {
        send(&mut graph, rank, x)?;
    }
    Ok(graph)
}

/// The hidden states of the pipeline rank before this one.
fn receive(graph: &mut Graph, rank: &Rank<'_>) -> Result<TensorId, NetworkError> {
    let missing = || NetworkError::Input {
        input: "hidden_states_input".into(),
        problem: "a later pipeline rank begins with it, and the network does not have it".into(),
    };
    let hidden = input(graph, "hidden_states_input").ok_or_else(missing)?;
    let source = rank.mapping.rank(rank.pp_rank - 1, rank.tp_rank);
    graph.add("receive".into(), Op::Plugin(Plugin::recv(source)), &[hidden])
}

/// Hands the hidden states to the next pipeline rank, in the model's type, as TensorRT-LLM's runtime expects.
fn send(graph: &mut Graph, rank: &Rank<'_>, x: TensorId) -> Result<(), NetworkError> {
    let target = rank.mapping.rank(rank.pp_rank + 1, rank.tp_rank);
    let x = cast(graph, "send.to_bf16", DataType::Bf16, x)?;
    let sent = graph.add("send".into(), Op::Plugin(Plugin::send(target)), &[x])?;
    graph.outputs.push(Output { name: "hidden_states_output", tensor: sent });
    Ok(())
}

/// Norm and attention, then norm and MLP, each added to the residual stream.
fn decoder_layer(
    graph: &mut Graph,
    rank: &Rank<'_>,
    layer: usize,
    x: TensorId,
    tables: RotaryTables,
) -> Result<TensorId, NetworkError> {
    let name = |part: &str| format!("transformer.layers.{layer}.{part}");
    let (hidden, epsilon) = (rank.config.hidden_size, rank.config.norm_epsilon);
    let normed = rms_norm(graph, &name("input_layernorm"), x, hidden, epsilon)?;
    let branch = attention(graph, rank, &name("attention"), layer, normed, tables)?;
    let x = add_residual(graph, &name("attention"), x, branch)?;
    let normed = rms_norm(graph, &name("post_layernorm"), x, hidden, epsilon)?;
    let branch = mlp(graph, rank, &name("mlp"), layer, normed)?;
    add_residual(graph, &name("mlp"), x, branch)
}

/// The residual stream `x` with the branch called `name` added, in the stream's type.
fn add_residual(graph: &mut Graph, name: &str, x: TensorId, branch: TensorId) -> Result<TensorId, NetworkError> {
    let branch = cast(graph, &format!("{name}.to_residual"), graph.tensor(x).dtype, branch)?;
    graph.add(format!("{name}.residual"), Op::ElementWise(ElementWise::Sum), &[x, branch])
}

/// Final norm, the last token of each sequence, logits in fp32.
fn head(graph: &mut Graph, rank: &Rank<'_>, x: TensorId, embedding: Option<TensorId>) -> Result<(), NetworkError> {
    let config = rank.config;
    let mut x = rms_norm(graph, "transformer.ln_f", x, config.hidden_size, config.norm_epsilon)?;
    if let Some(last) = input(graph, "last_token_ids") {
        // The runtime fills it with numbers of tokens, which count from 1.
        let one = graph.constant("last_tokens.one".into(), vec![1], Value::Integers(vec![1]))?;
        let rows = graph.add("last_tokens.rows".into(), Op::ElementWise(ElementWise::Sub), &[last, one])?;
        x = graph.add("last_tokens".into(), Op::Gather(0), &[x, rows])?;
    }
    let shape = rank.shape_of(Weight::LmHead);
    let table = match embedding {
        // The same numbers in the same shape: one copy in the engine serves both.
        Some(table) if config.tie_word_embeddings && shape == rank.shape_of(Weight::Embedding) => table,
        _ => weight(graph, &Weight::LmHead.name(0), shape)?,
    };
    let mut logits = product(graph, rank, "lm_head", x, table)?;
    if rank.mapping.tp_size > 1 {
        logits = join_columns(graph, rank, logits, shape[0])?;
    }
    let logits = graph.add("lm_head.to_float".into(), Op::Cast(DataType::Float), &[logits])?;
    graph.outputs.push(Output { name: "logits", tensor: logits });
    Ok(())
}

/// The logits of all tensor-parallel ranks, each of which has `columns` of the vocabulary: gathered as
/// `[ranks * tokens, columns]`, then put side by side as `[tokens, ranks * columns]`.
fn join_columns(
    graph: &mut Graph,
    rank: &Rank<'_>,
    logits: TensorId,
    columns: usize,
) -> Result<TensorId, NetworkError> {
    let (ranks, columns) = (rank.mapping.tp_size as i64, columns as i64);
    let all_gather = Op::Plugin(Plugin::all_gather(rank.tp_group()));
    let gathered = graph.add("lm_head.all_gather".into(), all_gather, &[logits])?;
    let by_token = Op::Shuffle { reshape: vec![ranks, DYNAMIC, columns], permutation: vec![1, 0, 2] };
    let by_token = graph.add("lm_head.by_token".into(), by_token, &[gathered])?;
    let joined = Op::Shuffle { reshape: vec![DYNAMIC, ranks * columns], permutation: Vec::new() };
    graph.add("lm_head.joined".into(), joined, &[by_token])
}

fn input(graph: &Graph, name: &str) -> Option<TensorId> {
    graph.input(name).map(|input| input.tensor)
}
