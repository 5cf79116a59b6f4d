//! Claims-based security, as Azure Service Bus has it: the connection is anonymous, and what it may do
//! follows from a token that is put to the node `$cbs`, and put again before it ends.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{ApplicationProperties, Body, Message, MessageId, Outcome, Properties};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Sender};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{Lost, read_secret};
use crate::parts::Failure;

const NODE: &str = "$cbs";
/// Where its answers go; any name will do that is unique on the connection.
const ANSWERS: &str = "cbs-answers";
/// Tokens of Entra ID, and of every other OIDC provider that a namespace trusts.
const TOKEN_TYPE: &str = "jwt";
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Renewed so long before the token ends: whoever writes the file has renewed it by then.
const BEFORE_THE_END: Duration = Duration::from_secs(300);
/// A token that ends sooner than that, or that does not say when, is looked for again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A token that was accepted, and the links to put the next one.
pub(super) struct Badge {
    file: PathBuf,
    audience: String,
    sender: Sender,
    receiver: Receiver,
    shown: String,
    requests: u64,
    due: Instant,
}

impl Badge {
    pub(super) async fn show(
        session: &mut SessionHandle<()>,
        file: PathBuf,
        audience: String,
    ) -> Result<Self, Failure> {
        let sender = Sender::attach(session, "cbs-requests", NODE).await?;
        let receiver = Receiver::builder()
            .name(ANSWERS)
            .source(NODE)
            .target(ANSWERS)
            .auto_accept(true)
            .attach(session)
            .await?;
        let mut badge = Self {
            file,
            audience,
            sender,
            receiver,
            shown: String::new(),
            requests: 0,
            due: Instant::now(),
        };
        badge.keep().await?;
        Ok(badge)
    }

    /// Puts the token of the file when the one that was put before is about to end.
    pub(super) async fn keep(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.due {
            return Ok(());
        }
        let token = read_secret(&self.file)?;
        if token != self.shown {
            match timeout(ANSWER_WAIT, self.put(&token)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(lost(&"no answer")),
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a worker's clock is the machine's")]
        let now = SystemTime::now();
        self.due = Instant::now() + time_to_keep(&token, now);
        self.shown = token;
        Ok(())
    }

    async fn put(&mut self, token: &str) -> Result<(), Failure> {
        self.requests += 1;
        let id = format!("put-token-{}", self.requests);
        let properties = Properties::builder()
            .message_id(id.clone())
            .reply_to(ANSWERS.to_owned())
            .build();
        let wanted = ApplicationProperties::builder()
            .insert("operation", "put-token")
            .insert("type", TOKEN_TYPE)
            .insert("name", self.audience.as_str())
            .build();
        let request = Message::builder()
            .properties(properties)
            .application_properties(wanted)
            .value(token.to_owned())
            .build();
        match self.sender.send(request).await.map_err(|error| lost(&error))? {
            Outcome::Accepted(_) => {}
            other => return Err(format!("`$cbs` did not take the request: {other:?}").into()),
        }
        loop {
            let answer = self.receiver.recv::<Body<Value>>().await;
            let answer = answer.map_err(|error| lost(&error))?;
            if is_answer_to(answer.message(), &id) {
                return judge(answer.message());
            }
        }
    }

    /// As if the time had come.
    #[cfg(test)]
    pub(super) fn be_due(&mut self) {
        self.due = Instant::now();
    }
}

fn lost(error: &dyn std::fmt::Display) -> Failure {
    Lost::new("`$cbs`", error).into()
}

fn is_answer_to<T>(answer: &Message<T>, id: &str) -> bool {
    let properties = answer.properties.as_ref();
    matches!(properties.and_then(|it| it.correlation_id.as_ref()), Some(MessageId::String(of)) if of == id)
}

/// 200 and 202 are both in use for "accepted".
fn judge<T>(answer: &Message<T>) -> Result<(), Failure> {
    let said = |name: &str| answer.application_properties.as_ref()?.0.get(name);
    let code = match said("status-code") {
        Some(SimpleValue::Int(code)) => i64::from(*code),
        Some(SimpleValue::Long(code)) => *code,
        Some(SimpleValue::Uint(code)) => i64::from(*code),
        Some(SimpleValue::Ushort(code)) => i64::from(*code),
        _ => return Err("the answer of `$cbs` has no status code".into()),
    };
    if code == 200 || code == 202 {
        return Ok(());
    }
    let why = match said("status-description") {
        Some(SimpleValue::String(text)) => text.as_str(),
        _ => "no reason given",
    };
    Err(format!("`$cbs` refused the token: {code} {why}").into())
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
}

/// For how long nothing has to be done. The token's own word is enough here: the broker verifies it.
fn time_to_keep(token: &str, now: SystemTime) -> Duration {
    let end = token.split('.').nth(1).and_then(|claims| {
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(claims.exp))
    });
    let left = end.and_then(|end| end.duration_since(now).ok());
    left.and_then(|left| left.checked_sub(BEFORE_THE_END))
        .map_or(LOOK_AGAIN, |left| left.max(LOOK_AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(exp: u64) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp}}}"));
        format!("e30.{claims}.c2ln")
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hour = time_to_keep(&token(1_003_600), now);
        assert_eq!(hour, Duration::from_secs(3_300));
        for soon in [token(1_000_100), token(999_000), "no token".to_owned()] {
            assert_eq!(time_to_keep(&soon, now), LOOK_AGAIN, "{soon}");
        }
    }

    #[test]
    fn only_acceptance_is_taken_for_one() {
        let answer = |code: SimpleValue| {
            let said = ApplicationProperties::builder()
                .insert("status-code", code)
                .insert("status-description", "because");
            Message::builder()
                .application_properties(said.build())
                .value(())
                .build()
        };
        for good in [
            SimpleValue::Int(202),
            SimpleValue::Int(200),
            SimpleValue::Long(202),
        ] {
            judge(&answer(good)).unwrap();
        }
        let refused = judge(&answer(SimpleValue::Int(401))).unwrap_err();
        assert_eq!(refused.to_string(), "`$cbs` refused the token: 401 because");
        judge(&answer(SimpleValue::Bool(true))).unwrap_err();
    }
}
