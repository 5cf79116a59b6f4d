//! Keys over HTTP: discovery, rotation, outages and storms.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::domain::{Claimed, Secret};
use crate::identity::{ClaimsError, ProviderKind, ProviderSettings, TokenError, Verifier, claims};

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) struct Signer {
    pub(super) id: &'static str,
    pub(super) pair: EcdsaKeyPair,
}

impl Signer {
    pub(super) fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id, pair }
    }

    pub(super) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "alg": "ES256",
               "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    pub(super) fn sign(&self, header: &str, claims: &str) -> Vec<u8> {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", b64(signature)).into_bytes()
    }

    pub(super) fn token(&self, claims: &Value) -> Vec<u8> {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

/// Answers discovery and keys on loopback and counts how often the keys were asked for.
pub(super) struct Issuer {
    pub(super) url: String,
    keys: Mutex<Vec<Value>>,
    claimed_issuer: Mutex<String>,
    pub(super) asked: AtomicUsize,
    broken: AtomicBool,
}

impl Issuer {
    pub(super) async fn start(keys: Vec<Value>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth2/default", listener.local_addr().unwrap());
        let issuer = Arc::new(Self {
            claimed_issuer: Mutex::new(url.clone()),
            url,
            keys: Mutex::new(keys),
            asked: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        });
        let own = issuer.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                own.answer(socket).await;
            }
        });
        issuer
    }

    async fn answer(&self, mut socket: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut request).await.unwrap() == 0 {
                return;
            }
        }
        let text = String::from_utf8(request).unwrap();
        let body = if text.contains("/keys") {
            self.asked.fetch_add(1, Ordering::SeqCst);
            json!({"keys": *self.keys.lock().unwrap()})
        } else {
            let issuer = self.claimed_issuer.lock().unwrap().clone();
            json!({"issuer": issuer, "authorization_endpoint": format!("{}/authorize", self.url),
                "jwks_uri": format!("{}/keys", self.url), "response_types_supported": ["code"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]})
        }
        .to_string();
        let status = if self.broken.load(Ordering::SeqCst) {
            "500 No"
        } else {
            "200 OK"
        };
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(reply.as_bytes()).await.unwrap();
    }

    pub(super) fn verifier(&self, kind: ProviderKind) -> Verifier {
        let provider = ProviderSettings {
            name: "idp".into(),
            kind,
            issuer: self.url.clone(),
            audiences: vec!["gatepost".to_owned(), "api://gatepost".to_owned()],
        };
        Verifier::new(vec![provider], https(), Handle::current())
    }

    pub(super) fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "gatepost", "sub": "worker-1", "cid": "client-1", "ver": 1,
               "iat": NOW - 10, "exp": NOW + 3600, "scp": ["write"], "groups": ["g"], "jti": "AT.1"})
    }
}

fn https() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let roots = rustls::RootCertStore::empty();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn a_good_token_becomes_an_identity() {
    let signer = Signer::new("k1");
    let issuer = Issuer::start(vec![signer.jwk()]).await;
    let verifier = issuer.verifier(ProviderKind::Okta);
    verifier.prefetch().await;
    assert_eq!(verifier.providers_ready(), [("idp".into(), true)]);
    let token = Secret::new(signer.token(&issuer.claims()));
    let identity = verifier.verify(&token, now()).await.unwrap();
    assert_eq!(identity.subject, "worker-1");
    assert_eq!(identity.client_id.as_deref(), Some("client-1"));
    assert_eq!(identity.scopes, Claimed::Known(["write".to_owned()].into()));
    assert_eq!(identity.expires_at, now() + Duration::from_secs(3600));
}

#[tokio::test]
async fn rsa_keys_work_and_do_not_accept_other_families() {
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let (n, e) = (public.modulus(), public.exponent());
    let jwk = json!({"kty": "RSA", "use": "sig", "n": b64(n.big_endian_without_leading_zero()),
                     "e": b64(e.big_endian_without_leading_zero())});
    let issuer = Issuer::start(vec![jwk]).await;
    let verifier = issuer.verifier(ProviderKind::Okta);
    for (algorithm, passes) in [
        ("RS256", true),
        ("PS256", false),
        ("ES256", false),
        ("HS256", false),
    ] {
        let header = json!({"alg": algorithm}).to_string();
        let signed = format!("{}.{}", b64(header), b64(issuer.claims().to_string()));
        let mut signature = vec![0; pair.public_modulus_len()];
        let padding = &aws_lc_rs::signature::RSA_PKCS1_SHA256;
        pair.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .unwrap();
        let token = format!("{signed}.{}", b64(signature)).into_bytes();
        let verified = verifier.verify(&Secret::new(token), now()).await;
        assert_eq!(verified.is_ok(), passes, "{algorithm}");
    }
}

#[tokio::test]
async fn a_storm_of_unknown_key_ids_asks_once_in_thirty_seconds() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::start(vec![old.jwk()]).await;
    let verifier = Arc::new(issuer.verifier(ProviderKind::Okta));
    let storm: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, token) = (verifier.clone(), Secret::new(new.token(&issuer.claims())));
            tokio::spawn(async move { verifier.verify(&token, now()).await })
        })
        .collect();
    for one in storm {
        let refused = one.await.unwrap().unwrap_err();
        assert!(matches!(refused, TokenError::Key { .. }), "{refused}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);

    *issuer.keys.lock().unwrap() = vec![old.jwk(), new.jwk()];
    let token = Secret::new(new.token(&issuer.claims()));
    assert!(verifier.verify(&token, now()).await.is_err());
    verifier.let_refresh_interval_pass();
    assert!(verifier.verify(&token, now()).await.is_ok());
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);

    // An outage leaves the last good keys in place.
    issuer.broken.store(true, Ordering::SeqCst);
    verifier.let_refresh_interval_pass();
    let stranger = Secret::new(Signer::new("stranger").token(&issuer.claims()));
    assert!(verifier.verify(&stranger, now()).await.is_err());
    assert!(verifier.verify(&token, now()).await.is_ok());
}

#[tokio::test]
async fn a_document_of_another_issuer_gives_no_keys() {
    let signer = Signer::new("k1");
    let issuer = Issuer::start(vec![signer.jwk()]).await;
    issuer.claimed_issuer.lock().unwrap().push('/');
    let verifier = issuer.verifier(ProviderKind::Okta);
    let token = Secret::new(signer.token(&issuer.claims()));
    let refused = verifier.verify(&token, now()).await.unwrap_err();
    assert!(matches!(refused, TokenError::Unavailable { .. }), "{refused}");
    assert_eq!(verifier.providers_ready(), [("idp".into(), false)]);
}

#[test]
fn entra_claims_are_read_and_overage_is_unknown() {
    let read =
        |claims: Value| claims::read(ProviderKind::Entra, &"entra".into(), claims.as_object().unwrap());
    let identity = read(
        json!({"oid": "o", "tid": "t", "sub": "pairwise", "appid": "app", "uti": "u",
        "roles": ["Orders.Write"], "scp": "a b", "_claim_names": {"groups": "src1"}}),
    )
    .unwrap();
    assert_eq!(
        (identity.subject.as_str(), identity.tenant.as_deref()),
        ("o", Some("t"))
    );
    assert_eq!(identity.client_id.as_deref(), Some("app"));
    assert_eq!(identity.groups, Claimed::Unknown);
    assert_eq!(
        identity.scopes,
        Claimed::Known(["a".to_owned(), "b".to_owned()].into())
    );
    let odd = read(json!({"oid": "o", "tid": "t", "roles": "one", "hasgroups": true})).unwrap();
    assert_eq!((odd.roles, odd.groups), (Claimed::Unknown, Claimed::Unknown));
    assert_eq!(
        read(json!({"tid": "t"})).unwrap_err(),
        ClaimsError::Missing { name: "oid" }
    );
}
