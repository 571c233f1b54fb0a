//! Text in and out: tokenizers, streaming text, stop strings and chat templates, against what Transformers computes
//! (`fixtures/tokenizer`, `fixtures/chat`) and against plain definitions.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as the test itself may")]

mod beside;
mod chat;
mod chat_options;
mod detokenizer;
mod fields;
mod rendered;
mod stop_strings;
mod support;
mod tokenizer;
