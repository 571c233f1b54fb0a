//! Jinja templates as Python's jinja2 runs them in the environment that Transformers makes for chat templates: `trim_blocks`,
//! `lstrip_blocks`, no autoescape, values that do not change, `break`, `continue`, `generation`, `tojson`, `raise_exception`
//! and `strftime_now`. What jinja2 would load from elsewhere is refused.
//!
//! Two things jinja2 does not have. A template has a budget: a file from strangers ends, with an error that says so, when it works
//! for too long, makes too much or nests too deeply. And every text knows which of its bytes came from the input
//! ([`Text::input_ranges`]): marks follow them through slices, joins, replacements and changes of case, so that a caller can tell
//! what the template wrote from what it was given.
//!
//! There is a crate for jinja2 templates, `minijinja`; it prints, slices and formats by rules of its own, and its texts do not know
//! where they came from.
//!
//! In reading order: [`text`](Text) and values; lexer, parser and tree; statements (`run`), expressions (`eval`) and operators;
//! methods, filters and tests, as Python and jinja2 name them.

#![forbid(unsafe_code)]

mod arguments;
mod ast;
mod budget;
mod checks;
mod error;
mod eval;
mod expression;
mod filters;
mod format;
mod json;
mod lexer;
mod mentions;
mod methods;
mod ops;
mod parser;
mod print;
mod run;
mod sequences;
mod strings;
mod text;
mod value;
mod variable;
mod wrap;

pub use error::Error;
pub use text::Text;
pub use variable::Variable;

/// A template, parsed.
#[derive(Debug)]
pub struct Template(ast::Body);

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error::Syntax`].
    pub fn parse(source: &str) -> Result<Self, Error> {
        parser::parse(source).map(Self)
    }

    /// Whether an expression of the template has this name: a variable that no expression names changes nothing.
    pub fn mentions(&self, name: &str) -> bool {
        mentions::body(&self.0, mentions::Sought { name, in_blocks: true, is_field: false })
    }

    /// Whether an expression of the template has this name as that of a field, or as a text, by which fields are looked up.
    pub fn mentions_field(&self, name: &str) -> bool {
        mentions::body(&self.0, mentions::Sought { name, in_blocks: true, is_field: true })
    }

    /// Runs the template with these variables. `strftime` formats the present time, as Python's `strftime` does.
    ///
    /// # Errors
    /// It failed, used up its budget, or refused its input.
    pub fn render(
        &self,
        variables: impl IntoIterator<Item = (String, Variable)>,
        strftime: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Text, Error> {
        run::Run::new(variables.into_iter().map(|(name, variable)| (name, variable.0)).collect(), strftime)
            .template(&self.0)
    }
}
