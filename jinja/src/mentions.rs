//! Whether a body speaks of a name: what a macro is given depends on it.

use crate::ast::{Arguments, Body, Expr, Filter, Statement};

pub(crate) fn body(nodes: &Body, name: &str) -> bool {
    let filters = |filters: &[Filter]| filters.iter().any(|filter| arguments(&filter.arguments, name));
    nodes.iter().any(|node| match &node.kind {
        Statement::Data(_) | Statement::Block(_) | Statement::Break | Statement::Continue => false,
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
    })
}

fn arguments(given: &Arguments, name: &str) -> bool {
    given.positional.iter().chain(given.named.iter().map(|(_, value)| value)).any(|value| expr(value, name))
        || given.list.iter().chain(&given.dict).any(|value| expr(value, name))
}

fn expr(value: &Expr, name: &str) -> bool {
    let any = |values: &[Expr]| values.iter().any(|value| expr(value, name));
    match value {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) => false,
        Expr::Name(found) => found == name,
        Expr::List(values) | Expr::Tuple(values) | Expr::Concat(values) => any(values),
        Expr::Dict(values) => values.iter().any(|(key, value)| expr(key, name) || expr(value, name)),
        Expr::Attribute(inner, _) | Expr::Not(inner) | Expr::Neg(inner) | Expr::Pos(inner) => expr(inner, name),
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
