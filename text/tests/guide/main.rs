//! Constrained output: what a random model generates under a guide is what the guide says, whatever the tokenizer.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as the test itself may")]

mod json;
mod lark;
mod refusals;
mod regexes;
mod schema;
mod states;
mod walk;
