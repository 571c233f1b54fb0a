//! The builder from the outside: real directories in, real directories out.

mod bad_input;
mod checkpoint;
mod config;
mod cpu_engine;
mod hub;
mod interruption;
mod support;
