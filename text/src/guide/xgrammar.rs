//! What TensorRT-LLM's guide library, XGrammar, is given for a guide that llguidance has compiled.
//!
//! XGrammar compiles a guide in the middle of a batch, and what it throws there ends every request of the batch. So what it would refuse
//! is refused here, and what it would ignore too. Sources: XGrammar 0.1.25, `json_schema_converter.cc` and `grammar_parser.cc`.

use serde_json::{Map, Value};

use super::{CompileError, GuidedDecodingParams, ebnf};

/// Keywords that it ignores, with a warning at most.
const IGNORED: [&str; 15] = [
    "not",
    "if",
    "then",
    "else",
    "multipleOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "minProperties",
    "maxProperties",
];

/// Keywords of which it looks at the first alone, and at nothing else of the schema.
const ALONE: [&str; 6] = ["$ref", "const", "enum", "anyOf", "oneOf", "allOf"];

/// What constrains a value of a type, and the types, of which one has to be named.
const OF_TYPES: [(&str, &[&str]); 9] = [
    ("minimum", &["integer", "number"]),
    ("maximum", &["integer", "number"]),
    ("exclusiveMinimum", &["integer", "number"]),
    ("exclusiveMaximum", &["integer", "number"]),
    ("minLength", &["string"]),
    ("maxLength", &["string"]),
    ("pattern", &["string"]),
    ("format", &["string"]),
    ("minItems", &["array"]),
];

/// Numbers that it counts with.
const LARGEST: f64 = 1e15;

impl GuidedDecodingParams {
    /// The guide as XGrammar takes it: a regex becomes an EBNF grammar, which means the same there as here.
    ///
    /// # Errors
    /// What it would refuse or ignore.
    pub fn for_xgrammar(&self) -> Result<Self, CompileError> {
        let invalid = |problem| CompileError::Invalid { kind: self.kind(), problem };
        match self {
            Self::Json => Ok(Self::Json),
            Self::JsonSchema(text) => schema(text).map(|()| self.clone()).map_err(invalid),
            Self::Regex(text) => {
                ebnf::of_regex(text).map(|grammar| Self::EbnfGrammar(grammar.to_ebnf())).map_err(invalid)
            }
            Self::EbnfGrammar(text) => {
                ebnf::parse(text).map(|grammar| Self::EbnfGrammar(grammar.to_ebnf())).map_err(invalid)
            }
            Self::LarkGrammar(_) => Err(CompileError::Unsupported { feature: "Lark grammars: it takes EBNF grammars" }),
        }
    }
}

fn schema(text: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let options = schema.get("x-guidance");
    let is_lenient = options.and_then(|options| options.get("lenient")).and_then(Value::as_bool) == Some(true);
    check(&schema, is_lenient)
}

/// Looks at a schema and at those in it.
fn check(schema: &Value, is_lenient: bool) -> Result<(), String> {
    let Value::Object(members) = schema else {
        return match schema {
            Value::Bool(true) => Ok(()),
            _ => Err("TensorRT-LLM takes no schema in it that admits nothing (`false`)".to_owned()),
        };
    };
    of_one(members, is_lenient)?;
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| check(schema, is_lenient))?;
            }
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| check(schema, is_lenient))?;
            }
            ("items" | "additionalProperties", value @ Value::Object(_)) => check(value, is_lenient)?,
            _ => {}
        }
    }
    Ok(())
}

/// Looks at one schema by itself.
fn of_one(members: &Map<String, Value>, is_lenient: bool) -> Result<(), String> {
    let ignored = |keyword: &str| Err(format!("TensorRT-LLM would ignore `{keyword}` there: leave it out"));
    if let Some(keyword) = IGNORED.iter().find(|&&keyword| members.contains_key(keyword))
        && (!is_lenient || keyword.ends_with("Properties"))
    {
        return ignored(keyword);
    }
    let constrains = |keyword: &str| {
        ALONE.contains(&keyword)
            || OF_TYPES.iter().any(|&(known, _)| known == keyword)
            || matches!(keyword, "type" | "properties" | "patternProperties" | "additionalProperties" | "required")
            || matches!(keyword, "items" | "prefixItems" | "maxItems")
    };
    if let Some(&first) = ALONE.iter().find(|&&keyword| members.contains_key(keyword)) {
        let is_known = |keyword: &str| keyword == "type" && matches!(first, "const" | "enum");
        let mut others = members.keys().filter(|&keyword| keyword != first && constrains(keyword));
        if let Some(other) = others.find(|keyword| !is_known(keyword)) {
            return ignored(&format!("{other}` beside `{first}"));
        }
        if first == "allOf" && members[first].as_array().is_some_and(|schemas| schemas.len() > 1) {
            return Err("TensorRT-LLM takes one schema in `allOf`: write them as one".to_owned());
        }
    }
    let types: Vec<&str> = match members.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for (keyword, of) in OF_TYPES {
        if members.contains_key(keyword) && !types.iter().any(|name| of.contains(name)) {
            return Err(format!(
                "TensorRT-LLM would ignore `{keyword}` without a `type`: add `\"type\": \"{}\"`",
                of[0]
            ));
        }
    }
    if let Some(Value::String(pattern)) = members.get("pattern") {
        of_pattern(pattern)?;
        if let Some(other) = ["minLength", "maxLength", "format"].into_iter().find(|&other| members.contains_key(other))
        {
            return ignored(&format!("{other}` beside `pattern"));
        }
    }
    if let Some(Value::Object(patterns)) = members.get("patternProperties") {
        patterns.keys().try_for_each(|pattern| of_pattern(pattern))?;
    }
    let names = members.get("properties").and_then(Value::as_object);
    let required = members.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    if let Some(name) = required.into_iter().find(|&name| !names.is_some_and(|names| names.contains_key(name))) {
        return Err(format!("TensorRT-LLM would ignore that `{name}` is required: list it in `properties`"));
    }
    bounds(members, types.contains(&"integer"))
}

/// Bounds that contradict each other, or that it cannot count with, make it throw.
fn bounds(members: &Map<String, Value>, are_whole: bool) -> Result<(), String> {
    for (least, most) in [
        (["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]),
        (["minLength", "minLength"], ["maxLength", "maxLength"]),
        (["minItems", "minItems"], ["maxItems", "maxItems"]),
    ] {
        let numbers = |names: [&str; 2]| -> Vec<f64> {
            names.iter().filter_map(|&name| members.get(name).and_then(Value::as_f64)).collect()
        };
        let (lower, upper) = (numbers(least), numbers(most));
        let all = || lower.iter().chain(&upper);
        if all().any(|bound| bound.abs() > LARGEST)
            || are_whole && least[0] == "minimum" && all().any(|b| b.fract() != 0.0)
        {
            let kind = if are_whole { "whole numbers" } else { "numbers" };
            return Err(format!(
                "TensorRT-LLM takes {kind} up to {LARGEST:e} as bounds (`{}`, `{}`)",
                least[0], most[0]
            ));
        }
        // An exclusive bound that leaves one number is rare, and refused where it leaves none alone.
        let room = if are_whole && least[0] == "minimum" { exclusive(members) } else { 0.0 };
        if lower.iter().any(|lower| upper.iter().any(|upper| lower + room > *upper)) {
            return Err(format!("nothing is both at least `{}` and at most `{}`", least[0], most[0]));
        }
    }
    Ok(())
}

/// By how much exclusive bounds of whole numbers shrink what is between.
fn exclusive(members: &Map<String, Value>) -> f64 {
    ["exclusiveMinimum", "exclusiveMaximum"].iter().filter(|&&name| members.contains_key(name)).count() as f64
}

/// A regex inside a schema, which its own reader reads: what that reads otherwise, or not at all, is refused.
fn of_pattern(pattern: &str) -> Result<(), String> {
    use regex_syntax::ast::{AssertionKind, Ast, ClassSetItem, parse::Parser, visit};
    struct Known;
    impl regex_syntax::ast::Visitor for Known {
        type Output = ();
        type Err = &'static str;

        fn finish(self) -> Result<(), &'static str> {
            Ok(())
        }

        fn visit_pre(&mut self, ast: &Ast) -> Result<(), &'static str> {
            match ast {
                Ast::Flags(_) => Err("flags"),
                Ast::Group(group) => match &group.kind {
                    regex_syntax::ast::GroupKind::NonCapturing(flags) if !flags.items.is_empty() => Err("flags"),
                    regex_syntax::ast::GroupKind::CaptureName { starts_with_p: true, .. } => Err("`(?P<name>…)`"),
                    _ => Ok(()),
                },
                Ast::ClassUnicode(_) => Err(r"`\p{…}`"),
                Ast::Assertion(assertion)
                    if !matches!(assertion.kind, AssertionKind::StartLine | AssertionKind::EndLine) =>
                {
                    Err("look-around")
                }
                Ast::Alternation(choices) if choices.asts.iter().any(|ast| matches!(ast, Ast::Empty(_))) => {
                    Err("an empty alternative")
                }
                Ast::Repetition(outer) if matches!(*outer.ast, Ast::Repetition(_)) => {
                    Err("a repetition of a repetition")
                }
                Ast::Literal(literal) => of_literal(literal),
                _ => Ok(()),
            }
        }

        fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), &'static str> {
            match item {
                ClassSetItem::Ascii(_) | ClassSetItem::Bracketed(_) => Err("a class in a class"),
                ClassSetItem::Unicode(_) => Err(r"`\p{…}`"),
                ClassSetItem::Literal(literal) => of_literal(literal),
                ClassSetItem::Range(range) => of_literal(&range.start).and_then(|()| of_literal(&range.end)),
                _ => Ok(()),
            }
        }

        fn visit_class_set_binary_op_pre(
            &mut self,
            _: &regex_syntax::ast::ClassSetBinaryOp,
        ) -> Result<(), &'static str> {
            Err("a class made of two")
        }
    }
    fn of_literal(literal: &regex_syntax::ast::Literal) -> Result<(), &'static str> {
        use regex_syntax::ast::{HexLiteralKind, LiteralKind};
        match literal.kind {
            LiteralKind::HexBrace(HexLiteralKind::X) => Err(r"`\x{…}`"),
            LiteralKind::Special(_) | LiteralKind::Octal if !"\n\t\r ".contains(literal.c) => Err("a rare escape"),
            _ => Ok(()),
        }
    }
    let ast = Parser::new().parse(pattern).map_err(|error| error.to_string())?;
    let has = |problem| format!("TensorRT-LLM does not know {problem} in the pattern `{pattern}`: write it without");
    visit(&ast, Known).map_err(has)
}

#[cfg(test)]
mod tests;
