//! One exchange of the API, the same at both doors: find the route, recognise the caller, ask for the
//! permit, read what is asked, record, act, answer.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::admin::ask::{self, Ask};
use crate::admin::bearer::{self, BearerError};
use crate::admin::problem::{CHALLENGE, Problem, json_response};
use crate::admin::proxy::{Proxy, Trouble};
use crate::admin::routes::{self, Purpose, Way};
use crate::admin::ticket;
use crate::audit::{AdminCall, AdminResult, ClientFacts, Facts, IdentityFacts, PolicyFacts};
use crate::domain::{AdminAction, Identity, LocalOperator, ParameterRule, Reason, Refuse};
use crate::identity::TokenError;
use crate::policy::{AdminPermit, AdminRights};

/// What one listing shows; the total is told beside it. Ten thousand sessions are some 5 MB.
const LISTED_MAX: usize = 10_000;

/// How somebody came in, before anything about them is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Api {
        peer: SocketAddr,
    },
    /// The user id is the kernel's word.
    Socket {
        uid: u32,
        operator: Option<LocalOperator>,
    },
}

/// Somebody who was recognised, and what they may do.
#[derive(Debug)]
struct Caller {
    facts: Facts,
    /// For lists that name who made an entry.
    name: String,
    rights: AdminRights,
}

pub(super) type Answer = Response<Full<Bytes>>;

/// Answers one request, whatever it is.
pub(super) async fn answer<B>(proxy: Arc<dyn Proxy>, door: Door, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let way = routes::find(&head.method, head.uri.path());
    let (action, argument) = match way {
        Way::To {
            purpose: Purpose::Act(action),
            argument,
        } => (action, argument),
        Way::To {
            purpose: Purpose::Ticket,
            ..
        } => return ticket::answer(proxy.as_ref(), door, &head, body).await,
        Way::WrongMethod(methods) => return wrong_method(&methods).into_response(),
        Way::Nowhere => return nowhere().into_response(),
    };
    let call = Call { door, action };
    let caller = match recognise(proxy.as_ref(), door, &head.headers).await {
        Ok(caller) => caller,
        Err(problem) => return call.refuse(proxy.as_ref(), call.stranger(), problem),
    };
    let permit = match permit(&caller, call, &head.headers, head.uri.query()) {
        Ok(permit) => permit,
        Err(problem) => return call.refuse(proxy.as_ref(), caller.facts, problem),
    };
    let read = match ask::body(body).await {
        Ok(body) => understood(action, argument, &head.headers, &body, caller.name),
        Err(problem) => Err(problem),
    };
    let facts = with_rule(caller.facts, &permit);
    let ask = match read {
        Ok(ask) => ask,
        Err(problem) => return call.end(proxy.as_ref(), facts, AdminResult::Failed, problem),
    };
    // A caller who hangs up must not leave an act half done.
    let done = tokio::spawn(on_record(proxy, call, facts, permit, ask));
    done.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an operator's call was not finished");
        internal().into_response()
    })
}

/// One call on its way.
#[derive(Clone, Copy, Debug)]
struct Call {
    door: Door,
    action: AdminAction,
}

impl Call {
    fn record(self, what: Option<String>, result: AdminResult, why: Option<String>) -> AdminCall {
        let (door, uid) = match self.door {
            Door::Api { .. } => ("api", None),
            Door::Socket { uid, .. } => ("socket", Some(uid)),
        };
        AdminCall {
            action: self.action,
            door,
            uid,
            what,
            result,
            why,
        }
    }

    /// Facts about somebody of whom nothing is verified.
    fn stranger(self) -> Facts {
        let client = match self.door {
            Door::Api { peer } => Some(ClientFacts {
                address: peer,
                application: None,
            }),
            Door::Socket { .. } => None,
        };
        Facts {
            client,
            ..Facts::default()
        }
    }

    fn refuse(self, proxy: &dyn Proxy, facts: Facts, problem: Problem) -> Answer {
        self.end(proxy, facts, AdminResult::Refused, problem)
    }

    /// Ends before anything was done. Nobody waits for the record.
    fn end(self, proxy: &dyn Proxy, facts: Facts, result: AdminResult, problem: Problem) -> Answer {
        let why = Some(problem.detail().to_owned());
        proxy.note(facts, self.record(None, result, why));
        problem.into_response()
    }
}

async fn recognise(proxy: &dyn Proxy, door: Door, headers: &HeaderMap) -> Result<Caller, Problem> {
    no_web_page(headers)?;
    match door {
        Door::Socket { uid, operator } => by_user(uid, operator, headers),
        Door::Api { peer } => by_token(proxy, peer, headers).await,
    }
}

fn by_user(uid: u32, operator: Option<LocalOperator>, headers: &HeaderMap) -> Result<Caller, Problem> {
    if headers.contains_key(AUTHORIZATION) {
        return Err(Problem::bad_request(
            "the socket knows its callers by their user; send a token to the API instead",
        ));
    }
    let operator = operator.ok_or_else(|| {
        Problem::new(
            StatusCode::FORBIDDEN,
            "only root and the user that gatepost runs as may use this socket",
            "Become one of them, or use the API with a token.",
        )
    })?;
    Ok(Caller {
        facts: Facts::default(),
        name: format!("uid {uid}"),
        rights: AdminRights::of_local(operator),
    })
}

pub(super) fn no_web_page(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(ORIGIN) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "requests of web pages are not answered",
            "Use gatepost's own commands, or a client that is not a browser.",
        ));
    }
    Ok(())
}

async fn by_token(proxy: &dyn Proxy, peer: SocketAddr, headers: &HeaderMap) -> Result<Caller, Problem> {
    let (identity, _) = bearer_identity(proxy, headers).await?;
    let facts = IdentityFacts::from(identity.as_ref());
    let name = identity.name.clone().unwrap_or_else(|| identity.subject.clone());
    Ok(Caller {
        rights: proxy.rights(&identity),
        name: format!("{name} ({})", identity.provider),
        facts: Facts {
            identity: Some(facts),
            client: Some(ClientFacts {
                address: peer,
                application: None,
            }),
            ..Facts::default()
        },
    })
}

/// Whose token came with the request, and how long it was.
pub(super) async fn bearer_identity(
    proxy: &dyn Proxy,
    headers: &HeaderMap,
) -> Result<(Arc<Identity>, usize), Problem> {
    let token = bearer::read(headers).map_err(|error| match error {
        BearerError::Absent => unauthorised("this needs an access token").challenged(CHALLENGE),
        BearerError::Malformed => {
            let challenge = format!("{CHALLENGE}, error=\"invalid_request\"");
            Problem::bad_request("Authorization must hold one bearer token and nothing else")
                .challenged(&challenge)
        }
    })?;
    let identity = proxy.verify(&token).await.map_err(|error| disbelieved(&error))?;
    Ok((identity, token.expose().len()))
}

fn unauthorised(detail: impl Into<String>) -> Problem {
    let hint = "Send \"Authorization: Bearer …\" with an access token for gatepost's audience.";
    Problem::new(StatusCode::UNAUTHORIZED, detail, hint)
}

/// The sentences are the same that database clients read.
pub(super) fn disbelieved(error: &TokenError) -> Problem {
    let (_, reason) = error.refusal();
    let detail = reason.to_string();
    if reason == Reason::ProviderUnavailable {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail, "Try again shortly.");
    }
    unauthorised(detail).challenged(&format!("{CHALLENGE}, error=\"invalid_token\""))
}

fn permit(
    caller: &Caller,
    call: Call,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<AdminPermit, Problem> {
    let permit = caller.rights.permits(call.action).ok_or_else(|| {
        Problem::new(
            StatusCode::FORBIDDEN,
            format!("no admin rule allows {} to this identity", call.action),
            "Ask for it under \"admin\" in the policy; \"gatepost explain\" shows what an identity may do.",
        )
    })?;
    plain(headers, query)?;
    Ok(permit)
}

/// Nothing in the address but the path, and one kind of content at most.
pub(super) fn plain(headers: &HeaderMap, query: Option<&str>) -> Result<(), Problem> {
    if query.is_some() {
        // Also a token: addresses end in the logs of whatever lies between (RFC 6750, section 5.3).
        return Err(Problem::bad_request("no route takes parameters in its address"));
    }
    if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return Err(Problem::bad_request("Content-Type stands there more than once"));
    }
    Ok(())
}

fn understood(
    action: AdminAction,
    argument: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    by: String,
) -> Result<Ask, Problem> {
    json_or_nothing(headers, body)?;
    Ask::read(action, argument, body, by)
}

pub(super) fn json_or_nothing(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !body.is_empty() && !kind.trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON",
            "Send \"Content-Type: application/json\".",
        ));
    }
    Ok(())
}

fn with_rule(facts: Facts, permit: &AdminPermit) -> Facts {
    let policy = permit.rule().map(|(rule, version)| PolicyFacts {
        rule: Some(rule.clone()),
        version: Arc::clone(version),
        parameters: ParameterRule::Absent,
    });
    Facts { policy, ..facts }
}

/// An act is on record before it happens, and how it ended after it. A look is recorded before its
/// answer leaves; if that fails it is answered all the same, because somebody must be able to see
/// what is wrong.
async fn on_record(proxy: Arc<dyn Proxy>, call: Call, facts: Facts, permit: AdminPermit, ask: Ask) -> Answer {
    let what = ask.what();
    if !call.action.only_looks() {
        let permitted = call.record(what.clone(), AdminResult::Permitted, None);
        if let Err(error) = proxy.record(facts.clone(), permitted).await {
            tracing::error!(action = %call.action, %error, "an act is refused: it cannot be recorded");
            return unrecorded().into_response();
        }
    }
    let (result, why, answer) = match perform(proxy.as_ref(), permit, ask).await {
        Ok((status, body)) => (AdminResult::Done, None, json_response(status, &body)),
        Err(trouble) => {
            let why = Some(trouble.to_string());
            (AdminResult::Failed, why, in_trouble(&trouble).into_response())
        }
    };
    if let Err(error) = proxy.record(facts, call.record(what, result, why)).await {
        tracing::error!(action = %call.action, %error, "what an operator did cannot be recorded");
    }
    answer
}

async fn perform(proxy: &dyn Proxy, permit: AdminPermit, ask: Ask) -> Result<(StatusCode, Value), Trouble> {
    let good = |body| Ok((StatusCode::OK, body));
    match ask {
        Ask::Sessions => good(listing("sessions", &proxy.sessions(permit))),
        Ask::Pools => good(listing("pools", &proxy.pools(permit))),
        Ask::Revocations => good(listing("revocations", &proxy.revocations(permit))),
        Ask::Policy => good(json!(proxy.policy(permit))),
        Ask::Logins => {
            let found = proxy.logins(permit).await;
            let mut body = listing("logins", &found.logins);
            if let Some(members) = body.as_object_mut() {
                members.insert("unreachable".to_owned(), json!(found.unreachable));
            }
            good(body)
        }
        Ask::Kill(reference) => {
            if !proxy.kill(permit, &reference) {
                return Err(Trouble::NotFound(format!("session {reference} is not open")));
            }
            // It ends at the next boundary between transactions, a moment later at most.
            Ok((
                StatusCode::ACCEPTED,
                json!({"session": reference, "ending": true}),
            ))
        }
        Ask::Rotate(target) => {
            let rotated = proxy.rotate_logins(permit, target).await?;
            good(json!({ "rotated": rotated }))
        }
        Ask::Reload => good(json!(proxy.reload(permit).await?)),
        Ask::Refresh(provider) => {
            proxy.refresh_keys(permit, provider.clone()).await?;
            good(json!({"provider": provider, "refreshed": true}))
        }
        Ask::Revoke(revocation) => {
            let made = proxy.revoke(permit, revocation).await?;
            Ok((StatusCode::CREATED, json!(made)))
        }
        Ask::Lift(id) => {
            proxy.lift(permit, id.clone()).await?;
            good(json!({"id": id, "lifted": true}))
        }
    }
}

fn listing<T: serde::Serialize>(name: &str, items: &[T]) -> Value {
    let shown = items.get(..LISTED_MAX).unwrap_or(items);
    json!({"total": items.len(), name: shown})
}

fn in_trouble(trouble: &Trouble) -> Problem {
    let detail = trouble.to_string();
    match trouble {
        Trouble::NotFound(_) => Problem::new(StatusCode::NOT_FOUND, detail, "List what there is first."),
        Trouble::Unusable(_) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            detail,
            "Compare it with gatepost.yaml.",
        ),
        Trouble::Unavailable(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            detail,
            "Try again shortly; /readyz of the metrics listener tells what is missing.",
        ),
        Trouble::Mistakes(mistakes) => Problem::new(
            StatusCode::CONFLICT,
            detail,
            "What was in force stays in force; correct the files and reload again.",
        )
        .with_mistakes(mistakes.iter().map(ToString::to_string).collect()),
    }
}

fn wrong_method(methods: &[&str]) -> Problem {
    let detail = "this path exists for other methods only";
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        detail,
        "Use one that Allow names.",
    )
    .allowing(methods)
}

fn nowhere() -> Problem {
    let hint = "docs/operating.md lists the routes.";
    Problem::new(StatusCode::NOT_FOUND, "there is no such route", hint)
}

pub(super) fn unrecorded() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the audit journal cannot be written, and nothing is done without a record",
        "See to the audit directory: it is full or failing.",
    )
}

fn internal() -> Problem {
    let hint = "See gatepost's log.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this was not finished", hint)
}
