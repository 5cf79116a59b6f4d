//! Evaluates expressions over a row of joined relations.

use std::cmp::Ordering;

use gatepost::wire::tds::reply::ColumnKind;

use super::fault::Fault;
use super::functions;
use super::model::Model;
use super::query::{self, Loaded};
use super::session::Session;
use super::syntax::{Expr, Operator};
use super::value::{Value, decimal_of};

/// Which row of each source; nothing where an outer join found none.
pub(crate) type Combination = Vec<Option<usize>>;

#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) sources: &'a [Loaded],
    pub(crate) row: &'a [Option<usize>],
    /// Rows that an aggregate runs over.
    pub(crate) group: Option<&'a [Combination]>,
    pub(crate) outer: Option<&'a Frame<'a>>,
}

pub(crate) const NOWHERE: Frame<'static> = Frame {
    sources: &[],
    row: &[],
    group: None,
    outer: None,
};

/// What an expression is evaluated with.
#[derive(Clone, Copy)]
pub(crate) struct Evaluator<'a> {
    pub(crate) session: &'a Session,
    pub(crate) model: &'a Model,
}

impl Evaluator<'_> {
    pub(crate) fn value(self, expression: &Expr, frame: &Frame<'_>) -> Result<Value, Fault> {
        match expression {
            Expr::Value(value) => Ok(value.clone()),
            Expr::Variable(name) => self.variable(name),
            Expr::Column { of, name } => self.column(of.as_deref(), name, frame),
            Expr::Call { name, arguments } => self.call(name, arguments, frame),
            Expr::Cast { what, kind, tries } => {
                let cast = self.value(what, frame)?.cast(*kind);
                if *tries {
                    Ok(cast.unwrap_or(Value::Null))
                } else {
                    cast
                }
            }
            Expr::Case {
                operand,
                branches,
                otherwise,
            } => {
                let operand = operand
                    .as_ref()
                    .map(|operand| self.value(operand, frame))
                    .transpose()?;
                for (condition, result) in branches {
                    let applies = match &operand {
                        Some(operand) => {
                            let value = self.value(condition, frame)?;
                            operand.compare(&value)? == Some(Ordering::Equal)
                        }
                        None => self.truth(condition, frame)? == Some(true),
                    };
                    if applies {
                        return self.value(result, frame);
                    }
                }
                let otherwise = otherwise.as_ref().map(|otherwise| self.value(otherwise, frame));
                otherwise.unwrap_or(Ok(Value::Null))
            }
            Expr::Scalar(select) => {
                let answer = query::answer(self, select, Some(frame))?;
                let first = answer
                    .rows
                    .into_iter()
                    .next()
                    .and_then(|row| row.into_iter().next());
                Ok(first.unwrap_or(Value::Null))
            }
            Expr::Binary(
                operator @ (Operator::Add
                | Operator::Subtract
                | Operator::Multiply
                | Operator::Divide
                | Operator::Modulo
                | Operator::BitAnd
                | Operator::BitOr),
                left,
                right,
            ) => arithmetic(*operator, &self.value(left, frame)?, &self.value(right, frame)?),
            Expr::Star(_) => Err(Fault::syntax("*")),
            // A condition where a value belongs: there is no type for it.
            Expr::Binary(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::In(..)
            | Expr::InQuery(..)
            | Expr::Like(..)
            | Expr::Exists(_) => Err(Fault::syntax("a condition")),
        }
    }

    fn variable(self, name: &str) -> Result<Value, Fault> {
        if let Some(value) = functions::global(self.session, self.model, name) {
            return Ok(value);
        }
        match self.session.variable(name) {
            Some((_, value)) => Ok(value.clone()),
            None => {
                let text = format!("Must declare the scalar variable \"{name}\".");
                Err(Fault::new(137, 15, text).aborting())
            }
        }
    }

    fn column(self, of: Option<&str>, name: &str, frame: &Frame<'_>) -> Result<Value, Fault> {
        let mut at = Some(frame);
        while let Some(frame) = at {
            for (source, row) in frame.sources.iter().zip(frame.row) {
                if of.is_some_and(|of| of != source.alias) {
                    continue;
                }
                if let Some(place) = source.relation.column(name) {
                    let row = row.and_then(|row| source.relation.rows.get(row));
                    return Ok(row.and_then(|row| row.get(place)).cloned().unwrap_or(Value::Null));
                }
            }
            at = frame.outer;
        }
        Err(Fault::no_column(name))
    }

    /// The kind that is known before any row is.
    pub(crate) fn kind(self, expression: &Expr, sources: &[Loaded]) -> Option<ColumnKind> {
        match expression {
            Expr::Cast { kind, .. } => Some(*kind),
            Expr::Variable(name) => self.session.variable(name).map(|(kind, _)| *kind),
            Expr::Column { of, name } => sources
                .iter()
                .filter(|source| of.as_ref().is_none_or(|of| *of == source.alias))
                .find_map(|source| source.relation.kind(name)),
            _ => None,
        }
    }

    fn call(self, name: &str, arguments: &[Expr], frame: &Frame<'_>) -> Result<Value, Fault> {
        if let Some(group) = frame.group.filter(|_| query::is_aggregate(name)) {
            return self.aggregate(name, arguments.first(), group, frame);
        }
        let values = arguments.iter().map(|argument| self.value(argument, frame));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        functions::call(self.session, self.model, name, &values)
    }

    fn aggregate(
        self,
        name: &str,
        argument: Option<&Expr>,
        group: &[Combination],
        frame: &Frame<'_>,
    ) -> Result<Value, Fault> {
        let mut values = Vec::new();
        for row in group {
            let frame = Frame {
                row,
                group: None,
                ..*frame
            };
            match argument {
                None | Some(Expr::Star(_)) => values.push(Value::Int(1)),
                Some(argument) => {
                    let value = self.value(argument, &frame)?;
                    if !value.is_null() {
                        values.push(value);
                    }
                }
            }
        }
        let count = i64::try_from(values.len()).unwrap_or_default();
        let mut values = values.into_iter();
        let better = match name {
            "count" => return Ok(Value::integer(count)),
            "count_big" => return Ok(Value::BigInt(count)),
            "min" => Ordering::Less,
            "max" => Ordering::Greater,
            _ => {
                let Some(first) = values.next() else {
                    return Ok(Value::Null);
                };
                return values.try_fold(first, |sum, value| arithmetic(Operator::Add, &sum, &value));
            }
        };
        let mut best = values.next().unwrap_or(Value::Null);
        for value in values {
            if value.compare(&best)? == Some(better) {
                best = value;
            }
        }
        Ok(best)
    }

    /// `None` is UNKNOWN.
    pub(crate) fn truth(self, condition: &Expr, frame: &Frame<'_>) -> Result<Option<bool>, Fault> {
        match condition {
            Expr::Binary(Operator::And, left, right) => {
                let left = self.truth(left, frame)?;
                if left == Some(false) {
                    return Ok(left);
                }
                let right = self.truth(right, frame)?;
                Ok(match (left, right) {
                    (_, Some(false)) => Some(false),
                    (Some(true), right) => right,
                    _ => None,
                })
            }
            Expr::Binary(Operator::Or, left, right) => {
                let left = self.truth(left, frame)?;
                if left == Some(true) {
                    return Ok(left);
                }
                let right = self.truth(right, frame)?;
                Ok(match (left, right) {
                    (_, Some(true)) => Some(true),
                    (Some(false), right) => right,
                    _ => None,
                })
            }
            Expr::Binary(operator, left, right) => {
                let order = self.value(left, frame)?.compare(&self.value(right, frame)?)?;
                Ok(order.map(|order| holds(*operator, order)))
            }
            Expr::Not(inner) => Ok(self.truth(inner, frame)?.map(|truth| !truth)),
            Expr::IsNull(what) => Ok(Some(self.value(what, frame)?.is_null())),
            Expr::In(what, list) => {
                let what = self.value(what, frame)?;
                let values = list.iter().map(|one| self.value(one, frame));
                contains(&what, &values.collect::<Result<Vec<_>, _>>()?)
            }
            Expr::InQuery(what, select) => {
                let what = self.value(what, frame)?;
                let answer = query::answer(self, select, Some(frame))?;
                let values: Vec<Value> = answer
                    .rows
                    .into_iter()
                    .filter_map(|row| row.into_iter().next())
                    .collect();
                contains(&what, &values)
            }
            Expr::Like(what, pattern) => {
                let (what, pattern) = (self.value(what, frame)?, self.value(pattern, frame)?);
                if what.is_null() || pattern.is_null() {
                    return Ok(None);
                }
                let fold = |value: &Value| value.shown().to_lowercase().chars().collect::<Vec<_>>();
                Ok(Some(is_like(&fold(&what), &fold(&pattern))))
            }
            Expr::Exists(select) => Ok(Some(!query::answer(self, select, Some(frame))?.rows.is_empty())),
            other => Err(Fault::syntax(&format!("{:?}", std::mem::discriminant(other)))),
        }
    }
}

const fn holds(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn contains(what: &Value, list: &[Value]) -> Result<Option<bool>, Fault> {
    let mut unknown = what.is_null();
    for value in list {
        match what.compare(value)? {
            Some(Ordering::Equal) => return Ok(Some(true)),
            None => unknown = true,
            Some(_) => {}
        }
    }
    Ok(if unknown { None } else { Some(false) })
}

/// `%` and `_`; sets in brackets are not known here.
fn is_like(text: &[char], pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skip| is_like(text.get(skip..).unwrap_or_default(), rest)),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(first, left)| (first == wanted || *wanted == '_') && is_like(left, rest)),
    }
}

fn overflow() -> Fault {
    Fault::new(
        8115,
        16,
        "Arithmetic overflow error converting expression to data type int.",
    )
}

pub(crate) fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, Fault> {
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    if operator == Operator::Add {
        match (left, right) {
            (Value::Text(one), Value::Text(two)) => return Ok(Value::Text(format!("{one}{two}"))),
            (Value::Bytes(one), Value::Bytes(two)) => return Ok(Value::Bytes([&one[..], two].concat())),
            _ => {}
        }
    }
    let has_fraction = |value: &Value| matches!(value, Value::Float(_) | Value::Decimal { .. });
    if has_fraction(left) || has_fraction(right) {
        return fractions(operator, left, right);
    }
    let kind = ColumnKind::BigInt;
    let (Value::BigInt(one), Value::BigInt(two)) = (left.cast(kind)?, right.cast(kind)?) else {
        return Ok(Value::Null);
    };
    let result = match operator {
        Operator::Subtract => one.checked_sub(two),
        Operator::Multiply => one.checked_mul(two),
        Operator::Divide | Operator::Modulo if two == 0 => {
            return Err(Fault::new(8134, 16, "Divide by zero error encountered."));
        }
        Operator::Divide => one.checked_div(two),
        Operator::Modulo => one.checked_rem(two),
        Operator::BitAnd => Some(one & two),
        Operator::BitOr => Some(one | two),
        _ => one.checked_add(two),
    };
    result.map(Value::integer).ok_or_else(overflow)
}

/// Sums and differences of decimals are exact; all else is as a float.
fn fractions(operator: Operator, left: &Value, right: &Value) -> Result<Value, Fault> {
    let scale = |value: &Value| match value {
        Value::Decimal { scale, .. } => *scale,
        _ => 0,
    };
    let is_float = |value: &Value| matches!(value, Value::Float(_));
    let exact = !is_float(left) && !is_float(right);
    if exact && matches!(operator, Operator::Add | Operator::Subtract) {
        let scale = scale(left).max(scale(right));
        let digits = |value: &Value| decimal_of(&value.shown(), scale).ok_or_else(overflow);
        let (one, two) = (digits(left)?, digits(right)?);
        let digits = if operator == Operator::Add {
            one + two
        } else {
            one - two
        };
        return Ok(Value::Decimal { digits, scale });
    }
    let kind = ColumnKind::Float;
    let (Value::Float(one), Value::Float(two)) = (left.cast(kind)?, right.cast(kind)?) else {
        return Ok(Value::Null);
    };
    let result = match operator {
        Operator::Subtract => one - two,
        Operator::Multiply => one * two,
        Operator::Divide if two == 0.0 => {
            return Err(Fault::new(8134, 16, "Divide by zero error encountered."));
        }
        Operator::Divide => one / two,
        Operator::Modulo => one % two,
        _ => one + two,
    };
    if exact {
        let scale = scale(left) + scale(right);
        let text = format!("{result:.*}", usize::from(scale));
        let digits = decimal_of(&text, scale).ok_or_else(overflow)?;
        return Ok(Value::Decimal { digits, scale });
    }
    Ok(Value::Float(result))
}
