//! Grammars in EBNF, as XGrammar reads them: rules `name ::= expression`, of which `root` is the first to be matched.
//!
//! | part | means |
//! | --- | --- |
//! | `"text"` | the text, with JSON's escapes, `\xHH` and `\UHHHHHHHH` |
//! | `[a-z]`, `[^a-z]` | one of these characters, or one of all others |
//! | `name` | a rule |
//! | `a b`, `a \| b`, `(a)` | one after the other, one of both, together |
//! | `a?`, `a*`, `a+`, `a{2}`, `a{2,}`, `a{2,3}` | repetitions |
//! | `# text` | a comment, to the line's end |
//!
//! A grammar is matched here as llguidance's: as one regex, where its rules do not lead back to themselves; else as rules in Lark, whose
//! lexer takes the longest of texts that could come next.

mod parse;
mod regex;

use std::fmt::Write;

pub(super) use parse::parse;
pub(super) use regex::of_regex;

/// Longest regex that a grammar may become.
const MAX_REGEX: usize = 64 << 10;

/// Rules, each with its expression.
#[derive(Debug)]
pub(super) struct Grammar {
    rules: Vec<Expression>,
    root: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Text(String),
    /// One of the characters in these ranges, or of all others.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Rule(usize),
    Sequence(Vec<Expression>),
    Choice(Vec<Expression>),
    /// At least, and at most.
    Repeated(Box<Expression>, u32, Option<u32>),
}

/// How llguidance takes a grammar.
#[derive(Debug, PartialEq)]
pub(super) enum ForLlguidance {
    Regex(String),
    Lark(String),
}

impl Grammar {
    pub(super) fn for_llguidance(&self) -> ForLlguidance {
        let mut regex = String::new();
        match self.write_regex(&mut regex, &self.rules[self.root], &mut vec![self.root]) {
            Some(()) => ForLlguidance::Regex(regex),
            None => ForLlguidance::Lark(self.to_lark()),
        }
    }

    /// `None` where a rule leads back to itself, or the regex gets too long. `inside` are the rules on the way here.
    fn write_regex(&self, out: &mut String, expression: &Expression, inside: &mut Vec<usize>) -> Option<()> {
        if out.len() > MAX_REGEX {
            return None;
        }
        match expression {
            Expression::Text(text) => out.push_str(&regex_syntax::escape(text)),
            Expression::Class { negated, ranges } => write_class(out, *negated, ranges, |out, character| {
                let _ = write!(out, r"\u{{{:x}}}", character as u32);
            }),
            Expression::Rule(rule) => {
                if inside.contains(rule) {
                    return None;
                }
                inside.push(*rule);
                out.push_str("(?:");
                self.write_regex(out, &self.rules[*rule], inside)?;
                out.push(')');
                inside.pop();
            }
            Expression::Sequence(parts) => parts.iter().try_for_each(|part| self.write_regex(out, part, inside))?,
            Expression::Choice(parts) => {
                for (place, part) in parts.iter().enumerate() {
                    out.push_str(if place == 0 { "(?:" } else { "|" });
                    self.write_regex(out, part, inside)?;
                }
                out.push(')');
            }
            Expression::Repeated(of, least, most) => {
                out.push_str("(?:");
                self.write_regex(out, of, inside)?;
                out.push(')');
                write_times(out, *least, *most);
            }
        }
        Some(())
    }

    fn to_lark(&self) -> String {
        let string = |out: &mut String, text: &str| out.push_str(&serde_json::Value::from(text).to_string());
        let class = |out: &mut String, negated: bool, ranges: &[(char, char)]| {
            out.push('/');
            write_class(out, negated, ranges, |out, character| {
                let _ = write!(out, r"\u{{{:x}}}", character as u32);
            });
            out.push('/');
        };
        let mut lark = format!("start: rule_{}\n", self.root);
        for (number, rule) in self.rules.iter().enumerate() {
            let _ = write!(lark, "rule_{number}: ");
            write_rule(&mut lark, rule, &string, &class, &|number| format!("rule_{number}"));
            lark.push('\n');
        }
        lark
    }

    /// The grammar in EBNF: the same in one spelling, which every release of XGrammar reads.
    pub(super) fn to_ebnf(&self) -> String {
        let escaped = |out: &mut String, character: char| match character {
            ' '..='~' if !r#""\[]^-"#.contains(character) => out.push(character),
            other => {
                let _ = write!(out, r"\U{:08x}", other as u32);
            }
        };
        let string = |out: &mut String, text: &str| {
            out.push('"');
            text.chars().for_each(|character| escaped(out, character));
            out.push('"');
        };
        let class =
            |out: &mut String, negated: bool, ranges: &[(char, char)]| write_class(out, negated, ranges, escaped);
        let name = |number| if number == self.root { "root".to_owned() } else { format!("rule_{number}") };
        let mut ebnf = String::new();
        for (number, rule) in self.rules.iter().enumerate() {
            let _ = write!(ebnf, "{} ::= ", name(number));
            write_rule(&mut ebnf, rule, &string, &class, &name);
            ebnf.push('\n');
        }
        ebnf
    }
}

/// Writes what EBNF and Lark write alike.
fn write_rule(
    out: &mut String,
    expression: &Expression,
    string: &impl Fn(&mut String, &str),
    class: &impl Fn(&mut String, bool, &[(char, char)]),
    name: &impl Fn(usize) -> String,
) {
    let parts = |out: &mut String, parts: &[Expression], between: &str| {
        out.push('(');
        for (place, part) in parts.iter().enumerate() {
            out.push_str(if place == 0 { "" } else { between });
            write_rule(out, part, string, class, name);
        }
        out.push(')');
    };
    match expression {
        Expression::Text(text) => string(out, text),
        Expression::Class { negated, ranges } => class(out, *negated, ranges),
        Expression::Rule(rule) => out.push_str(&name(*rule)),
        Expression::Sequence(sequence) if sequence.is_empty() => string(out, ""),
        Expression::Sequence(sequence) => parts(out, sequence, " "),
        Expression::Choice(choice) => parts(out, choice, " | "),
        Expression::Repeated(of, least, most) => {
            parts(out, std::slice::from_ref(of), "");
            write_times(out, *least, *most);
        }
    }
}

fn write_times(out: &mut String, least: u32, most: Option<u32>) {
    let _ = match (least, most) {
        (0, None) => out.write_char('*'),
        (1, None) => out.write_char('+'),
        (0, Some(1)) => out.write_char('?'),
        (least, None) => write!(out, "{{{least},}}"),
        (least, Some(most)) => write!(out, "{{{least},{most}}}"),
    };
}

fn write_class(out: &mut String, negated: bool, ranges: &[(char, char)], write: impl Fn(&mut String, char)) {
    out.push_str(if negated { "[^" } else { "[" });
    for &(first, last) in ranges {
        write(out, first);
        if first != last {
            out.push('-');
            write(out, last);
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
