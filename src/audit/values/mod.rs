//! The values of statements on their way to the journal: parameters as their messages held them, copied once
//! and looked at by the writer thread alone, which shows them as the rule says (`show`, `key`).

use std::fmt;
use std::sync::{Arc, OnceLock};

mod key;
mod show;

pub use key::ValueKey;
pub(super) use show::{StatementValues, Transcript};

/// Bytes of parameters that are kept of one transaction. They wait in memory until it ends, in its session and
/// in the journal's queue; what writes more in one transaction is a bulk load, of which the count of rows tells
/// more than its values.
pub const TRANSACTION_BYTES_MAX: usize = 256 << 10;
/// Types that are kept of one prepared statement: more parameters than these do not fit into a message that is
/// waited for.
pub const TYPES_MAX: usize = 4_096;
/// A type's number.
const OID_BYTES: usize = 4;

/// What is kept of the values of one statement.
#[derive(Clone, Debug)]
pub enum Values {
    /// Nothing but its text.
    OfText,
    /// They stand with the first statement of the same text.
    WithTheFirst,
    Bound(Arc<Bound>),
    /// Of one call in a request of SQL Server's.
    Called {
        request: Arc<Called>,
        /// From 0.
        call: usize,
    },
    /// It had parameters, and there was no room for them.
    Omitted,
}

impl Values {
    /// Bytes that are kept in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bound(bound) => bound.bytes.len(),
            // All calls share one copy.
            Self::Called { request, call: 0 } => request.payload.len(),
            Self::OfText | Self::WithTheFirst | Self::Called { .. } | Self::Omitted => 0,
        }
    }
}

/// The parameters of one PostgreSQL Bind: its body behind the names, as far as it was here.
pub struct Bound {
    bytes: Box<[u8]>,
    types: Option<Arc<ParameterTypes>>,
}

impl Bound {
    pub fn new(bytes: &[u8], types: Option<Arc<ParameterTypes>>) -> Self {
        Self {
            bytes: bytes.into(),
            types,
        }
    }
}

/// Values are people's data.
impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes of values]", self.bytes.len())
    }
}

/// A request with calls of procedures, as far as it was here.
pub struct Called {
    payload: Box<[u8]>,
    is_whole: bool,
}

impl Called {
    pub fn new(payload: &[u8], is_whole: bool) -> Self {
        Self {
            payload: payload.into(),
            is_whole,
        }
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes of values]", self.payload.len())
    }
}

/// The types of a prepared statement's parameters: as the client declared them, and as the server told them
/// if it was asked. The server may tell when values are on their way already; the writer thread looks later.
#[derive(Debug, Default)]
pub struct ParameterTypes {
    declared: Box<[u8]>,
    told: OnceLock<Box<[u8]>>,
}

impl ParameterTypes {
    /// Four bytes for each type; 0 is left to the server.
    pub fn declared(types: &[u8]) -> Self {
        Self {
            declared: kept(types),
            told: OnceLock::new(),
        }
    }

    /// What the server answered, in the same form.
    pub fn told(&self, types: &[u8]) {
        // It tells the same each time.
        let _known = self.told.set(kept(types));
    }

    /// Bytes that are kept in memory.
    pub fn bytes(&self) -> usize {
        self.declared.len() + self.told.get().map_or(0, |told| told.len())
    }

    fn of(&self, parameter: usize) -> u32 {
        let declared = nth(&self.declared, parameter).filter(|oid| *oid != 0);
        let told = || nth(self.told.get()?, parameter);
        declared.or_else(told).unwrap_or_default()
    }
}

fn kept(types: &[u8]) -> Box<[u8]> {
    types.get(..TYPES_MAX * OID_BYTES).unwrap_or(types).into()
}

fn nth(types: &[u8], at: usize) -> Option<u32> {
    let oid = types.chunks_exact(OID_BYTES).nth(at)?;
    oid.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_values_and_types_are_those_declared_or_else_told() {
        let types = Arc::new(ParameterTypes::declared(&[0, 0, 0, 23, 0, 0, 0, 0]));
        assert_eq!([0, 1, 2].map(|at| types.of(at)), [23, 0, 0]);
        types.told(&[0, 0, 0, 20, 0, 0, 0, 25]);
        assert_eq!([0, 1, 2].map(|at| types.of(at)), [23, 25, 0]);
        assert_eq!(types.bytes(), 16);
        let values = Values::Bound(Arc::new(Bound::new(b"hunter2", Some(types))));
        assert!(!format!("{values:?}").contains("hunter"));
        assert_eq!(values.bytes(), 7);
    }

    #[test]
    fn types_are_bounded() {
        let many = vec![1; 1 << 20];
        assert_eq!(ParameterTypes::declared(&many).bytes(), TYPES_MAX * OID_BYTES);
    }
}
