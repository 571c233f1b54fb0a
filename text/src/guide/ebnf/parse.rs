//! EBNF, read.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::CharIndices;

use super::{Expression, Grammar};

/// Depth of parentheses.
const MAX_DEPTH: usize = 64;

/// Repetitions that are counted.
const MAX_TIMES: u32 = 10_000;

/// Reads a grammar.
///
/// # Errors
/// What is wrong, with its line, as a sentence.
pub(in crate::guide) fn parse(text: &str) -> Result<Grammar, String> {
    let mut parser = Parser { text, rest: text.char_indices().peekable(), names: Vec::new(), numbers: HashMap::new() };
    let mut rules: Vec<Option<Expression>> = Vec::new();
    parser.skip();
    while parser.peek().is_some() {
        let name = parser.name().ok_or_else(|| parser.wrong("the name of a rule"))?;
        parser.skip();
        if !"::=".chars().all(|expected| parser.take(expected)) {
            return Err(parser.wrong("`::=`"));
        }
        let number = parser.rule(&name);
        let expression = parser.choice(0)?;
        rules.resize(parser.names.len(), None);
        if rules[number].replace(expression).is_some() {
            return Err(format!("the rule `{name}` is there twice"));
        }
    }
    rules.resize(parser.names.len(), None);
    let root = *parser.numbers.get("root").filter(|&&root| rules[root].is_some()).ok_or("there is no rule `root`")?;
    let known = |(rule, name): (Option<Expression>, _)| rule.ok_or_else(|| format!("there is no rule `{name}`"));
    let rules = rules.into_iter().zip(&parser.names).map(known).collect::<Result<_, _>>()?;
    Ok(Grammar { rules, root })
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|&(_, character)| character)
    }

    fn take(&mut self, expected: char) -> bool {
        self.rest.next_if(|&(_, character)| character == expected).is_some()
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        while let Some(character) = self.peek() {
            if character == '#' {
                while self.rest.next_if(|&(_, character)| character != '\n').is_some() {}
            } else if self.rest.next_if(|&(_, character)| character.is_ascii_whitespace()).is_none() {
                return;
            }
        }
    }

    fn wrong(&mut self, expected: &str) -> String {
        let end = self.rest.peek().map_or(self.text.len(), |&(place, _)| place);
        let line = 1 + self.text[..end].matches('\n').count();
        match self.peek() {
            Some(found) => format!("{expected} was expected in line {line}, not {found:?}"),
            None => format!("{expected} was expected in line {line}, where it ends"),
        }
    }

    fn name(&mut self) -> Option<String> {
        let begins = |&(_, character): &(usize, char)| character.is_ascii_alphabetic() || character == '_';
        let goes_on = |&(_, character): &(usize, char)| character.is_ascii_alphanumeric() || "_-.".contains(character);
        let mut name = self.rest.next_if(begins)?.1.to_string();
        while let Some((_, character)) = self.rest.next_if(goes_on) {
            name.push(character);
        }
        Some(name)
    }

    /// The number of a rule.
    fn rule(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    /// Whether a name is that of the next rule's head.
    fn at_next_rule(&self) -> bool {
        let mut ahead = Parser { text: self.text, rest: self.rest.clone(), names: Vec::new(), numbers: HashMap::new() };
        let is_name = ahead.name().is_some();
        ahead.skip();
        is_name && ahead.take(':')
    }

    fn choice(&mut self, depth: usize) -> Result<Expression, String> {
        let mut choices = vec![self.sequence(depth)?];
        while self.take('|') {
            choices.push(self.sequence(depth)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Expression::Choice(choices) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = Vec::new();
        loop {
            self.skip();
            let part = match self.peek() {
                Some('"') => self.string()?,
                Some('[') => self.class()?,
                Some('(') if depth < MAX_DEPTH => {
                    self.take('(');
                    self.skip();
                    let is_empty = self.peek() == Some(')');
                    let inner = if is_empty { Expression::Sequence(Vec::new()) } else { self.choice(depth + 1)? };
                    if !self.take(')') {
                        return Err(self.wrong("`)`"));
                    }
                    inner
                }
                Some('_' | 'a'..='z' | 'A'..='Z') if !self.at_next_rule() => {
                    let name = self.name().unwrap_or_default();
                    Expression::Rule(self.rule(&name))
                }
                _ if parts.is_empty() => return Err(self.wrong("a text, a class of characters, a rule or `(`")),
                _ => break,
            };
            let part = self.times(part)?;
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Sequence(parts) })
    }

    /// What follows a part, and says how often it comes.
    fn times(&mut self, part: Expression) -> Result<Expression, String> {
        self.skip();
        let (least, most) = match self.peek() {
            Some('?') => (0, Some(1)),
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('{') => {
                self.take('{');
                let least = self.number()?;
                let most = if self.take(',') {
                    self.skip();
                    if self.peek() == Some('}') { None } else { Some(self.number()?) }
                } else {
                    Some(least)
                };
                if self.peek() != Some('}') {
                    return Err(self.wrong("`}`"));
                }
                (least, most)
            }
            _ => return Ok(part),
        };
        self.rest.next();
        if most.is_some_and(|most| most < least) || least.max(most.unwrap_or(0)) > MAX_TIMES {
            return Err(format!("a part is repeated from {least} to {most:?} times: at most {MAX_TIMES} are possible"));
        }
        self.skip();
        match self.peek() {
            Some('?' | '*' | '+' | '{') => Err(self.wrong("one repetition, and not a second one: use parentheses")),
            _ => Ok(Expression::Repeated(Box::new(part), least, most)),
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        self.skip();
        let mut digits = String::new();
        while let Some((_, digit)) = self.rest.next_if(|(_, character)| character.is_ascii_digit()) {
            digits.push(digit);
        }
        self.skip();
        digits.parse().map_err(|_| self.wrong("a number"))
    }

    fn string(&mut self) -> Result<Expression, String> {
        self.take('"');
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                None | Some('\n' | '\r') => return Err(self.wrong("the text's end, `\"`,")),
                Some('\\') => text.push(self.escape()?),
                Some(character) => {
                    self.rest.next();
                    text.push(character);
                }
            }
        }
        self.take('"');
        Ok(Expression::Text(text))
    }

    fn class(&mut self) -> Result<Expression, String> {
        self.take('[');
        let negated = self.take('^');
        let mut ranges: Vec<(char, char)> = Vec::new();
        while self.peek() != Some(']') {
            let first = self.of_class()?;
            let mut ahead = self.rest.clone();
            let is_range = self.peek() == Some('-') && {
                ahead.next();
                ahead.peek().is_some_and(|&(_, next)| next != ']')
            };
            let last = if is_range {
                self.take('-');
                self.of_class()?
            } else {
                first
            };
            if last < first {
                return Err(format!("a class has the range {first:?} to {last:?}, which is empty"));
            }
            ranges.push((first, last));
        }
        self.take(']');
        if ranges.is_empty() {
            return Err("a class of characters is empty".to_owned());
        }
        Ok(Expression::Class { negated, ranges })
    }

    fn of_class(&mut self) -> Result<char, String> {
        match self.peek() {
            None | Some('\n' | '\r') => Err(self.wrong("the end of the class, `]`,")),
            Some('\\') => self.escape(),
            Some(character) => {
                self.rest.next();
                Ok(character)
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        self.take('\\');
        let character = self.peek();
        self.rest.next();
        let digits = match character {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('b') => return Ok('\u{8}'),
            Some('f') => return Ok('\u{c}'),
            Some(same @ ('"' | '\'' | '\\' | '/' | '-' | ']' | '[' | '^')) => return Ok(same),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.wrong("a known escape after `\\`")),
        };
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|digit| digit.to_digit(16)).ok_or_else(|| self.wrong("a digit"))?;
            self.rest.next();
            code = code << 4 | digit;
        }
        char::from_u32(code).ok_or_else(|| self.wrong(&format!("a character, which {code:x} is not,")))
    }
}
