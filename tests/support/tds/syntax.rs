//! What statements are made of, as far as this server knows them.

use gatepost::wire::tds::reply::ColumnKind;

use super::value::Value;

/// A name of up to three parts, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) database: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) object: String,
    /// As it was written.
    pub(crate) shown: String,
}

impl Name {
    pub(crate) fn schema(&self) -> &str {
        self.schema
            .as_deref()
            .filter(|schema| !schema.is_empty())
            .unwrap_or("dbo")
    }

    /// How objects are kept.
    pub(crate) fn key(&self) -> String {
        format!("{}.{}", self.schema(), self.object)
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.object.starts_with('#')
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    BitAnd,
    BitOr,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Value(Value),
    Variable(String),
    Column {
        of: Option<String>,
        name: String,
    },
    Call {
        name: String,
        arguments: Vec<Expr>,
    },
    Cast {
        what: Box<Expr>,
        kind: ColumnKind,
        tries: bool,
    },
    Binary(Operator, Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    InQuery(Box<Expr>, Box<Select>),
    Like(Box<Expr>, Box<Expr>),
    Case {
        operand: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Exists(Box<Select>),
    Scalar(Box<Select>),
    /// `*`, or `t.*`.
    Star(Option<String>),
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) what: Expr,
    pub(crate) alias: Option<String>,
    /// `SELECT @x = …`.
    pub(crate) into: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Join {
    First,
    Cross,
    Inner(Expr),
    Left(Expr),
}

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: Name,
    pub(crate) alias: String,
    pub(crate) join: Join,
    /// READCOMMITTEDLOCK: who has changed a row and is not over is waited for.
    pub(crate) waits: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Select {
    pub(crate) distinct: bool,
    pub(crate) top: Option<Expr>,
    pub(crate) items: Vec<Item>,
    pub(crate) into: Option<Name>,
    pub(crate) sources: Vec<Source>,
    pub(crate) filter: Option<Expr>,
    pub(crate) groups: Vec<Expr>,
    /// True for descending.
    pub(crate) order: Vec<(Expr, bool)>,
    pub(crate) union: Option<Box<Select>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Values(Vec<Vec<Expr>>),
    Select(Box<Select>),
    Defaults,
}

#[derive(Clone, Debug)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
    pub(crate) required: bool,
    pub(crate) identity: bool,
    pub(crate) default: Option<Expr>,
    /// The CHECK constraint's name, and what a value must be greater than.
    pub(crate) above: Option<(String, i64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
    pub(crate) default: Option<Expr>,
    pub(crate) is_output: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Argument {
    pub(crate) name: Option<String>,
    pub(crate) value: Expr,
    pub(crate) is_output: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum LoginChange {
    Enabled(bool),
    Password(String),
    Database(String),
}

/// What changes principals and objects.
#[derive(Clone, Debug)]
pub(crate) enum Definition {
    CreateDatabase(String),
    DropDatabase(String),
    CreateLogin {
        name: String,
        password: String,
        database: Option<String>,
    },
    AlterLogin(String, LoginChange),
    DropLogin(String),
    CreateUser {
        name: String,
        /// Without login and password it is of an external provider.
        login: Option<String>,
        password: Option<String>,
        schema: Option<String>,
    },
    AlterUser {
        name: String,
        password: Option<String>,
        schema: Option<String>,
    },
    DropUser {
        name: String,
        if_exists: bool,
    },
    CreateRole(String),
    DropRole(String),
    Member {
        of_server: bool,
        role: String,
        member: String,
        adds: bool,
    },
    CreateSchema {
        name: String,
        owner: Option<String>,
    },
    CreateTable {
        name: Name,
        columns: Vec<ColumnDefinition>,
        keys: Vec<(String, Vec<String>)>,
    },
    CreateIndex {
        name: String,
        table: Name,
        columns: Vec<String>,
        unique: bool,
    },
    DropTable {
        name: Name,
        if_exists: bool,
    },
    CreateProcedure {
        name: Name,
        parameters: Vec<Parameter>,
        body: Vec<Spoken>,
        replaces: bool,
    },
    DropProcedure(Name),
    Grant {
        grants: bool,
        permissions: Vec<String>,
        /// Class and name; nothing for the database or the server.
        on: Option<(String, Name)>,
        to: Vec<String>,
    },
    Authorization {
        class: String,
        name: Name,
        to: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Select(Box<Select>),
    Insert {
        table: Name,
        columns: Vec<String>,
        rows: Rows,
        output: Vec<Item>,
    },
    InsertBulk {
        table: Name,
        columns: Vec<String>,
    },
    Update {
        table: Name,
        sets: Vec<(String, Expr)>,
        filter: Option<Expr>,
        output: Vec<Item>,
    },
    Delete {
        top: Option<Expr>,
        table: Name,
        filter: Option<Expr>,
        output: Vec<Item>,
    },
    Declare(Vec<(String, ColumnKind, Option<Expr>)>),
    SetVariable(String, Expr),
    /// `SET NAME … value`, all words in lower case.
    SetOption(Vec<String>),
    ContextInfo(Expr),
    If {
        condition: Expr,
        then: Box<Spoken>,
        otherwise: Option<Box<Spoken>>,
    },
    While {
        condition: Expr,
        body: Box<Spoken>,
    },
    Block(Vec<Spoken>),
    Try {
        body: Vec<Spoken>,
        handler: Vec<Spoken>,
    },
    Return(Option<Expr>),
    Begin,
    Commit,
    Rollback(Option<String>),
    Save(String),
    Use(String),
    Print(Expr),
    RaiseError(Vec<Expr>),
    Throw(Vec<Expr>),
    WaitFor(Expr),
    Kill(Expr),
    Execute {
        result: Option<String>,
        name: Name,
        arguments: Vec<Argument>,
    },
    ExecuteText(Expr),
    Define(Box<Definition>),
    /// Taken, and nothing happens.
    Nothing,
}

/// A statement with its text.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    pub(crate) what: Statement,
    pub(crate) text: String,
}
