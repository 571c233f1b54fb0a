//! A template's text as tokens, with jinja2's rules for lines and white space as Transformers sets them: a tag takes the newline
//! behind it and the blanks before it on its line, and the template's last newline is dropped.

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// White space as Python has it.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The tokens, each with its line; the last is [`Token::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, usize)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_starts: true, tokens: Vec::new() };
    lexer.run().map_err(|error| error.at(lexer.line))?;
    lexer.tokens.push((Token::End, lexer.line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    /// Whether what was read last ended with a newline.
    line_starts: bool,
    tokens: Vec<(Token, usize)>,
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::Syntax { line: 0, problem: problem.into() }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn take(&mut self, bytes: usize) {
        let taken = &self.source[self.at..self.at + bytes];
        self.line += taken.matches('\n').count();
        if bytes > 0 {
            self.line_starts = taken.ends_with('\n');
        }
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn run(&mut self) -> Result<()> {
        while !self.rest().is_empty() {
            let braces = self.rest().match_indices('{').map(|(at, _)| at);
            let tag_at = |at: usize| ["{{", "{%", "{#"].into_iter().find(|tag| self.rest()[at..].starts_with(tag));
            let Some((at, tag)) = braces.filter_map(|at| Some((at, tag_at(at)?))).next() else {
                self.data(self.rest().len(), None);
                break;
            };
            let sign = self.rest()[at + 2..].chars().next().filter(|c| "-+".contains(*c));
            let length = 2 + usize::from(sign.is_some());
            self.data(at, Some((tag, sign)));
            self.take(length);
            match tag {
                "{#" => self.comment()?,
                "{%" if let Some(length) = self.word_and_end("raw") => self.raw(length)?,
                "{%" => {
                    self.push(Token::BlockBegin);
                    self.code("%}", Token::BlockEnd)?;
                }
                _ => {
                    self.push(Token::VariableBegin);
                    self.code("}}", Token::VariableEnd)?;
                }
            }
        }
        Ok(())
    }

    /// The text before a tag, without what the tag takes of it.
    fn data(&mut self, length: usize, tag: Option<(&str, Option<char>)>) {
        let (whole, line_starts) = (&self.rest()[..length], self.line_starts);
        let kept = before_tag(whole, line_starts, tag);
        if !kept.is_empty() {
            self.push(Token::Data(kept.to_owned()));
        }
        self.take(length);
    }

    fn comment(&mut self) -> Result<()> {
        let end = self.rest().find("#}").ok_or_else(|| wrong("missing end of comment tag"))?;
        let strips = self.rest()[..end].ends_with('-');
        self.take(end + 2);
        self.after_tag(strips, true);
        Ok(())
    }

    /// The bytes of a tag that is only this word, up to its end.
    fn word_and_end(&self, word: &str) -> Option<usize> {
        let inner = self.rest().trim_start_matches(is_space).strip_prefix(word)?.trim_start_matches(is_space);
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        Some(self.rest().len() - inner.strip_prefix("%}")?.len())
    }

    fn raw(&mut self, length: usize) -> Result<()> {
        let strips = self.rest()[..length].ends_with("-%}");
        self.take(length);
        self.after_tag(strips, false);
        let mut from = 0;
        loop {
            let at = self.rest()[from..].find("{%").ok_or_else(|| wrong("missing end of raw directive"))? + from;
            let sign = self.rest()[at + 2..].chars().next().filter(|c| "-+".contains(*c));
            let inside = at + 2 + usize::from(sign.is_some());
            let tag = &self.rest()[inside..];
            let close = tag.find("%}").map_or("", |end| &tag[..end]);
            if close.trim_end_matches(['-', '+']).trim_matches(is_space) != "endraw" {
                from = at + 2;
                continue;
            }
            let strips = close.ends_with('-');
            self.data(at, Some(("{%", sign)));
            self.take(inside - at + close.len() + 2);
            self.after_tag(strips, true);
            return Ok(());
        }
    }

    /// What a tag takes of the text behind it.
    fn after_tag(&mut self, strips: bool, newline: bool) {
        let rest = self.rest();
        if strips {
            self.take(rest.len() - rest.trim_start_matches(is_space).len());
        } else if newline && rest.starts_with('\n') {
            self.take(1);
        }
    }

    /// The tokens of a tag.
    fn code(&mut self, end: &str, token: Token) -> Result<()> {
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                return Err(wrong(format!("the tag has no end: expected `{end}`")));
            };
            let signed = rest.strip_prefix('-').or_else(|| rest.strip_prefix('+').filter(|_| end == "%}"));
            if open.is_empty() && (rest.starts_with(end) || signed.is_some_and(|rest| rest.starts_with(end))) {
                self.push(token);
                self.take(2 + usize::from(!rest.starts_with(end)));
                self.after_tag(c == '-', end == "%}" && c != '+');
                return Ok(());
            }
            if is_space(c) {
                self.take(c.len_utf8());
            } else if c == '\'' || c == '"' {
                self.string(c)?;
            } else if c.is_ascii_digit() {
                self.number()?;
            } else if c.is_alphanumeric() || c == '_' {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.push(Token::Name(rest[..length].to_owned()));
                self.take(length);
            } else {
                let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
                let operator = operator.ok_or_else(|| wrong(format!("unexpected char {c:?}")))?;
                match operator {
                    "(" | "[" | "{" => open.push(operator),
                    ")" | "]" | "}" => {
                        let expected = open
                            .pop()
                            .and_then(|open| ["()", "[]", "{}"].into_iter().find(|pair| pair.starts_with(open)));
                        if !expected.is_some_and(|pair| pair.ends_with(operator)) {
                            return Err(wrong(format!("unexpected '{operator}'")));
                        }
                    }
                    _ => {}
                }
                self.push(Token::Operator(operator));
                self.take(operator.len());
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let mut escaped = false;
        let end = self.rest()[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(|| wrong("a string has no end"))? + 1;
        let text = unescaped(&self.rest()[1..end])?;
        self.push(Token::Str(text));
        self.take(end + 1);
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let radix = [("0x", 16), ("0o", 8), ("0b", 2)]
            .into_iter()
            .find(|(prefix, _)| rest.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix)));
        let too_large = || wrong("a number is too large");
        if let Some((prefix, radix)) = radix {
            let length = rest[2..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len() - 2) + 2;
            let number = i128::from_str_radix(&rest[prefix.len()..length].replace('_', ""), radix);
            self.push(Token::Int(number.map_err(|_| too_large())?));
            self.take(length);
            return Ok(());
        }
        let mut length = digits(rest);
        let mut float = false;
        let after_dot = |length: usize| {
            rest[length..].strip_prefix('.').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        // `x.1.2` are items of items.
        let after_a_dot = self.tokens.last().is_some_and(|(token, _)| *token == Token::Operator("."));
        if let Some(fraction) = after_dot(length).filter(|_| !after_a_dot) {
            length += 1 + digits(fraction);
            float = true;
        }
        if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
                length += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
                float = true;
            }
        }
        let text = rest[..length].replace('_', "");
        self.push(match float {
            true => Token::Float(text.parse().map_err(|_| wrong("a number is not one"))?),
            false => Token::Int(text.parse().map_err(|_| too_large())?),
        });
        self.take(length);
        Ok(())
    }
}

/// The text before a tag, without what the tag takes of it.
fn before_tag<'a>(text: &'a str, line_starts: bool, tag: Option<(&str, Option<char>)>) -> &'a str {
    match tag {
        Some((_, Some('-'))) => text.trim_end_matches(is_space),
        Some(("{%" | "{#", None)) => {
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            let only_blanks = text[line..].chars().all(is_space);
            if (line > 0 || line_starts) && only_blanks { &text[..line] } else { text }
        }
        _ => text,
    }
}

/// A string's escapes as Python's `unicode-escape` reads them; those that it does not know stay as they are.
fn unescaped(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else { break };
        let simple = match c {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'v' => Some('\x0b'),
            '\\' | '\'' | '"' => Some(c),
            _ => None,
        };
        if let Some(simple) = simple {
            out.push(simple);
            rest = &rest[1..];
        } else if c == '\n' {
            rest = &rest[1..];
        } else if let Some(width) =
            [('x', 2), ('u', 4), ('U', 8)].into_iter().find_map(|(kind, width)| (kind == c).then_some(width))
        {
            let code = |rest: &str| u32::from_str_radix(rest.get(1..=width)?, 16).ok();
            let first =
                code(rest).ok_or_else(|| wrong(format!("the escape \\{c} needs {width} hexadecimal digits")))?;
            rest = &rest[1 + width..];
            let second = rest.strip_prefix('\\').filter(|rest| rest.starts_with('u')).and_then(code);
            let (value, pair) = match second {
                Some(low @ 0xdc00..=0xdfff) if (0xd800..0xdc00).contains(&first) => {
                    (0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00), true)
                }
                _ => (first, false),
            };
            rest = if pair { &rest[6..] } else { rest };
            out.push(char::from_u32(value).ok_or_else(|| wrong(format!("the escape \\{c} is no character")))?);
        } else if c.is_digit(8) {
            let length = rest.find(|c: char| !c.is_digit(8)).unwrap_or(rest.len()).min(3);
            let value = u32::from_str_radix(&rest[..length], 8).ok().and_then(char::from_u32);
            out.push(value.ok_or_else(|| wrong("an escape is no character"))?);
            rest = &rest[length..];
        } else {
            out.push('\\');
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}
