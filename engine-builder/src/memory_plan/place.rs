//! Where an engine would run: how much memory there is, and what runs the engine.

/// Who runs the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// TensorRT-LLM on a GPU: bfloat16 activations, a KV cache that drops what a sliding window has passed.
    TensorRtLlm,
    /// The embedded CPU executor: float32 activations, a KV cache that drops what a sliding window has passed, between
    /// two chunks of a prompt.
    Cpu,
}

/// Where the engine would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The target's name, as `--gpu` takes it.
    pub target: String,
    /// What the memory belongs to, for people.
    pub description: String,
    /// Memory of one rank in bytes.
    pub memory_bytes: u64,
    /// Where the figure is from.
    pub source: String,
    /// Who runs the engine there.
    pub executor: Executor,
}
