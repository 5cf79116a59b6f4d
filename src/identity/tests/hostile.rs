//! Key sets that are broken, or made to do harm.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::{Signer, b64};
use crate::identity::tests::{Bench, is_unavailable, until};
use crate::identity::{ProviderKind, RefreshReport};

/// A modulus of so many bits; nobody has its factors.
fn modulus(bits: usize) -> String {
    let mut bytes = vec![0; bits / 8];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes[0] |= 0x80;
    *bytes.last_mut().unwrap() |= 1;
    b64(bytes)
}

/// An entry with some members changed or, by null, taken out.
fn but(jwk: &Value, changes: Value) -> Value {
    let mut jwk = jwk.clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        } else {
            jwk[name] = value.clone();
        }
    }
    jwk
}

/// Entries that must not be used. All have the key id of a key that could sign.
fn unusable() -> Vec<(&'static str, String)> {
    let (ec, rsa, ed) = (Signer::new("bad"), Signer::rsa("bad"), Signer::ed25519("bad"));
    let (e, r, o) = (ec.jwk(), rsa.jwk(), ed.jwk());
    let text = |name, value: Value| (name, value.to_string());
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let doubled = e.to_string().replacen('{', r#"{"kid":"other","#, 1);
    vec![
        text("for encryption", but(&e, json!({"use": "enc"}))),
        text("a purpose that is no text", but(&e, json!({"use": ["sig"]}))),
        text("for signing only", but(&e, json!({"key_ops": ["sign"]}))),
        text(
            "operations that are no list",
            but(&e, json!({"key_ops": "verify"})),
        ),
        text("private ec", ec.private_jwk()),
        text("private rsa", rsa.private_jwk()),
        text("private rsa, only a prime", but(&r, json!({"p": "AQAB"}))),
        text("private ed25519", ed.private_jwk()),
        text("private by a null", json!({"kid": "bad", "d": null, "kty": "EC"})),
        text(
            "symmetric",
            json!({"kty": "oct", "kid": "bad", "k": b64([1; 32]), "alg": "HS256"}),
        ),
        text("symmetric without its key", json!({"kty": "oct", "kid": "bad"})),
        text("rsa of 1024 bits", but(&r, json!({"n": modulus(1024)}))),
        text("rsa of 2040 bits", but(&r, json!({"n": modulus(2040)}))),
        text("rsa of 16384 bits", but(&r, json!({"n": modulus(16_384)}))),
        text("rsa with exponent 1", but(&r, json!({"e": "AQ"}))),
        text("rsa with an even exponent", but(&r, json!({"e": "BA"}))),
        text("rsa without exponent", but(&r, json!({"e": ""}))),
        text("rsa modulus of zeros", but(&r, json!({"n": b64([0; 256])}))),
        text("rsa for encryption", but(&r, json!({"alg": "RSA-OAEP"}))),
        text("point beside the curve", but(&e, json!({"x": b64([1; 32])}))),
        text(
            "point at zero",
            but(&e, json!({"x": b64([0; 32]), "y": b64([0; 32])})),
        ),
        text("short coordinate", but(&e, json!({"x": b64([1; 31])}))),
        text("another curve's name", but(&e, json!({"crv": "P-384"}))),
        text("bitcoin's curve", but(&e, json!({"crv": "secp256k1"}))),
        text("algorithm of another curve", but(&e, json!({"alg": "ES384"}))),
        text("x25519", but(&o, json!({"crv": "X25519"}))),
        text("ed25519, too long", but(&o, json!({"x": b64([9; 33])}))),
        text("ed25519 of order 1", but(&o, json!({"x": b64(order_one())}))),
        text(
            "padding",
            but(&e, json!({"x": format!("{}=", e["x"].as_str().unwrap())})),
        ),
        text("no kind", but(&e, json!({"kty": null}))),
        text("kind is a number", but(&e, json!({"kty": 1}))),
        text("id is a number", but(&e, json!({"kid": 1}))),
        text("id of 10 KiB", but(&e, json!({"kid": "k".repeat(10 * 1024)}))),
        text("null", Value::Null),
        text("a text", json!("key")),
        text("an empty object", json!({})),
        ("a member twice", doubled),
        ("a number beyond all", r#"{"kid": 1e999}"#.to_owned()),
        ("half of a pair", r#"{"kid": "\ud800"}"#.to_owned()),
        ("ten thousand levels", nested),
    ]
}

fn order_one() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 1;
    point
}

#[tokio::test]
async fn a_key_that_cannot_be_used_spoils_no_other() {
    let good = Signer::new("good");
    let bad = Signer::new("bad");
    let issuer = Issuer::start(vec![]).await;
    let token = good.token(&issuer.claims());
    for (name, entry) in unusable() {
        let keys = format!(r#"{{"keys": [{entry}, {}, {entry}]}}"#, good.jwk());
        issuer.change(|it| it.keys = keys.into_bytes());
        let bench = Bench::of(&issuer, ProviderKind::Okta);
        let report = bench.verifier.refresh(&"idp".into()).await;
        assert_eq!(
            report,
            Ok(RefreshReport {
                keys: 1,
                changed: true
            }),
            "{name}"
        );
        assert!(bench.show(&token).await.is_ok(), "{name}");
        assert!(bench.show(&bad.token(&issuer.claims())).await.is_err(), "{name}");
        // Alone it is no key set.
        issuer.change(|it| it.keys = format!(r#"{{"keys": [{entry}]}}"#).into_bytes());
        let alone = Bench::of(&issuer, ProviderKind::Okta);
        assert!(is_unavailable(alone.show(&token).await), "{name}");
    }
}

#[tokio::test]
async fn under_a_point_of_small_order_nobody_can_sign() {
    let issuer = Issuer::start(vec![]).await;
    // R is the neutral element and S is zero: it fits every text if A is the neutral element too.
    let signature = [order_one(), [0; 32]].concat();
    let header = json!({"alg": "EdDSA", "kid": "bad"}).to_string();
    let signed = format!("{}.{}", b64(header), b64(issuer.claims().to_string()));
    let forged = format!("{signed}.{}", b64(signature)).into_bytes();
    let mut negative = order_one();
    negative[31] = 0x80;
    for point in [order_one(), negative] {
        let weak = json!({"kty": "OKP", "crv": "Ed25519", "kid": "bad", "x": b64(point)});
        issuer.publish(&[weak, Signer::new("good").jwk()]);
        assert!(
            Bench::of(&issuer, ProviderKind::Okta)
                .show(&forged)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_broken_document_leaves_the_last_good_keys() {
    let good = Signer::new("good");
    let issuer = Issuer::start(vec![good.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    let token = good.token(&issuer.lasting_claims());
    let jwk = good.jwk();
    for broken in [
        String::new(),
        "<html>".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys": null}"#.to_owned(),
        r#"{"keys": {}}"#.to_owned(),
        r#"{"keys": []}"#.to_owned(),
        format!(r#"{{"keys": [{jwk}]"#),
        format!(r#"{{"keys": [{jwk}], "keys": []}}"#),
        format!(r#"{{"keys": [{jwk}]}}{{}}"#),
        "[".repeat(500_000),
        r#"{"keys":"#.repeat(100_000),
        format!(r#"{{"keys": [{jwk}], "pad": "{}"}}"#, "x".repeat(2 * 1024 * 1024)),
    ] {
        issuer.change(|it| it.keys = broken.into_bytes());
        bench.clock.pass(60);
        assert!(bench.verifier.refresh(&"idp".into()).await.is_err());
        assert!(bench.show(&token).await.is_ok());
    }
    // What stands beside the keys does not matter, however deep it is.
    let beside = format!(
        r#"{{"a": {}{}, "keys": [{jwk}]}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    issuer.change(|it| it.keys = beside.into_bytes());
    bench.clock.pass(60);
    assert!(bench.verifier.refresh(&"idp".into()).await.is_ok());
}

#[tokio::test]
async fn a_set_without_end_is_cut_off() {
    let good = Signer::new("good");
    let issuer = Issuer::start(vec![good.jwk()]).await;
    issuer.change(|it| it.endless = true);
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let failed = bench
        .verifier
        .refresh(&"idp".into())
        .await
        .unwrap_err()
        .to_string();
    // Not by the time limit: by its size.
    assert!(failed.contains("larger than 1024 KiB"), "{failed}");
}

#[tokio::test]
async fn of_ten_thousand_keys_the_first_hundred_count() {
    let (good, last) = (Signer::new("good"), Signer::new("last"));
    let issuer = Issuer::start(vec![]).await;
    // Points of Ed25519 are the shortest keys; about half of all texts of 32 bytes are one.
    let filler = |n: usize| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64(seed(n)));
    let fillers: Vec<_> = (0..9_998).map(filler).collect();
    let keys = format!(
        r#"{{"keys":[{},{},{}]}}"#,
        good.jwk(),
        fillers.join(","),
        last.jwk()
    );
    assert!(keys.len() < 1024 * 1024);
    issuer.change(|it| it.keys = keys.into_bytes());
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.tend();
    until("the fetch", || bench.count("ok") == 1).await;
    bench.clock.pass(1);
    let report = bench.verifier.refresh(&"idp".into()).await.unwrap();
    assert_eq!(report.keys, 100);
    assert!(bench.show(&good.token(&issuer.claims())).await.is_ok());
    assert!(bench.show(&last.token(&issuer.claims())).await.is_err());
}

fn seed(n: usize) -> [u8; 32] {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes
}

#[tokio::test]
async fn keys_that_share_an_id_are_tried_a_few_at_a_time() {
    let signers: Vec<_> = (0..6).map(|_| Signer::new("same")).collect();
    let rsa = Signer::rsa("same");
    let mut keys: Vec<_> = signers.iter().map(Signer::jwk).collect();
    keys.push(rsa.jwk());
    let issuer = Issuer::start(keys).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    for (place, signer) in signers.iter().enumerate() {
        let verified = bench.show(&signer.token(&issuer.claims())).await;
        assert_eq!(verified.is_ok(), place < 4, "{place}");
    }
    // Those of another kind do not count.
    assert!(bench.show(&rsa.token(&issuer.claims())).await.is_ok());
}
