//! `when` conditions: CEL over the verified claims, checked when the policy is read and bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value};

/// CEL's own names of types, which `type(x) == string` compares with.
const TYPE_NAMES: [&str; 10] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

#[derive(Clone)]
pub(super) struct Expression {
    program: Arc<Program>,
    env: Arc<Env>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source())
    }
}

/// Verified claims in CEL's form; made at most once a decision.
pub(super) struct Claims(Value);

impl Claims {
    pub(super) fn new(claims: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self(object(claims))
    }
}

impl Expression {
    /// As it was written.
    pub(super) fn source(&self) -> &str {
        &self.program.source_info().source
    }

    /// The error is a sentence for the person who wrote it.
    pub(super) fn compile(source: &str, env: &Arc<Env>) -> Result<Self, String> {
        let program = env.compile(source).map_err(|errors| {
            let first = errors.errors.first();
            let told = first.map(|error| {
                let (line, column) = error.pos;
                format!(" (line {line}, column {column} of the expression): {}", error.msg)
            });
            format!("not a CEL expression{}", told.unwrap_or_default())
        })?;
        check(program.expression(), &mut vec!["claims"], false)?;
        let expression = Self {
            program: Arc::new(program),
            env: Arc::clone(env),
        };
        expression.try_out()?;
        Ok(expression)
    }

    /// Runs it once without claims. Missing claims are expected; what can never work is not.
    fn try_out(&self) -> Result<(), String> {
        match self.run(&Claims::new(&serde_json::Map::new())) {
            Ok(Value::Bool(_)) => Ok(()),
            Ok(_) => Err("the expression must give true or false".to_owned()),
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(format!("the expression uses `{name}`, which does not exist"))
            }
            Err(_) => Ok(()),
        }
    }

    /// The error says what went wrong; it may quote claims, so it is for `explain` alone.
    pub(super) fn evaluate(&self, claims: &Claims) -> Result<bool, String> {
        match self.run(claims) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) => Err("gave neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn run(&self, claims: &Claims) -> Result<Value, ExecutionError> {
        let mut scope = Context::with_env(Arc::clone(&self.env));
        scope.add_variable_from_value("claims", claims.0.clone());
        self.program.execute(&scope)
    }
}

/// Refuses unknown names, and loops inside loops: a token of 16 KiB holds thousands of list items,
/// and their square would stop a thread for seconds.
fn check<'e>(expression: &'e IdedExpr, known: &mut Vec<&'e str>, in_loop: bool) -> Result<(), String> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if known.contains(&name.as_str()) || TYPE_NAMES.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => Err(format!(
            "the expression uses `{name}`; it may use `claims` only (as in claims.{name})"
        )),
        Expr::Select(select) => check(&select.operand, known, in_loop),
        Expr::Call(call) => {
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            each(parts, known, in_loop)
        }
        Expr::List(list) => each(list.elements.iter(), known, in_loop),
        Expr::Map(map) => map
            .entries
            .iter()
            .try_for_each(|entry| check_entry(&entry.expr, known, in_loop)),
        Expr::Struct(_) => Err("the expression makes a message, which `when` does not need".to_owned()),
        Expr::Comprehension(_) if in_loop => {
            Err("the expression loops inside a loop; write two rules instead".to_owned())
        }
        Expr::Comprehension(inner) => {
            each([&inner.iter_range, &inner.accu_init], known, false)?;
            let before = known.len();
            known.extend([inner.iter_var.as_str(), inner.accu_var.as_str()]);
            known.extend(inner.iter_var2.as_deref());
            let body = [&inner.loop_cond, &inner.loop_step, &inner.result];
            let checked = each(body, known, true);
            known.truncate(before);
            checked
        }
    }
}

fn each<'e>(
    parts: impl IntoIterator<Item = &'e IdedExpr>,
    known: &mut Vec<&'e str>,
    in_loop: bool,
) -> Result<(), String> {
    parts.into_iter().try_for_each(|part| check(part, known, in_loop))
}

fn check_entry<'e>(entry: &'e EntryExpr, known: &mut Vec<&'e str>, in_loop: bool) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => check(&field.value, known, in_loop),
        EntryExpr::MapEntry(entry) => each([&entry.key, &entry.value], known, in_loop),
    }
}

fn object(object: &serde_json::Map<String, serde_json::Value>) -> Value {
    let entries = object
        .iter()
        .map(|(key, claim)| (Key::String(Arc::new(key.clone())), value(claim)));
    Value::Map(Map {
        map: Arc::new(entries.collect::<HashMap<_, _>>()),
    })
}

/// Whole numbers become CEL's int where they fit, as literals in an expression are.
fn value(claim: &serde_json::Value) -> Value {
    match claim {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::UInt))
            .or_else(|| number.as_f64().map(Value::Float))
            .unwrap_or(Value::Null),
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(value).collect())),
        serde_json::Value::Object(inner) => object(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(source: &str, claims: &serde_json::Value) -> Result<bool, String> {
        let claims = Claims::new(claims.as_object().unwrap());
        Expression::compile(source, &Arc::new(Env::stdlib()))?.evaluate(&claims)
    }

    #[test]
    fn expressions_over_claims() {
        let claims =
            json!({"idtyp": "app", "exp": 5, "amr": ["pwd", "mfa"], "deep": {"a": [1.5]}, "yes": true});
        let rows = [
            ("claims.idtyp == 'app'", Ok(true)),
            ("claims.idtyp != 'app'", Ok(false)),
            ("claims.exp > 4 && claims.yes", Ok(true)),
            ("'mfa' in claims.amr", Ok(true)),
            ("claims.amr.exists(m, m == 'mfa')", Ok(true)),
            ("has(claims.nope)", Ok(false)),
            ("claims.idtyp.matches('^a.p$')", Ok(true)),
            ("claims.deep.a[0] == 1.5", Ok(true)),
            ("type(claims.idtyp) == string", Ok(true)),
            ("claims.nope == 'app'", Err(())),
            ("claims.exp == 'app' || claims.nope", Err(())),
            ("claims.idtyp", Err(())),
        ];
        for (source, expected) in rows {
            assert_eq!(evaluate(source, &claims).map_err(drop), expected, "{source}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused_when_read() {
        let env = Arc::new(Env::stdlib());
        let rows = [
            ("claims.idtyp ==", "not a CEL expression"),
            ("idtyp == 'app'", "claims.idtyp"),
            ("1 + 1", "true or false"),
            ("frobnicate(1)", "frobnicate"),
            ("claims.a.all(x, claims.b.exists(y, x == y))", "loop"),
        ];
        for (source, expected) in rows {
            let error = Expression::compile(source, &env).unwrap_err();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }
}
