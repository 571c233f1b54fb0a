//! What can be set: by flags, by variables `SERVE_…` and in the table `[server]` of a file, with one list of names.

mod args;
pub mod container;
mod settings;

pub use args::{Args, ConfigError, load, shown};
pub use settings::{Settings, SettingsArgs};
