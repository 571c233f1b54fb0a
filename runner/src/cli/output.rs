//! What a run prints: completions to standard output, talk to standard error.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::executor::{FinishReason, TokenId};
use crate::generation::{Completion, Event};

use super::args::Format;

/// A line of `--format json`.
#[derive(Serialize)]
struct JsonLine<'a> {
    index: usize,
    prompt_tokens: usize,
    output_ids: &'a [TokenId],
    text: Option<&'a str>,
    finish_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<&'a [f32]>,
}

/// Prints events in the format asked for. Text of several prompts is printed one completion after the other, whatever
/// order it arrives in.
pub(super) struct Printer<W> {
    out: W,
    format: Format,
    /// The prompt whose text is being printed; text of later ones waits in `held`.
    current: usize,
    held: Vec<Held>,
}

#[derive(Default, Clone)]
struct Held {
    text: String,
    finished: bool,
    ends_line: bool,
}

impl<W: Write> Printer<W> {
    /// A printer for prompts `0..prompts`.
    pub(super) fn new(out: W, format: Format, prompts: usize) -> Self {
        Self { out, format, current: 0, held: vec![Held::default(); prompts] }
    }

    /// Prints what `event` brings.
    ///
    /// # Errors
    /// As the output.
    pub(super) fn print(&mut self, event: &Event<'_>) -> io::Result<()> {
        match (self.format, event) {
            (Format::Json, Event::Text { .. }) => Ok(()),
            (Format::Json, Event::Finished(completion)) => self.json(completion),
            (Format::Text, Event::Text { index, text }) => {
                self.held[*index].text.push_str(text);
                self.advance()
            }
            (Format::Text, Event::Finished(completion)) => {
                if completion.text.is_none() {
                    // An engine without a tokenizer: the ids are all there is.
                    let ids: Vec<_> = completion.output_ids.iter().map(TokenId::to_string).collect();
                    self.held[completion.index].text = ids.join(",");
                }
                let held = &mut self.held[completion.index];
                held.finished = true;
                // A prompt that an interrupt kept from running has no line.
                held.ends_line |=
                    completion.finish_reason == FinishReason::Cancelled && completion.output_ids.is_empty();
                self.advance()
            }
        }
    }

    fn json(&mut self, completion: &Completion) -> io::Result<()> {
        let line = JsonLine {
            index: completion.index,
            prompt_tokens: completion.prompt_tokens,
            output_ids: &completion.output_ids,
            text: completion.text.as_deref(),
            finish_reason: completion.finish_reason.name(),
            logprobs: completion.log_probs.as_deref(),
            prompt_logprobs: completion.prompt_log_probs.as_deref(),
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }

    fn advance(&mut self) -> io::Result<()> {
        while let Some(held) = self.held.get_mut(self.current) {
            if let Some(last) = held.text.bytes().last() {
                self.out.write_all(held.text.as_bytes())?;
                held.ends_line = last == b'\n';
                held.text.clear();
            }
            if !held.finished {
                break;
            }
            // An empty completion is an empty line, so that those of several prompts can be told apart.
            if !held.ends_line {
                self.out.write_all(b"\n")?;
            }
            self.current += 1;
        }
        self.out.flush()
    }
}

/// A number with about three digits: `48`, `19.6 K`, `8.41 B`.
pub(crate) fn short_count(number: f64) -> String {
    let units = [(1e9, "B"), (1e6, "M"), (1e3, "K")];
    match units.into_iter().find(|&(unit, _)| number >= unit) {
        Some((unit, name)) if number >= 10.0 * unit => format!("{:.1} {name}", number / unit),
        Some((unit, name)) => format!("{:.2} {name}", number / unit),
        None => format!("{number}"),
    }
}

/// The lines of `--stats`.
pub(super) fn stats(load: Duration, run: Duration, completions: &[Completion]) -> String {
    let prompt_tokens: usize = completions.iter().map(|completion| completion.prompt_tokens).sum();
    let output_tokens: usize = completions.iter().map(|completion| completion.output_ids.len()).sum();
    // The first token of each sequence is the context phase's.
    let generated: usize = completions.iter().map(|completion| completion.output_ids.len().saturating_sub(1)).sum();
    let generating: Duration = completions.iter().map(|completion| completion.generation_time).sum();
    let first = completions.iter().filter_map(|completion| completion.time_to_first_token).min();
    let rate = |tokens: usize, time: Duration| {
        if time.is_zero() { "–".to_owned() } else { format!("{:.1} tokens/s", tokens as f64 / time.as_secs_f64()) }
    };
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let mut lines = vec![
        format!("load                 {}", milliseconds(load)),
        format!("prompts              {} ({prompt_tokens} tokens)", completions.len()),
        format!("time to first token  {}", first.map_or("–".to_owned(), milliseconds)),
        format!(
            "generation           {} ({output_tokens} tokens in {})",
            rate(generated, generating),
            milliseconds(run)
        ),
    ];
    if let Some((peak, anonymous)) = memory() {
        let mib = |kib: u64| format!("{:.0} MiB", kib as f64 / 1024.0);
        lines.push(format!(
            "memory               {} at most, {} of it not mapped from files now",
            mib(peak),
            mib(anonymous)
        ));
    }
    lines.join("\n")
}

/// Peak resident memory and present anonymous memory of this process in KiB.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((field("VmHWM:")?, field("RssAnon:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(index: usize, text: Option<&str>) -> Event<'static> {
        Event::Finished(Completion {
            index,
            prompt_tokens: 2,
            output_ids: vec![3, 4],
            text: text.map(str::to_owned),
            finish_reason: FinishReason::EndId,
            log_probs: Some(vec![-0.5, -1.0]),
            prompt_log_probs: None,
            time_to_first_token: None,
            generation_time: Duration::ZERO,
        })
    }

    fn printed(format: Format, events: &[Event<'_>]) -> String {
        let mut printer = Printer::new(Vec::new(), format, 2);
        events.iter().for_each(|event| printer.print(event).unwrap());
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn text_of_several_prompts_is_not_mixed() {
        let text = |index, text| Event::Text { index, text };
        let events = [
            text(1, "b1"),
            text(0, "a1 "),
            text(1, "b2\n"),
            finished(1, Some("")),
            text(0, "a2"),
            finished(0, Some("")),
        ];
        assert_eq!(printed(Format::Text, &events), "a1 a2\nb1b2\n");
        assert_eq!(printed(Format::Text, &[finished(0, None)]), "3,4\n");
        assert_eq!(printed(Format::Text, &[finished(0, Some("")), text(1, "b"), finished(1, Some(""))]), "\nb\n");
    }

    #[test]
    fn counts_are_short() {
        let texts = [48.0, 19_616.0, 5_327_616.0, 8_414_564_352.0, 69e9].map(short_count);
        assert_eq!(texts, ["48", "19.6 K", "5.33 M", "8.41 B", "69.0 B"]);
    }

    #[test]
    fn json_has_the_documented_fields() {
        let line = printed(Format::Json, &[finished(1, Some("x"))]);
        let expected = r#"{"index":1,"prompt_tokens":2,"output_ids":[3,4],"text":"x","finish_reason":"end_id","logprobs":[-0.5,-1.0]}"#;
        assert_eq!(line, format!("{expected}\n"));
    }
}
