//! The `run-engine` program.
