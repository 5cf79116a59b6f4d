//! The `Authorization` header (RFC 6750): one bearer token, or a reason why not. Pure.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::domain::Secret;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BearerError {
    /// No credentials, or of a kind that nobody takes here: 401 without a reason.
    Absent,
    /// Credentials that are not one token: 400, `invalid_request`.
    Malformed,
}

/// The token as it was sent; nothing of it is verified.
pub(super) fn read(headers: &HeaderMap) -> Result<Secret<Vec<u8>>, BearerError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(BearerError::Absent)?;
    if values.next().is_some() {
        return Err(BearerError::Malformed);
    }
    let (scheme, rest) = split(value.as_bytes());
    // Schemes are compared without regard to case (RFC 9110, section 11.1).
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(BearerError::Absent);
    }
    let token = rest.trim_ascii_start();
    if !is_token(token) {
        return Err(BearerError::Malformed);
    }
    Ok(Secret::new(token.to_vec()))
}

fn split(value: &[u8]) -> (&[u8], &[u8]) {
    let at = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    value.split_at_checked(at).unwrap_or((value, &[]))
}

/// `b64token` of RFC 6750, section 2.1. Keeps a list of tokens from being taken for one.
fn is_token(token: &[u8]) -> bool {
    let body = token.trim_ascii_end();
    let text = body.iter().rposition(|byte| *byte != b'=');
    let text = text.and_then(|last| body.get(..=last));
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    body.len() == token.len() && text.is_some_and(|text| text.iter().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(values: &[&str]) -> Result<String, BearerError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        read(&headers).map(|token| String::from_utf8(token.expose().clone()).unwrap())
    }

    #[test]
    fn one_token_and_nothing_else() {
        let rows: &[(&[&str], Result<&str, BearerError>)] = &[
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER  a.b-_~+/c=="], Ok("a.b-_~+/c==")),
            (&[], Err(BearerError::Absent)),
            (&[""], Err(BearerError::Absent)),
            (&["a.b.c"], Err(BearerError::Absent)),
            (&["Basic dTpw"], Err(BearerError::Absent)),
            (&["Bearera.b.c"], Err(BearerError::Absent)),
            (&["Bearer\ta.b.c"], Err(BearerError::Absent)),
            (&["Bearer"], Err(BearerError::Malformed)),
            (&["Bearer "], Err(BearerError::Malformed)),
            (&["Bearer ="], Err(BearerError::Malformed)),
            (&["Bearer a.b.c d.e.f"], Err(BearerError::Malformed)),
            (&["Bearer a.b.c,d.e.f"], Err(BearerError::Malformed)),
            (&["Bearer a.b.c, Bearer d.e.f"], Err(BearerError::Malformed)),
            (&["Bearer \"a.b.c\""], Err(BearerError::Malformed)),
            (&["Bearer a=b"], Err(BearerError::Malformed)),
            (&["Bearer token=a.b.c"], Err(BearerError::Malformed)),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err(BearerError::Malformed)),
            (&["Basic dTpw", "Bearer a.b.c"], Err(BearerError::Malformed)),
        ];
        for (values, expected) in rows {
            assert_eq!(read_all(values), expected.map(str::to_owned), "{values:?}");
        }
    }
}
