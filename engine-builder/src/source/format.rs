//! What a model is stored as, for people and programs.

use std::fmt;

use crate::source::PartView;

/// Format and version of a model's files, and the types of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFormat {
    /// The format.
    pub name: &'static str,
    /// Its version, or that of the program that wrote it, where the files say.
    pub version: Option<String>,
    /// The types, those first that hold most of the weights, and how many tensors have each; none where the weights are not here.
    pub types: Vec<(&'static str, usize)>,
}

impl SourceFormat {
    pub(crate) fn new(name: &'static str, version: Option<String>, tensors: &[PartView<'_>]) -> Self {
        let mut types: Vec<(&'static str, usize, usize)> = Vec::new();
        for tensor in tensors {
            let (name, weights) = (tensor.type_name(), tensor.row_count() * tensor.column_count());
            match types.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, count, all)) => (*count, *all) = (*count + 1, *all + weights),
                None => types.push((name, 1, weights)),
            }
        }
        types.sort_by_key(|(.., weights)| std::cmp::Reverse(*weights));
        Self { name, version, types: types.into_iter().map(|(name, count, _)| (name, count)).collect() }
    }

    /// The type that most of the weights have.
    pub fn main_type(&self) -> Option<&'static str> {
        self.types.first().map(|(name, _)| *name)
    }
}

impl fmt::Display for SourceFormat {
    /// One line: format, version, types with the number of their tensors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        let types: Vec<_> = self.types.iter().map(|(name, count)| format!("{count} of {name}")).collect();
        if types.is_empty() { Ok(()) } else { write!(f, ", tensors: {}", types.join(", ")) }
    }
}
