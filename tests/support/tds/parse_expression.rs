//! Reads expressions, by precedence.

use gatepost::sql::tsql::lexer::TokenKind;

use super::fault::Fault;
use super::parse::{Parsed, Parser};
use super::syntax::{Expr, Operator};
use super::value::{Value, decimal_of};

impl Parser<'_> {
    pub(crate) fn expression(&mut self) -> Parsed<Expr> {
        let mut left = self.conjunction()?;
        while self.take("or") {
            let right = self.conjunction()?;
            left = Expr::Binary(Operator::Or, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed<Expr> {
        let mut left = self.negation()?;
        while self.take("and") {
            let right = self.negation()?;
            left = Expr::Binary(Operator::And, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed<Expr> {
        if self.take("not") {
            return Ok(Expr::Not(Box::new(self.negation()?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.sum()?;
        if self.take("is") {
            let negated = self.take("not");
            self.want("null")?;
            return Ok(negated_if(negated, Expr::IsNull(Box::new(left))));
        }
        let negated = self.is("not")
            && self
                .ahead(1)
                .is_some_and(|next| next.is_any(&["in", "like", "between"]));
        if negated {
            self.take("not");
        }
        if self.take("in") {
            return Ok(negated_if(negated, self.membership(left)?));
        }
        if self.take("like") {
            let pattern = self.sum()?;
            return Ok(negated_if(negated, Expr::Like(Box::new(left), Box::new(pattern))));
        }
        if self.take("between") {
            let low = self.sum()?;
            self.want("and")?;
            let high = self.sum()?;
            let above = Expr::Binary(Operator::GreaterOrEqual, Box::new(left.clone()), Box::new(low));
            let below = Expr::Binary(Operator::LessOrEqual, Box::new(left), Box::new(high));
            let both = Expr::Binary(Operator::And, Box::new(above), Box::new(below));
            return Ok(negated_if(negated, both));
        }
        let Some(operator) = self.comparator() else {
            return Ok(left);
        };
        let right = self.sum()?;
        Ok(Expr::Binary(operator, Box::new(left), Box::new(right)))
    }

    fn comparator(&mut self) -> Option<Operator> {
        if self.take_symbol('=') {
            return Some(Operator::Equal);
        }
        if self.is_symbol('!') && self.ahead(1).is_some_and(|next| next.symbol('=')) {
            self.take_symbol('!');
            self.take_symbol('=');
            return Some(Operator::Unequal);
        }
        if self.take_symbol('<') {
            return Some(if self.take_symbol('>') {
                Operator::Unequal
            } else if self.take_symbol('=') {
                Operator::LessOrEqual
            } else {
                Operator::Less
            });
        }
        if self.take_symbol('>') {
            return Some(if self.take_symbol('=') {
                Operator::GreaterOrEqual
            } else {
                Operator::Greater
            });
        }
        None
    }

    fn membership(&mut self, left: Expr) -> Parsed<Expr> {
        self.want_kind(TokenKind::Open)?;
        let found = if self.is("select") {
            Expr::InQuery(Box::new(left), Box::new(self.select()?))
        } else {
            let mut list = vec![self.expression()?];
            while self.take_symbol(',') {
                list.push(self.expression()?);
            }
            Expr::In(Box::new(left), list)
        };
        self.want_kind(TokenKind::Close)?;
        Ok(found)
    }

    pub(crate) const fn arithmetic(symbol: char) -> Operator {
        match symbol {
            '-' => Operator::Subtract,
            '*' => Operator::Multiply,
            '/' => Operator::Divide,
            '%' => Operator::Modulo,
            '&' => Operator::BitAnd,
            '|' => Operator::BitOr,
            _ => Operator::Add,
        }
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        while let Some(symbol) = ['+', '-', '&', '|']
            .into_iter()
            .find(|symbol| self.take_symbol(*symbol))
        {
            let right = self.product()?;
            left = Expr::Binary(Self::arithmetic(symbol), Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.primary()?;
        while let Some(symbol) = ['*', '/', '%']
            .into_iter()
            .find(|symbol| self.take_symbol(*symbol))
        {
            let right = self.primary()?;
            left = Expr::Binary(Self::arithmetic(symbol), Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    pub(crate) fn primary(&mut self) -> Parsed<Expr> {
        if self.take_symbol('-') {
            let zero = Expr::Value(Value::Int(0));
            let value = self.primary()?;
            return Ok(Expr::Binary(Operator::Subtract, Box::new(zero), Box::new(value)));
        }
        if self.take_symbol('+') {
            return self.primary();
        }
        if self.take_kind(TokenKind::Open) {
            let inner = if self.is("select") {
                Expr::Scalar(Box::new(self.select()?))
            } else {
                self.expression()?
            };
            self.want_kind(TokenKind::Close)?;
            return Ok(inner);
        }
        let token = *self.peek().ok_or_else(|| self.unexpected())?;
        match token.kind {
            TokenKind::Number => {
                self.next()?;
                number(token.text)
                    .map(Expr::Value)
                    .ok_or_else(|| Fault::syntax(token.text))
            }
            TokenKind::Text => self.text().map(|text| Expr::Value(Value::Text(text))),
            TokenKind::Variable => self.variable().map(Expr::Variable),
            TokenKind::Word | TokenKind::Bracketed | TokenKind::Quoted => self.named(),
            _ => Err(Fault::syntax(token.text)),
        }
    }

    /// A keyword with a value, a call, or a column.
    fn named(&mut self) -> Parsed<Expr> {
        if self.take("null") {
            return Ok(Expr::Value(Value::Null));
        }
        if self.take("case") {
            return self.case();
        }
        if self.take("exists") {
            self.want_kind(TokenKind::Open)?;
            let select = self.select()?;
            self.want_kind(TokenKind::Close)?;
            return Ok(Expr::Exists(Box::new(select)));
        }
        let calls = self.ahead(1).is_some_and(|next| next.kind == TokenKind::Open);
        let reserved = self.peek().is_some_and(Self::is_reserved);
        if reserved && !(calls && self.is("left")) {
            return Err(self.unexpected());
        }
        if calls
            && self
                .peek()
                .is_some_and(|token| token.is_any(&["cast", "try_cast"]))
        {
            let tries = self.is("try_cast");
            self.next()?;
            self.next()?;
            let what = Box::new(self.expression()?);
            self.want("as")?;
            let kind = self.kind()?;
            self.want_kind(TokenKind::Close)?;
            return Ok(Expr::Cast { what, kind, tries });
        }
        if calls
            && self
                .peek()
                .is_some_and(|token| token.is_any(&["convert", "try_convert"]))
        {
            return self.convert();
        }
        if calls
            && self
                .peek()
                .is_some_and(|token| token.is_any(&["datediff", "dateadd", "datepart"]))
        {
            // The part is a bare word.
            let name = self.word()?.to_lowercase();
            self.next()?;
            let part = self.word()?.to_lowercase();
            let mut arguments = vec![Expr::Value(Value::Text(part))];
            while self.take_symbol(',') {
                arguments.push(self.expression()?);
            }
            self.want_kind(TokenKind::Close)?;
            return Ok(Expr::Call { name, arguments });
        }
        self.column_or_call()
    }

    fn column_or_call(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.word()?];
        while self.take_symbol('.') {
            if self.take_symbol('*') {
                return Ok(Expr::Star(parts.pop().map(|of| of.to_lowercase())));
            }
            parts.push(self.word()?);
        }
        let name = parts.pop().unwrap_or_default();
        if !self.take_kind(TokenKind::Open) {
            let of = parts.pop().map(|of| of.to_lowercase());
            return Ok(match (name.to_lowercase().as_str(), &of) {
                ("current_timestamp", None) => call("getdate"),
                ("current_user" | "user", None) => call("user_name"),
                ("system_user", None) => call("suser_sname"),
                _ => Expr::Column { of, name },
            });
        }
        let mut arguments = Vec::new();
        self.take("distinct");
        if self.take_symbol('*') {
            arguments.push(Expr::Star(None));
        }
        while !self.take_kind(TokenKind::Close) {
            arguments.push(self.expression()?);
            self.take_symbol(',');
        }
        let name = name.to_lowercase();
        Ok(Expr::Call { name, arguments })
    }

    fn convert(&mut self) -> Parsed<Expr> {
        let tries = self.is("try_convert");
        self.next()?;
        self.next()?;
        let kind = self.kind()?;
        self.want_symbol(',')?;
        let what = self.expression()?;
        if self.take_symbol(',') {
            self.expression()?;
            self.want_kind(TokenKind::Close)?;
            // With a style bytes become digits; that is the only one that is told apart.
            let arguments = vec![what];
            let shown = Expr::Call {
                name: "scripted_shown".to_owned(),
                arguments,
            };
            return Ok(Expr::Cast {
                what: Box::new(shown),
                kind,
                tries,
            });
        }
        self.want_kind(TokenKind::Close)?;
        Ok(Expr::Cast {
            what: Box::new(what),
            kind,
            tries,
        })
    }

    fn case(&mut self) -> Parsed<Expr> {
        let operand = if self.is("when") {
            None
        } else {
            Some(Box::new(self.expression()?))
        };
        let mut branches = Vec::new();
        while self.take("when") {
            let condition = self.expression()?;
            self.want("then")?;
            branches.push((condition, self.expression()?));
        }
        let otherwise = if self.take("else") {
            Some(Box::new(self.expression()?))
        } else {
            None
        };
        self.want("end")?;
        Ok(Expr::Case {
            operand,
            branches,
            otherwise,
        })
    }
}

fn call(name: &str) -> Expr {
    Expr::Call {
        name: name.to_owned(),
        arguments: Vec::new(),
    }
}

fn negated_if(negated: bool, what: Expr) -> Expr {
    if negated { Expr::Not(Box::new(what)) } else { what }
}

fn number(text: &str) -> Option<Value> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits = if digits.len() % 2 == 1 {
            format!("0{digits}")
        } else {
            digits.to_owned()
        };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        return pairs.map(byte).collect::<Option<Vec<_>>>().map(Value::Bytes);
    }
    if text.contains(['e', 'E']) {
        return text.parse().ok().map(Value::Float);
    }
    if let Some((_, part)) = text.split_once('.') {
        let scale = u8::try_from(part.len()).ok()?;
        let digits = decimal_of(text.trim_start_matches('$'), scale)?;
        return Some(Value::Decimal { digits, scale });
    }
    text.trim_start_matches('$')
        .parse::<i64>()
        .ok()
        .map(Value::integer)
}
