//! The decoder, once for every family: what one rank computes.
//!
//! Source: TensorRT-LLM 1.x, `models/llama/model.py` and `models/modeling_utils.py`.

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, Weight};

use super::attention::attention;
use super::graph::{DYNAMIC, DataType, Graph, NetworkError, Output, TensorId};
use super::inputs::{Inputs, add_inputs};
use super::mlp::mlp;
use super::norm::rms_norm;
use super::ops::{ElementWise, Op, Value};
use super::plugin::{Plugin, Release};
use super::rope::rotary_tables;

/// What a network is made for, beside the model and its split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Whose plugins it uses.
    pub release: Release,
    /// Sequence length, sequences and tokens of a step, at most.
    pub limits: Limits,
    /// Beams at most.
    pub max_beam_width: usize,
    /// Tokens of the step that tactics are chosen for; `None`: a token of each sequence.
    pub opt_num_tokens: Option<usize>,
    /// Logits of every token of the prompt, not of its last one only.
    pub gather_context_logits: bool,
    /// Logits of generated tokens; the network has them in any case, the runtime keeps them.
    pub gather_generation_logits: bool,
    /// Matrix products by TensorRT-LLM's Gemm plugin instead of TensorRT's own.
    pub gemm_plugin: bool,
}

/// Tokens of a block of the KV cache.
pub const TOKENS_PER_BLOCK: usize = 32;

impl NetworkOptions {
    /// These limits, and nothing else asked for.
    pub const fn new(release: Release, limits: Limits) -> Self {
        Self {
            release,
            limits,
            max_beam_width: 1,
            opt_num_tokens: None,
            gather_context_logits: false,
            gather_generation_logits: false,
            gemm_plugin: false,
        }
    }
}

/// The network of one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct RankNetwork {
    /// The world rank.
    pub rank: usize,
    /// The network.
    pub graph: Graph,
}

/// One rank of a model, while its network is made.
pub struct Rank<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// How it is split.
    pub mapping: Mapping,
    /// Which group of layers.
    pub pp_rank: usize,
    /// Which part of each layer.
    pub tp_rank: usize,
    /// What the network is made for.
    pub options: NetworkOptions,
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
            networks.push(RankNetwork { rank: rank.world_rank(), graph: rank.network()? });
        }
    }
    Ok(networks)
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

    const fn is_first(&self) -> bool {
        self.pp_rank == 0
    }

    const fn is_last(&self) -> bool {
        self.pp_rank + 1 == self.mapping.pp_size
    }

    /// Shape of what the rank holds of a matrix.
    pub(super) fn shape_of(&self, weight: Weight) -> [usize; 2] {
        let shape = self.mapping.shard(self.config, weight, self.tp_rank).shape;
        [shape[0], shape.get(1).copied().unwrap_or(1)]
    }

    fn network(&self) -> Result<Graph, NetworkError> {
        let mut graph = Graph::new(format!("{}, rank {}", self.config.architecture.name(), self.world_rank()));
        let graph = &mut graph;
        add_inputs(
            graph,
            &Inputs {
                options: self.options,
                hidden_size: self.config.hidden_size,
                num_layers: self.num_layers(),
                is_first: self.is_first(),
                is_last: self.is_last(),
            },
        );
        let tables = rotary_tables(graph, self.config)?;
        let mut embedding = None;
        let mut x = match self.input(graph, "input_ids") {
            Some(ids) => {
                let name = Weight::Embedding.name(0);
                let table = self.weight(graph, &name, self.shape_of(Weight::Embedding))?;
                embedding = Some(table);
                graph.add("transformer.vocab_embedding".into(), Op::Gather, &[table, ids])?
            }
            None => self.receive(graph)?,
        };
        // The residual stream is fp32, as in the CPU engine: bfloat16 would round it twice in each layer.
        x = graph.add("transformer.residual".into(), Op::Cast(DataType::Float), &[x])?;
        for layer in 0..self.num_layers() {
            x = self.layer(graph, layer, x, tables)?;
        }
        if self.is_last() {
            self.head(graph, x, embedding)?;
        } else {
            let target = self.mapping.rank(self.pp_rank + 1, self.tp_rank);
            // TensorRT-LLM's runtime hands hidden states over in the model's type.
            let x = graph.add("send.to_bf16".into(), Op::Cast(DataType::Bf16), &[x])?;
            let sent = graph.add("send".into(), Op::Plugin(Plugin::send(target)), &[x])?;
            graph.outputs.push(Output { name: "hidden_states_output", tensor: sent });
        }
        Ok(std::mem::replace(graph, Graph::new(String::new())))
    }

    fn receive(&self, graph: &mut Graph) -> Result<TensorId, NetworkError> {
        let missing = || NetworkError::Input {
            input: "hidden_states_input".into(),
            problem: "a later pipeline rank begins with it, and the network does not have it".into(),
        };
        let hidden = self.input(graph, "hidden_states_input").ok_or_else(missing)?;
        let source = self.mapping.rank(self.pp_rank - 1, self.tp_rank);
        graph.add("receive".into(), Op::Plugin(Plugin::recv(source)), &[hidden])
    }

    fn layer(
        &self,
        graph: &mut Graph,
        layer: usize,
        x: TensorId,
        tables: super::rope::RotaryTables,
    ) -> Result<TensorId, NetworkError> {
        let name = |part: &str| format!("transformer.layers.{layer}.{part}");
        let (hidden, epsilon) = (self.config.hidden_size, self.config.norm_epsilon);
        let normed = rms_norm(graph, &name("input_layernorm"), x, hidden, epsilon)?;
        let out = attention(graph, self, &name("attention"), layer, normed, tables)?;
        let x = self.residual(graph, &name("attention"), x, out)?;
        let normed = rms_norm(graph, &name("post_layernorm"), x, hidden, epsilon)?;
        let out = mlp(graph, self, &name("mlp"), normed)?;
        self.residual(graph, &name("mlp"), x, out)
    }

    /// The residual stream with the branch called `name` added.
    fn residual(&self, graph: &mut Graph, name: &str, x: TensorId, branch: TensorId) -> Result<TensorId, NetworkError> {
        let branch = match graph.tensor(branch).dtype {
            DataType::Float => branch,
            _ => graph.add(format!("{name}.to_float"), Op::Cast(DataType::Float), &[branch])?,
        };
        graph.add(format!("{name}.residual"), Op::ElementWise(ElementWise::Sum), &[x, branch])
    }

    /// Final norm, last tokens, logits in fp32.
    fn head(&self, graph: &mut Graph, x: TensorId, embedding: Option<TensorId>) -> Result<(), NetworkError> {
        let (config, ranks) = (self.config, self.mapping.tp_size as i64);
        let mut x = rms_norm(graph, "transformer.ln_f", x, config.hidden_size, config.norm_epsilon)?;
        if let Some(last) = self.input(graph, "last_token_ids") {
            let one = graph.constant("last_tokens.one".into(), vec![1], Value::Integers(vec![1]))?;
            let rows = graph.add("last_tokens.rows".into(), Op::ElementWise(ElementWise::Sub), &[last, one])?;
            x = graph.add("last_tokens".into(), Op::Gather, &[x, rows])?;
        }
        let name = Weight::LmHead.name(0);
        let shape = self.shape_of(Weight::LmHead);
        let table = match embedding {
            // The same numbers in the same shape: one copy in the engine serves both.
            Some(table) if config.tie_word_embeddings && shape == self.shape_of(Weight::Embedding) => table,
            _ => self.weight(graph, &name, shape)?,
        };
        let mut logits = self.product(graph, "lm_head".into(), x, table)?;
        if ranks > 1 {
            let columns = shape[0] as i64;
            let gathered = Op::Plugin(Plugin::all_gather(self.tp_group()));
            logits = graph.add("lm_head.all_gather".into(), gathered, &[logits])?;
            let by_token = Op::Shuffle { reshape: vec![ranks, DYNAMIC, columns], permutation: vec![1, 0, 2] };
            logits = graph.add("lm_head.by_token".into(), by_token, &[logits])?;
            let joined = Op::Shuffle { reshape: vec![DYNAMIC, ranks * columns], permutation: Vec::new() };
            logits = graph.add("lm_head.joined".into(), joined, &[logits])?;
        }
        let logits = graph.add("lm_head.to_float".into(), Op::Cast(DataType::Float), &[logits])?;
        graph.outputs.push(Output { name: "logits", tensor: logits });
        Ok(())
    }

    fn input(&self, graph: &Graph, name: &str) -> Option<TensorId> {
        graph.input(name).map(|input| input.tensor)
    }

    fn weight(&self, graph: &mut Graph, name: &str, shape: [usize; 2]) -> Result<TensorId, NetworkError> {
        graph.constant(name.to_owned(), shape.map(|size| size as i64).to_vec(), Value::Weight(name.to_owned()))
    }

    /// x times the transposed weight `{name}.weight`, which has this shape.
    pub(super) fn linear(
        &self,
        graph: &mut Graph,
        name: &str,
        x: TensorId,
        shape: [usize; 2],
    ) -> Result<TensorId, NetworkError> {
        let weight = self.weight(graph, &format!("{name}.weight"), shape)?;
        self.product(graph, name.to_owned(), x, weight)
    }

    fn product(
        &self,
        graph: &mut Graph,
        name: String,
        x: TensorId,
        weight: TensorId,
    ) -> Result<TensorId, NetworkError> {
        let op = match self.options.gemm_plugin {
            true => Op::Plugin(Plugin::gemm()),
            false => Op::MatrixMultiply,
        };
        graph.add(name, op, &[x, weight])
    }

    /// x plus `{name}.bias`, which has `size` elements, in fp32.
    pub(super) fn bias(
        &self,
        graph: &mut Graph,
        name: &str,
        x: TensorId,
        size: usize,
    ) -> Result<TensorId, NetworkError> {
        let weight = format!("{name}.bias");
        let bias = graph.constant(weight.clone(), vec![1, size as i64], Value::Weight(weight))?;
        let bias = graph.add(format!("{name}.bias.to_float"), Op::Cast(DataType::Float), &[bias])?;
        let x = graph.add(format!("{name}.to_float"), Op::Cast(DataType::Float), &[x])?;
        graph.add(format!("{name}.biased"), Op::ElementWise(ElementWise::Sum), &[x, bias])
    }

    /// The sum over the tensor-parallel ranks; nothing where there is one.
    pub(super) fn all_reduce(&self, graph: &mut Graph, name: &str, x: TensorId) -> Result<TensorId, NetworkError> {
        if self.mapping.tp_size == 1 {
            return Ok(x);
        }
        graph.add(name.to_owned(), Op::Plugin(Plugin::all_reduce(self.tp_group())), &[x])
    }
}
