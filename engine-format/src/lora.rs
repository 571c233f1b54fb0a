//! LoRA adapters.

/// An adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapter {
    /// bf16.
    pub weights: Vec<u16>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Rows of config.
    pub config: Vec<[i32; 4]>,
}
