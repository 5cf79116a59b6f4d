//! Claims of true signature that must not count.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::Reason::{self, *};
use crate::identity::ProviderKind;
use crate::identity::attacks::{Row, Stage};
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, NOW};

#[tokio::test]
async fn claims_must_say_what_they_should() {
    let stage = Stage::set().await;
    stage.refuses(rows(&stage)).await;
}

pub(super) fn rows(stage: &Stage) -> Vec<Row> {
    let mut rows = times(stage);
    rows.extend(audiences(stage));
    rows.extend(issuers(stage));
    rows.extend(kinds(stage));
    rows
}

#[expect(clippy::too_many_lines, reason = "a table, one row an attack")]
fn times(stage: &Stage) -> Vec<Row> {
    let row = |name, claim: &str, value: Value, reason: Reason| (name, stage.changed(claim, value), reason);
    let without_exp = |text: &str| {
        let claims = stage.with("exp", Value::Null).to_string();
        let claims = claims.replacen('{', &format!("{{{text},"), 1);
        stage.ec.sign(r#"{"alg":"ES256","kid":"ec"}"#, &claims)
    };
    // The clock of the stage is 30 s ahead.
    let ago = |seconds| TokenExpired {
        ago: Duration::from_secs(seconds),
    };
    vec![
        row("expired", "exp", json!(NOW - 60), ago(90)),
        row("expired at the leeway", "exp", json!(NOW), ago(30)),
        row("expired in 1970", "exp", json!(0), ago(NOW + 30)),
        row("no exp", "exp", Value::Null, TokenClaims),
        ("exp null", without_exp(r#""exp":null"#), TokenClaims),
        row("exp as a fraction", "exp", json!(1.9e9), TokenClaims),
        ("exp with an exponent", without_exp(r#""exp":19e8"#), TokenClaims),
        (
            "exp with a large exponent",
            without_exp(r#""exp":1e300"#),
            TokenClaims,
        ),
        (
            "exp beyond all numbers",
            without_exp(r#""exp":1e999"#),
            TokenMalformed,
        ),
        (
            "exp with 10,000 digits",
            without_exp(&format!("\"exp\":{}", "9".repeat(10_000))),
            TokenMalformed,
        ),
        (
            "exp that is not a number",
            without_exp(r#""exp":NaN"#),
            TokenMalformed,
        ),
        (
            "exp without end",
            without_exp(r#""exp":Infinity"#),
            TokenMalformed,
        ),
        (
            "exp in hexadecimal",
            without_exp(r#""exp":0x7fffffff"#),
            TokenMalformed,
        ),
        row("exp as text", "exp", json!("1900000000"), TokenClaims),
        row("exp as a list", "exp", json!([1_900_000_000]), TokenClaims),
        row("exp true", "exp", json!(true), TokenClaims),
        row("exp negative", "exp", json!(-1), TokenClaims),
        row(
            "exp in milliseconds",
            "exp",
            json!((NOW + 60) * 1000),
            TokenClaims,
        ),
        row("exp at the end of 63 bits", "exp", json!(i64::MAX), TokenClaims),
        row("exp at the end of 64 bits", "exp", json!(u64::MAX), TokenClaims),
        (
            "exp past 64 bits",
            without_exp(r#""exp":18446744073709551616"#),
            TokenClaims,
        ),
        (
            "exp twice",
            stage.with_text(r#""exp":9000000000,"#),
            TokenMalformed,
        ),
        (
            "exp twice, once in disguise",
            stage.with_text(r#""e\u0078p":9000000000,"#),
            TokenMalformed,
        ),
        row("nbf ahead", "nbf", json!(NOW + 61), TokenNotYetValid),
        row(
            "nbf far ahead",
            "nbf",
            json!(253_402_300_799_u64),
            TokenNotYetValid,
        ),
        row("nbf as text", "nbf", json!("0"), TokenClaims),
        row("nbf negative", "nbf", json!(-1), TokenClaims),
        row("nbf huge", "nbf", json!(u64::MAX), TokenClaims),
        row("iat ahead", "iat", json!(NOW + 61), TokenNotYetValid),
        row("iat as a fraction", "iat", json!(1.5), TokenClaims),
    ]
}

fn audiences(stage: &Stage) -> Vec<Row> {
    let row = |name, value: Value, reason: Reason| (name, stage.changed("aud", value), reason);
    let huge: Vec<_> = (0..1500).map(|n| n.to_string()).collect();
    vec![
        row("no audience", Value::Null, TokenClaims),
        row("another audience", json!("api://other"), TokenAudience),
        row("other audiences", json!(["a", "b"]), TokenAudience),
        row("no audience in the list", json!([]), TokenAudience),
        row("an empty audience", json!(""), TokenAudience),
        row("audience in capitals", json!("GATEPOST"), TokenAudience),
        row("audience with a blank", json!("gatepost "), TokenAudience),
        row("audience with a NUL", json!("gatepost\0"), TokenAudience),
        row(
            "audience that begins like ours",
            json!("gatepost-test"),
            TokenAudience,
        ),
        row("audience with everything", json!("*"), TokenAudience),
        row(
            "audience with two in one",
            json!("gatepost api://gatepost"),
            TokenAudience,
        ),
        row("audience with a slash", json!("api://gatepost/"), TokenAudience),
        row("audience in a nested list", json!([["gatepost"]]), TokenClaims),
        row("audience beside a number", json!(["gatepost", 1]), TokenClaims),
        row("audience beside a null", json!(["gatepost", null]), TokenClaims),
        row("audience as an object", json!({"gatepost": true}), TokenClaims),
        row("audience as a number", json!(0), TokenClaims),
        row("audience true", json!(true), TokenClaims),
        row("1,500 audiences", json!(huge), TokenAudience),
        (
            "audience twice",
            stage.with_text(r#""aud":"api://other","#),
            TokenMalformed,
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, one row an attack")]
fn issuers(stage: &Stage) -> Vec<Row> {
    let url = &stage.issuer.url;
    let row = |name, value: String| (name, stage.changed("iss", json!(value)), TokenIssuerUnknown);
    let host = url.strip_prefix("http://").unwrap();
    let port = host.split(['/', ':']).nth(1).unwrap();
    let mut rows = vec![
        row("iss with a slash more", format!("{url}/")),
        row(
            "iss with a slash less",
            url.replace("/oauth2/default", "/oauth2default"),
        ),
        row("iss with two slashes", url.replace("/oauth2/", "//oauth2/")),
        row("iss with a dot", url.replace("/oauth2/", "/./oauth2/")),
        row("iss by a detour", url.replace("/oauth2/", "/x/../oauth2/")),
        row("iss in capitals", url.to_uppercase()),
        row("iss with the path in capitals", url.replace("default", "Default")),
        row("iss with another scheme", url.replace("http://", "https://")),
        row("iss without scheme", host.to_owned()),
        row("iss with a user", url.replace("http://", "http://user@")),
        row(
            "iss as user of another host",
            url.replace("http://127.0.0.1", "http://127.0.0.1@evil.example"),
        ),
        row(
            "iss below another host",
            url.replace("127.0.0.1", "127.0.0.1.evil.example"),
        ),
        row(
            "iss with a dot after the host",
            url.replace("127.0.0.1:", "127.0.0.1.:"),
        ),
        row(
            "iss with another spelling of the address",
            url.replace("127.0.0.1", "127.1"),
        ),
        row("iss with the host's name", url.replace("127.0.0.1", "localhost")),
        row("iss with a homograph", url.replace("default", "d\u{435}fault")),
        row(
            "iss in wide letters",
            url.replace("127", "\u{ff11}\u{ff12}\u{ff17}"),
        ),
        row("iss percent-encoded", url.replace("default", "%64efault")),
        row("iss with another port", url.replace(port, "1")),
        row(
            "iss with a zero before the port",
            url.replace(port, &format!("0{port}")),
        ),
        row("iss with a query", format!("{url}?")),
        row("iss with a fragment", format!("{url}#")),
        row("iss with a blank before it", format!(" {url}")),
        row("iss with a line end", format!("{url}\n")),
        row("iss with a NUL", format!("{url}\0")),
        row("iss with a tab inside", url.replace("oauth2", "oauth2\t")),
        row("iss with an invisible letter", format!("{url}\u{200b}")),
        row("an empty iss", String::new()),
        row("somebody's iss", "https://accounts.example.com".to_owned()),
    ];
    rows.extend([
        ("no iss", stage.changed("iss", Value::Null), TokenClaims),
        ("iss as a list", stage.changed("iss", json!([url])), TokenClaims),
        (
            "iss as an object",
            stage.changed("iss", json!({"iss": url})),
            TokenClaims,
        ),
        (
            "iss twice",
            stage.with_text(r#""iss":"https://accounts.example.com","#),
            TokenMalformed,
        ),
    ]);
    rows
}

/// Tokens of another kind, and identities that are none.
fn kinds(stage: &Stage) -> Vec<Row> {
    let row = |name, claim: &str, value: Value, reason: Reason| (name, stage.changed(claim, value), reason);
    let levels = format!("\"deep\":{}1{},", "[".repeat(10_000), "]".repeat(10_000));
    // Deep enough for the parser, small enough for the limit on length.
    let objects = format!("\"deep\":{}1{},", "{\"a\":".repeat(200), "}".repeat(200));
    vec![
        row("no cid", "cid", Value::Null, TokenNotAccess),
        row("nonce", "nonce", json!("n"), TokenNotAccess),
        row("at_hash", "at_hash", json!("h"), TokenNotAccess),
        row("c_hash", "c_hash", json!("h"), TokenNotAccess),
        row("s_hash", "s_hash", json!("h"), TokenNotAccess),
        row("typ claim", "typ", json!("ID"), TokenNotAccess),
        row(
            "typ claim of a refresh token",
            "typ",
            json!("Refresh"),
            TokenNotAccess,
        ),
        row("token_use", "token_use", json!("id"), TokenNotAccess),
        row(
            "token_use as a list",
            "token_use",
            json!(["access"]),
            TokenNotAccess,
        ),
        row("no sub", "sub", Value::Null, TokenClaims),
        row("an empty sub", "sub", json!(""), TokenClaims),
        row("sub is a number", "sub", json!(7), TokenClaims),
        row("sub is a list", "sub", json!(["worker-1"]), TokenClaims),
        row("sub with a NUL", "sub", json!("worker-1\0"), TokenClaims),
        row(
            "sub with a line end",
            "sub",
            json!("worker-1\nadmin"),
            TokenClaims,
        ),
        row("cid is a list", "cid", json!(["client-1"]), TokenClaims),
        ("sub twice", stage.with_text(r#""sub":"admin","#), TokenMalformed),
        (
            "a key twice inside",
            stage.with_text(r#""x":{"a":1,"a":2},"#),
            TokenMalformed,
        ),
        ("ten thousand levels", stage.with_text(&levels), TokenMalformed),
        ("two hundred objects", stage.with_text(&objects), TokenMalformed),
    ]
}

/// What only looks like an attack.
#[tokio::test]
async fn what_the_specifications_allow_is_let_in() {
    let stage = Stage::set().await;
    let bench = Bench::of(&stage.issuer, ProviderKind::Okta);
    let groups: Vec<_> = (0..1500).map(|n| format!("g{n}")).collect();
    for (claim, value) in [
        ("aud", json!(["x", "gatepost", "y"])),
        ("aud", json!(["gatepost", "gatepost"])),
        ("exp", json!(NOW - 29)),
        ("exp", json!(253_402_300_799_u64)),
        ("nbf", json!(NOW + 30)),
        ("nbf", json!(0)),
        ("iat", Value::Null),
        ("groups", json!(groups)),
        ("unheard", json!({"of": [1, null, {"a": {}}]})),
    ] {
        let verified = bench.show(&stage.changed(claim, value.clone())).await;
        assert!(verified.is_ok(), "{claim} {value}: {verified:?}");
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
        (
            ProviderKind::Entra,
            json!({"preferred_username": "a@b", "rh": "0.A"}),
            false,
        ),
        (ProviderKind::Okta, json!({}), false),
        (
            ProviderKind::Okta,
            json!({"amr": ["pwd"], "idp": "00o", "auth_time": NOW}),
            false,
        ),
        (ProviderKind::Okta, json!({"cid": "c", "at_hash": "h"}), false),
        (ProviderKind::Okta, json!({"cid": "c"}), true),
        (ProviderKind::Oidc, json!({}), false),
        (ProviderKind::Oidc, json!({"azp": "gatepost"}), false),
        (ProviderKind::Oidc, json!({"azp": "worker"}), true),
        (
            ProviderKind::Oidc,
            json!({"azp": "gatepost", "scope": "write"}),
            true,
        ),
        (ProviderKind::Oidc, json!({"azp": "worker", "c_hash": "h"}), false),
        (ProviderKind::Oidc, json!({"azp": "worker", "typ": "ID"}), false),
    ] {
        let mut claims = base.clone();
        claims
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let bench = Bench::of(&issuer, kind);
        let verified = bench.show(&own.token(&claims)).await;
        assert_eq!(verified.is_ok(), passes, "{kind:?} {extra}");
    }
}
