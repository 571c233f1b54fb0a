//! The server's life: what it is at, signals, the order of its end, and what watches the executor.

mod drain;
mod lifecycle;
mod watch;

pub use args::interrupt::{Signal, on_signal};
pub use drain::{Outcome, drain};
pub use lifecycle::{Lifecycle, Phase};
pub use watch::watch;
