//! Keys that come and go while the provider answers.

use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, is_unknown_key, until};
use crate::identity::{ProviderKind, RefreshError, RefreshReport};

#[tokio::test]
async fn a_new_key_is_believed_when_its_first_token_comes() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::start(vec![old.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    let by_old = old.token(&issuer.lasting_claims());
    let by_new = new.token(&issuer.lasting_claims());
    assert!(bench.show(&by_old).await.is_ok());

    issuer.publish(&[new.jwk(), old.jwk()]);
    // Within the interval nobody is asked again …
    bench.clock.pass(29);
    assert!(is_unknown_key(&bench.show(&by_new).await));
    assert_eq!(issuer.asked_for_keys(), 1);
    // … and after it at once, long before the keys are no longer fresh.
    bench.clock.pass(1);
    assert!(bench.show(&by_new).await.is_ok());
    assert_eq!(issuer.asked_for_keys(), 2);
    assert!(bench.show(&by_old).await.is_ok());

    // The old one goes: its tokens are refused from the next renewal on, also those seen before.
    issuer.publish(&[new.jwk()]);
    bench.clock.pass(3600);
    assert!(
        bench.show(&by_old).await.is_ok(),
        "served while the renewal is under way"
    );
    until("the renewal", || bench.count("ok") == 3).await;
    assert!(is_unknown_key(&bench.show(&by_old).await));
    assert!(bench.show(&by_new).await.is_ok());
    assert_eq!(issuer.asked_for_keys(), 3);
}

#[tokio::test]
async fn the_same_id_with_another_key_ends_the_old_ones_tokens() {
    let (old, new) = (Signer::new("k1"), Signer::new("k1"));
    let issuer = Issuer::start(vec![old.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let (by_old, by_new) = (old.token(&issuer.claims()), new.token(&issuer.claims()));
    assert!(bench.show(&by_old).await.is_ok());
    issuer.publish(&[new.jwk()]);
    bench.clock.pass(31);
    let report = bench.verifier.refresh(&"idp".into()).await.unwrap();
    assert_eq!(
        report,
        RefreshReport {
            keys: 1,
            changed: true
        }
    );
    assert!(bench.show(&by_old).await.is_err());
    assert!(bench.show(&by_new).await.is_ok());
}

#[tokio::test]
async fn an_id_that_the_provider_does_not_know_is_not_asked_for_again() {
    let (own, late) = (Signer::new("own"), Signer::new("late"));
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    let by_late = late.token(&issuer.claims());
    bench.clock.pass(30);
    assert!(is_unknown_key(&bench.show(&by_late).await));
    assert_eq!(issuer.asked_for_keys(), 2);
    // The interval begins anew, and this id leaves it to others.
    bench.clock.pass(30);
    assert!(is_unknown_key(&bench.show_without_waiting(&by_late).unwrap()));
    assert_eq!(issuer.asked_for_keys(), 2);
    issuer.publish(&[own.jwk(), late.jwk()]);
    let stranger = Signer::new("stranger").token(&issuer.claims());
    assert!(is_unknown_key(&bench.show(&stranger).await));
    assert_eq!(issuer.asked_for_keys(), 3);
    // Once the key is there, having been unknown does not matter.
    assert!(bench.show(&by_late).await.is_ok());

    // Without anybody else it is asked for again after two minutes.
    bench.clock.pass(30);
    let other = Signer::new("other");
    let by_other = other.token(&issuer.claims());
    assert!(is_unknown_key(&bench.show(&by_other).await));
    issuer.publish(&[other.jwk()]);
    bench.clock.pass(119);
    assert!(is_unknown_key(&bench.show(&by_other).await));
    bench.clock.pass(1);
    assert!(bench.show(&by_other).await.is_ok());
}

#[tokio::test]
async fn the_providers_own_word_on_freshness_counts() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let token = own.token(&issuer.lasting_claims());
    for (headers, fresh) in [
        ("Cache-Control: public, max-age=120\r\n", 120),
        ("Cache-Control: no-store\r\n", 60),
        ("Cache-Control: max-age=31536000\r\n", 86_400 - 1),
        ("", 3600),
    ] {
        issuer.change(|it| it.headers = headers);
        let bench = Bench::of(&issuer, ProviderKind::Okta);
        let asked = issuer.asked_for_keys();
        bench.verifier.prefetch().await;
        bench.clock.pass(fresh - 1);
        assert!(bench.show(&token).await.is_ok());
        bench.tend();
        assert_eq!(issuer.asked_for_keys(), asked + 1, "{headers}");
        bench.clock.pass(1);
        if fresh < 86_399 {
            // Not kept waiting: the renewal goes on beside it.
            assert!(bench.show_without_waiting(&token).unwrap().is_ok());
            until("the renewal", || bench.count("unchanged") == 1).await;
            assert_eq!(issuer.asked_for_keys(), asked + 2, "{headers}");
        }
    }
}

#[tokio::test]
async fn keys_are_renewed_also_when_nobody_comes() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.tend();
    until("the first fetch", || bench.count("ok") == 1).await;
    bench.clock.pass(3599);
    bench.tend();
    assert_eq!(issuer.asked_for_keys(), 1);
    bench.clock.pass(1);
    (0..10).for_each(|_| bench.tend());
    until("the renewal", || bench.count("unchanged") == 1).await;
    assert_eq!(issuer.asked_for_keys(), 2);
}

#[tokio::test]
async fn where_the_keys_lie_is_asked_daily_and_whenever_one_is_missing() {
    let (own, new) = (Signer::new("own"), Signer::new("new"));
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    for hour in 1..24 {
        bench.clock.pass(3600);
        bench.tend();
        until("a renewal", || bench.count("unchanged") == hour).await;
    }
    assert_eq!((issuer.asked_for_document(), issuer.asked_for_keys()), (1, 24));
    bench.clock.pass(3600);
    bench.tend();
    until("the daily renewal", || bench.count("unchanged") == 24).await;
    assert_eq!(issuer.asked_for_document(), 2);
    // The provider moves; the first token with a key of the new place finds it.
    issuer.change(|it| it.keys_at = it.keys_at.replace("/keys", "/moved"));
    issuer.publish(&[new.jwk()]);
    bench.clock.pass(60);
    assert!(bench.show(&new.token(&issuer.lasting_claims())).await.is_ok());
    assert_eq!(issuer.asked_for_document(), 3);
}

#[tokio::test]
async fn operators_can_ask_at_any_time() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::start(vec![old.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let idp = "idp".into();
    let refresh = || bench.verifier.refresh(&idp);
    let unchanged = RefreshReport {
        keys: 1,
        changed: false,
    };
    bench.verifier.prefetch().await;
    assert!(matches!(refresh().await, Err(RefreshError::TooSoon { .. })));
    bench.clock.pass(1);
    assert_eq!(refresh().await, Ok(unchanged));
    issuer.publish(&[old.jwk(), new.jwk()]);
    bench.clock.pass(1);
    assert_eq!(
        refresh().await,
        Ok(RefreshReport {
            keys: 2,
            changed: true
        })
    );
    assert!(bench.show(&new.token(&issuer.claims())).await.is_ok());
    // Two at once ask once.
    bench.clock.pass(1);
    let asked = issuer.asked_for_keys();
    let (first, second) = tokio::join!(refresh(), refresh());
    assert_eq!(first, second);
    assert_eq!(issuer.asked_for_keys(), asked + 1);
    bench.clock.pass(1);
    issuer.fail();
    let failed = refresh().await.unwrap_err().to_string();
    assert!(failed.contains("503"), "{failed}");
    let nobody = bench.verifier.refresh(&"nobody".into()).await;
    assert!(matches!(nobody, Err(RefreshError::Unknown { .. })));
    assert_eq!(["ok", "unchanged", "failed"].map(|it| bench.count(it)), [2, 2, 1]);
}
