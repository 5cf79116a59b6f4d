//! Tokens that come again.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::Clock as _;
use crate::identity::seen::{Entry, SeenTokens};
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, now};
use crate::identity::{ProviderKind, TokenError};

#[tokio::test]
async fn a_token_that_comes_again_is_known_until_it_ends() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    let first = bench.show(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &bench.show(&token).await.unwrap()));
    // Every byte counts.
    let mut other = token.clone();
    *other.last_mut().unwrap() ^= 4;
    assert!(bench.show(&other).await.is_err());
    bench.clock.pass(3629);
    assert!(bench.show(&token).await.is_ok());
    bench.clock.pass(1);
    let refused = bench.show(&token).await.unwrap_err();
    let ago = Duration::from_secs(30);
    assert_eq!(refused, TokenError::Expired { ago });
    // It takes no place any more.
    bench.tend();
    assert!(!format!("{:?}", bench.verifier).contains("worker-1"));
}

#[tokio::test]
async fn the_table_holds_neither_tokens_nor_more_than_it_may() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    let identity = bench.show(&token).await.unwrap();
    let shown = format!("{:?}", bench.verifier);
    assert!(shown.contains("worker-1"));
    let text = String::from_utf8(token).unwrap();
    assert!(text.split('.').all(|part| !shown.contains(part)));

    let parsed = crate::identity::token::Token::parse(&crate::domain::Secret::new(text.into())).unwrap();
    let settings = bench.verifier.providers()[0].settings();
    let times = parsed.check_claims(
        settings,
        bench.verifier.providers()[0].issuer(),
        bench.clock.now(),
    );
    let entry = |later: u64, bytes: usize| {
        let mut times = times.clone().unwrap();
        times.expiry += Duration::from_secs(later);
        let identity = Arc::clone(&identity);
        Entry {
            identity,
            times,
            key: [0; 32],
            bytes,
        }
    };
    let digest = |n: u64| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        digest
    };
    let mut seen = SeenTokens::default();
    (0..10_500).for_each(|n| seen.add(digest(n), entry(n, 1000)));
    assert_eq!(seen.len(), 10_000);
    // The ones that would have ended first had to go.
    seen.forget_expired(now() + Duration::from_secs(3600 + 500));
    assert_eq!(seen.len(), 9_999);
    // Few, but large ones.
    (0..5000).for_each(|n| seen.add(digest(n), entry(n + 20_000, 16 * 1024)));
    assert!(seen.len() <= 32 * 1024 * 1024 / 1000);
    seen.forget_expired(now() + Duration::from_secs(3600 + 20_000 - 1));
    assert_eq!(seen.len(), 32 * 1024 / 16);
}
