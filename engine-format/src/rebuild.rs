//! The command that builds an engine directory again, for errors about one that this version cannot read.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::target::Target;
use crate::weight_type::WeightType;

/// The command that builds an engine again in its place, as far as its `engine.json` tells. Its text can be pasted into a
/// shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// The model, as `engine.json` records it; `None` where that cannot be read.
    pub model: Option<String>,
    /// The target; `None` where it cannot be read or is unknown to this version.
    pub target: Option<Target>,
    /// What its matrices are stored as; bf16 where it does not say.
    pub weights: WeightType,
    /// The engine directory.
    pub engine: PathBuf,
}

impl Rebuild {
    /// For the engine that has the file at `path`, with `model`, `target` and `versions.weights` as `engine.json` spells them.
    pub fn new(path: &Path, model: Option<&str>, target: Option<&str>, weights: Option<&str>) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The text goes to a terminal.
        let model = model.filter(|model| !model.is_empty() && !model.contains(char::is_control));
        Self {
            model: model.map(str::to_owned),
            target: target.and_then(|name| name.parse().ok()),
            weights: weights.and_then(|name| name.parse().ok()).unwrap_or_default(),
            engine: folder.unwrap_or(Path::new(".")).to_owned(),
        }
    }
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.model.as_deref().map_or_else(|| "MODEL".to_owned(), quote);
        write!(f, "build-engine --model {model}")?;
        if let Some(target) = self.target {
            write!(f, " --gpu {target}")?;
        }
        if self.weights != WeightType::default() {
            write!(f, " --weights {}", self.weights)?;
        }
        write!(f, " --output {} --force", quote(&self.engine.to_string_lossy()))
    }
}

/// `text` as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(path: &str, model: Option<&str>, target: Option<&str>) -> String {
        Rebuild::new(Path::new(path), model, target, None).to_string()
    }

    #[test]
    fn what_is_known_is_in_the_command() {
        assert_eq!(
            command("my engine/engine.json", Some("org/name"), Some("h100")),
            "build-engine --model org/name --gpu h100 --output 'my engine' --force"
        );
        assert_eq!(command("engine.json", None, Some("z100")), "build-engine --model MODEL --output . --force");
    }

    #[test]
    fn an_engine_of_codes_is_built_of_codes_again() {
        let command =
            |weights| Rebuild::new(Path::new("e/engine.json"), Some("m"), Some("none"), Some(weights)).to_string();
        for weights in ["int8", "int4"] {
            assert_eq!(
                command(weights),
                format!("build-engine --model m --gpu none --weights {weights} --output e --force")
            );
        }
        for weights in ["bf16", "$(rm b)"] {
            assert_eq!(command(weights), "build-engine --model m --gpu none --output e --force");
        }
    }

    #[test]
    fn a_recorded_model_reaches_neither_the_shell_nor_the_terminal() {
        let command = |model| command("e/engine.json", Some(model), None);
        assert_eq!(command("a; rm b"), "build-engine --model 'a; rm b' --output e --force");
        assert_eq!(command("it's $HOME"), r"build-engine --model 'it'\''s $HOME' --output e --force");
        assert_eq!(command("\u{1b}[2J"), "build-engine --model MODEL --output e --force");
        assert_eq!(command(""), "build-engine --model MODEL --output e --force");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quote("/a/b-c_1.0"), "/a/b-c_1.0");
        assert_eq!(quote("my model"), "'my model'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("$HOME"), "'$HOME'");
        assert_eq!(quote(""), "''");
    }
}
