//! What a run prints to standard output: completions.

use std::io::{self, Write};

use serde::Serialize;

use super::completions::{Completion, Event};
use runner::executor::{FinishReason, TokenId, TokenLogProb};

/// A line of `--format json`.
#[derive(Serialize)]
struct JsonLine<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_index: Option<usize>,
    prompt_tokens: usize,
    output_ids: &'a [TokenId],
    text: Option<&'a str>,
    finish_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Vec<JsonTop>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<&'a [f32]>,
}

/// One of the most probable tokens at some place.
#[derive(Serialize)]
struct JsonTop {
    id: TokenId,
    logprob: f32,
}

impl From<&TokenLogProb> for JsonTop {
    fn from(token: &TokenLogProb) -> Self {
        Self { id: token.token_id, logprob: token.log_prob }
    }
}

/// How completions are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Text, as it comes.
    StreamedText,
    /// Text, each sequence's when it is complete.
    WholeText,
    /// A JSON object a line, when a sequence is complete.
    Json,
}

/// Prints events. Text of several sequences is printed one after the other, by prompt and number, whatever order it
/// arrives in.
pub(super) struct Printer<W> {
    out: W,
    style: Style,
    /// The sequence whose text is being printed; text of later ones waits in `held`.
    current: usize,
    held: Vec<Held>,
    /// Where the sequences of each prompt begin in `held`.
    starts: Vec<usize>,
}

#[derive(Default, Clone)]
struct Held {
    text: String,
    finished: bool,
    ends_line: bool,
}

impl<W: Write> Printer<W> {
    /// A printer for prompts with these numbers of sequences.
    pub(super) fn new(out: W, style: Style, sequences: &[usize]) -> Self {
        let mut total = 0;
        let start_of = |count: &usize| {
            let start = total;
            total += count;
            start
        };
        let starts = sequences.iter().map(start_of).collect();
        Self { out, style, current: 0, held: vec![Held::default(); total], starts }
    }

    /// Prints what `event` brings.
    ///
    /// # Errors
    /// As the output.
    pub(super) fn print(&mut self, event: &Event<'_>) -> io::Result<()> {
        match (self.style, event) {
            (Style::Json | Style::WholeText, Event::Text { .. }) => Ok(()),
            (Style::Json, Event::Finished(completion)) => self.json(completion),
            (Style::StreamedText, Event::Text { index, sequence_index, text, .. }) => {
                self.held[self.starts[*index] + sequence_index].text.push_str(text);
                self.advance()
            }
            (Style::StreamedText | Style::WholeText, Event::Finished(completion)) => {
                let held = &mut self.held[self.starts[completion.index] + completion.sequence_index.unwrap_or(0)];
                match &completion.text {
                    Some(text) if self.style == Style::WholeText => held.text.clone_from(text),
                    Some(_) => {}
                    // An engine without a tokenizer: the ids are all there is.
                    None => {
                        let ids: Vec<_> = completion.output_ids.iter().map(TokenId::to_string).collect();
                        held.text = ids.join(",");
                    }
                }
                held.finished = true;
                // A sequence that an interrupt kept from running has no line.
                held.ends_line |=
                    completion.finish_reason == FinishReason::Cancelled && completion.output_ids.is_empty();
                self.advance()
            }
        }
    }

    fn json(&mut self, completion: &Completion) -> io::Result<()> {
        let line = JsonLine {
            index: completion.index,
            sequence_index: completion.sequence_index,
            prompt_tokens: completion.prompt_tokens,
            output_ids: &completion.output_ids,
            text: completion.text.as_deref(),
            finish_reason: completion.finish_reason.name(),
            logprobs: completion.log_probs.as_deref(),
            top_logprobs: completion
                .top_log_probs
                .as_ref()
                .map(|places| places.iter().map(|tokens| tokens.iter().map(JsonTop::from).collect()).collect()),
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
            // An empty completion is an empty line, so that those of several sequences can be told apart.
            if !held.ends_line {
                self.out.write_all(b"\n")?;
            }
            self.current += 1;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runner::session::SequenceStats;

    use super::*;

    fn completion(index: usize, sequence_index: Option<usize>, text: Option<&str>) -> Completion {
        Completion {
            index,
            sequence_index,
            prompt_tokens: 2,
            output_ids: vec![3, 4],
            text: text.map(str::to_owned),
            finish_reason: FinishReason::EndId,
            log_probs: Some(vec![-0.5, -1.0]),
            top_log_probs: None,
            prompt_log_probs: None,
            stats: SequenceStats {
                prompt_tokens: 2,
                output_tokens: 2,
                time_to_first_token: None,
                generation_time: Duration::ZERO,
            },
        }
    }

    fn finished(index: usize, text: Option<&str>) -> Event<'static> {
        Event::Finished(completion(index, None, text))
    }

    fn text(index: usize, text: &str) -> Event<'_> {
        Event::Text { index, sequence_index: 0, output_tokens: 1, text }
    }

    fn printed(style: Style, sequences: &[usize], events: &[Event<'_>]) -> String {
        let mut printer = Printer::new(Vec::new(), style, sequences);
        events.iter().for_each(|event| printer.print(event).unwrap());
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn text_of_several_prompts_is_not_mixed() {
        let events = [
            text(1, "b1"),
            text(0, "a1 "),
            text(1, "b2\n"),
            finished(1, Some("b1b2\n")),
            text(0, "a2"),
            finished(0, Some("a1 a2")),
        ];
        let streamed = |events: &[Event<'_>]| printed(Style::StreamedText, &[1, 1], events);
        assert_eq!(streamed(&events), "a1 a2\nb1b2\n");
        assert_eq!(printed(Style::WholeText, &[1, 1], &events), "a1 a2\nb1b2\n");
        assert_eq!(streamed(&[finished(0, None)]), "3,4\n");
        assert_eq!(streamed(&[finished(0, Some("")), text(1, "b"), finished(1, Some("b"))]), "\nb\n");
        assert_eq!(streamed(&[text(0, "a")]), "a");
        assert_eq!(printed(Style::WholeText, &[1, 1], &[text(0, "a")]), "");
    }

    #[test]
    fn sequences_are_lines_in_order() {
        let part = |index, sequence_index, text| Event::Text { index, sequence_index, output_tokens: 1, text };
        let end = |index, sequence_index, text| Event::Finished(completion(index, sequence_index, Some(text)));
        let events = [
            part(1, 0, "c"),
            part(0, 1, "b"),
            end(0, Some(1), "b"),
            end(1, None, "c"),
            part(0, 0, "a"),
            end(0, Some(0), "a"),
        ];
        assert_eq!(printed(Style::StreamedText, &[2, 1], &events), "a\nb\nc\n");
        assert_eq!(printed(Style::WholeText, &[2, 1], &events), "a\nb\nc\n");
    }

    #[test]
    fn json_has_the_documented_fields() {
        let line = printed(Style::Json, &[1, 1], &[finished(1, Some("x"))]);
        let expected = r#"{"index":1,"prompt_tokens":2,"output_ids":[3,4],"text":"x","finish_reason":"end_id","logprobs":[-0.5,-1.0]}"#;
        assert_eq!(line, format!("{expected}\n"));

        let top = vec![TokenLogProb { token_id: 3, log_prob: -0.5 }, TokenLogProb { token_id: 9, log_prob: -2.0 }];
        let whole = Completion { top_log_probs: Some(vec![top, vec![]]), ..completion(0, Some(1), Some("x")) };
        let line = printed(Style::Json, &[2], &[Event::Finished(whole)]);
        assert!(line.starts_with(r#"{"index":0,"sequence_index":1,"prompt_tokens":2,"#), "{line}");
        assert!(line.contains(r#""top_logprobs":[[{"id":3,"logprob":-0.5},{"id":9,"logprob":-2.0}],[]]"#), "{line}");
    }
}
