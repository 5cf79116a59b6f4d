//! What the programs of SQL Server's two Rust drivers share, each as a module of its own: surroundings and results as
//! `sqlserver_steps.py` has them.

use std::path::PathBuf;

use serde_json::{Value, json};

pub(crate) const BULK: i32 = 10_000;

pub(crate) struct Surroundings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) authority: PathBuf,
    pub(crate) strict: bool,
    pub(crate) name: String,
    /// An access token; without it user and password.
    pub(crate) token: Option<String>,
    pub(crate) user: String,
    pub(crate) password: String,
    /// A statement that takes long; needed by `cancel` alone.
    pub(crate) long: String,
    /// Where `ddl` makes its table.
    pub(crate) schema: String,
    pub(crate) rows: i64,
    pub(crate) big: usize,
}

impl Surroundings {
    pub(crate) fn of_environment() -> Self {
        let get = |name: &str| std::env::var(format!("GATEPOST_TEST_{name}")).ok();
        let must = |name: &str| get(name).unwrap_or_else(|| panic!("GATEPOST_TEST_{name} is missing"));
        Self {
            host: must("HOST"),
            port: must("PORT").parse().unwrap(),
            database: must("DATABASE"),
            authority: must("CA").into(),
            strict: get("TLS").as_deref() == Some("strict"),
            name: must("NAME"),
            token: get("TOKEN"),
            user: get("USER").unwrap_or_default(),
            password: get("PASSWORD").unwrap_or_default(),
            long: get("LONG").unwrap_or_default(),
            schema: get("SCHEMA").unwrap_or_else(|| "dbo".to_owned()),
            rows: get("ROWS").map_or(100_000, |it| it.parse().unwrap()),
            big: get("BIG").map_or(20 * 1024 * 1024, |it| it.parse().unwrap()),
        }
    }

    pub(crate) fn ddl_table(&self) -> String {
        format!(
            "{}.ddl_{}",
            self.schema,
            self.name.replace(|it: char| !it.is_ascii_alphanumeric(), "_")
        )
    }

    pub(crate) fn big_values(&self) -> (Vec<u8>, String) {
        let raw = (0..self.big).map(|it| u8::try_from(it % 256).unwrap()).collect();
        (raw, "xäöü".repeat(self.big / 8))
    }

    pub(crate) fn correlation(&self) -> String {
        format!("correlation of {}", self.name)
    }
}

/// What a driver or a server said against it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) number: Option<u32>,
    pub(crate) text: String,
}

/// A step's values, and an error when that is what it was about.
pub(crate) struct Done {
    values: Vec<Value>,
    error: Option<Failure>,
}

impl Done {
    pub(crate) fn told(values: Vec<Value>, error: Failure) -> Self {
        Self {
            values,
            error: Some(error),
        }
    }
}

impl From<Vec<Value>> for Done {
    fn from(values: Vec<Value>) -> Self {
        Self { values, error: None }
    }
}

/// The error that had to come.
pub(crate) fn raised<T>(result: Result<T, Failure>) -> Result<Failure, Failure> {
    match result {
        Err(error) => Ok(error),
        Ok(_) => Err(unexpected("no error")),
    }
}

pub(crate) fn unexpected(what: impl std::fmt::Debug) -> Failure {
    Failure {
        number: None,
        text: format!("unexpected: {what:?}"),
    }
}

/// Values that are as they should be.
pub(crate) fn same(values: Vec<Value>, expected: &[Value]) -> Result<Done, Failure> {
    if values == expected {
        Ok(values.into())
    } else {
        Err(unexpected(values))
    }
}

/// Prints a result's one line.
pub(crate) fn tell(step: &str, result: Result<Done, Failure>) {
    let (ok, values, error) = match result {
        Ok(done) => (true, done.values, done.error),
        Err(error) => (false, Vec::new(), Some(error)),
    };
    let (number, text) = error.map_or((None, None), |it| (it.number, Some(it.text)));
    println!(
        "{}",
        json!({"step": step, "ok": ok, "values": values, "error_number": number, "error_text": text})
    );
}
