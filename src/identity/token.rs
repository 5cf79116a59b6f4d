//! A token taken apart, and everything that is checked besides its signature.
//!
//! What counts as an access token: RFC 9068 says so in the header (`typ: at+jwt`); Entra and older
//! issuers do not, so each kind is told by what its ID tokens have and its access tokens have not.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::domain::Secret;
use crate::identity::claims::{self, ClaimsError};
use crate::identity::issuer::Issuer;
use crate::identity::json;
use crate::identity::{ProviderKind, ProviderSettings, TokenError};

/// Entra's tokens with 200 groups stay below; PostgreSQL clients send up to 64 KiB.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Key ids are hashes, names or short addresses; one that is longer is a trick, and is remembered nowhere.
pub(super) const KEY_ID_BYTES_MAX: usize = 512;

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

pub(super) struct Token {
    algorithm: String,
    key_id: Option<String>,
    typ: Option<String>,
    claims: Map<String, Value>,
    /// `header.payload` as sent: what is signed.
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Token {
    pub(super) fn parse(token: &Secret<Vec<u8>>) -> Result<Self, TokenError> {
        let bytes = token.expose().as_slice();
        if bytes.is_empty() {
            return Err(TokenError::Missing);
        }
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let mut parts = bytes.split(|byte| *byte == b'.');
        let (Some(head), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("not three parts"));
        };
        let header = object(head)?;
        if header.contains_key("crit") {
            return Err(malformed("critical header extensions are not supported"));
        }
        // RFC 7797: it changes what is signed, and without `crit` some would not notice.
        if header.contains_key("b64") {
            return Err(malformed("its payload is not encoded as usual"));
        }
        let string = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed("a header field has the wrong type")),
        };
        let content = string("cty")?.map(|it| it.to_ascii_lowercase());
        if matches!(content.as_deref(), Some("jwt" | "application/jwt")) {
            return Err(malformed("a token inside a token"));
        }
        let key_id = string("kid")?;
        if key_id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(malformed("its key id is longer than 512 bytes"));
        }
        // `jwk`, `jku`, `x5u` and `x5c` are not read: a token does not bring its own key.
        Ok(Self {
            algorithm: string("alg")?.ok_or(malformed("no algorithm"))?,
            key_id,
            typ: string("typ")?,
            claims: object(payload)?,
            signed: bytes
                .get(..head.len() + 1 + payload.len())
                .unwrap_or_default()
                .to_vec(),
            signature: base64(signature)?,
        })
    }

    pub(super) fn issuer(&self) -> Result<&str, TokenError> {
        issuer(&self.claims)
    }

    /// Entra's `tid`.
    pub(super) fn tenant(&self) -> Option<&str> {
        tenant(&self.claims)
    }

    pub(super) fn algorithm(&self) -> &str {
        &self.algorithm
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    pub(super) fn signed(&self) -> &[u8] {
        &self.signed
    }

    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }

    pub(super) const fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    pub(super) fn is_for(&self, audiences: &[String]) -> bool {
        are_for(&self.claims, audiences)
    }

    /// Everything but the signature, which must have been checked before.
    pub(super) fn check_claims(
        &self,
        settings: &ProviderSettings,
        issuer: &Issuer,
        at: SystemTime,
    ) -> Result<Times, TokenError> {
        if !issuer.accepts(self.issuer()?, self.tenant()) {
            return Err(TokenError::UnknownIssuer);
        }
        self.check_kind(settings.kind)?;
        audience(&self.claims)?;
        if !self.is_for(&settings.audiences) {
            return Err(TokenError::Audience {
                provider: settings.name.clone(),
            });
        }
        let times = self.times()?;
        times.check(at)?;
        Ok(times)
    }

    fn times(&self) -> Result<Times, TokenError> {
        let begins = [self.seconds("nbf")?, self.seconds("iat")?];
        Ok(Times {
            expiry: self.seconds("exp")?.ok_or(missing("exp"))?,
            begin: begins.into_iter().flatten().max(),
        })
    }

    fn seconds(&self, name: &'static str) -> Result<Option<SystemTime>, TokenError> {
        let Some(value) = self.claims.get(name) else {
            return Ok(None);
        };
        let time = value.as_u64().and_then(claims::time);
        time.map(Some).ok_or(wrong(name))
    }

    fn check_kind(&self, kind: ProviderKind) -> Result<(), TokenError> {
        let not = |what| Err(TokenError::NotAccess { what });
        let declared = match self.typ.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("at+jwt" | "application/at+jwt") => true,
            None | Some("jwt") => false,
            Some(_) => return not("another header type"),
        };
        let has = |name: &str| self.claims.contains_key(name);
        // Bound to an authorization response: only ever in ID tokens, whoever issues them.
        if has("at_hash") || has("c_hash") || has("s_hash") {
            return not("it has an id token's hash claims");
        }
        match self.claims.get("typ").or(self.claims.get("token_use")) {
            None => {}
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("bearer") || typ == "access" => {}
            Some(_) => return not("its type claim says otherwise"),
        }
        if has("nonce") {
            return not("it has an id token's nonce");
        }
        match kind {
            // Access tokens carry scp (people), roles or idtyp (applications); ID tokens may carry
            // roles too, but never the client they were issued through (azp, appid).
            ProviderKind::Entra if !(has("scp") || has("roles") || has("idtyp")) => {
                not("it has neither scp nor roles nor idtyp")
            }
            ProviderKind::Entra if !(has("azp") || has("appid")) => not("it names no client application"),
            // Okta puts the client into `cid` of access tokens only.
            ProviderKind::Okta if !has("cid") => not("it has no cid"),
            // Only an ID token is addressed to the very client that asked for it and says nothing
            // of what it may do.
            ProviderKind::Oidc if !declared && self.is_addressed_to_its_client() => {
                not("its only audience is the client that it was issued to")
            }
            ProviderKind::Entra | ProviderKind::Okta | ProviderKind::Oidc => Ok(()),
        }
    }

    fn is_addressed_to_its_client(&self) -> bool {
        let client = self.claims.get("azp").or(self.claims.get("client_id"));
        let grants = ["scope", "scp", "roles"]
            .iter()
            .any(|name| self.claims.contains_key(*name));
        match (client.and_then(Value::as_str), audience(&self.claims).as_deref()) {
            (Some(client), Ok([only])) => *only == client && !grants,
            (None, _) => !grants,
            (Some(_), _) => false,
        }
    }
}

fn issuer(claims: &Map<String, Value>) -> Result<&str, TokenError> {
    let issuer = claims.get("iss").ok_or(missing("iss"))?;
    issuer.as_str().ok_or(wrong("iss"))
}

fn tenant(claims: &Map<String, Value>) -> Option<&str> {
    claims.get("tid").and_then(Value::as_str)
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<&str>, TokenError> {
    match claims.get("aud").ok_or(missing("aud"))? {
        Value::String(one) => Ok(vec![one]),
        Value::Array(many) => {
            let many: Option<Vec<_>> = many.iter().map(Value::as_str).collect();
            many.ok_or(wrong("aud"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong("aud")),
    }
}

fn are_for(claims: &Map<String, Value>, audiences: &[String]) -> bool {
    audience(claims).is_ok_and(|own| own.iter().any(|it| audiences.iter().any(|wanted| wanted == it)))
}

/// Would claims that were verified before still be believed under these settings? Their signature and
/// times are not looked at.
pub(super) fn are_acceptable(claims: &Map<String, Value>, settings: &ProviderSettings, own: &Issuer) -> bool {
    let issued = issuer(claims).is_ok_and(|issuer| own.accepts(issuer, tenant(claims)));
    issued && are_for(claims, &settings.audiences)
}

/// When a token counts. Looked at again each time it is shown, also when its signature is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) expiry: SystemTime,
    /// The later of `nbf` and `iat`.
    begin: Option<SystemTime>,
}

impl Times {
    pub(super) fn check(&self, at: SystemTime) -> Result<(), TokenError> {
        let ago = at.duration_since(self.expiry).unwrap_or_default();
        if at >= self.expiry && ago >= LEEWAY {
            return Err(TokenError::Expired { ago });
        }
        let early = self.begin.and_then(|begin| begin.duration_since(at).ok());
        if early.is_some_and(|early| early > LEEWAY) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }
}

/// No part of a token may end in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

const fn malformed(what: &'static str) -> TokenError {
    TokenError::Malformed { what }
}

const fn missing(name: &'static str) -> TokenError {
    TokenError::Claims(ClaimsError::Missing { name })
}

const fn wrong(name: &'static str) -> TokenError {
    TokenError::Claims(ClaimsError::WrongType { name })
}

fn base64(part: &[u8]) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| malformed("not base64url"))
}

fn object(part: &[u8]) -> Result<Map<String, Value>, TokenError> {
    json::object(&base64(part)?).map_err(|_| malformed("not a JSON object with distinct keys"))
}
