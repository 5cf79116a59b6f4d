//! A verifier and its successor.

use std::sync::Arc;

use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, settings, until};
use crate::identity::{ProviderKind, TokenError};

#[tokio::test]
async fn what_did_not_change_keeps_everything() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    let seen = bench.show(&token).await.unwrap();
    bench.clock.pass(30);
    let stranger = Signer::new("stranger").token(&issuer.claims());
    assert!(bench.show(&stranger).await.is_err());
    assert_eq!(issuer.asked_for_keys(), 2);

    let same = settings("idp", &issuer.url, ProviderKind::Okta);
    let other = settings("other", "http://127.0.0.1:1/other", ProviderKind::Oidc);
    let next = Bench {
        verifier: Arc::new(bench.verifier.successor(vec![other, same])),
        clock: Arc::clone(&bench.clock),
    };
    next.clock.pass(30);
    assert!(Arc::ptr_eq(
        &seen,
        &next.show_without_waiting(&token).unwrap().unwrap()
    ));
    assert!(
        next.show_without_waiting(&stranger).unwrap().is_err(),
        "still known to be unknown"
    );
    assert_eq!(issuer.asked_for_keys(), 2);
    assert_eq!(
        next.verifier.providers_ready(),
        [("other".into(), false), ("idp".into(), true)]
    );
}

#[tokio::test]
async fn a_refresh_under_way_serves_the_successor() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    issuer.hold(true);
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    assert!(bench.show_without_waiting(&token).is_none());
    until("the question", || issuer.asked_for_document() == 1).await;
    let next = Bench {
        verifier: Arc::new(
            bench
                .verifier
                .successor(vec![settings("idp", &issuer.url, ProviderKind::Okta)]),
        ),
        clock: Arc::clone(&bench.clock),
    };
    drop(bench);
    issuer.hold(false);
    assert!(next.show(&token).await.is_ok());
    assert_eq!((issuer.asked_for_document(), issuer.asked_for_keys()), (1, 1));
}

#[tokio::test]
async fn what_changed_begins_with_nothing() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    assert!(bench.show(&token).await.is_ok());
    let mut changed = settings("idp", &issuer.url, ProviderKind::Okta);
    changed.audiences = vec!["somebody-else".to_owned()];
    let next = Bench {
        verifier: Arc::new(bench.verifier.successor(vec![changed])),
        clock: Arc::clone(&bench.clock),
    };
    assert_eq!(next.verifier.providers_ready(), [("idp".into(), false)]);
    let refused = next.show(&token).await.unwrap_err();
    assert!(matches!(refused, TokenError::Audience { .. }), "{refused}");
    assert_eq!(issuer.asked_for_keys(), 2);
    assert_eq!(next.count("ok"), 2, "counters go on");
    // And who is no longer configured is nobody.
    let none = Bench {
        verifier: Arc::new(next.verifier.successor(vec![])),
        clock: Arc::clone(&bench.clock),
    };
    assert_eq!(none.show(&token).await.unwrap_err(), TokenError::UnknownIssuer);
}
