//! Correlation ids: what a client says its work belongs to (a message, a request, a trace).
//! Always asserted by the client; the identity is what gatepost verified.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Ids that one transaction may carry; a batch of messages rarely exceeds a broker's fetch size.
pub const CORRELATION_IDS_MAX: usize = 1_000;
/// Bytes of one id; a `traceparent` has 55, a UUID 36, composed message ids are a few times that.
pub const CORRELATION_ID_BYTES_MAX: usize = 256;

/// Where an id was found, most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrelationSource {
    /// `SET [LOCAL] gatepost.correlation_id = '…'`, or `sp_set_session_context N'correlation_id'`.
    Set,
    /// A W3C `traceparent` in a sqlcommenter comment.
    Traceparent,
    /// A `correlation_id` in a sqlcommenter comment.
    Comment,
    /// The Trace Activity header of a SQL Server driver's request.
    TraceActivity,
    /// `options=-c gatepost.correlation_id=…` at start-up.
    Startup,
    /// `corr=…` in the application name.
    ApplicationName,
    /// Made by gatepost because the client gave none.
    Generated,
}

impl CorrelationSource {
    /// Did the client choose the id, for its message or its connection? Drivers make trace activities up
    /// for each request, whether anybody asked for it or not.
    pub const fn is_chosen(self) -> bool {
        !matches!(self, Self::Generated | Self::TraceActivity)
    }
}

/// One id with its source. At most [`CORRELATION_ID_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Correlation {
    pub id: Arc<str>,
    pub source: CorrelationSource,
}

impl Correlation {
    /// `None` when the id is empty, too long, or holds control characters.
    pub fn new(id: &str, source: CorrelationSource) -> Option<Self> {
        let fits = !id.is_empty() && id.len() <= CORRELATION_ID_BYTES_MAX;
        (fits && !id.chars().any(char::is_control)).then(|| Self {
            id: Arc::from(id),
            source,
        })
    }
}
