//! What the server promises over HTTP: over a scripted executor, whose pace and failures a test decides, and over the CPU engine. A
//! number S in a name is one of the behaviours that users of other servers asked for. Not yet: S23, deltas of tool calls. S44 to S47 are
//! of the page, which `scripts/test-page` drives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a promise that is broken is a test that fails")]

mod access;
mod bad_input;
mod bodies;
mod chaos;
mod chat;
mod chosen_only;
mod common;
mod completions;
mod configuration;
mod container;
mod disconnects;
mod drain;
mod fields;
mod fuzz;
mod health;
mod load;
mod log;
mod log_probs;
mod metrics;
mod openapi;
mod overload;
mod page;
mod program;
mod same;
mod streams;
mod text;
mod tgi;
mod tokens;
