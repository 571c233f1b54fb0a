//! Under construction.

pub mod chat;
pub mod detokenizer;
pub mod stop_strings;
pub mod tokenizer;
