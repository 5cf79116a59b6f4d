//! Tokens that must not pass, one row each.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair as _;
use serde_json::{Value, json};

use crate::domain::{Reason, Refuse as _, Secret};
use crate::identity::ProviderKind;
use crate::identity::tests::{Issuer, NOW, Signer, b64, now};

/// The good claims with one of them changed, or taken out by null.
fn with(issuer: &Issuer, name: &str, value: Value) -> Value {
    let mut claims = issuer.claims();
    let fields = claims.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), value);
    }
    claims
}

#[expect(clippy::too_many_lines, reason = "a table, one row an attack")]
fn rows(issuer: &Issuer, own: &Signer, other: &Signer) -> Vec<(&'static str, Vec<u8>, Reason)> {
    use Reason::*;
    let good = issuer.claims().to_string();
    let changed = |name: &str, value: Value| own.token(&with(issuer, name, value));
    let header = |header: Value| own.sign(&header.to_string(), &good);
    let es = |extra: &str| own.sign(&format!(r#"{{"alg":"ES256","kid":"k1"{extra}}}"#), &good);
    let mut hs = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"k1"}"#), b64(&good));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, own.pair.public_key().as_ref());
    let tag = b64(hmac::sign(&secret, hs.as_bytes()));
    hs = format!("{hs}.{tag}");
    let token = own.token(&issuer.claims());
    let mut flipped = token.clone();
    let middle = flipped.len() - 20;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let swapped = {
        let text = String::from_utf8(token.clone()).unwrap();
        let parts: Vec<_> = text.split('.').collect();
        let payload = b64(with(issuer, "sub", json!("admin")).to_string());
        format!("{}.{payload}.{}", parts[0], parts[2]).into_bytes()
    };
    let doubled = good.replacen('{', r#"{"sub":"admin","#, 1);
    let plain = r#"{"alg":"ES256","kid":"k1"}"#;
    vec![
        ("empty", vec![], NoToken),
        ("a password", b"hunter2".to_vec(), TokenMalformed),
        ("not utf-8", vec![0xff; 100], TokenMalformed),
        (
            "none, unsigned",
            format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(&good)).into_bytes(),
            TokenSignature,
        ),
        (
            "none, signed",
            header(json!({"alg": "none", "kid": "k1"})),
            TokenSignature,
        ),
        ("hs256 with the public key", hs.into_bytes(), TokenSignature),
        (
            "another ec algorithm",
            header(json!({"alg": "ES384", "kid": "k1"})),
            TokenSignature,
        ),
        (
            "rs256 for an ec key",
            header(json!({"alg": "RS256", "kid": "k1"})),
            TokenSignature,
        ),
        ("no algorithm", header(json!({"kid": "k1"})), TokenMalformed),
        (
            "unknown kid",
            header(json!({"alg": "ES256", "kid": "k9"})),
            TokenSignature,
        ),
        (
            "no kid with two keys",
            header(json!({"alg": "ES256"})),
            TokenSignature,
        ),
        (
            "kid is a number",
            header(json!({"alg": "ES256", "kid": 1})),
            TokenMalformed,
        ),
        (
            "a key that is not for signatures",
            header(json!({"alg": "ES256", "kid": "enc"})),
            TokenSignature,
        ),
        (
            "another key under our kid",
            other.token(&issuer.claims()),
            TokenSignature,
        ),
        (
            "brings its own key",
            other.sign(
                &json!({"alg": "ES256", "kid": "k1", "jwk": other.jwk()}).to_string(),
                &good,
            ),
            TokenSignature,
        ),
        ("crit", es(r#","crit":["exp"]"#), TokenMalformed),
        ("header key twice", es(r#","alg":"none""#), TokenMalformed),
        ("claim twice", own.sign(plain, &doubled), TokenMalformed),
        ("signature flipped", flipped, TokenSignature),
        ("payload swapped", swapped, TokenSignature),
        (
            "signature cut off",
            token[..token.len() - 38].to_vec(),
            TokenSignature,
        ),
        ("two parts", token[..token.len() - 87].to_vec(), TokenMalformed),
        (
            "four parts",
            [token.as_slice(), b".AAAA"].concat(),
            TokenMalformed,
        ),
        (
            "trailing line end",
            [token.as_slice(), b"\n"].concat(),
            TokenMalformed,
        ),
        (
            "17 KiB",
            changed("pad", json!("x".repeat(17 * 1024))),
            TokenMalformed,
        ),
        (
            "nested token",
            own.sign(
                r#"{"alg":"ES256","kid":"k1","cty":"JWT"}"#,
                &String::from_utf8(token).unwrap(),
            ),
            TokenMalformed,
        ),
        ("claims are a list", own.sign(plain, "[1]"), TokenMalformed),
        ("deep nesting", own.sign(plain, &"[".repeat(5000)), TokenMalformed),
        (
            "expired",
            changed("exp", json!(NOW - 60)),
            TokenExpired {
                ago: std::time::Duration::from_secs(60),
            },
        ),
        (
            "expired at the leeway",
            changed("exp", json!(NOW - 30)),
            TokenExpired {
                ago: std::time::Duration::from_secs(30),
            },
        ),
        ("no exp", changed("exp", Value::Null), TokenClaims),
        ("float exp", changed("exp", json!(1.9e9)), TokenClaims),
        ("string exp", changed("exp", json!("1900000000")), TokenClaims),
        ("negative exp", changed("exp", json!(-1)), TokenClaims),
        ("huge exp", changed("exp", json!(u64::MAX)), TokenClaims),
        ("nbf ahead", changed("nbf", json!(NOW + 60)), TokenNotYetValid),
        ("iat ahead", changed("iat", json!(NOW + 60)), TokenNotYetValid),
        ("no iss", changed("iss", Value::Null), TokenClaims),
        ("iss is a list", changed("iss", json!([issuer.url])), TokenClaims),
        (
            "iss with a slash more",
            changed("iss", json!(format!("{}/", issuer.url))),
            TokenIssuerUnknown,
        ),
        ("no aud", changed("aud", Value::Null), TokenClaims),
        ("other aud", changed("aud", json!("api://other")), TokenAudience),
        (
            "aud in other case",
            changed("aud", json!("Gatepost")),
            TokenAudience,
        ),
        ("empty aud list", changed("aud", json!([])), TokenAudience),
        (
            "aud list with a number",
            changed("aud", json!(["gatepost", 1])),
            TokenClaims,
        ),
        ("no cid", changed("cid", Value::Null), TokenNotAccess),
        ("nonce", changed("nonce", json!("n")), TokenNotAccess),
        ("at_hash", changed("at_hash", json!("h")), TokenNotAccess),
        ("typ claim", changed("typ", json!("ID")), TokenNotAccess),
        ("header typ", es(r#","typ":"dpop+jwt""#), TokenNotAccess),
        ("no sub", changed("sub", Value::Null), TokenClaims),
        ("empty sub", changed("sub", json!("")), TokenClaims),
        ("sub is a number", changed("sub", json!(7)), TokenClaims),
    ]
}

#[tokio::test]
async fn no_attack_passes_and_each_refusal_says_why() {
    let (own, other, spare) = (Signer::new("k1"), Signer::new("k1"), Signer::new("k2"));
    let mut encryption = own.jwk();
    encryption["use"] = json!("enc");
    encryption["kid"] = json!("enc");
    let issuer = Issuer::start(vec![own.jwk(), spare.jwk(), encryption]).await;
    let verifier = issuer.verifier(ProviderKind::Okta);
    verifier.prefetch().await;
    for (name, token, expected) in rows(&issuer, &own, &other) {
        let refused = verifier.verify(&Secret::new(token), now()).await;
        let refused = refused.expect_err(name);
        assert_eq!(refused.refusal().1, expected, "{name}: {refused}");
    }
    for claims in [
        with(&issuer, "exp", json!(NOW - 29)),
        with(&issuer, "nbf", json!(NOW + 29)),
        with(&issuer, "aud", json!(["x", "api://gatepost"])),
    ] {
        let token = Secret::new(own.token(&claims));
        verifier.verify(&token, now()).await.unwrap();
    }
}

#[tokio::test]
async fn id_tokens_of_each_kind_are_refused() {
    let own = Signer::new("k1");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let base =
        json!({"iss": issuer.url, "aud": "gatepost", "exp": NOW + 60, "sub": "s", "oid": "o", "tid": "t"});
    for (kind, extra, passes) in [
        (ProviderKind::Entra, json!({}), false),
        (ProviderKind::Entra, json!({"roles": ["r"]}), false),
        (ProviderKind::Entra, json!({"roles": ["r"], "azp": "app"}), true),
        (
            ProviderKind::Entra,
            json!({"scp": "a", "azp": "app", "nonce": "n"}),
            false,
        ),
        (ProviderKind::Entra, json!({"scp": "a", "appid": "app"}), true),
        (ProviderKind::Oidc, json!({}), false),
        (ProviderKind::Oidc, json!({"azp": "gatepost"}), false),
        (ProviderKind::Oidc, json!({"azp": "worker"}), true),
        (
            ProviderKind::Oidc,
            json!({"azp": "gatepost", "scope": "write"}),
            true,
        ),
        (ProviderKind::Oidc, json!({"azp": "worker", "c_hash": "h"}), false),
    ] {
        let mut claims = base.clone();
        claims
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let token = Secret::new(own.token(&claims));
        let verified = issuer.verifier(kind).verify(&token, now()).await;
        assert_eq!(verified.is_ok(), passes, "{kind:?} {extra}");
    }
}
