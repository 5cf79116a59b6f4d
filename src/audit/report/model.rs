//! What a report holds. Serialised as it is: the JSON form, whose members `docs/audit.md` describes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::audit::report::bounded::{Listing, Tally};
use crate::audit::report::control::Control;
use crate::audit::verify::Head;

/// Names the form of the JSON. Members are added under the same name; a change of meaning changes it.
pub const SCHEMA: &str = "gatepost.audit.report/1";

/// Rows of one list: more is not read by anybody, and belongs in an export.
pub const ROWS: usize = 500;
/// Names that are told apart in the whole report, and of one identity.
pub const NAMES: usize = 500;
/// Names that are told apart of one identity; with as many identities as are kept apart, a report still
/// fits in memory.
pub const OWN_NAMES: usize = 24;

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub generated_at: String,
    pub from: String,
    pub to: String,
    pub controls: Vec<Control>,
    pub journal: JournalPart,
    pub chain: Chain,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlassPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusals: Option<RefusalPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operators: Option<OperatorPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<GapPart>,
}

/// Which records the report was made of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JournalPart {
    pub installations: Tally<16>,
    pub replicas: Tally<64>,
    /// Records in the period, by event.
    pub events: Tally<128>,
    pub first: Option<Place>,
    pub last: Option<Place>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    pub seq: u64,
    pub at: String,
}

/// What was proved of the journal.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Chain {
    Sound {
        /// The id of the public key.
        key: String,
        /// The key came from where whoever writes the journal cannot reach it, as far as it was given.
        key_was_given: bool,
        records: u64,
        segments: u64,
        heads: u64,
        head: Option<Head>,
        /// Records behind the last head, which prove nothing.
        unsigned: u64,
    },
    Broken {
        key: String,
        what: String,
    },
}

/// Who could.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PolicyPart {
    pub versions: Listing<PolicyVersion, 64>,
    pub rejected: Listing<Rejected, ROWS>,
}

/// One version of the policy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PolicyVersion {
    pub version: String,
    /// It was in force when the period began.
    pub at_beginning: bool,
    /// When it came into force in the period, and how often in all: each start and each reload.
    pub loaded: Listing<Place, 8>,
    pub rules: u64,
    #[serde(flatten)]
    pub outline: Outline,
}

/// As the record of its loading says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Outline {
    pub files: Vec<File>,
    pub roles: Vec<Role>,
    pub permits: Vec<Permit>,
    pub operators: Vec<Operator>,
    /// What the record left out.
    pub omitted: u64,
}

/// A file of the policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct File {
    pub name: String,
    pub sha256: String,
}

/// A role of the policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Role {
    pub name: String,
    pub target: String,
    pub database: String,
    pub break_glass: bool,
    pub grants: String,
}

/// A rule of the policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Permit {
    pub rule: String,
    pub who: String,
    pub role: Option<String>,
    pub deny: Option<String>,
    /// How the values of their statements are on record, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
}

/// An `admin` rule of the policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Operator {
    pub rule: String,
    pub who: String,
    pub allow: Vec<String>,
}

/// A configuration that was not taken over.
#[derive(Clone, Debug, Serialize)]
pub struct Rejected {
    #[serde(flatten)]
    pub place: Place,
    pub mistakes: u64,
}

/// Who did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AccessPart {
    pub identities: Vec<Person>,
    /// Records of identities beyond those that are told apart.
    pub of_others: u64,
    pub transactions: Tally<16>,
}

/// What one identity did in the period.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Person {
    pub provider: String,
    pub subject: String,
    pub tenant: Option<String>,
    pub name: Option<String>,
    pub client_ids: Tally<8>,
    pub sessions: u64,
    pub refused: u64,
    /// By outcome; `read_only` were recorded and wrote nothing, `unknown` have an intent alone.
    pub transactions: Tally<16>,
    /// Transactions by role, and by target and database.
    pub roles: Tally<OWN_NAMES>,
    pub targets: Tally<OWN_NAMES>,
    /// Statements by kind.
    pub statements: Tally<OWN_NAMES>,
    pub rows: u64,
    /// Statements by what they wrote and read, where that can be told.
    pub written: Tally<OWN_NAMES>,
    pub read: Tally<OWN_NAMES>,
    pub rules: Tally<OWN_NAMES>,
    pub addresses: Tally<OWN_NAMES>,
    pub first: Place,
    pub last: Place,
}

/// Roles for emergencies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BreakGlassPart {
    pub roles: BTreeSet<String>,
    pub uses: Listing<Use, ROWS>,
    /// Transactions by outcome.
    pub transactions: Tally<16>,
}

/// A session with a role for emergencies.
#[derive(Clone, Debug, Serialize)]
pub struct Use {
    #[serde(flatten)]
    pub place: Place,
    pub who: String,
    pub role: String,
    pub target: String,
    pub session: String,
    pub address: String,
}

/// Logins, tickets and secrets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CredentialPart {
    pub minted: u64,
    pub renewed: u64,
    pub disabled: Tally<32>,
    pub dropped: u64,
    /// Not expired when the period ended.
    pub live_at_end: u64,
    /// Expired, and not dropped as far as the journal tells.
    pub left_over: Listing<LeftOver, ROWS>,
    pub tampered: Listing<Happening, ROWS>,
    pub tickets_issued: u64,
    pub tickets_denied: u64,
    pub rotated: Listing<Happening, ROWS>,
    /// Logins beyond those that are followed: whether they were dropped is not known.
    pub not_followed: u64,
}

/// A login that should be gone.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOver {
    pub login: String,
    pub who: String,
    pub role: String,
    pub target: String,
    pub minted_at: String,
    pub expires_at: String,
    pub disabled: bool,
}

/// Something that happened once.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    #[serde(flatten)]
    pub place: Place,
    pub who: String,
    pub what: String,
}

/// Who was turned away.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RefusalPart {
    /// By code; those that were only summed up are `summed_up`.
    pub by_code: Tally<64>,
    pub by_reason: Tally<NAMES>,
    pub by_address: Tally<NAMES>,
    pub by_identity: Tally<NAMES>,
    /// Sessions that were ended by gatepost, by what the client was told.
    pub ended: Tally<64>,
}

/// What operators asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OperatorPart {
    /// By action and result.
    pub actions: Tally<64>,
    /// All that change something, or were refused.
    pub acts: Listing<Happening, ROWS>,
}

/// Messages that took several transactions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RetryPart {
    /// Correlation ids that were compared; those that gatepost made itself are not.
    pub compared: u64,
    pub not_compared: u64,
    /// Of those with several transactions: committed more than once; committed after a failure; never.
    pub committed_twice: u64,
    pub committed_after_failure: u64,
    pub never_committed: u64,
    pub ids: Listing<Retried, ROWS>,
}

/// One correlation id with several transactions.
#[derive(Clone, Debug, Serialize)]
pub struct Retried {
    pub correlation: String,
    pub attempts: Listing<Attempt, 8>,
    pub committed: u64,
    pub failed: u64,
}

/// One of its transactions.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    #[serde(flatten)]
    pub place: Place,
    pub xid: Option<u64>,
    pub outcome: &'static str,
}

/// Where the evidence is not whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GapPart {
    /// Only the intent is on record.
    pub unknown: Listing<Doubt, ROWS>,
    pub in_doubt: Listing<Doubt, ROWS>,
    pub prepared: Listing<Doubt, ROWS>,
    /// Transactions that may cover more commits than one record says.
    pub partial: u64,
    /// Transactions that were settled from evidence afterwards, by outcome.
    pub reconciled: Tally<16>,
    pub repaired: Listing<Happening, ROWS>,
    pub recovered: Listing<Happening, ROWS>,
    /// Runs that ended without saying so.
    pub unstopped: Listing<Run, ROWS>,
    /// Transactions under way beyond those that are followed.
    pub not_followed: u64,
}

/// A transaction whose outcome is not known.
#[derive(Clone, Debug, Serialize)]
pub struct Doubt {
    #[serde(flatten)]
    pub place: Place,
    pub who: String,
    pub session: String,
    pub number: u64,
    pub xid: Option<u64>,
    pub target: String,
    pub role: String,
    pub correlation: Vec<String>,
}

/// One run of gatepost.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub epoch: u64,
    /// Its last record.
    #[serde(flatten)]
    pub last: Place,
}
