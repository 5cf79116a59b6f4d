//! Whatever comes: an answer, and never a panic.

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::identity::ProviderKind;
use crate::identity::attacks::Stage;
use crate::identity::tests::Bench;

struct Running {
    stage: Stage,
    bench: Bench,
    // Last, so that it outlives what runs on it.
    runtime: Runtime,
}

fn running() -> Running {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (stage, bench) = runtime.block_on(async {
        let stage = Stage::set().await;
        let bench = Bench::of(&stage.issuer, ProviderKind::Okta);
        bench.verifier.prefetch().await;
        (stage, bench)
    });
    Running {
        stage,
        bench,
        runtime,
    }
}

fn run<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&strategy, test)
        .unwrap();
}

#[test]
fn arbitrary_bytes_are_refused() {
    let it = running();
    let some = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[A-Za-z0-9_.=-]{0,300}".prop_map(String::into_bytes),
        "eyJ[A-Za-z0-9_-]{0,80}\\.eyJ[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,90}".prop_map(String::into_bytes),
    ];
    run(some, |bytes| {
        prop_assert!(it.runtime.block_on(it.bench.show(&bytes)).is_err());
        Ok(())
    });
}

#[test]
fn arbitrary_headers_and_claims_are_answered() {
    let it = running();
    let value = || {
        prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| format!("{number:e}")),
            "\\PC{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
            Just("[]".to_owned()),
            Just("[[\"gatepost\"]]".to_owned()),
            Just("{\"a\":{}}".to_owned()),
        ]
    };
    let name = |names: &'static [&'static str]| prop::sample::select(names);
    let headers = name(&["alg", "kid", "typ", "cty", "crit", "b64", "x"]);
    let claims = name(&[
        "iss", "aud", "exp", "nbf", "iat", "sub", "cid", "scp", "groups", "jti", "typ",
    ]);
    let fields = (
        prop::collection::vec((headers, value()), 0..4),
        prop::collection::vec((claims, value()), 0..4),
    );
    run(fields, |(headers, claims)| {
        let mut header = r#"{"alg":"ES256","kid":"ec""#.to_owned();
        headers
            .iter()
            .for_each(|(name, value)| header += &format!(",\"{name}\":{value}"));
        let own = it.stage.issuer.claims();
        let changed = |name: &String| claims.iter().any(|it| it.0 == name);
        let mut parts: Vec<_> = own
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !changed(name))
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        parts.extend(claims.iter().map(|(name, value)| format!("\"{name}\":{value}")));
        let token = it
            .stage
            .ec
            .sign(&format!("{header}}}"), &format!("{{{}}}", parts.join(",")));
        // Some are good: claims that nobody must have.
        let verified = it.runtime.block_on(it.bench.show(&token));
        if claims
            .iter()
            .any(|(name, _)| ["iss", "aud", "exp"].contains(name))
        {
            prop_assert!(verified.is_err(), "{headers:?} {claims:?}");
        }
        Ok(())
    });
}

#[test]
fn a_good_token_with_one_change_is_refused() {
    let it = running();
    let tokens = [&it.stage.ec, &it.stage.p521, &it.stage.rsa, &it.stage.ed];
    let tokens = tokens.map(|signer| signer.token(&it.stage.issuer.claims()));
    for token in &tokens {
        assert!(it.runtime.block_on(it.bench.show(token)).is_ok());
    }
    let change = (
        0..tokens.len(),
        any::<prop::sample::Index>(),
        any::<u8>(),
        0..4_u8,
    );
    run(change, |(which, place, byte, how)| {
        let mut token = tokens[which].clone();
        let place = place.index(token.len());
        match how {
            0 => token[place] = byte,
            1 => token[place] ^= 1 << (byte % 8),
            2 => token.insert(place, byte),
            _ => {
                token.remove(place);
            }
        }
        let changed = token != tokens[which];
        let verified = it.runtime.block_on(it.bench.show(&token));
        prop_assert_eq!(verified.is_err(), changed);
        Ok(())
    });
    assert!(it.stage.issuer.asked_for_keys() <= 2);
}
