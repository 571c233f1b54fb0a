//! The log of the libraries.

use std::io;

/// Sends what libraries log to standard error: warnings and errors, or with `verbose` all that they say of what they do.
pub(crate) fn install_log(verbose: bool) {
    let level = if verbose { tracing::Level::INFO } else { tracing::Level::WARN };
    // The only failure is that a log is installed already.
    let _ = tracing_subscriber::fmt().with_max_level(level).without_time().with_writer(io::stderr).try_init();
}
