//! A prompt that knows which of its text the model's template wrote and which it was given.

use std::ops::Range;

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    input: Vec<Range<usize>>,
}

impl Rendered {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.text
    }

    /// The ranges of bytes that came from messages, tools, documents and variables, rather than from the template: ascending,
    /// apart.
    pub fn input_ranges(&self) -> &[Range<usize>] {
        &self.input
    }

    /// Keeps the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.text.truncate(length);
        self.input.retain_mut(|range| {
            range.end = range.end.min(length);
            range.start < range.end
        });
    }
}

impl From<&jinja::Text> for Rendered {
    fn from(text: &jinja::Text) -> Self {
        Self { text: text.as_str().to_owned(), input: text.input_ranges().to_vec() }
    }
}
