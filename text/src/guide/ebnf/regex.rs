//! A regex as a grammar, for XGrammar: its own reader of regexes knows fewer, and gives some another meaning (`.`, `\d`, `^`).

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::{Expression, Grammar};

/// The grammar of what a regex matches as a whole. It was compiled before, so that what is anchored is at the ends.
///
/// # Errors
/// Why it has none, as a sentence.
pub(in crate::guide) fn of_regex(text: &str) -> Result<Grammar, String> {
    let hir = regex_syntax::parse(text).map_err(|error| error.to_string())?;
    Ok(Grammar { rules: vec![expression(&hir)?], root: 0 })
}

fn expression(hir: &Hir) -> Result<Expression, String> {
    Ok(match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start | Look::End) => Expression::Sequence(Vec::new()),
        HirKind::Look(_) => return Err("look-around is not supported".to_owned()),
        HirKind::Literal(literal) => match str::from_utf8(&literal.0) {
            Ok(text) => Expression::Text(text.to_owned()),
            Err(_) => return Err("it matches bytes that are no text".to_owned()),
        },
        HirKind::Class(class) => {
            let ranges: Vec<_> = match class {
                Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
                Class::Bytes(class) => {
                    class.iter().map(|range| (char::from(range.start()), char::from(range.end()))).collect()
                }
            };
            if ranges.is_empty() {
                return Err("a class of characters in it is empty".to_owned());
            }
            Expression::Class { negated: false, ranges }
        }
        HirKind::Repetition(repetition) => {
            Expression::Repeated(Box::new(expression(&repetition.sub)?), repetition.min, repetition.max)
        }
        HirKind::Capture(capture) => expression(&capture.sub)?,
        HirKind::Concat(parts) => Expression::Sequence(parts.iter().map(expression).collect::<Result<_, _>>()?),
        HirKind::Alternation(parts) => Expression::Choice(parts.iter().map(expression).collect::<Result<_, _>>()?),
    })
}
