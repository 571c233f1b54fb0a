//! The program `build-engine` from the outside: exit codes, what is said where, and what is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod build;
mod gpu;
mod interruption;
mod plan;
mod refusals;
mod support;
