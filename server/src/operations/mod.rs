//! The server's life: what it is at, signals, the order of its end, and what watches the executor.

mod drain;
mod lifecycle;
mod signals;
mod watch;

pub use drain::{Outcome, drain};
pub use lifecycle::{Lifecycle, Phase};
pub use signals::{Signal, on_signal};
pub use watch::watch;
