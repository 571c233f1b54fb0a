//! Tokens to a tree, in the steps of jinja2's own parser, so that precedence and what is refused are the same.

use std::sync::Arc;

use crate::ast::{Arguments, Body, Expr, Filter, For, Macro, Node, Statement, Target};
use crate::error::{Error, Result};
use crate::lexer::{self, Token};
use crate::mentions::{self, Sought};

/// Expressions and blocks within each other.
const NESTING: usize = 100;

/// Levels of the tree: a sum of three parts has two.
const DEPTH: usize = 300;

pub(crate) fn parse(source: &str) -> Result<Body> {
    let mut parser = Parser { tokens: lexer::tokens(source)?, at: 0, nesting: 0, depth: 0, loops: 0 };
    let (body, _) = parser.body(&[])?;
    Ok(body)
}

pub(crate) struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    nesting: usize,
    pub(crate) depth: usize,
    loops: usize,
}

impl Parser {
    pub(crate) fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub(crate) fn next_is(&self, operator: &str) -> bool {
        matches!(&self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0, Token::Operator(found) if *found == operator)
    }

    /// The name behind the next token, if it is one.
    pub(crate) fn peek_second(&self) -> Option<&str> {
        match &self.tokens.get(self.at + 1)?.0 {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(crate) fn wrong<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(Error::Syntax { line: self.tokens[self.at].1, problem: problem.into() })
    }

    pub(crate) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    pub(crate) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    pub(crate) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.advance();
        }
        found
    }

    pub(crate) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    pub(crate) fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) { Ok(()) } else { self.unexpected(&format!("`{operator}`")) }
    }

    pub(crate) fn expect_name(&mut self) -> Result<String> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.advance();
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    pub(crate) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            Token::Name(name) => format!("`{name}`"),
            Token::Operator(operator) => format!("`{operator}`"),
            Token::Str(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::End => "the end of the template".to_owned(),
            Token::Data(_) | Token::BlockBegin | Token::VariableBegin => "text".to_owned(),
            Token::BlockEnd | Token::VariableEnd => "the end of the tag".to_owned(),
        };
        self.wrong(format!("unexpected {found}, expected {expected}"))
    }

    /// The tree is about to be one level deeper: it is freed level by level.
    pub(crate) fn deeper(&mut self) -> Result<()> {
        if self.depth == DEPTH {
            return self.wrong("an expression is too long: it nests too deeply");
        }
        self.depth += 1;
        Ok(())
    }

    /// Runs a step that may contain itself.
    pub(crate) fn nested<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == NESTING {
            return self.wrong("expressions or blocks are nested too deeply");
        }
        let depth = self.depth;
        self.deeper()?;
        self.nesting += 1;
        let result = step(self);
        self.nesting -= 1;
        self.depth = depth;
        result
    }

    fn end_block(&mut self) -> Result<()> {
        match self.peek() {
            Token::BlockEnd => {
                self.advance();
                Ok(())
            }
            _ => self.unexpected("the end of the tag"),
        }
    }

    /// Statements up to a tag that begins with one of these words, and that word.
    fn body(&mut self, ends: &[&str]) -> Result<(Body, String)> {
        let mut body = Body::new();
        loop {
            let line = self.tokens[self.at].1;
            match self.advance() {
                Token::Data(text) => body.push(Node { line, kind: Statement::Data(text) }),
                Token::VariableBegin => {
                    let value = self.tuple()?;
                    if self.advance() != Token::VariableEnd {
                        self.at -= 1;
                        return self.unexpected("the end of the tag");
                    }
                    body.push(Node { line, kind: Statement::Print(value) });
                }
                Token::BlockBegin => {
                    let name = self.expect_name()?;
                    if ends.contains(&name.as_str()) {
                        return Ok((body, name));
                    }
                    let kind = self.nested(|parser| parser.statement(&name))?;
                    body.push(Node { line, kind });
                }
                _ if ends.is_empty() => return Ok((body, String::new())),
                _ => return self.wrong(format!("the template ends before a tag {}", ends.join(" or "))),
            }
        }
    }

    /// Statements up to this tag, which ends here.
    fn body_until(&mut self, end: &str) -> Result<Body> {
        let (body, _) = self.body(&[end])?;
        self.end_block()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str) -> Result<Statement> {
        match name {
            "for" => self.for_loop(),
            "if" => self.if_block(),
            "set" => self.set(),
            "macro" => {
                let name = self.expect_name()?;
                let parameters = self.signature()?;
                Ok(Statement::Macro(self.macro_body(name, parameters, "endmacro")?))
            }
            "call" => {
                let parameters = if self.is_operator("(") { self.signature()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call, Expr::Call(..)) {
                    return self.wrong("expected a call");
                }
                Ok(Statement::Call { call, body: self.macro_body("caller".to_owned(), parameters, "endcall")? })
            }
            "filter" => {
                let mut filters = vec![self.filter()?];
                while self.skip_operator("|") {
                    filters.push(self.filter()?);
                }
                self.end_block()?;
                Ok(Statement::Filter { filters, body: self.body_until("endfilter")? })
            }
            "with" => {
                let mut values = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !values.is_empty() {
                        self.expect_operator(",")?;
                    }
                    let target = self.target(false)?;
                    self.expect_operator("=")?;
                    values.push((target, self.expression()?));
                }
                self.end_block()?;
                Ok(Statement::With { values, body: self.body_until("endwith")? })
            }
            "generation" => {
                self.end_block()?;
                Ok(Statement::Generation(self.body_until("endgeneration")?))
            }
            "block" => {
                let name = self.expect_name()?;
                self.end_block()?;
                let (body, _) = self.body(&["endblock"])?;
                self.skip_name(&name);
                self.end_block()?;
                Ok(Statement::Block(body))
            }
            "print" => {
                let value = self.tuple()?;
                self.end_block()?;
                Ok(Statement::Print(value))
            }
            "break" | "continue" if self.loops > 0 => {
                self.end_block()?;
                Ok(if name == "break" { Statement::Break } else { Statement::Continue })
            }
            "break" | "continue" => self.wrong(format!("`{name}` outside a loop")),
            "include" | "import" | "from" | "extends" => {
                self.wrong(format!("`{name}` needs other templates, and a chat template stands alone"))
            }
            other => self.wrong(format!("encountered unknown tag '{other}'")),
        }
    }

    fn for_loop(&mut self) -> Result<Statement> {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return self.unexpected("`in`");
        }
        let items = self.tuple_without_condition()?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.end_block()?;
        self.loops += 1;
        let (body, end) = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        self.end_block()?;
        let otherwise = if end == "else" { self.body_until("endfor")? } else { Body::new() };
        Ok(Statement::For(Arc::new(For { target, items, condition, recursive, body, otherwise })))
    }

    fn if_block(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple_without_condition()?;
            self.end_block()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if end == "elif" {
                continue;
            }
            self.end_block()?;
            let otherwise = if end == "else" { self.body_until("endif")? } else { Body::new() };
            return Ok(Statement::If { branches, otherwise });
        }
    }

    fn set(&mut self) -> Result<Statement> {
        let target = self.target(true)?;
        if self.skip_operator("=") {
            let value = self.tuple()?;
            self.end_block()?;
            return Ok(Statement::Set { target, value });
        }
        let mut filters = Vec::new();
        while self.skip_operator("|") {
            filters.push(self.filter()?);
        }
        self.end_block()?;
        Ok(Statement::SetBlock { target, filters, body: self.body_until("endset")? })
    }

    fn signature(&mut self) -> Result<Vec<(String, Option<Expr>)>> {
        self.expect_operator("(")?;
        let mut parameters: Vec<(String, Option<Expr>)> = Vec::new();
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.expect_name()?;
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.wrong("non-default argument follows default argument");
            }
            parameters.push((name, default));
        }
        self.expect_operator(")")?;
        Ok(parameters)
    }

    fn macro_body(&mut self, name: String, parameters: Vec<(String, Option<Expr>)>, end: &str) -> Result<Arc<Macro>> {
        self.end_block()?;
        // A loop around a macro is not the macro's to break.
        let loops = std::mem::take(&mut self.loops);
        let body = self.body_until(end)?;
        self.loops = loops;
        let [varargs, kwargs, caller] = ["varargs", "kwargs", "caller"]
            .map(|name| mentions::body(&body, Sought { name, in_blocks: false, is_field: false }));
        Ok(Arc::new(Macro { name, parameters, body, varargs, kwargs, caller }))
    }

    fn target(&mut self, attributes: bool) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if self.skip_operator("(") {
                targets.push(self.nested(|parser| parser.target(false))?);
                self.expect_operator(")")?;
            } else {
                let name = self.expect_name()?;
                if ["true", "false", "none", "True", "False", "None"].contains(&name.as_str()) {
                    return self.wrong(format!("can't assign to '{name}'"));
                }
                targets.push(match attributes && self.skip_operator(".") {
                    true => Target::Attribute(name, self.expect_name()?),
                    false => Target::Name(name),
                });
            }
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
            if !matches!(self.peek(), Token::Name(name) if name != "in") && !self.is_operator("(") {
                break;
            }
        }
        Ok(match targets.pop() {
            Some(only) if targets.is_empty() && !is_tuple => only,
            last => Target::Tuple(targets.into_iter().chain(last).collect()),
        })
    }

    pub(crate) fn filter(&mut self) -> Result<Filter> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(Filter { name, arguments })
    }
}
