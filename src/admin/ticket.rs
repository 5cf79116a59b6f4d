//! `POST /v1/ticket`: a client's own access token becomes a ticket for a driver whose password field is
//! too short for it. No admin right is asked for; whom the policy grants anything there gets one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::body::{Body, Bytes};
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::json;

use crate::admin::api::{self, Answer, Door};
use crate::admin::ask;
use crate::admin::problem::{Problem, json_response};
use crate::admin::proxy::Proxy;
use crate::audit::{ClientFacts, Facts, IdentityFacts};
use crate::domain::{Identity, IdentityKey, Network, Reason, Secret, TicketId};
use crate::identity::ticket::{LIFETIME_DEFAULT, LIFETIME_MAX, ShownFrom};
use crate::identity::{IssueError, TokenError};

/// Names are two of at most 63 bytes, and room for what other engines allow.
const TARGET_BYTES_MAX: usize = 256;
/// A driver that is started at once and connects.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Tickets are over soon, and then there is room.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Who wishes for a ticket: an address before anything is verified, then an identity.
#[derive(Clone, Copy, Debug)]
pub enum Wishing<'a> {
    Address(IpAddr),
    Identity(&'a IdentityKey),
}

/// What somebody with a good token asks for.
#[derive(Clone, Debug)]
pub struct TicketWish {
    pub identity: Arc<Identity>,
    /// Length of the token.
    pub token_bytes: usize,
    pub peer: SocketAddr,
    /// As a driver would name it: a database, its alias, `target/database`; or a target.
    pub target: String,
    /// `None`: from where the request comes.
    pub from: Option<ShownFrom>,
    pub lifetime: Duration,
    pub single_use: bool,
    /// Who asks, for the record.
    pub facts: Facts,
}

/// A ticket, and what it is good for.
#[derive(Debug)]
pub struct TicketView {
    pub ticket: Secret<String>,
    pub id: TicketId,
    pub expires_at: SystemTime,
    /// `target/database`, or the target alone.
    pub target: String,
    pub bound_to: ShownFrom,
    pub single_use: bool,
}

/// Why there is none, with what is known of who asked for what.
#[derive(Debug)]
pub struct TicketRefused {
    pub facts: Box<Facts>,
    pub why: NoTicket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// Nothing is granted there, or there is no such place.
    NoGrant,
    Revoked,
    /// Only the caller's own address, or what `tickets` in gatepost.yaml lists.
    AddressNotOffered,
    Issue(IssueError),
    /// The journal does not take the record.
    Unrecorded,
}

/// Answers one request for a ticket.
pub(super) async fn answer<B>(proxy: &dyn Proxy, door: Door, head: &Parts, body: B) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Door::Api { peer } = door else {
        return not_here().into_response();
    };
    let mut facts = Facts {
        client: Some(ClientFacts {
            address: peer,
            application: None,
        }),
        ..Facts::default()
    };
    let problem = match understood(proxy, peer, &mut facts, head, body).await {
        Err(problem) => problem,
        Ok(wish) => match proxy.issue_ticket(wish).await {
            Ok(ticket) => return handed_out(&ticket),
            Err(TicketRefused { facts: known, why }) => {
                facts = *known;
                refused(&why)
            }
        },
    };
    proxy.note_no_ticket(facts, label(problem.status()), problem.detail().to_owned());
    problem.into_response()
}

async fn understood<B>(
    proxy: &dyn Proxy,
    peer: SocketAddr,
    facts: &mut Facts,
    head: &Parts,
    body: B,
) -> Result<TicketWish, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    api::no_web_page(&head.headers)?;
    let rationed = |wait| {
        let detail = "too many tickets were asked for from here, or by this identity";
        too_many(detail, wait)
    };
    // Before anything is verified, which costs more than to count.
    proxy.admit_wish(Wishing::Address(peer.ip())).map_err(rationed)?;
    let (identity, token_bytes) = api::bearer_identity(proxy, &head.headers).await?;
    facts.identity = Some(IdentityFacts::from(identity.as_ref()));
    proxy
        .admit_wish(Wishing::Identity(&identity.key()))
        .map_err(rationed)?;
    api::plain(&head.headers, head.uri.query())?;
    let body = ask::body(body).await?;
    api::json_or_nothing(&head.headers, &body)?;
    let TicketBody {
        target,
        lifetime,
        single_use,
        address,
    } = ask::parse(&body)?;
    if target.is_empty() || target.len() > TARGET_BYTES_MAX {
        let detail = format!("\"target\" names a database in 1 to {TARGET_BYTES_MAX} bytes");
        return Err(Problem::bad_request(detail));
    }
    Ok(TicketWish {
        identity,
        token_bytes,
        peer,
        target,
        from: address.as_deref().map(shown_from).transpose()?,
        lifetime: lifetime.as_deref().map_or(Ok(LIFETIME_DEFAULT), span)?,
        single_use,
        facts: facts.clone(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    target: String,
    /// `5m`.
    lifetime: Option<String>,
    #[serde(default)]
    single_use: bool,
    /// An address, a network, or `any`.
    address: Option<String>,
}

fn span(text: &str) -> Result<Duration, Problem> {
    let span = humantime::parse_duration(text).ok();
    let span = span.filter(|span| (LIFETIME_MIN..=LIFETIME_MAX).contains(span));
    span.ok_or_else(|| Problem::bad_request("\"lifetime\" is a duration like 90s or 5m, from 1s to 15m"))
}

fn shown_from(text: &str) -> Result<ShownFrom, Problem> {
    if text == "any" {
        return Ok(ShownFrom::Anywhere);
    }
    let network: Result<Network, _> = text.parse();
    network.map(ShownFrom::Network).map_err(|_| {
        Problem::bad_request("\"address\" is an IP address, a network like 10.0.0.0/8, or \"any\"")
    })
}

/// The one place where a ticket leaves the process.
fn handed_out(made: &TicketView) -> Answer {
    let body = json!({
        "ticket": made.ticket.expose(),
        "id": made.id,
        "expires_at": humantime::format_rfc3339_seconds(made.expires_at).to_string(),
        "target": made.target,
        "bound_to": made.bound_to.to_string(),
        "single_use": made.single_use,
    });
    json_response(StatusCode::CREATED, &body)
}

fn refused(why: &NoTicket) -> Problem {
    match why {
        // Word for word what a database client hears, for an unknown target too.
        NoTicket::NoGrant => {
            let told = Reason::NoGrant { own_roles: vec![] };
            let hint =
                "Check the target's name and the policy; \"gatepost explain\" shows which rule decides.";
            Problem::new(StatusCode::FORBIDDEN, told.to_string(), hint)
        }
        NoTicket::Revoked => Problem::new(
            StatusCode::FORBIDDEN,
            Reason::Revoked.to_string(),
            "Ask the operator; a new token does not help while the revocation lasts.",
        ),
        NoTicket::AddressNotOffered => Problem::new(
            StatusCode::FORBIDDEN,
            "a ticket is bound to the address that asks for it; no other is offered",
            "Ask from the machine that connects, or have its network listed under \"tickets\" in gatepost.yaml.",
        ),
        NoTicket::Issue(IssueError::TokenExpired { ago }) => {
            api::disbelieved(&TokenError::Expired { ago: *ago })
        }
        NoTicket::Issue(IssueError::TooMany) => too_many(
            "too many tickets of this identity, or at all, are in use",
            FULL_RETRY,
        ),
        NoTicket::Unrecorded => api::unrecorded(),
    }
}

fn too_many(detail: &str, wait: Duration) -> Problem {
    let hint = "Use one ticket for all connections of a program; it is good for many.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail, hint).later(wait)
}

fn not_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "tickets are given over TLS only, for a token",
        "Ask the API (listen.api) with an access token.",
    )
}

/// For the records, in the words of refused sessions where there is one.
fn label(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "token_rejected",
        StatusCode::FORBIDDEN => "not_permitted",
        StatusCode::TOO_MANY_REQUESTS => "too_many_tickets",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "bad_request",
    }
}
