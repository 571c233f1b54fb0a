//! The C ABI as a host sees it: what it generates, how it refuses, who owns what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod building;
mod closing;
mod defaults;
mod forks;
mod generation;
mod hooks;
mod layout;
mod log;
mod messages;
mod queues;
mod support;
mod threads;
