//! Text that knows which of its bytes came from the input: through slices, joins and changes of case, a byte keeps its origin.

use std::ops::Range;
use std::rc::Rc;

/// A text, and the ranges of its bytes that came from the input: ascending, apart, within character boundaries.
#[derive(Debug, Clone, Default)]
pub struct Text {
    text: Rc<str>,
    input: Option<Rc<[Range<usize>]>>,
}

impl Text {
    /// A text of the template.
    pub fn own(text: &str) -> Self {
        Self { text: text.into(), input: None }
    }

    /// A text of the input.
    pub fn input(text: &str) -> Self {
        let mut whole = Builder::default();
        whole.push_as(text, true);
        whole.finish()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ranges of bytes that came from the input.
    pub fn input_ranges(&self) -> &[Range<usize>] {
        self.input.as_deref().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Bytes `range` of the text.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut part = Builder::default();
        part.push_slice(self, range);
        part.finish()
    }

    /// A part of this text, given as a slice of [`Text::as_str`].
    pub(crate) fn part(&self, part: &str) -> Self {
        let start = part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr()).min(self.len());
        self.slice(start..(start + part.len()).min(self.len()))
    }

    fn is_input(&self, at: usize) -> bool {
        let ranges = self.input_ranges();
        let after = ranges.partition_point(|range| range.end <= at);
        ranges.get(after).is_some_and(|range| range.start <= at)
    }

    /// Each character with its replacement, which has its origin.
    pub(crate) fn map(&self, mut replace: impl FnMut(char, &mut String)) -> Self {
        let (mut out, mut piece) = (Builder::default(), String::new());
        for (at, c) in self.text.char_indices() {
            piece.clear();
            replace(c, &mut piece);
            out.push_as(&piece, self.is_input(at));
        }
        out.finish()
    }

    /// Each character as a text.
    pub(crate) fn chars(&self) -> impl Iterator<Item = Self> {
        self.text.char_indices().map(|(at, c)| self.slice(at..at + c.len_utf8()))
    }
}

/// A text that grows.
#[derive(Default)]
pub(crate) struct Builder {
    text: String,
    input: Vec<Range<usize>>,
}

impl Builder {
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Adds a text of the template.
    pub(crate) fn push_str(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn push_as(&mut self, text: &str, input: bool) {
        let start = self.text.len();
        self.text.push_str(text);
        if input {
            self.mark(start..self.text.len());
        }
    }

    pub(crate) fn push(&mut self, text: &Text) {
        self.push_slice(text, 0..text.len());
    }

    pub(crate) fn push_slice(&mut self, text: &Text, range: Range<usize>) {
        let base = self.text.len();
        self.text.push_str(&text.text[range.clone()]);
        let ranges = text.input_ranges();
        let first = ranges.partition_point(|input| input.end <= range.start);
        for input in ranges[first..].iter().take_while(|input| input.start < range.end) {
            let (start, end) = (input.start.max(range.start), input.end.min(range.end));
            self.mark(base + start - range.start..base + end - range.start);
        }
    }

    fn mark(&mut self, range: Range<usize>) {
        match self.input.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.input.push(range),
        }
    }

    pub(crate) fn finish(self) -> Text {
        let input = (!self.input.is_empty()).then(|| self.input.into());
        Text { text: self.text.into(), input }
    }
}
