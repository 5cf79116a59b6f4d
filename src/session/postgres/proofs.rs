//! What is proven of this session's statements, and what these do to everybody's proofs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::credential::{CatalogueWatch, Pin, Unrest, View};
use crate::session::ledger::IS_AUDITED;
use crate::sql::Kind;
use crate::sql::pg::{Proven, prove};

/// Parameter types below this came with the server. Others have an input function or a check that runs at Bind,
/// and no text that names them.
const FIRST_OWN_OID: u32 = 16_384;

/// The server's parameter that says in which encoding texts come.
pub(super) const ENCODING: &str = "client_encoding";

/// What one session knows.
#[derive(Debug)]
pub(super) struct Proofs {
    watch: Option<CatalogueWatch>,
    /// Something ran in the transaction at hand that may make code: nobody is sure of anything until it is over.
    unrest: Option<Unrest>,
    /// Something ran that was judged by a snapshot of which nobody was sure. The oldest says enough.
    pin: Option<Pin>,
    utf8: bool,
}

/// A judgement, and what it was made by.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    proven: Proven,
    /// `None`: the kind says enough.
    by: Option<View>,
}

impl Judged {
    pub(super) const BY_ITS_KIND: Self = Self {
        proven: Proven::Nothing,
        by: None,
    };

    /// Does it surely write nothing?
    pub(super) fn is_plain_read(&self) -> bool {
        self.proven == Proven::PlainRead && self.by.as_ref().is_some_and(|view| view.believed)
    }
}

/// May a text be judged at all, and what came of it last: the snapshot's number and the verdict.
#[derive(Debug)]
pub(super) struct Memory {
    legible: bool,
    last: AtomicU64,
}

/// Bits of [`Memory::last`] that hold the verdict.
const VERDICT_BITS: u32 = 2;

impl Memory {
    pub(super) const fn illegible() -> Self {
        Self {
            legible: false,
            last: AtomicU64::new(0),
        }
    }

    fn recall(&self, number: u64) -> Option<Proven> {
        let last = self.last.load(Ordering::Relaxed);
        if last >> VERDICT_BITS != number || number == 0 {
            return None;
        }
        Some(match last & ((1 << VERDICT_BITS) - 1) {
            2 => Proven::PlainRead,
            1 => Proven::RunsNoCode,
            _ => Proven::Nothing,
        })
    }

    fn keep(&self, number: u64, proven: Proven) {
        let verdict = match proven {
            Proven::Nothing => 0,
            Proven::RunsNoCode => 1,
            Proven::PlainRead => 2,
        };
        self.last
            .store(number << VERDICT_BITS | verdict, Ordering::Relaxed);
    }
}

impl Proofs {
    pub(super) fn new(watch: Option<CatalogueWatch>, parameters: &[(String, String)]) -> Self {
        let encoding = parameters.iter().find(|(name, _)| name == ENCODING);
        Self {
            watch: watch.filter(|_| IS_AUDITED),
            unrest: None,
            pin: None,
            utf8: encoding.is_some_and(|(_, value)| value == "UTF8"),
        }
    }

    pub(super) fn note_encoding(&mut self, value: &[u8]) {
        self.utf8 = value == b"UTF8";
    }

    /// For a text that is prepared. `kept` is what is left of it here; `types` are its parameters' as the client
    /// declared them; `first`: nothing before it in its group could have changed the encoding in which the server
    /// reads it.
    pub(super) fn memory(&self, text: &[u8], kept: &str, types: &[u8], first: bool) -> Memory {
        let servers_own = |oid: &[u8]| {
            let oid = oid.try_into().map(u32::from_be_bytes);
            oid.is_ok_and(|oid| oid < FIRST_OWN_OID)
        };
        let legible = text == kept.as_bytes()
            && (text.is_ascii() || (self.utf8 && first))
            && types.chunks(size_of::<u32>()).all(servers_own);
        Memory {
            legible,
            last: AtomicU64::new(0),
        }
    }

    /// Judges a text that was prepared.
    pub(super) fn judge_prepared(&self, text: &str, kind: Kind, memory: &Memory) -> Judged {
        let Some(view) = self.view(kind) else {
            return Judged::BY_ITS_KIND;
        };
        let proven = match &view.catalogue {
            Some(_) if !memory.legible => Proven::Nothing,
            Some(catalogue) => memory.recall(view.number).unwrap_or_else(|| {
                let proven = prove(text.as_bytes(), kind, true, catalogue);
                memory.keep(view.number, proven);
                proven
            }),
            None => Proven::Nothing,
        };
        Judged {
            proven,
            by: Some(view),
        }
    }

    /// Judges a text that is run as it came.
    pub(super) fn judge(&self, text: &[u8], kind: Kind, first: bool) -> Judged {
        let Some(view) = self.view(kind) else {
            return Judged::BY_ITS_KIND;
        };
        let catalogue = view.catalogue.as_ref();
        let proven = catalogue.map_or(Proven::Nothing, |catalogue| {
            prove(text, kind, self.utf8 && first, catalogue)
        });
        Judged {
            proven,
            by: Some(view),
        }
    }

    fn view(&self, kind: Kind) -> Option<View> {
        self.watch
            .as_ref()
            .filter(|_| is_provable(kind))
            .map(CatalogueWatch::view)
    }

    /// A statement of this kind, judged so, is about to run.
    pub(super) fn runs(&mut self, kind: Kind, judged: &Judged) {
        // A cursor runs what its DECLARE or its Bind was judged by.
        if kind.is_inert() || matches!(kind, Kind::Notify | Kind::Fetch) || self.unrest.is_some() {
            return;
        }
        match &judged.by {
            Some(view) if view.catalogue.is_none() || judged.proven != Proven::Nothing => {
                if !view.believed && self.pin.is_none() {
                    self.pin = Some(view.pin.clone());
                }
            }
            Some(_) | None => self.unrest = self.watch.as_ref().map(CatalogueWatch::disturb),
        }
    }

    /// The server is outside of a transaction, and all that was made in one can be seen.
    pub(super) fn settled(&mut self) {
        self.unrest = None;
        self.pin = None;
    }
}

/// Is it worth looking?
const fn is_provable(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Select
            | Kind::With
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
            | Kind::Lock
            | Kind::CopyIn
            | Kind::CopyOut
            | Kind::Declare
            | Kind::DeclareHeld
    )
}
