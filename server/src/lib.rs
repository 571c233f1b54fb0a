//! `serve-engine`: an engine behind OpenAI's HTTP API.
//!
//! A request goes through the modules in this order: a connection (`http`), a body's fields (`fields`), an API's translation to
//! requests of the library (`openai`), admission and submission (`generate`). Its outputs come back through a cell, from which the
//! answer's body takes them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | settings: flags, variables, file |
//! | [`error`] | what a request is refused with |
//! | [`fields`] | the fields of a JSON object, each by its kind |
//! | [`rates`] | what a key may ask for in a minute |
//! | [`keys`] | API keys |
//! | [`metrics`] | what is counted |
//! | [`model`] | the engine as requests see it |
//! | [`generate`] | requests under way |
//! | [`operations`] | the server's life: signals, draining, watching the executor |
//! | [`state`] | what every request can reach |
//! | [`http`] | connections, routes, bodies, streams |
//! | [`health`] | probes and the page of metrics |
//! | [`openai`] | completions, chat, models |
//! | [`tgi`] | TGI's API |
//! | [`tokens`] | text to tokens and back |
//! | [`openapi`] | all of it as a document |
//! | [`ui`] | the page for browsers |
//! | [`program`] | `main` |

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod fields;
pub mod generate;
pub mod health;
pub mod http;
pub mod keys;
pub mod metrics;
pub mod model;
pub mod openai;
pub mod openapi;
pub mod operations;
pub mod program;
pub mod rates;
pub mod state;
pub mod tgi;
pub mod tokens;
pub mod ui;
