//! When the transaction id of a write that commits by itself is asked for.

/// How a PostgreSQL statement outside of a block gets its transaction id on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autocommit {
    /// The statement runs, its id is asked for, the intent with the id is written, and only then it may commit:
    /// two round trips to the server, and whatever happens behind that can be asked after.
    AskFirst,
    /// The intent without an id is written, the statement runs and commits in one round trip, and the reply is
    /// held until the outcome with the id is written. Where that does not come about, nobody can say what
    /// became of the statement.
    HoldReply,
}
