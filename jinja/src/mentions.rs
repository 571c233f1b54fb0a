//! Whether a body speaks of a name: what a macro is given depends on it, and so does whether a variable is read at all.

use crate::ast::{Arguments, Body, Expr, Filter, Statement};

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Sought<'a> {
    pub(crate) name: &'a str,
    /// Whether blocks count: they see the template's variables, and nothing of a macro around them.
    pub(crate) in_blocks: bool,
    /// Whether it is the name of a field (`message.name`, `message["name"]`) and not of a variable.
    pub(crate) is_field: bool,
}

pub(crate) fn body(nodes: &Body, name: Sought<'_>) -> bool {
    let filters = |filters: &[Filter]| filters.iter().any(|filter| arguments(&filter.arguments, name));
    nodes.iter().any(|node| match &node.kind {
        Statement::Data(_) | Statement::Break | Statement::Continue => false,
        Statement::Print(value) | Statement::Set { value, .. } => expr(value, name),
        Statement::For(node) => {
            expr(&node.items, name)
                || node.condition.as_ref().is_some_and(|condition| expr(condition, name))
                || body(&node.body, name)
                || body(&node.otherwise, name)
        }
        Statement::If { branches, otherwise } => {
            branches.iter().any(|(condition, nodes)| expr(condition, name) || body(nodes, name))
                || body(otherwise, name)
        }
        Statement::SetBlock { filters: list, body: nodes, .. } | Statement::Filter { filters: list, body: nodes } => {
            filters(list) || body(nodes, name)
        }
        Statement::Macro(inner) => body(&inner.body, name),
        Statement::Call { call, body: inner } => expr(call, name) || body(&inner.body, name),
        Statement::With { values, body: nodes } => {
            values.iter().any(|(_, value)| expr(value, name)) || body(nodes, name)
        }
        Statement::Generation(nodes) => body(nodes, name),
        Statement::Block(nodes) => name.in_blocks && body(nodes, name),
    })
}

fn arguments(given: &Arguments, name: Sought<'_>) -> bool {
    given.positional.iter().chain(given.named.iter().map(|(_, value)| value)).any(|value| expr(value, name))
        || given.list.iter().chain(&given.dict).any(|value| expr(value, name))
}

fn expr(value: &Expr, name: Sought<'_>) -> bool {
    let any = |values: &[Expr]| values.iter().any(|value| expr(value, name));
    match value {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) => false,
        Expr::Str(found) => name.is_field && **found == *name.name,
        Expr::Name(found) => !name.is_field && found == name.name,
        Expr::List(values) | Expr::Tuple(values) | Expr::Concat(values) => any(values),
        Expr::Dict(values) => values.iter().any(|(key, value)| expr(key, name) || expr(value, name)),
        Expr::Attribute(inner, found) => name.is_field && found == name.name || expr(inner, name),
        Expr::Not(inner) | Expr::Neg(inner) | Expr::Pos(inner) => expr(inner, name),
        Expr::Item(left, right) | Expr::And(left, right) | Expr::Or(left, right) | Expr::Binary(_, left, right) => {
            expr(left, name) || expr(right, name)
        }
        Expr::Slice(inner, bounds) => expr(inner, name) || bounds.iter().flatten().any(|bound| expr(bound, name)),
        Expr::Call(inner, given) => expr(inner, name) || arguments(given, name),
        Expr::Filter(inner, filter) => expr(inner, name) || arguments(&filter.arguments, name),
        Expr::Test { value, arguments: given, .. } => expr(value, name) || arguments(given, name),
        Expr::Compare(first, rest) => expr(first, name) || rest.iter().any(|(_, value)| expr(value, name)),
        Expr::If { condition, then, otherwise } => {
            expr(condition, name) || expr(then, name) || otherwise.iter().any(|value| expr(value, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Template;

    #[test]
    fn a_name_counts_wherever_an_expression_has_it() {
        for source in [
            "{{ a }}",
            "{% if b %}{% else %}{{ x[a] }}{% endif %}",
            "{% for x in y if x in a %}{% endfor %}",
            "{% block z %}{{ a.b }}{% endblock %}",
            "{% macro m() %}{{ a }}{% endmacro %}",
            "{% set x = f(y=a | length) %}",
            "{% if a is defined %}{% endif %}",
        ] {
            assert!(Template::parse(source).unwrap().mentions("a"), "{source}");
        }
        for source in ["a", "{{ x.a }}", "{{ 'a' }}", "{{ aa }}", "{{ f(a=1) }}", "{% set a = 1 %}"] {
            assert!(!Template::parse(source).unwrap().mentions("a"), "{source}");
        }
    }
}
