//! Lines about transactions, read back: for who asks the journal of this process what is still open, or
//! what became of a message. Nothing is verified here; that is for `verify`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::audit::marker::Marker;
use crate::audit::record::{Doubtful, Evidence, Facts, IdentityFacts, Outcome, Scope};
use crate::audit::stored::{is_compressed, segments};
use crate::domain::correlation::{CORRELATION_IDS_MAX, Correlation, CorrelationSource};
use crate::domain::ids::{ProviderName, RoleName, SessionId, TicketId};
use crate::domain::incarnation::Incarnation;
use crate::domain::target::{DatabaseName, Engine, TargetName};

/// The members before `event` are short; what does not name its event this early is no record of ours.
const EVENT_WITHIN: usize = 512;
const TRANSACTION: &[u8] = br#""event":"transaction."#;

/// Names a transaction for ever: no session reference is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) epoch: u64,
    pub(super) session: SessionId,
    pub(super) number: u64,
}

/// What a line says of a transaction.
#[derive(Debug)]
pub(super) enum Said {
    Intent,
    Outcome(Outcome),
    Reconciled {
        outcome: Outcome,
        evidence: Evidence,
        why: Option<Doubtful>,
    },
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) key: Key,
    pub(super) at: SystemTime,
    pub(super) facts: Facts,
    pub(super) correlation: Vec<Correlation>,
    pub(super) id: Option<u64>,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) marker: Option<Marker>,
    pub(super) backend: Option<i32>,
    pub(super) said: Said,
    /// It wrote nothing.
    pub(super) is_read_only: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    at: Cow<'a, str>,
    epoch: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    identity: Option<Identity>,
    target: Option<TargetName>,
    engine: Option<Engine>,
    database: Option<DatabaseName>,
    role: Option<RoleName>,
    login: Option<Arc<str>>,
    #[serde(default)]
    correlation: Vec<Id>,
    detail: Detail,
}

#[derive(Deserialize)]
struct Identity {
    provider: ProviderName,
    subject: String,
    client_id: Option<String>,
    tenant: Option<String>,
    name: Option<String>,
    token_id: Option<String>,
    ticket_id: Option<String>,
}

#[derive(Deserialize)]
struct Id {
    id: Arc<str>,
    source: CorrelationSource,
}

#[derive(Deserialize)]
struct Detail {
    number: u64,
    id: Option<u64>,
    of_epoch: Option<u64>,
    outcome: Option<Outcome>,
    evidence: Option<Evidence>,
    why: Option<Doubtful>,
    incarnation: Option<String>,
    marker: Option<String>,
    backend: Option<i32>,
    scope: Option<Scope>,
}

/// Of full segments. One that is compressed counts as full.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The newest segments of a journal, oldest first: as much as `most` full ones hold. A segment is as small as
/// its run was short.
pub(super) fn newest(directory: &Path, most: usize) -> std::io::Result<Vec<PathBuf>> {
    let mut files = segments(directory)?;
    let budget = SEGMENT_BYTES.saturating_mul(u64::try_from(most).unwrap_or(u64::MAX));
    let (mut older, mut bytes) = (files.len(), 0_u64);
    while bytes < budget
        && let Some(before) = older.checked_sub(1)
        && let Some(file) = files.get(before)
    {
        let size = if is_compressed(file) {
            SEGMENT_BYTES
        } else {
            std::fs::metadata(file)?.len()
        };
        bytes = bytes.saturating_add(size);
        older = before;
    }
    Ok(files.split_off(older))
}

/// Reads a line if it is about a transaction.
pub(super) fn told(line: &[u8]) -> Option<Told> {
    let beginning = line.get(..EVENT_WITHIN.min(line.len()))?;
    memchr::memmem::find(beginning, TRANSACTION)?;
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let detail = line.detail;
    let said = match (line.event.as_ref(), detail.outcome, detail.evidence) {
        ("transaction.intent", ..) => Said::Intent,
        ("transaction.outcome", Some(outcome), _) => Said::Outcome(outcome),
        ("transaction.reconciled", Some(outcome), Some(evidence)) => Said::Reconciled {
            outcome,
            evidence,
            why: detail.why,
        },
        _ => return None,
    };
    let session = SessionId::read(&line.session)?;
    let key = Key {
        epoch: detail.of_epoch.unwrap_or(line.epoch),
        session,
        number: detail.number,
    };
    let facts = Facts {
        session: Some(session),
        identity: line.identity.map(IdentityFacts::from),
        target: line.target,
        engine: line.engine,
        database: line.database,
        role: line.role,
        login: line.login,
        ..Facts::default()
    };
    let ids = line.correlation.into_iter().take(CORRELATION_IDS_MAX);
    Some(Told {
        key,
        at: humantime::parse_rfc3339(&line.at).ok()?,
        facts,
        correlation: ids.map(|Id { id, source }| Correlation { id, source }).collect(),
        id: detail.id,
        incarnation: detail.incarnation.and_then(|text| text.parse().ok()),
        marker: detail.marker.and_then(|text| text.parse().ok()),
        backend: detail.backend,
        said,
        is_read_only: detail.scope == Some(Scope::ReadOnly),
    })
}

impl From<Identity> for IdentityFacts {
    fn from(read: Identity) -> Self {
        Self {
            provider: read.provider,
            subject: read.subject,
            client_id: read.client_id,
            tenant: read.tenant,
            name: read.name,
            token_id: read.token_id,
            ticket_id: read.ticket_id.as_deref().and_then(TicketId::read),
        }
    }
}
