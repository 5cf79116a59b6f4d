//! A throw-away identity provider on loopback: discovery, keys, and tokens for client credentials.
//! Its key lives in memory and ends with the process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::domain::{Clock, Secret};

/// What a token must be issued for.
pub const AUDIENCE: &str = "gatepost-dev";
/// A working day: whoever tries gatepost out need not learn about renewal first.
pub const TOKEN_LIFE: Duration = Duration::from_secs(8 * 60 * 60);

const KEY_ID: &str = "dev-1";
/// A token request is a few hundred bytes.
const BODY_BYTES_MAX: usize = 8 * 1024;

/// An application that may ask for tokens.
#[derive(Clone, Debug)]
pub struct Application {
    pub secret: Secret<String>,
    /// What the token's `roles` say.
    pub roles: Vec<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("cannot make a signing key")]
    Key,
    #[error("cannot sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("no client \"{0}\" with that secret")]
    UnknownClient(String),
}

/// Signs tokens for its applications.
pub struct Provider {
    issuer: String,
    key: EncodingKey,
    /// The public point, as a JWK has it.
    point: (String, String),
    applications: BTreeMap<&'static str, Application>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Opens the door first, because its port is part of every token.
pub async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Provider {
    pub fn new(
        address: SocketAddr,
        applications: BTreeMap<&'static str, Application>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(|_| ProviderError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).map_err(|_| ProviderError::Key)?;
        // 0x04, then x and y of 32 bytes each.
        let point = pair.public_key().as_ref();
        let coordinate = |range| {
            point
                .get(range)
                .map(|bytes| URL_SAFE_NO_PAD.encode::<&[u8]>(bytes))
        };
        let (Some(x), Some(y)) = (coordinate(1..33), coordinate(33..65)) else {
            return Err(ProviderError::Key);
        };
        Ok(Self {
            issuer: format!("http://{address}"),
            key: EncodingKey::from_ec_der(document.as_ref()),
            point: (x, y),
            applications,
            clock,
        })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    /// A token for an application that showed its secret.
    pub fn token(&self, client: &str, secret: &str) -> Result<String, ProviderError> {
        let application = self
            .applications
            .get(client)
            .filter(|it| it.secret.expose() == secret);
        let application = application.ok_or_else(|| ProviderError::UnknownClient(client.to_owned()))?;
        let now = self
            .clock
            .now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut number = [0; 16];
        aws_lc_rs::rand::fill(&mut number).map_err(|_| ProviderError::Key)?;
        let claims = json!({
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": client,
            "azp": client,
            "idtyp": "app",
            "app_displayname": client,
            "roles": application.roles,
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + TOKEN_LIFE).as_secs(),
            "jti": URL_SAFE_NO_PAD.encode(number),
        });
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(ProviderError::Sign)
    }

    /// Answers until the runtime ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let provider = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = service_fn(move |request| answer(Arc::clone(&provider), request));
                // A client that breaks off is its own affair.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    }

    fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": format!("{}/authorize", self.issuer),
            "token_endpoint": self.token_url(),
            "jwks_uri": format!("{}/keys", self.issuer),
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        })
    }

    fn keys(&self) -> Value {
        let (x, y) = &self.point;
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y,
        }]})
    }

    fn grant(&self, authorization: Option<&str>, body: &str) -> (StatusCode, Value) {
        let form = form(body);
        let field = |name: &str| form.get(name).cloned();
        if field("grant_type").as_deref() != Some("client_credentials") {
            return (
                StatusCode::BAD_REQUEST,
                json!({"error": "unsupported_grant_type"}),
            );
        }
        let shown = authorization
            .and_then(basic)
            .or_else(|| Some((field("client_id")?, field("client_secret")?)));
        let refused = (StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
        let Some((client, secret)) = shown else {
            return refused;
        };
        match self.token(&client, &secret) {
            Ok(token) => {
                let body = json!({
                    "access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE.as_secs(),
                });
                (StatusCode::OK, body)
            }
            Err(ProviderError::UnknownClient(_)) => refused,
            Err(ProviderError::Key | ProviderError::Sign(_)) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({"error": "server_error"}),
            ),
        }
    }
}

async fn answer(
    provider: Arc<Provider>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (status, document) = match (&head.method, head.uri.path()) {
        (&Method::GET, "/.well-known/openid-configuration") => (StatusCode::OK, provider.discovery()),
        (&Method::GET, "/keys") => (StatusCode::OK, provider.keys()),
        (&Method::POST, "/token") => {
            let authorization = head
                .headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            match Limited::new(body, BODY_BYTES_MAX).collect().await {
                Ok(body) => provider.grant(authorization, &String::from_utf8_lossy(&body.to_bytes())),
                Err(_) => (StatusCode::BAD_REQUEST, json!({"error": "invalid_request"})),
            }
        }
        _ => (StatusCode::NOT_FOUND, json!({"error": "not_found"})),
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `application/x-www-form-urlencoded`.
fn form(body: &str) -> BTreeMap<String, String> {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (unescape(name), unescape(value)))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                let value = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|it| u8::from_str_radix(it, 16).ok());
                bytes.extend(value);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
fn basic(authorization: &str) -> Option<(String, String)> {
    let encoded = authorization.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client, secret) = text.split_once(':')?;
    Some((unescape(client), unescape(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
        }
    }

    fn provider() -> Provider {
        let analyst = Application {
            secret: Secret::new("s+cret".to_owned()),
            roles: vec!["Orders.Read"],
        };
        let address = "127.0.0.1:1".parse().unwrap();
        Provider::new(address, [("analyst", analyst)].into(), Arc::new(Stopped)).unwrap()
    }

    #[test]
    fn a_secret_in_the_form_or_in_the_header_earns_a_token() {
        let provider = provider();
        let posted = "grant_type=client_credentials&client_id=analyst&client_secret=s%2Bcret";
        let header = format!("Basic {}", STANDARD.encode("analyst:s%2Bcret"));
        for (authorization, body) in [
            (None, posted),
            (Some(header.as_str()), "grant_type=client_credentials"),
        ] {
            let (status, document) = provider.grant(authorization, body);
            assert_eq!(status, StatusCode::OK);
            let token = document["access_token"].as_str().unwrap();
            let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(claims["azp"], "analyst");
            assert_eq!(claims["roles"], json!(["Orders.Read"]));
            assert_eq!(claims["exp"], 1_800_000_000 + TOKEN_LIFE.as_secs());
        }
    }

    #[test]
    fn anything_else_earns_none() {
        let provider = provider();
        for body in [
            "",
            "grant_type=password&client_id=analyst&client_secret=s%2Bcret",
            "grant_type=client_credentials&client_id=analyst&client_secret=wrong",
            "grant_type=client_credentials&client_id=nobody&client_secret=s%2Bcret",
            "grant_type=client_credentials",
        ] {
            let (status, document) = provider.grant(None, body);
            assert!(status.is_client_error(), "{body}");
            assert!(document.get("access_token").is_none());
        }
    }
}
