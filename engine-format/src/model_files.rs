//! The files of a Hugging Face model, and what becomes of each of their fields. Readers refuse by these tables; a page of the
//! documentation (`docs/model-files.md`) shows them.
//!
//! What Transformers 5 does with a field is the standard; a row says where Transformers 4 does otherwise.

mod config;
mod templates;
mod tokenizer;

use std::fmt;

use serde_json::Value;

pub use config::{CONFIG, GENERATION_CONFIG, ROPE};
pub use templates::TEMPLATES;
pub use tokenizer::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKEN, TOKENIZER, TOKENIZER_CONFIG};

/// Every table, in the order of the documentation.
pub const TABLES: [&Table; 9] = [
    &CONFIG,
    &ROPE,
    &TOKENIZER,
    &TOKENIZER_CONFIG,
    &TOKEN,
    &SPECIAL_TOKENS_MAP,
    &ADDED_TOKENS,
    &GENERATION_CONFIG,
    &TEMPLATES,
];

/// The fields of a file, or of an object in files. A field that no row names is put aside.
#[derive(Debug)]
pub struct Table {
    /// Its heading in the documentation: the file, or what the object is.
    pub name: &'static str,
    /// The rows.
    pub fields: &'static [Field],
}

/// Fields that are treated alike.
#[derive(Debug)]
pub struct Field {
    /// Their names; `…` stands for the rest of a name, or for a name.
    pub names: &'static [&'static str],
    /// What becomes of them.
    pub treatment: Treatment,
    /// What they do, in words.
    pub effect: &'static str,
    /// What Transformers 4 does with them; nothing where it does the same as 5.
    pub transformers_4: &'static str,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Treatment {
    /// It has the effect that its row tells. A value that has none is refused.
    Followed,
    /// It may be there, and changes nothing.
    PutAside,
    /// Some of its values, or all, end the build.
    Refused(Refused),
}

/// Which values are refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refused {
    /// All of them.
    Always {
        /// What a model has in its place.
        instead: &'static str,
    },
    /// All but false.
    UnlessFalse,
    /// All but 1.
    UnlessOne,
    /// All but these.
    UnlessOneOf(&'static [&'static str]),
    /// Those that contradict other fields, which the field's reader sees.
    Contradicting,
}

impl Table {
    /// The first field whose value is refused, that value, and what would be accepted. `get` gives a field's value; null counts
    /// as absent.
    pub fn refusal<'a>(&self, get: impl Fn(&str) -> Option<&'a Value>) -> Option<(&'static str, &'a Value, String)> {
        let rules = self.fields.iter().filter_map(|field| match field.treatment {
            Treatment::Refused(refused) => Some((field.names, refused)),
            Treatment::Followed | Treatment::PutAside => None,
        });
        let names = rules.flat_map(|(names, refused)| names.iter().map(move |name| (*name, refused)));
        names.into_iter().find_map(|(name, refused)| {
            let value = get(name).filter(|value| !value.is_null() && !refused.accepts(value))?;
            Some((name, value, refused.accepted()))
        })
    }
}

impl Refused {
    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Always { .. } => false,
            Self::UnlessFalse => *value == Value::Bool(false),
            Self::UnlessOne => value.as_f64() == Some(1.0),
            Self::UnlessOneOf(accepted) => value.as_str().is_some_and(|value| accepted.contains(&value)),
            Self::Contradicting => true,
        }
    }

    fn accepted(self) -> String {
        match self {
            Self::Always { instead } => instead.to_owned(),
            Self::UnlessFalse => "false".to_owned(),
            Self::UnlessOne => "1.0".to_owned(),
            Self::UnlessOneOf(accepted) => accepted.join(", "),
            Self::Contradicting => String::new(),
        }
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Followed => out.write_str("followed"),
            Self::PutAside => out.write_str("put aside"),
            Self::Refused(Refused::Always { .. }) => out.write_str("refused"),
            Self::Refused(Refused::UnlessFalse) => out.write_str("refused when true"),
            Self::Refused(Refused::UnlessOne) => out.write_str("refused unless 1.0"),
            Self::Refused(Refused::UnlessOneOf(accepted)) => write!(out, "refused unless `{}`", accepted.join("`, `")),
            Self::Refused(Refused::Contradicting) => out.write_str("refused where it contradicts"),
        }
    }
}

/// The table as Markdown.
impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "| Field | Is | Meaning | Transformers 4 |\n| --- | --- | --- | --- |")?;
        for Field { names, treatment, effect, transformers_4 } in self.fields {
            writeln!(out, "| `{}` | {treatment} | {effect} | {transformers_4} |", names.join("`, `"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_has_one_row() {
        for table in TABLES {
            let mut known = HashSet::new();
            let names = table.fields.iter().flat_map(|field| field.names);
            names.for_each(|name| assert!(known.insert(name), "{}: {name}", table.name));
        }
    }

    #[test]
    fn values_are_refused_as_the_rows_say() {
        let refusal = |field: &str, value: Value| {
            let object = json!({ field: value });
            let found = CONFIG.refusal(|name| object.get(name)).map(|(name, _, accepted)| (name, accepted));
            found.inspect(|(name, _)| assert_eq!(*name, field)).map(|(_, accepted)| accepted)
        };
        assert_eq!(refusal("mlp_bias", json!(true)).unwrap(), "false");
        assert_eq!(refusal("hidden_act", json!("gelu")).unwrap(), "silu, swish");
        assert!(refusal("quantization_config", json!({})).unwrap().starts_with("none"));
        for (field, value) in [
            ("mlp_bias", json!(false)),
            ("mlp_bias", json!(null)),
            ("hidden_act", json!("swish")),
            ("partial_rotary_factor", json!(1)),
            ("use_cache", json!("anything")),
            ("no_such_field", json!(true)),
        ] {
            assert_eq!(refusal(field, value), None, "{field}");
        }
    }
}
