//! Talk on stderr: progress, notes, and numbers for people.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::Progress;

/// Without a terminal, a long task says how far it is this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress and summaries.
    Normal,
    /// And what was found and chosen on the way.
    Verbose,
}

/// Writes to stderr: progress bars on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub struct Report {
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
    pub fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, terminal: std::io::stderr().is_terminal(), phase: Mutex::new(None) }
    }

    /// Says something that matters to everyone who did not ask for quiet.
    pub fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            line(text);
        }
    }

    /// Says something for those who want to know more.
    pub fn detail(&self, text: &str) {
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
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

impl Progress for Report {
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

/// A size in decimal units with three digits: `16.8 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 of a unit would be written with four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A rate: `790 MB/s`; nothing measurable is `0 B/s`.
pub fn rate(count: u64, elapsed: Duration) -> String {
    let per_second = count as f64 / elapsed.as_secs_f64().max(1e-6);
    format!("{}/s", bytes(per_second as u64))
}

/// A duration: `0.3 s`, `2 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// A count with its thousands set apart: `131 072`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_600, "1.00 MB"),
            (16_830_000_000, "16.8 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn durations_and_counts_read_well() {
        assert_eq!(seconds(Duration::from_millis(340)), "0.3 s");
        assert_eq!(seconds(Duration::from_millis(59_960)), "1 min 0 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!([5, 1000, 131_072, 1_048_576].map(count), ["5", "1 000", "131 072", "1 048 576"]);
        assert_eq!(rate(1_000_000, Duration::from_millis(500)), "2.00 MB/s");
    }
}
