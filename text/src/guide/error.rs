//! Why a guide cannot be compiled or followed.

use engine_format::panics::caught;

use crate::TokenId;

/// Why a guide cannot be made or followed. A guide that gave an error is not to be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuideError {
    /// The tokenizer cannot be used for constrained output.
    #[error("the tokenizer cannot be used for constrained output: {problem}")]
    Vocabulary {
        /// What is wrong with it.
        problem: String,
    },
    /// The guide asks for more, and no token has it.
    #[error(
        "the output has to go on, but no token of the vocabulary goes on as the guide demands: change the guide or use its model with another tokenizer"
    )]
    DeadEnd,
    /// A token came that the mask excludes.
    #[error("token {token} cannot come next under the guide")]
    Refused {
        /// The token.
        token: TokenId,
    },
    /// A token came after the end.
    #[error("the output is over: the guide lets no token follow")]
    Over,
    /// A step, or the state after it, goes beyond a limit of the grammar engine, though the mask admitted the token.
    #[error("the guide became too complex to follow: {problem}; simplify the schema, regex or grammar")]
    TooComplex {
        /// The limit that was met.
        problem: String,
    },
}

/// Why a guide cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It cannot be parsed, asks for what is not supported, or is too large.
    #[error("the {kind} cannot be used: {problem}")]
    Invalid {
        /// [`GuidedDecodingParams::kind`](super::GuidedDecodingParams::kind).
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A kind of guide that is not read here.
    #[error("{feature} is not supported")]
    Unsupported {
        /// What was asked for, and what to use instead.
        feature: &'static str,
    },
}

pub(super) fn too_complex(problem: String) -> GuideError {
    GuideError::TooComplex { problem }
}

/// Runs llguidance, whose assertions are errors here. After one, nothing that `run` touched is used again.
pub(super) fn guarded<T>(run: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    match caught(run) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(first_words(&error.to_string())),
        Err(panic) => Err(first_words(&panic)),
    }
}

/// What llguidance says, without the state and the backtrace that may follow, and with advice where there is some.
pub(super) fn first_words(said: &str) -> String {
    let end = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].iter().filter_map(|mark| said.find(mark)).min();
    let said = said[..end.unwrap_or(said.len())].trim_start_matches("panic: ").trim_start_matches("Parser Error: ");
    if said == "missing special token prefix" {
        return "it names a special token; special tokens are written by their ids, as in <[7]>".to_owned();
    }
    if said.starts_with("lexer precomputation failed") {
        return "it is too complex; simplify it".to_owned();
    }
    let words = readable(&plain(said));
    match advice(said) {
        Some(advice) => format!("{words}; {advice}"),
        None => words,
    }
}

/// What speaks of llguidance's own parts, in words for those who write schemas.
fn plain(said: &str) -> String {
    if let Some((before, keywords)) = said.split_once("Unimplemented keys: ")
        && let Ok(keywords) = serde_json::from_str::<Vec<String>>(keywords)
    {
        return format!("{before}it has keywords that are not supported: `{}`", keywords.join("`, `"));
    }
    match said.split_once("Only absolute $ref's (#/...) are supported without 'referencing' feature; ref ") {
        Some((before, reference)) => format!("{before}a `$ref` must begin with `#/`, and {reference} does not"),
        None => said.to_owned(),
    }
}

/// What to do about what llguidance does not support.
fn advice(said: &str) -> Option<&'static str> {
    let lenient = [
        "Unimplemented keys",
        "Unknown format",
        "oneOf constraints are not supported",
        "min/maxProperties only supported",
    ];
    if lenient.iter().any(|known| said.contains(known)) {
        return Some(
            r#"leave it out, or ignore what is not supported with `"x-guidance": {"lenient": true}` at the top of the schema"#,
        );
    }
    if said.contains("lookarounds") {
        return Some(r"`^`, `$`, `\b` and `\B` cannot be used inside: the whole text is matched anyway");
    }
    said.starts_with("Reference segment").then_some(
        "where the name has a `/` or `~` in it, rename the definition: `~1` and `~0` in a `$ref` are not understood",
    )
}

/// A message without its longest lines and without more of them than anyone reads.
pub(super) fn readable(said: &str) -> String {
    const LINES: usize = 12;
    const LETTERS: usize = 160;
    let shorten = |line: &str| match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    let lines: Vec<String> = said.trim_end().lines().take(LINES).map(shorten).collect();
    lines.join("\n")
}
