//! Headers: algorithms, keys that tokens bring along, tricks with names and types.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::domain::Reason::{self, *};
use crate::identity::attacks::{Row, Stage};
use crate::identity::tests::signers::{Pair, b64};

#[tokio::test]
async fn headers_do_not_decide_how_they_are_checked() {
    let stage = Stage::set().await;
    stage.refuses(rows(&stage)).await;
}

pub(super) fn rows(stage: &Stage) -> Vec<Row> {
    let mut rows = unsigned(stage);
    rows.extend(with_the_public_key_as_secret(stage));
    rows.extend(own_keys(stage));
    rows.extend(key_ids(stage));
    rows.extend(forms(stage));
    rows
}

/// Header and good claims, with any third part.
fn token(stage: &Stage, header: &Value, third: &str) -> Vec<u8> {
    let header = b64(header.to_string());
    format!("{header}.{}.{third}", b64(stage.good())).into_bytes()
}

#[expect(clippy::too_many_lines, reason = "a table, one row an attack")]
fn unsigned(stage: &Stage) -> Vec<Row> {
    let none = |algorithm: &str, third: &str| {
        let header = json!({"alg": algorithm, "kid": "ec"});
        token(stage, &header, third)
    };
    let es = |header: Value| stage.ec.sign(&header.to_string(), &stage.good());
    vec![
        ("none", none("none", ""), TokenSignature),
        ("None", none("None", ""), TokenSignature),
        ("NONE", none("NONE", ""), TokenSignature),
        ("nOnE", none("nOnE", ""), TokenSignature),
        ("an empty algorithm", none("", ""), TokenSignature),
        ("none with a blank", none("none ", ""), TokenSignature),
        (
            "none with a signature",
            es(json!({"alg": "none", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "none without a key id",
            token(stage, &json!({"alg": "none"}), ""),
            TokenSignature,
        ),
        ("ES256 without its signature", none("ES256", ""), TokenSignature),
        ("no algorithm", es(json!({"kid": "ec"})), TokenMalformed),
        (
            "algorithm null",
            es(json!({"alg": null, "kid": "ec"})),
            TokenMalformed,
        ),
        (
            "algorithm list",
            es(json!({"alg": ["ES256"], "kid": "ec"})),
            TokenMalformed,
        ),
        (
            "algorithm in small letters",
            es(json!({"alg": "es256", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "algorithm with a NUL",
            es(json!({"alg": "ES256\0", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "another curve's algorithm",
            es(json!({"alg": "ES384", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "the largest curve's",
            es(json!({"alg": "ES512", "kid": "p521"})),
            TokenSignature,
        ),
        (
            "bitcoin's",
            es(json!({"alg": "ES256K", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "an ec signature said to be rsa",
            es(json!({"alg": "RS256", "kid": "ec"})),
            TokenSignature,
        ),
        (
            "an ec signature for the rsa key",
            es(json!({"alg": "RS256", "kid": "rsa"})),
            TokenSignature,
        ),
        (
            "an ec signature for the ed25519 key",
            es(json!({"alg": "EdDSA", "kid": "ed"})),
            TokenSignature,
        ),
        (
            "an rsa signature for the ec key",
            stage.rsa.sign(r#"{"alg":"ES256","kid":"ec"}"#, &stage.good()),
            TokenSignature,
        ),
        (
            "an rsa signature said to be rsa for the ec key",
            stage.rsa.sign(r#"{"alg":"RS256","kid":"ec"}"#, &stage.good()),
            TokenSignature,
        ),
    ]
}

/// CVE-2015-9235 and its kin: whoever believes the header takes a public key for a shared secret.
fn with_the_public_key_as_secret(stage: &Stage) -> Vec<Row> {
    let (Pair::P256(ec), Pair::Rsa(rsa)) = (&stage.ec.pair, &stage.rsa.pair) else {
        unreachable!()
    };
    let der = rsa.public_key().as_ref();
    let pem = |label: &str, der: &[u8]| {
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
        .into_bytes()
    };
    let modulus = rsa
        .public_key()
        .modulus()
        .big_endian_without_leading_zero()
        .to_vec();
    let jwk = stage.rsa.jwk();
    let spelled = jwk["n"].as_str().unwrap().as_bytes().to_vec();
    let hs = |kid: &str, algorithm: &str, secret: &[u8]| {
        let header = b64(json!({"alg": algorithm, "kid": kid}).to_string());
        let signed = format!("{header}.{}", b64(stage.good()));
        let kind = match algorithm {
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        };
        let tag = hmac::sign(&hmac::Key::new(kind, secret), signed.as_bytes());
        format!("{signed}.{}", b64(tag)).into_bytes()
    };
    let point = ec.public_key().as_ref();
    let rows = [
        (
            "hs256, rsa key as pem",
            hs("rsa", "HS256", &pem("RSA PUBLIC KEY", der)),
        ),
        ("hs256, rsa key as der", hs("rsa", "HS256", der)),
        ("hs256, modulus", hs("rsa", "HS256", &modulus)),
        ("hs256, modulus as spelled", hs("rsa", "HS256", &spelled)),
        (
            "hs256, the jwk's text",
            hs("rsa", "HS256", jwk.to_string().as_bytes()),
        ),
        ("hs384, rsa key as der", hs("rsa", "HS384", der)),
        ("hs512, rsa key as der", hs("rsa", "HS512", der)),
        ("hs256, ec point", hs("ec", "HS256", point)),
        (
            "hs256, ec point as pem",
            hs("ec", "HS256", &pem("PUBLIC KEY", point)),
        ),
        ("hs256, no secret", hs("ec", "HS256", b"")),
        ("hs256 under another name", hs("ec", "ES256", point)),
    ];
    rows.into_iter()
        .map(|(name, token)| (name, token, TokenSignature))
        .collect()
}

/// Mallory signs well, with a key that comes with the token or lies where it says.
fn own_keys(stage: &Stage) -> Vec<Row> {
    let mallory = |more: Value| {
        let mut header = json!({"alg": "ES256", "kid": "ec"});
        header
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        stage.mallory.sign(&header.to_string(), &stage.good())
    };
    let url = format!("{}/mallory", stage.issuer.url);
    let certificate = STANDARD.encode([0x30, 0x82, 1, 1]);
    let jwk = stage.mallory.jwk();
    let nameless = json!({"alg": "ES256", "jwk": jwk}).to_string();
    let rows = [
        ("our key id", mallory(json!({}))),
        ("jwk", mallory(json!({"jwk": jwk}))),
        ("jwk without key id", stage.mallory.sign(&nameless, &stage.good())),
        ("jwk of our own key", mallory(json!({"jwk": stage.ec.jwk()}))),
        ("jku", mallory(json!({"jku": url}))),
        (
            "jku beside ours",
            mallory(json!({"jku": format!("{}/keys@mallory", stage.issuer.url)})),
        ),
        ("x5u", mallory(json!({"x5u": url}))),
        ("x5c", mallory(json!({"x5c": [certificate]}))),
        (
            "x5t",
            mallory(json!({"x5t": b64([1; 20]), "x5t#S256": b64([1; 32])})),
        ),
        ("epk", mallory(json!({"epk": jwk, "apu": "", "apv": ""}))),
    ];
    rows.into_iter()
        .map(|(name, token)| (name, token, TokenSignature))
        .collect()
}

/// Names of keys that would be something else to a careless reader.
fn key_ids(stage: &Stage) -> Vec<Row> {
    let named = |kid: &str| {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        stage.ec.sign(&header, &stage.good())
    };
    let row = |name, kid: &str| (name, named(kid), TokenSignature);
    vec![
        row("unknown", "nobody"),
        row("empty", ""),
        row("path", "../../../../dev/null"),
        row("path of our key", "./ec"),
        row("absolute path", "/etc/passwd"),
        row("NUL", "ec\0"),
        row("line end", "ec\n"),
        row("capitals", "EC"),
        row("sql", "' UNION SELECT 'secret' -- "),
        row("shell", "ec|cat /etc/passwd"),
        row("url", &format!("{}/mallory", stage.issuer.url)),
        row("log4j", "${jndi:ldap://127.0.0.1/x}"),
        row("look-alike", "\u{435}\u{441}"),
        row("the longest that is read", &"k".repeat(512)),
        ("one byte longer", named(&"k".repeat(513)), TokenMalformed),
        ("10 KB", named(&"k".repeat(10_000)), TokenMalformed),
        row("a key that is not for signatures", "enc"),
        ("a number", stage.under(&json!({"kid": 1})), TokenMalformed),
        ("a list", stage.under(&json!({"kid": ["ec"]})), TokenMalformed),
        ("null", stage.under(&json!({"kid": null})), TokenMalformed),
        (
            "none with several keys",
            stage.ec.sign(r#"{"alg":"ES256"}"#, &stage.good()),
            TokenSignature,
        ),
    ]
}

fn forms(stage: &Stage) -> Vec<Row> {
    let row = |name, more: Value, reason: Reason| (name, stage.under(&more), reason);
    let text = |header: &str| stage.ec.sign(header, &stage.good());
    vec![
        row("crit", json!({"crit": ["exp"]}), TokenMalformed),
        row("crit of nothing", json!({"crit": []}), TokenMalformed),
        row(
            "b64 with crit",
            json!({"crit": ["b64"], "b64": false}),
            TokenMalformed,
        ),
        row("b64 without crit", json!({"b64": false}), TokenMalformed),
        row("b64 that changes nothing", json!({"b64": true}), TokenMalformed),
        row("content is a token", json!({"cty": "JWT"}), TokenMalformed),
        row(
            "content is a token, spelled out",
            json!({"cty": "application/jwt"}),
            TokenMalformed,
        ),
        row("typ of a proof", json!({"typ": "dpop+jwt"}), TokenNotAccess),
        row("typ of a log-out", json!({"typ": "logout+jwt"}), TokenNotAccess),
        row(
            "typ of a security event",
            json!({"typ": "secevent+jwt"}),
            TokenNotAccess,
        ),
        row(
            "typ of an id token",
            json!({"typ": "id_token+jwt"}),
            TokenNotAccess,
        ),
        row("typ with a NUL", json!({"typ": "at+jwt\0"}), TokenNotAccess),
        row("typ with a blank", json!({"typ": " at+jwt"}), TokenNotAccess),
        row("typ is empty", json!({"typ": ""}), TokenNotAccess),
        row("typ is a list", json!({"typ": ["at+jwt"]}), TokenMalformed),
        (
            "algorithm twice",
            text(r#"{"alg":"ES256","kid":"ec","alg":"none"}"#),
            TokenMalformed,
        ),
        (
            "key id twice",
            text(r#"{"kid":"nobody","alg":"ES256","kid":"ec"}"#),
            TokenMalformed,
        ),
        (
            "algorithm twice, once in disguise",
            text(r#"{"alg":"ES256","kid":"ec","\u0061lg":"none"}"#),
            TokenMalformed,
        ),
        ("header is a list", text(r#"["ES256"]"#), TokenMalformed),
        ("header is a text", text(r#""ES256""#), TokenMalformed),
        ("header is empty", text(""), TokenMalformed),
        (
            "header with a comment",
            text(r#"{"alg":"ES256","kid":"ec"/**/}"#),
            TokenMalformed,
        ),
        (
            "header with more behind it",
            text(r#"{"alg":"ES256","kid":"ec"}{}"#),
            TokenMalformed,
        ),
    ]
}

/// What a header brings is not read; so it does no harm beside a true signature.
#[tokio::test]
async fn fields_that_are_not_read_do_not_matter() {
    let stage = Stage::set().await;
    let bench = crate::identity::tests::Bench::of(&stage.issuer, crate::identity::ProviderKind::Okta);
    for more in [
        json!({"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/c", "jwk": stage.mallory.jwk()}),
        json!({"typ": "at+jwt", "cty": "json", "zip": "DEF", "nonsense": {"a": [1]}}),
        json!({"typ": "application/AT+JWT"}),
    ] {
        assert!(bench.show(&stage.under(&more)).await.is_ok(), "{more}");
    }
    assert_eq!(stage.issuer.asked_for_anything_else(), 0);
}
