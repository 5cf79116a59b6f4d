//! Ten thousand tokens with keys that nobody has.

use std::sync::Arc;

use serde_json::json;

use crate::identity::ProviderKind;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::{Signer, b64};
use crate::identity::tests::{Bench, is_unknown_key};

const STORM: usize = 10_000;

/// Nothing but the key's name is ever looked at, so any bytes do for a signature.
fn strangers(issuer: &Issuer, wave: usize) -> Vec<Vec<u8>> {
    let claims = b64(issuer.claims().to_string());
    let tokens = (0..STORM).map(|n| {
        let header = json!({"alg": "ES256", "kid": format!("invented-{wave}-{n}")}).to_string();
        format!("{}.{claims}.{}", b64(header), b64([7; 64])).into_bytes()
    });
    tokens.collect()
}

#[tokio::test]
async fn a_storm_of_unknown_keys_costs_one_fetch_in_thirty_seconds() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Arc::new(Bench::of(&issuer, ProviderKind::Okta));
    let honest = own.token(&issuer.lasting_claims());
    bench.verifier.prefetch().await;
    for wave in 1..=3 {
        bench.clock.pass(30);
        let all: Vec<_> = strangers(&issuer, wave)
            .into_iter()
            .map(|token| {
                let bench = bench.clone();
                tokio::spawn(async move { is_unknown_key(&bench.show(&token).await) })
            })
            .collect();
        assert!(bench.show_without_waiting(&honest).unwrap().is_ok());
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!(
            (issuer.asked_for_document(), issuer.asked_for_keys()),
            (1 + wave, 1 + wave)
        );
        // The rest of the interval: refused in the moment they come, the same and others.
        bench.clock.pass(29);
        for token in strangers(&issuer, wave)
            .iter()
            .chain(&strangers(&issuer, wave + 100))
        {
            assert!(is_unknown_key(&bench.show_without_waiting(token).unwrap()));
        }
        assert_eq!(issuer.asked_for_keys(), 1 + wave);
        assert!(bench.show_without_waiting(&honest).unwrap().is_ok());
    }
}

#[tokio::test]
async fn the_first_storm_finds_no_keys_at_all_and_costs_one_fetch() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Arc::new(Bench::of(&issuer, ProviderKind::Okta));
    let mut all: Vec<_> = strangers(&issuer, 0);
    all.push(own.token(&issuer.claims()));
    let all: Vec<_> = all
        .into_iter()
        .map(|token| {
            let bench = bench.clone();
            tokio::spawn(async move { bench.show(&token).await.is_ok() })
        })
        .collect();
    let mut let_in = 0;
    for one in all {
        let_in += usize::from(one.await.unwrap());
    }
    assert_eq!(let_in, 1);
    assert_eq!(issuer.asked_for_keys(), 1);
}
