//! The filter `wordwrap`: Python's `textwrap.wrap` of each line.

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::run::Run;
use crate::text::{Builder, Text};
use crate::value::Value;
use crate::{print, strings};

pub(crate) fn wordwrap(run: &mut Run<'_>, text: &Text, args: Args) -> Result<Text> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, break_long_words, wrapstring, break_on_hyphens] = args.bind("wordwrap", names)?;
    let width = width.unwrap_or(Value::Int(79));
    let width = width.as_int().and_then(|width| usize::try_from(width).ok()).filter(|width| *width > 0);
    let width = width.ok_or_else(|| Error::failed("wordwrap needs a width above zero"))?;
    let is_on = |flag: Option<Value>| flag.is_none_or(|flag| flag.is_true());
    let (break_long_words, break_on_hyphens) = (is_on(break_long_words), is_on(break_on_hyphens));
    let newline = match wrapstring {
        None | Some(Value::None) => Text::own("\n"),
        Some(text) => print::str(&text),
    };
    let mut wrapped = Vec::new();
    for line in strings::lines(text, false) {
        let line = print::str(&line);
        let lines = wrap(line.as_str(), width, break_long_words, break_on_hyphens);
        let parts = lines.iter().map(|part| Ok(line.part(part)));
        wrapped.push(strings::join(run, &newline, parts)?);
    }
    let mut out = Builder::default();
    out.push(&strings::join(run, &newline, wrapped.into_iter().map(Ok))?);
    Ok(out.finish())
}

/// Blanks, words and, where words may break at hyphens, their parts.
fn chunks(line: &str, break_on_hyphens: bool) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut before: Option<char> = None;
    for (at, c) in line.char_indices() {
        let changes = before.is_some_and(|before| is_blank(before) != is_blank(c));
        let after_hyphen = break_on_hyphens
            && before == Some('-')
            && c.is_alphabetic()
            && line[..at - 1].chars().next_back().is_some_and(char::is_alphabetic);
        if changes || after_hyphen {
            chunks.push(&line[start..at]);
            start = at;
        }
        before = Some(c);
    }
    chunks.push(&line[start..]);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r' | '\n')
}

fn wrap(line: &str, width: usize, break_long_words: bool, break_on_hyphens: bool) -> Vec<&str> {
    let count = |text: &str| text.chars().count();
    let place = |part: &str| part.as_ptr().addr() - line.as_ptr().addr();
    let mut chunks: std::collections::VecDeque<&str> = chunks(line, break_on_hyphens).into();
    let mut lines = Vec::new();
    while let Some(first) = chunks.front() {
        if first.chars().all(is_blank) && !lines.is_empty() {
            chunks.pop_front();
            continue;
        }
        let start = place(first);
        let (mut end, mut used) = (start, 0);
        while let Some(chunk) = chunks.front().filter(|chunk| used + count(chunk) <= width) {
            used += count(chunk);
            end = place(chunk) + chunk.len();
            chunks.pop_front();
        }
        if let Some(chunk) = chunks.front().copied().filter(|chunk| count(chunk) > width) {
            if break_long_words {
                let room = width - used;
                let at = chunk.char_indices().nth(room).map_or(chunk.len(), |(at, _)| at);
                end = place(chunk) + at;
                chunks[0] = &chunk[at..];
            } else if end == start {
                end = place(chunk) + chunk.len();
                chunks.pop_front();
            }
        }
        let kept = line[start..end].trim_end_matches(is_blank);
        if !kept.is_empty() {
            lines.push(kept);
        }
    }
    lines
}
