//! Tokens that must not pass, one row each, and what their senders are told. None costs more fetches than
//! an honest mistake does.
//!
//! Accepted on purpose, because the specifications say so: our audience among others in a list (RFC 7519
//! §4.1.3), a header that brings keys or addresses as long as the signature is by a key of ours (they are
//! not read), and claims and header fields that nobody knows.

mod claims;
mod encoding;
mod headers;
mod mutations;
mod providers;
mod signatures;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::domain::{Reason, Refuse as _};
use crate::identity::ProviderKind;
use crate::identity::tests::Bench;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;

/// What it is, what is sent, and what the sender is told.
type Row = (&'static str, Vec<u8>, Reason);

/// A provider with one key of each kind, and somebody who has none of them.
struct Stage {
    issuer: Arc<Issuer>,
    ec: Signer,
    p521: Signer,
    rsa: Signer,
    ed: Signer,
    /// Has the same key id as `ec`.
    mallory: Signer,
}

impl Stage {
    async fn set() -> Self {
        let (ec, p521, rsa) = (Signer::new("ec"), Signer::p521("p521"), Signer::rsa("rsa"));
        let (ed, mallory) = (Signer::ed25519("ed"), Signer::new("ec"));
        let mut encryption = Signer::new("enc").jwk();
        encryption["use"] = json!("enc");
        let keys = vec![ec.jwk(), p521.jwk(), rsa.jwk(), ed.jwk(), encryption];
        let issuer = Issuer::start(keys).await;
        Self {
            issuer,
            ec,
            p521,
            rsa,
            ed,
            mallory,
        }
    }

    fn good(&self) -> String {
        self.issuer.claims().to_string()
    }

    /// The good claims with one of them changed, or taken out by null.
    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.issuer.claims();
        let fields = claims.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), value);
        }
        claims
    }

    fn changed(&self, name: &str, value: Value) -> Vec<u8> {
        self.ec.token(&self.with(name, value))
    }

    /// Good claims as text, with more text after the opening brace.
    fn with_text(&self, text: &str) -> Vec<u8> {
        let claims = self.good().replacen('{', &format!("{{{text}"), 1);
        self.ec.sign(r#"{"alg":"ES256","kid":"ec"}"#, &claims)
    }

    /// The good claims under a header with more fields, truly signed.
    fn under(&self, more: &Value) -> Vec<u8> {
        let mut header = json!({"alg": "ES256", "kid": "ec"});
        let more = more.as_object().unwrap().clone();
        header.as_object_mut().unwrap().extend(more);
        self.ec.sign(&header.to_string(), &self.good())
    }

    /// Shows each, and counts what it cost.
    async fn refuses(&self, rows: Vec<Row>) {
        let bench = Bench::of(&self.issuer, ProviderKind::Okta);
        bench.verifier.prefetch().await;
        let good = self.ec.token(&self.issuer.claims());
        assert!(bench.show(&good).await.is_ok());
        let asked = self.issuer.asked_for_keys();
        // From here on a fetch for an unknown key is allowed: one.
        bench.clock.pass(30);
        for (name, token, expected) in rows {
            let refused = bench.show(&token).await.expect_err(name);
            assert_eq!(refused.refusal().1, expected, "{name}: {refused}");
            // Nor does it help to come again.
            let again = bench.show(&token).await.expect_err(name);
            assert_eq!(again.refusal().1, expected, "{name}, again: {again}");
        }
        assert!(self.issuer.asked_for_keys() <= asked + 1);
        assert_eq!(
            self.issuer.asked_for_anything_else(),
            0,
            "an address in a token was followed"
        );
        assert!(bench.show(&good).await.is_ok());
    }
}

fn parts(token: &[u8]) -> [String; 3] {
    let text = String::from_utf8(token.to_vec()).unwrap();
    let parts: Vec<_> = text.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// Each attack once: a row that stands twice would only make the table look longer.
#[tokio::test]
async fn there_are_more_than_sixty_different_attacks() {
    let stage = Stage::set().await;
    let rows = [
        headers::rows(&stage),
        signatures::rows(&stage),
        claims::rows(&stage),
        encoding::rows(&stage),
    ];
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    let names: std::collections::BTreeSet<_> = rows.iter().map(|it| it.0).collect();
    let tokens: std::collections::BTreeSet<_> = rows.iter().map(|it| &it.1).collect();
    assert_eq!((names.len(), tokens.len()), (rows.len(), rows.len()));
    assert!(rows.len() > 100, "{}", rows.len());
}
