//! Components with the licence texts of their sources, and the document that says so.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How files that hold licences begin, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "UNLICENSE", "COPYING", "COPYRIGHT", "NOTICE"];

/// Folders whose content is not compiled in.
const ELSEWHERE: [&str; 5] = ["target", "tests", "benches", "examples", "fuzz"];

/// Licences whose text is the same for everyone, so that their name is enough.
const COMMON: [&str; 8] = ["Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0"];

/// Something that is compiled in.
#[derive(Debug)]
pub(crate) struct Component {
    /// Name and version.
    pub(crate) name: String,
    /// The SPDX expression.
    pub(crate) license: String,
    /// Where its source is.
    pub(crate) folder: PathBuf,
}

/// Every component, and each text once.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    lines: Vec<String>,
    texts: Vec<String>,
}

impl Notices {
    /// Adds a component with the texts that its source carries.
    pub(crate) fn add(&mut self, component: Component) -> io::Result<()> {
        let mut files = Vec::new();
        license_files(&component.folder, &mut files)?;
        files.sort();
        let mut line = format!("{} ({})", component.name, component.license);
        for file in &files {
            let text = tidy(&String::from_utf8_lossy(&fs::read(file)?));
            let place = self.texts.iter().position(|known| *known == text).unwrap_or_else(|| {
                self.texts.push(text);
                self.texts.len() - 1
            });
            let mark = format!(" [{}]", place + 1);
            if !line.contains(&mark) {
                line.push_str(&mark);
            }
        }
        if files.is_empty() {
            line.push_str(match common(&component.license) {
                true => ": its source carries no licence file; the text is the licence's standard one",
                false => ": its source carries no licence file",
            });
        }
        self.lines.push(line);
        Ok(())
    }

    /// The document.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "Third-party software in trtllm's programs and libraries.\n\n\
             Each line has a name, a version, the licence as an SPDX expression, and the numbers of the texts below that its\n\
             source carries. The Rust standard library (MIT OR Apache-2.0) is compiled in too: its notices are in\n\
             RUST-LICENSES.html, where the toolchain that compiled it had them.\n\n",
        );
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        for (index, content) in self.texts.iter().enumerate() {
            let _ = write!(text, "\n{}\n[{}]\n\n{content}\n", "=".repeat(80), index + 1);
        }
        text
    }
}

/// Whether one of the expression's licences is [`COMMON`].
fn common(expression: &str) -> bool {
    expression.split(['(', ')', '/', ' ']).any(|word| COMMON.contains(&word))
}

/// The text with one kind of line ends, without blanks at the ends of lines or of the text.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Every file in `folder` and below whose name says that it is a licence.
fn license_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_uppercase());
        if entry.file_type()?.is_dir() {
            if !ELSEWHERE.iter().any(|elsewhere| name.eq_ignore_ascii_case(elsewhere)) {
                license_files(&path, files)?;
            }
        } else if NAMES.iter().any(|start| name.starts_with(start)) && !name.ends_with(".RS") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

    use super::*;

    fn component(folder: &Path, name: &str, license: &str, files: &[(&str, &str)]) -> Component {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Component { name: name.into(), license: license.into(), folder }
    }

    #[test]
    fn equal_texts_stand_once_and_what_has_none_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut notices = Notices::default();
        let files = [("LICENSE-MIT", "free\r\nfor all \r\n"), ("src/license.rs", "code"), ("tests/LICENSE", "data")];
        notices.add(component(dir.path(), "a", "MIT", &files)).unwrap();
        let files = [("copying.md", "free\nfor all"), ("bundled/NOTICE", "another")];
        notices.add(component(dir.path(), "b", "MIT OR X", &files)).unwrap();
        notices.add(component(dir.path(), "c", "MIT/Apache-2.0", &[])).unwrap();
        notices.add(component(dir.path(), "d", "Rare-1.0", &[("README", "")])).unwrap();
        assert_eq!(notices.texts, ["free\nfor all", "another"]);
        assert_eq!(notices.lines[0], "a (MIT) [1]");
        assert_eq!(notices.lines[1], "b (MIT OR X) [2] [1]");
        assert!(notices.lines[2].ends_with("the licence's standard one"), "{}", notices.lines[2]);
        assert!(notices.lines[3].ends_with("no licence file"), "{}", notices.lines[3]);
        let text = notices.text();
        assert_eq!(text.matches("free\nfor all").count(), 1, "{text}");
        assert!(!text.contains("code") && !text.contains("data"), "{text}");
    }
}
