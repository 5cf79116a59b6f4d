//! What is asked for, once somebody may ask: read from the path and the body, and checked.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::{Body, Bytes};
use serde::Deserialize;

use crate::admin::problem::Problem;
use crate::admin::routes::is_name;
use crate::admin::view::NewRevocation;
use crate::domain::revocation::Struck;
use crate::domain::{AdminAction, ProviderName, TargetName};
use crate::identity::ticket::holds_a_ticket;

/// The largest body is a revocation: five short texts.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024;
/// A client sends these few bytes at once.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// As in policies: subjects, client ids and reasons are shorter.
const TEXT_CHARS_MAX: usize = 512;
/// Longer than the life of almost every access token, so that a revocation outlives them.
const REVOCATION_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// What must last longer belongs into a `deny` rule, where others see it.
const REVOCATION_LASTS_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const REVOCATION_LASTS_MIN: Duration = Duration::from_secs(1);

/// One request, understood.
#[derive(Debug)]
pub(super) enum Ask {
    Sessions,
    Kill(String),
    Pools,
    Logins,
    Rotate(Option<TargetName>),
    Policy,
    Reload,
    Refresh(ProviderName),
    Revocations,
    Revoke(NewRevocation),
    Lift(String),
}

impl Ask {
    /// `argument` stands in the path; `by` is the operator.
    pub(super) fn read(
        action: AdminAction,
        argument: Option<&str>,
        body: &[u8],
        by: String,
    ) -> Result<Self, Problem> {
        if action == AdminAction::Revoke {
            return revocation(body, by).map(Self::Revoke);
        }
        if action == AdminAction::LoginsRotate && !body.is_empty() {
            let RotateBody { target } = parse(body)?;
            let target = target.map(plain_name).transpose()?;
            return Ok(Self::Rotate(target.map(TargetName::new)));
        }
        if !body.is_empty() {
            return Err(Problem::bad_request("this route takes no body"));
        }
        let argument = argument.unwrap_or_default().to_owned();
        Ok(match action {
            AdminAction::SessionsList => Self::Sessions,
            AdminAction::SessionsKill => Self::Kill(argument),
            AdminAction::PoolsList => Self::Pools,
            AdminAction::LoginsList => Self::Logins,
            AdminAction::LoginsRotate => Self::Rotate(None),
            AdminAction::PolicyShow => Self::Policy,
            AdminAction::Reload => Self::Reload,
            AdminAction::KeysRefresh => Self::Refresh(ProviderName::new(argument)),
            AdminAction::RevocationsList => Self::Revocations,
            AdminAction::Revoke => return Err(Problem::bad_request("the body is missing")),
            AdminAction::RevocationsLift => Self::Lift(argument),
        })
    }

    /// What it is about, for the record.
    pub(super) fn what(&self) -> Option<String> {
        match self {
            Self::Sessions
            | Self::Pools
            | Self::Logins
            | Self::Rotate(None)
            | Self::Policy
            | Self::Reload
            | Self::Revocations => None,
            Self::Kill(name) | Self::Lift(name) => Some(name.clone()),
            Self::Rotate(Some(target)) => Some(target.to_string()),
            Self::Refresh(provider) => Some(provider.to_string()),
            Self::Revoke(revocation) => {
                let (kind, whom) = revocation.struck.parts();
                let provider = revocation.provider.as_ref();
                let provider = provider.map_or_else(String::new, |provider| format!(" of {provider}"));
                let lasts = humantime::format_duration(revocation.lasts);
                Some(format!("{kind} {whom}{provider} for {lasts}"))
            }
        }
    }
}

/// The whole body, within its limits of size and time.
pub(super) async fn body<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {BODY_BYTES_MAX} bytes"),
            "Send one request for each thing that is to be done.",
        )),
        Ok(Err(_)) => Err(Problem::bad_request("the body was cut off")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {} s", BODY_WITHIN.as_secs()),
            "Try again.",
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    target: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    subject: Option<String>,
    client_id: Option<String>,
    token_id: Option<String>,
    session: Option<String>,
    provider: Option<String>,
    /// `24h`.
    #[serde(rename = "for")]
    lasts: Option<String>,
    reason: Option<String>,
}

pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The reader's own message may repeat what was sent, and somebody sends a token one day.
        Problem::bad_request(format!(
            "the body is not the JSON that this route takes (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

fn revocation(body: &[u8], by: String) -> Result<NewRevocation, Problem> {
    let body: RevocationBody = parse(body)?;
    let struck = [
        body.subject.map(Struck::Subject),
        body.client_id.map(Struck::ClientId),
        body.token_id.map(Struck::TokenId),
        body.session.map(Struck::Session),
    ];
    let mut struck = struck.into_iter().flatten();
    let (Some(struck), None) = (struck.next(), struck.next()) else {
        return Err(Problem::bad_request(
            "exactly one of subject, client_id, token_id and session says whom it strikes",
        ));
    };
    let (kind, whom) = struck.parts();
    text(kind, whom)?;
    if matches!(struck, Struck::Session(_)) && !is_reference(whom) {
        return Err(Problem::bad_request(
            "a session's reference is s- and 20 hexadecimal digits",
        ));
    }
    if let Some(reason) = &body.reason {
        text("reason", reason)?;
    }
    let provider = body.provider.map(plain_name).transpose()?;
    Ok(NewRevocation {
        struck,
        provider: provider.map(ProviderName::new),
        lasts: body.lasts.map_or(Ok(REVOCATION_LASTS), |lasts| span(&lasts))?,
        by,
        reason: body.reason,
    })
}

fn span(text: &str) -> Result<Duration, Problem> {
    let span = humantime::parse_duration(text).ok();
    let span = span.filter(|span| (REVOCATION_LASTS_MIN..=REVOCATION_LASTS_MAX).contains(span));
    span.ok_or_else(|| Problem::bad_request("\"for\" is a duration like 30m or 24h, from 1s to 366days"))
}

fn text(key: &str, value: &str) -> Result<(), Problem> {
    let wrong = if value.is_empty() {
        "is empty"
    } else if value.chars().count() > TEXT_CHARS_MAX {
        "is longer than 512 characters"
    } else if value.chars().any(char::is_control) {
        "holds a control character"
    } else if value.starts_with("eyJ") || holds_a_ticket(value) {
        // Operators paste what they have at hand. This would end in lists and in the journal.
        "looks like a token; give the token's id (jti or uti)"
    } else {
        return Ok(());
    };
    Err(Problem::bad_request(format!("{key} {wrong}")))
}

fn plain_name(name: String) -> Result<String, Problem> {
    if is_name(&name) {
        Ok(name)
    } else {
        Err(Problem::bad_request(
            "names of providers and targets have letters, digits, - and _ only",
        ))
    }
}

fn is_reference(text: &str) -> bool {
    let digits = text.strip_prefix("s-").unwrap_or_default();
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == 20 && digits.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoke(body: &str) -> Result<NewRevocation, String> {
        match Ask::read(AdminAction::Revoke, None, body.as_bytes(), "ann".to_owned()) {
            Ok(Ask::Revoke(revocation)) => Ok(revocation),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => Err(problem.detail().to_owned()),
        }
    }

    #[test]
    fn a_revocation_says_whom_how_long_and_why() {
        let plain = revoke(r#"{"subject": "bob"}"#).unwrap();
        assert_eq!(plain.struck, Struck::Subject("bob".to_owned()));
        assert_eq!(plain.lasts, REVOCATION_LASTS);
        let full = revoke(
            r#"{"session": "s-0123456789abcdef0123", "provider": "okta", "for": "90m", "reason": "left"}"#,
        )
        .unwrap();
        assert_eq!(full.lasts, Duration::from_secs(5_400));
        let ask = Ask::Revoke(full);
        assert_eq!(
            ask.what().unwrap(),
            "session s-0123456789abcdef0123 of okta for 1h 30m"
        );
    }

    #[test]
    fn what_is_no_revocation_is_refused() {
        let long = format!(r#"{{"subject": "{}"}}"#, "x".repeat(513));
        let rows = [
            ("", "not the JSON"),
            ("[]", "not the JSON"),
            ("{", "not the JSON"),
            ("{}", "exactly one of"),
            (r#"{"subject": "a", "client_id": "b"}"#, "exactly one of"),
            (r#"{"subjekt": "a"}"#, "not the JSON"),
            (r#"{"subject": "a", "subject": "b"}"#, "not the JSON"),
            (r#"{"subject": ["a"]}"#, "not the JSON"),
            (r#""eyJhbGciOi.x.y""#, "takes (line 1, column 16)"),
            (r#"{"subject": ""}"#, "subject is empty"),
            (r#"{"subject": "a\u0007"}"#, "control character"),
            (r#"{"token_id": "eyJhbGciOi"}"#, "looks like a token"),
            (r#"{"subject": "a", "reason": "a\nb"}"#, "control character"),
            (r#"{"session": "s-1"}"#, "20 hexadecimal digits"),
            (r#"{"subject": "a", "provider": "a b"}"#, "letters, digits"),
            (r#"{"subject": "a", "for": "soon"}"#, "is a duration"),
            (r#"{"subject": "a", "for": "0s"}"#, "is a duration"),
            (r#"{"subject": "a", "for": "2years"}"#, "is a duration"),
            (r#"{"subject": "a", "for": 60}"#, "not the JSON"),
            (&long, "longer than 512"),
        ];
        for (body, expected) in rows {
            let told = revoke(body).unwrap_err();
            assert!(told.contains(expected), "{body}: {told}");
            assert!(!told.contains("eyJ"), "{told}");
        }
    }

    #[test]
    fn only_what_takes_a_body_may_have_one() {
        for action in AdminAction::ALL {
            let read = Ask::read(action, Some("x"), b"{}", String::new());
            let takes = matches!(action, AdminAction::LoginsRotate);
            assert_eq!(read.is_ok(), takes, "{action}");
        }
        let rotate = |body: &str| Ask::read(AdminAction::LoginsRotate, None, body.as_bytes(), String::new());
        assert!(matches!(rotate(""), Ok(Ask::Rotate(None))));
        assert!(matches!(
            rotate(r#"{"target": "orders"}"#),
            Ok(Ask::Rotate(Some(_)))
        ));
        assert!(rotate(r#"{"target": "or ders"}"#).is_err());
    }
}
