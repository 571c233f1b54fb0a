//! On a terminal: a line for each sequence that is being generated.

use std::collections::{BTreeMap, HashMap};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::completions::{Completion, Event};
use crate::format::counted;

/// Bytes of text that are kept of a sequence; more than a line of any terminal shows.
const KEPT: usize = 4096;

/// The lines, drawn on standard error below what was printed.
pub(super) struct Live {
    lines: MultiProgress,
    /// Of the sequences that run: by prompt, then sequence.
    running: BTreeMap<(usize, usize), Line>,
    /// Sequences of each prompt that runs.
    sequences: HashMap<usize, usize>,
}

struct Line {
    bar: ProgressBar,
    tail: String,
}

impl Live {
    /// No lines yet.
    pub(super) fn new() -> Self {
        Self { lines: MultiProgress::new(), running: BTreeMap::new(), sequences: HashMap::new() }
    }

    /// Shows what `event` brings.
    pub(super) fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { index, sequences, .. } => {
                self.sequences.insert(*index, *sequences);
            }
            Event::Text { index, sequence_index, output_tokens, text } => {
                let place = (*index, *sequence_index);
                let label = match self.sequences.get(index) {
                    Some(&count) if count > 1 => format!("prompt {index}, sequence {sequence_index}"),
                    _ => format!("prompt {index}"),
                };
                let above = self.running.range(..place).count();
                let lines = &self.lines;
                let line = self.running.entry(place).or_insert_with(|| {
                    let style = ProgressStyle::with_template("{msg}");
                    let bar =
                        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    Line { bar: lines.insert(above, bar), tail: String::new() }
                });
                line.tail.push_str(text);
                if line.tail.len() > 2 * KEPT {
                    line.tail.drain(..line.tail.ceil_char_boundary(KEPT));
                }
                let head = format!("{label}: {:>11}  ", counted(*output_tokens, "token"));
                let columns = usize::from(console::Term::stderr().size().1).saturating_sub(1);
                line.bar.set_message(fitting(head, &line.tail, columns));
            }
            Event::Finished(Completion { index, sequence_index, .. }) => {
                if let Some(line) = self.running.remove(&(*index, sequence_index.unwrap_or(0))) {
                    self.lines.remove(&line.bar);
                }
            }
            Event::Failed { .. } => {}
            Event::Ended { index } => {
                self.sequences.remove(index);
                // Of a prompt that failed.
                for (_, line) in self.running.extract_if((*index, 0)..(*index + 1, 0), |_, _| true) {
                    self.lines.remove(&line.bar);
                }
            }
        }
    }

    /// Runs `print` while no lines are on the screen.
    pub(super) fn above<R>(&self, print: impl FnOnce() -> R) -> R {
        self.lines.suspend(print)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for line in self.running.values() {
            line.bar.finish_and_clear();
        }
    }
}

/// `head` and as much of the end of `text` as fits into `columns`, on one line.
fn fitting(head: String, text: &str, columns: usize) -> String {
    let mut room = columns.saturating_sub(console::measure_text_width(&head));
    // A line feed, or what a terminal would take as a command, is a blank here.
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut tail: Vec<char> = Vec::new();
    for c in text.chars().rev().map(shown) {
        let width = console::measure_text_width(c.encode_utf8(&mut [0; 4]));
        if width > room {
            break;
        }
        room -= width;
        tail.push(c);
    }
    let line = head + &tail.into_iter().rev().collect::<String>();
    console::truncate_str(&line, columns, "").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_end_of_the_text_and_the_terminals_width() {
        assert_eq!(fitting("a: ".into(), "one\ntwo\x1b[2J three", 40), "a: one two [2J three");
        assert_eq!(fitting("a: ".into(), "one two three", 8), "a: three");
        assert_eq!(fitting("a: ".into(), "太陽系", 8), "a: 陽系");
        assert_eq!(fitting("a long label: ".into(), "text", 6), "a long");
        assert_eq!(fitting("a: ".into(), "", 0), "");
    }
}
