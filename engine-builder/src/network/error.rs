//! Why a network is refused before TensorRT sees it.

/// A network that TensorRT would refuse, or that would not compute what is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// An operation that does not work out.
    #[error("network: node `{node}`: {problem}")]
    Node {
        /// The node.
        node: String,
        /// What is wrong.
        problem: String,
    },
    /// A plugin's field that is missing, unknown or of another type.
    #[error("network: node `{node}`: field `{field}` of plugin {plugin} {problem}")]
    Field {
        /// The node.
        node: String,
        /// The plugin.
        plugin: &'static str,
        /// The field.
        field: String,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// An input whose profile cannot hold.
    #[error("network: input `{input}`: {problem}")]
    Input {
        /// The input.
        input: String,
        /// What is wrong.
        problem: String,
    },
    /// A weight that is not there, or not as the network has it.
    #[error("network: weight `{weight}` {problem}")]
    Weight {
        /// Its name in the checkpoint.
        weight: String,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// A model that this network, or TensorRT-LLM's runtime with it, cannot do.
    #[error("{0}")]
    Model(String),
}
