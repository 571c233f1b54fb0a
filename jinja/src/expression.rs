//! Expressions of the parser.

use crate::ast::{Arguments, Comparison, Expr, Operator};
use crate::error::Result;
use crate::lexer::Token;
use crate::parser::Parser;

impl Parser {
    pub(crate) fn expression(&mut self) -> Result<Expr> {
        self.nested(|parser| {
            let mut value = parser.or()?;
            while parser.skip_name("if") {
                parser.deeper()?;
                let condition = Box::new(parser.or()?);
                let otherwise = if parser.skip_name("else") { Some(Box::new(parser.expression()?)) } else { None };
                value = Expr::If { condition, then: Box::new(value), otherwise };
            }
            Ok(value)
        })
    }

    /// An expression, or several with commas between them.
    pub(crate) fn tuple(&mut self) -> Result<Expr> {
        self.tuple_of(Self::expression, false)
    }

    /// As [`Parser::tuple`], where an `if` is not part of it.
    pub(crate) fn tuple_without_condition(&mut self) -> Result<Expr> {
        self.tuple_of(|parser| parser.nested(Self::or), false)
    }

    fn tuple_of(&mut self, item: fn(&mut Self) -> Result<Expr>, empty: bool) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let ends = matches!(self.peek(), Token::BlockEnd | Token::VariableEnd) || self.is_operator(")");
            if ends || (is_tuple && self.is_name("recursive")) {
                break;
            }
            items.push(item(self)?);
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if items.is_empty() && !is_tuple => Ok(only),
            None if !empty => self.unexpected("an expression"),
            last => Ok(Expr::Tuple(items.into_iter().chain(last).collect())),
        }
    }

    fn or(&mut self) -> Result<Expr> {
        self.chain("or", Expr::Or, Self::and)
    }

    fn and(&mut self) -> Result<Expr> {
        self.chain("and", Expr::And, Self::not)
    }

    fn chain(
        &mut self,
        word: &str,
        joined: fn(Box<Expr>, Box<Expr>) -> Expr,
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let depth = self.depth;
        while self.skip_name(word) {
            self.deeper()?;
            left = joined(Box::new(left), Box::new(operand(self)?));
        }
        self.depth = depth;
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Operator("==") => Comparison::Eq,
                Token::Operator("!=") => Comparison::Ne,
                Token::Operator("<") => Comparison::Lt,
                Token::Operator("<=") => Comparison::Le,
                Token::Operator(">") => Comparison::Gt,
                Token::Operator(">=") => Comparison::Ge,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name) if name == "not" && self.next_is_name("in") => {
                    self.advance();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.advance();
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn binary(&mut self, operators: &[(&str, Operator)], operand: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let mut left = operand(self)?;
        let depth = self.depth;
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.is_operator(sign)) {
            self.advance();
            self.deeper()?;
            left = Expr::Binary(*operator, Box::new(left), Box::new(operand(self)?));
        }
        self.depth = depth;
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", Operator::Add), ("-", Operator::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.binary(&[("**", Operator::Pow)], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let value = if self.skip_operator("-") {
            Expr::Neg(Box::new(self.nested(|parser| parser.unary(false))?))
        } else if self.skip_operator("+") {
            Expr::Pos(Box::new(self.nested(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if with_filters { self.filters(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expr> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.advance();
                Ok(match name.as_str() {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    "self" => return self.wrong("`self` is not known here: a chat template is one template"),
                    _ => Expr::Name(name),
                })
            }
            Token::Str(mut text) => {
                self.advance();
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.advance();
                }
                Ok(Expr::Str(text))
            }
            Token::Int(number) => {
                self.advance();
                Ok(Expr::Int(number))
            }
            Token::Float(number) => {
                self.advance();
                Ok(Expr::Float(number))
            }
            Token::Operator("(") => {
                self.advance();
                let value = self.tuple_of(Self::expression, true)?;
                self.expect_operator(")")?;
                Ok(value)
            }
            Token::Operator("[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_operator("]") {
                    if !items.is_empty() {
                        self.expect_operator(",")?;
                    }
                    if self.is_operator("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                self.expect_operator("]")?;
                Ok(Expr::List(items))
            }
            Token::Operator("{") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_operator("}") {
                    if !items.is_empty() {
                        self.expect_operator(",")?;
                    }
                    if self.is_operator("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect_operator(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect_operator("}")?;
                Ok(Expr::Dict(items))
            }
            _ => self.unexpected("an expression"),
        }
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        let depth = self.depth;
        loop {
            self.deeper()?;
            if self.skip_operator(".") {
                value = match self.advance() {
                    Token::Name(name) => Expr::Attribute(Box::new(value), name),
                    Token::Int(index) => Expr::Item(Box::new(value), Box::new(Expr::Int(index))),
                    _ => return self.wrong("expected a name or a number behind `.`"),
                };
            } else if self.skip_operator("[") {
                value = self.subscript(value)?;
            } else if self.is_operator("(") {
                value = Expr::Call(Box::new(value), self.arguments()?);
            } else {
                self.depth = depth;
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut bounds = [None, None, None];
        let mut colons = 0;
        while !self.is_operator("]") {
            if self.is_operator(":") && colons < 2 {
                self.advance();
                colons += 1;
                continue;
            }
            if bounds[colons].is_some() {
                return self.unexpected("`]`");
            }
            bounds[colons] = Some(Box::new(if colons == 0 { self.tuple_in_brackets()? } else { self.expression()? }));
        }
        self.expect_operator("]")?;
        match (colons, bounds) {
            (0, [Some(index), ..]) => Ok(Expr::Item(Box::new(value), index)),
            (0, _) => self.wrong("expected an expression within `[]`"),
            (_, bounds) => Ok(Expr::Slice(Box::new(value), bounds)),
        }
    }

    fn tuple_in_brackets(&mut self) -> Result<Expr> {
        let first = self.expression()?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_operator(",") {
            items.push(self.expression()?);
        }
        Ok(Expr::Tuple(items))
    }

    pub(crate) fn arguments(&mut self) -> Result<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_operator(")") {
            if !std::mem::take(&mut first) {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            if self.skip_operator("*") {
                if arguments.list.is_some() || arguments.dict.is_some() {
                    return self.wrong("invalid syntax for function call expression");
                }
                arguments.list = Some(Box::new(self.expression()?));
            } else if self.skip_operator("**") {
                if arguments.dict.is_some() {
                    return self.wrong("invalid syntax for function call expression");
                }
                arguments.dict = Some(Box::new(self.expression()?));
            } else if matches!(self.peek(), Token::Name(_)) && self.next_is("=") {
                let name = self.expect_name()?;
                self.advance();
                arguments.named.push((name, self.expression()?));
            } else {
                if arguments.list.is_some() || arguments.dict.is_some() || !arguments.named.is_empty() {
                    return self.wrong("invalid syntax for function call expression");
                }
                arguments.positional.push(self.expression()?);
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }

    fn filters(&mut self, mut value: Expr) -> Result<Expr> {
        let depth = self.depth;
        loop {
            self.deeper()?;
            if self.skip_operator("|") {
                value = Expr::Filter(Box::new(value), self.filter()?);
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is_operator("(") {
                value = Expr::Call(Box::new(value), self.arguments()?);
            } else {
                self.depth = depth;
                return Ok(value);
            }
        }
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let negated = self.skip_name("not");
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        let mut arguments = Arguments::default();
        let begins_a_value = match self.peek() {
            Token::Name(name) => !["else", "or", "and"].contains(&name.as_str()),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if begins_a_value {
            if self.is_name("is") {
                return self.wrong("you cannot chain multiple tests with is");
            }
            let argument = self.primary()?;
            arguments.positional.push(self.postfix(argument)?);
        }
        Ok(Expr::Test { value: Box::new(value), name, arguments, negated })
    }

    fn next_is_name(&self, name: &str) -> bool {
        self.peek_second() == Some(name)
    }
}
