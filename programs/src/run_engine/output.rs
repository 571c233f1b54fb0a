//! What a run prints to standard output: completions.

use std::collections::VecDeque;
use std::io::{self, Write};

use serde::Serialize;

use super::completions::{Completion, Event};
use runner::executor::{FinishReason, TokenId, TokenLogProb};
use runner::session::StopReason;

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
    stop_reason: Option<JsonStop<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Vec<JsonTop>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_top_logprobs: Option<Vec<Vec<JsonTop>>>,
}

/// What ended a sequence: a text, an id, or several.
#[derive(Serialize)]
#[serde(untagged)]
enum JsonStop<'a> {
    Text(&'a str),
    Id(TokenId),
    Ids(&'a [TokenId]),
}

impl<'a> From<&'a StopReason> for JsonStop<'a> {
    fn from(reason: &'a StopReason) -> Self {
        match reason {
            StopReason::Text(text) => Self::Text(text),
            StopReason::Tokens(ids) => match ids[..] {
                [id] => Self::Id(id),
                _ => Self::Ids(ids),
            },
        }
    }
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

fn json_tops(places: &[Vec<TokenLogProb>]) -> Vec<Vec<JsonTop>> {
    places.iter().map(|tokens| tokens.iter().map(JsonTop::from).collect()).collect()
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

/// A line of `--format json` for a prompt that failed.
#[derive(Serialize)]
struct JsonError<'a> {
    index: usize,
    error: &'a str,
}

/// Prints events. Text of several sequences is printed one after the other, by prompt and number, whatever order it
/// arrives in. What was printed is not kept.
pub(super) struct Printer<W> {
    out: W,
    style: Style,
    /// Text that waits for its turn, of the prompts from number `first`; that of the first sequence of all is being printed.
    held: VecDeque<Prompt>,
    first: usize,
}

/// A prompt's texts.
#[derive(Default)]
struct Prompt {
    sequences: Vec<Held>,
    /// The sequence that is being printed, or is next.
    current: usize,
    is_over: bool,
}

#[derive(Default, Clone)]
struct Held {
    text: String,
    finished: bool,
    ends_line: bool,
    /// Whether anything was printed of it.
    is_begun: bool,
}

impl<W: Write> Printer<W> {
    /// A printer of prompts from number 0.
    pub(super) fn new(out: W, style: Style) -> Self {
        Self { out, style, held: VecDeque::new(), first: 0 }
    }

    /// Prints what `event` brings. Of how many prompts nothing is left to print now that was before.
    ///
    /// # Errors
    /// As the output.
    pub(super) fn print(&mut self, event: &Event<'_>) -> io::Result<usize> {
        if self.style == Style::Json {
            return self.print_json(event);
        }
        match event {
            Event::Started { index, sequences, .. } => {
                self.prompt(*index).sequences = vec![Held::default(); *sequences];
            }
            Event::Text { index, sequence_index, text, .. } => {
                if self.style == Style::StreamedText
                    && let Some(held) = self.sequence(*index, *sequence_index)
                {
                    held.text.push_str(text);
                }
            }
            Event::Finished(completion) => {
                let is_streamed = self.style == Style::StreamedText;
                let Some(held) = self.sequence(completion.index, completion.sequence_index.unwrap_or(0)) else {
                    return Ok(0);
                };
                match &completion.text {
                    Some(text) if !is_streamed => held.text.clone_from(text),
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
            }
            // Said elsewhere.
            Event::Failed { .. } => {}
            Event::Ended { index } => self.prompt(*index).is_over = true,
        }
        self.advance()
    }

    fn print_json(&mut self, event: &Event<'_>) -> io::Result<usize> {
        match event {
            Event::Started { .. } | Event::Text { .. } => Ok(0),
            Event::Finished(completion) => self.json(completion).map(|()| 0),
            Event::Failed { index, failure } => {
                self.json_line(&JsonError { index: *index, error: &failure.message() }).map(|()| 0)
            }
            Event::Ended { .. } => Ok(1),
        }
    }

    /// The place of a prompt that is not printed yet.
    fn prompt(&mut self, index: usize) -> &mut Prompt {
        let place = index.saturating_sub(self.first);
        if self.held.len() <= place {
            self.held.resize_with(place + 1, Prompt::default);
        }
        &mut self.held[place]
    }

    /// The place of a sequence of a prompt that is not printed yet.
    fn sequence(&mut self, index: usize, sequence_index: usize) -> Option<&mut Held> {
        self.prompt(index).sequences.get_mut(sequence_index)
    }

    fn json(&mut self, completion: &Completion) -> io::Result<()> {
        let line = JsonLine {
            index: completion.index,
            sequence_index: completion.sequence_index,
            prompt_tokens: completion.prompt_tokens,
            output_ids: &completion.output_ids,
            text: completion.text.as_deref(),
            finish_reason: completion.finish_reason.name(),
            stop_reason: completion.stop_reason.as_deref().map(JsonStop::from),
            logprobs: completion.log_probs.as_deref(),
            top_logprobs: completion.top_log_probs.as_deref().map(json_tops),
            prompt_logprobs: completion.prompt_log_probs.as_deref(),
            prompt_top_logprobs: completion.prompt_top_log_probs.as_deref().map(json_tops),
        };
        self.json_line(&line)
    }

    fn json_line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }

    /// Prints what has its turn, up to a sequence that has not finished.
    fn advance(&mut self) -> io::Result<usize> {
        let mut printed = 0;
        while let Some(prompt) = self.held.front_mut() {
            while let Some(held) = prompt.sequences.get_mut(prompt.current) {
                if let Some(last) = held.text.bytes().last() {
                    self.out.write_all(held.text.as_bytes())?;
                    held.ends_line = last == b'\n';
                    held.is_begun = true;
                    held.text = String::new();
                }
                // Of a prompt that failed, what there is ends its line.
                let is_cut = prompt.is_over && !held.finished;
                if !held.finished && !is_cut {
                    break;
                }
                // An empty completion is an empty line, so that those of several sequences can be told apart.
                if !held.ends_line && (held.is_begun || !is_cut) {
                    self.out.write_all(b"\n")?;
                }
                prompt.current += 1;
            }
            if !prompt.is_over {
                break;
            }
            self.held.pop_front();
            self.first += 1;
            printed += 1;
        }
        self.out.flush()?;
        Ok(printed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use args::Failure;
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
            stop_reason: Some(Box::new(StopReason::Tokens(vec![4]))),
            log_probs: Some(vec![-0.5, -1.0]),
            top_log_probs: None,
            prompt_log_probs: None,
            prompt_top_log_probs: None,
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

    /// What is printed of prompts with these numbers of sequences, which end as all of their sequences have.
    fn printed(style: Style, sequences: &[usize], events: &[Event<'_>]) -> String {
        let mut printer = Printer::new(Vec::new(), style);
        let mut left = sequences.to_vec();
        let mut over = 0;
        for (index, &sequences) in sequences.iter().enumerate() {
            over += printer.print(&Event::Started { index, sequences, warnings: &[] }).unwrap();
        }
        for event in events {
            over += printer.print(event).unwrap();
            if let Event::Finished(Completion { index, .. }) = event {
                left[*index] -= 1;
                if left[*index] == 0 {
                    over += printer.print(&Event::Ended { index: *index }).unwrap();
                }
            }
        }
        let in_order = left.iter().take_while(|&&left| left == 0).count();
        let ended = left.iter().filter(|&&left| left == 0).count();
        assert_eq!(over, if style == Style::Json { ended } else { in_order });
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
    fn a_prompt_that_fails_ends_its_line_and_holds_up_no_other() {
        let failed = |index| Event::Failed { index, failure: Failure::Input(anyhow::anyhow!("a \"reason\"")) };
        let print = |style, events: &[Event<'_>]| {
            let mut printer = Printer::new(Vec::new(), style);
            let over: usize = events.iter().map(|event| printer.print(event).unwrap()).sum();
            assert!(printer.held.is_empty(), "text is kept");
            (String::from_utf8(printer.out).unwrap(), over)
        };
        let started = |index| Event::Started { index, sequences: 1, warnings: &[] };
        let ended = |index| Event::Ended { index };
        // The second is refused before it runs, the third as it runs, the fourth before it says anything.
        let events = [
            started(0),
            failed(1),
            ended(1),
            started(2),
            text(2, "half"),
            started(3),
            failed(3),
            ended(3),
            failed(2),
            ended(2),
            started(4),
            finished(4, Some("")),
            ended(4),
            finished(0, Some("x")),
            ended(0),
        ];
        assert_eq!(print(Style::WholeText, &events), ("x\n\n".to_owned(), 5));
        let streamed: Vec<_> =
            std::iter::once(started(0)).chain([text(0, "x")]).chain(events.into_iter().skip(1)).collect();
        assert_eq!(print(Style::StreamedText, &streamed), ("x\nhalf\n\n".to_owned(), 5));
        assert_eq!(
            print(Style::Json, &[failed(1), ended(1)]),
            ("{\"index\":1,\"error\":\"a \\\"reason\\\"\"}\n".to_owned(), 1)
        );
    }

    #[test]
    fn json_has_the_documented_fields() {
        let line = printed(Style::Json, &[1, 1], &[finished(1, Some("x"))]);
        let expected = r#"{"index":1,"prompt_tokens":2,"output_ids":[3,4],"text":"x","finish_reason":"end_id","stop_reason":4,"logprobs":[-0.5,-1.0]}"#;
        assert_eq!(line, format!("{expected}\n"));

        let top = vec![TokenLogProb { token_id: 3, log_prob: -0.5 }, TokenLogProb { token_id: 9, log_prob: -2.0 }];
        let stop_reason = Some(Box::new(StopReason::Text("end".to_owned())));
        let whole =
            Completion { stop_reason, top_log_probs: Some(vec![top, vec![]]), ..completion(0, Some(1), Some("x")) };
        let line = printed(Style::Json, &[2], &[Event::Finished(whole)]);
        assert!(line.starts_with(r#"{"index":0,"sequence_index":1,"prompt_tokens":2,"#), "{line}");
        assert!(line.contains(r#""stop_reason":"end","#), "{line}");
        assert!(line.contains(r#""top_logprobs":[[{"id":3,"logprob":-0.5},{"id":9,"logprob":-2.0}],[]]"#), "{line}");
    }
}
