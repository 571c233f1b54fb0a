//! Talk on stderr: progress, notes, and numbers for people.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use engine_builder::progress::Progress;
use engine_builder::units::{bytes, rate, seconds};

/// Without a terminal, a long task says how far it is this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress and summaries.
    Normal,
    /// And what was found and chosen on the way.
    Verbose,
}

/// Writes to stderr: progress bars on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub(super) struct Report {
    verbosity: Verbosity,
    terminal: bool,
    phase: Mutex<Option<Phase>>,
}

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Steps that mean nothing by themselves: shown as a share of the whole.
    Steps,
}

/// The task in progress.
#[derive(Debug)]
struct Phase {
    unit: Unit,
    total: u64,
    done: u64,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Report {
    /// A report at this verbosity, to whatever stderr is.
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, terminal: io::stderr().is_terminal(), phase: Mutex::new(None) }
    }

    /// Says something that matters to everyone who did not ask for quiet.
    pub(super) fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            line(text);
        }
    }

    /// Says something for those who want to know more.
    pub(super) fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            line(text);
        }
    }

    fn begin_phase(&self, what: &str, total: u64, unit: Unit) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let bar = self.terminal.then(|| bar(what, total, unit));
        if bar.is_none() {
            match unit {
                Unit::Bytes => line(&format!("{what} ({})", bytes(total))),
                Unit::Steps => line(what),
            }
        }
        let now = Instant::now();
        *self.phase() = Some(Phase { unit, total, done: 0, start: now, last_line: now, bar });
    }

    fn phase(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes one line to stderr. Nobody can be told when that fails.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

impl Progress for Report {
    fn output(&self, text: &str) -> io::Result<()> {
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Whoever reads has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    fn note(&self, text: &str) {
        Report::note(self, text);
    }

    fn detail(&self, text: &str) {
        Report::detail(self, text);
    }

    fn begin(&self, what: &str, total_bytes: u64) {
        self.begin_phase(what, total_bytes, Unit::Bytes);
    }

    fn begin_steps(&self, what: &str, steps: u64) {
        self.begin_phase(what, steps, Unit::Steps);
    }

    fn advance(&self, done: u64) {
        let mut phase = self.phase();
        let Some(phase) = phase.as_mut() else { return };
        phase.done += done;
        match &phase.bar {
            Some(bar) => bar.set_position(phase.done),
            None if phase.last_line.elapsed() >= PLAIN_INTERVAL => {
                phase.last_line = Instant::now();
                line(&format!("  {}", phase.so_far()));
            }
            None => {}
        }
    }

    fn end(&self) {
        let Some(phase) = self.phase().take() else {
            return;
        };
        let elapsed = phase.start.elapsed();
        let state = if phase.done >= phase.total { "done" } else { "stopped" };
        // A bar is gone when it is done; what remains is a line that says what it was.
        let what = match phase.bar {
            Some(bar) => {
                bar.finish_and_clear();
                format!("{}: ", bar.message())
            }
            None => "  ".to_owned(),
        };
        match phase.unit {
            Unit::Bytes => {
                let (done, rate) = (bytes(phase.done), rate(phase.done, elapsed));
                line(&format!("{what}{state}: {done} in {}, {rate}", seconds(elapsed)));
            }
            Unit::Steps => line(&format!("{what}{state} in {}", seconds(elapsed))),
        }
    }
}

impl Phase {
    fn so_far(&self) -> String {
        match self.unit {
            Unit::Bytes => {
                let rate = rate(self.done, self.start.elapsed());
                format!("{} of {}, {rate}", bytes(self.done), bytes(self.total))
            }
            Unit::Steps => {
                format!("{} % in {}", self.done * 100 / self.total.max(1), seconds(self.start.elapsed()))
            }
        }
    }
}

fn bar(what: &str, total: u64, unit: Unit) -> ProgressBar {
    let template = match unit {
        Unit::Bytes => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        Unit::Steps => "{msg} {wide_bar} {percent} % {elapsed}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}
