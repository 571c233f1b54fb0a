//! Why a template did not run.

/// Why a template is not valid, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not a template.
    #[error("line {line}: {problem}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// It failed.
    #[error("line {line}: {problem}")]
    Failed {
        /// The line of the tag that failed, from 1.
        line: usize,
        /// Why.
        problem: String,
    },
    /// It asked for more than it may: time, memory or nesting.
    #[error("line {line}: the template {problem}")]
    Budget {
        /// The line, from 1.
        line: usize,
        /// What it asked too much of.
        problem: &'static str,
    },
    /// It refused its input, with `raise_exception`.
    #[error("{message}")]
    Raised {
        /// Its words.
        message: String,
    },
}

impl Error {
    /// A failure whose line is not known yet.
    pub(crate) fn failed(problem: impl Into<String>) -> Self {
        Self::Failed { line: 0, problem: problem.into() }
    }

    /// The error, at this line unless it has one.
    pub(crate) fn at(mut self, here: usize) -> Self {
        if let Self::Failed { line, .. } | Self::Budget { line, .. } | Self::Syntax { line, .. } = &mut self
            && *line == 0
        {
            *line = here;
        }
        self
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
