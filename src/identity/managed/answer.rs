//! What comes back from where tokens are: one JSON object, with numbers that some write as texts.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::domain::Secret;
use crate::identity::json;

/// Entra's tokens have one to a few KiB; PostgreSQL takes passwords of up to 64 KiB.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Managed identities are given tokens for a day; whatever is said, a token is asked for again by then.
const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of an issuer's own words for what is wrong.
const WORDS_MAX: usize = 300;

/// A token as it was issued.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) token: Secret<String>,
    /// From the moment at which it was asked for.
    pub(super) life: Duration,
}

/// Reads a good answer. Errors hold nothing of it.
pub(super) fn read(body: &[u8], now: SystemTime) -> Result<Issued, &'static str> {
    let fields = json::object(body).map_err(|_| "the answer is not a JSON object")?;
    let kind = fields.get("token_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("the answer holds another kind of token");
    }
    let token = fields.get("access_token").and_then(Value::as_str);
    let token = token.ok_or("the answer holds no access_token")?;
    // What a password message and an HTTP header can carry as it is.
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || token.len() > TOKEN_BYTES_MAX {
        return Err("the access_token is empty, too long, or no plain text");
    }
    let life = life(&fields, now).ok_or("the answer does not say when the token ends")?;
    if life.is_zero() {
        return Err("the token has ended already; are the clocks right?");
    }
    Ok(Issued {
        token: Secret::new(token.to_owned()),
        life: life.min(LIFE_MAX),
    })
}

/// What is left is believed before the time of day at which it ends: the clocks may differ.
fn life(fields: &Map<String, Value>, now: SystemTime) -> Option<Duration> {
    if let Some(seconds) = fields.get("expires_in").and_then(seconds) {
        return Some(Duration::from_secs(seconds));
    }
    let at = Duration::from_secs(fields.get("expires_on").and_then(seconds)?);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(at.saturating_sub(now))
}

/// `"3599"`, `3599`; a negative one is none left.
fn seconds(value: &Value) -> Option<u64> {
    let number: i64 = match value {
        Value::String(text) => text.trim().parse().ok()?,
        Value::Number(number) => number.as_i64()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(u64::try_from(number).unwrap_or_default())
}

/// What an issuer says to a refusal, as far as it can be shown: its code and its first line. Nothing, if
/// it repeats the secret that it was asked with.
pub(super) fn words(body: &[u8], secret: &str) -> Option<String> {
    let fields = json::object(body).ok()?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let description = text("error_description").or_else(|| text("message"));
    let first = description.and_then(|text| text.lines().next());
    let words: Vec<_> = text("error").into_iter().chain(first).collect();
    let said = words.join(": ");
    if said.is_empty() || (!secret.is_empty() && said.contains(secret)) {
        return None;
    }
    let visible = |c: char| if c.is_control() { '?' } else { c };
    Some(said.chars().take(WORDS_MAX).map(visible).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    #[test]
    fn ends_are_read_in_every_form_that_azure_writes() {
        for (written, life) in [
            // Instance metadata: texts.
            (r#""expires_in": "3599", "expires_on": "1506484173""#, 3_599),
            // App Service: the moment alone.
            (r#""expires_on": "1003600""#, 3_600),
            (r#""expires_on": 1003600"#, 3_600),
            // Entra: numbers.
            (r#""expires_in": 3599, "ext_expires_in": 3599"#, 3_599),
            // A clock that differs must not matter where it need not.
            (r#""expires_in": 60, "expires_on": 1"#, 60),
            (r#""expires_in": 99999999999"#, 86_400),
        ] {
            let body = format!(r#"{{"access_token": "a.b.c", "token_type": "Bearer", {written}}}"#);
            let issued = read(body.as_bytes(), now()).unwrap();
            assert_eq!(issued.life.as_secs(), life, "{written}");
            assert_eq!(issued.token.expose(), "a.b.c");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for body in [
            String::new(),
            "<html>hunter2</html>".to_owned(),
            "[]".to_owned(),
            r#"{"expires_in": 60}"#.to_owned(),
            r#"{"access_token": 5, "expires_in": 60}"#.to_owned(),
            r#"{"access_token": "", "expires_in": 60}"#.to_owned(),
            r#"{"access_token": "hunter2\u0000", "expires_in": 60}"#.to_owned(),
            r#"{"access_token": "hunter2 hunter2", "expires_in": 60}"#.to_owned(),
            format!(r#"{{"access_token": "{long}", "expires_in": 60}}"#),
            r#"{"access_token": "hunter2"}"#.to_owned(),
            r#"{"access_token": "hunter2", "expires_in": "soon"}"#.to_owned(),
            r#"{"access_token": "hunter2", "expires_in": 0}"#.to_owned(),
            r#"{"access_token": "hunter2", "expires_in": -5}"#.to_owned(),
            r#"{"access_token": "hunter2", "expires_on": 999999}"#.to_owned(),
            r#"{"access_token": "a", "access_token": "b", "expires_in": 60}"#.to_owned(),
            r#"{"access_token": "hunter2", "token_type": "pop", "expires_in": 60}"#.to_owned(),
        ] {
            let why = read(body.as_bytes(), now()).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn an_issuers_words_are_short_and_hold_no_secret() {
        let entra =
            br#"{"error": "invalid_client", "error_description": "AADSTS70021: No match.\r\nTrace ID: x"}"#;
        assert_eq!(
            words(entra, "s").unwrap(),
            "invalid_client: AADSTS70021: No match."
        );
        let app_service = br#"{"statusCode": 400, "message": "No identity\u0007 found"}"#;
        assert_eq!(words(app_service, "s3").unwrap(), "No identity? found");
        assert_eq!(words(br#"{"error": "you sent hunter2"}"#, "hunter2"), None);
        assert_eq!(words(b"oops", "s"), None);
        assert_eq!(words(b"{}", ""), None);
        let long = format!(r#"{{"error": "{}"}}"#, "x".repeat(5_000));
        assert_eq!(words(long.as_bytes(), "s").unwrap().len(), WORDS_MAX);
    }
}
