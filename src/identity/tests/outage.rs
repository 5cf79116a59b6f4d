//! Providers that are down, slow or gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::domain::{Clock, Secret};
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, is_unavailable, is_unknown_key, now, settings, until};
use crate::identity::{ProviderKind, Verifier};
use crate::tls::SystemRandom;

#[tokio::test]
async fn the_last_good_keys_outlive_an_outage_for_a_day_and_no_longer() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.lasting_claims());
    bench.verifier.prefetch().await;
    assert!(bench.show(&token).await.is_ok());
    issuer.fail();
    for hour in 1..24 {
        bench.clock.pass(3600);
        assert!(bench.show(&token).await.is_ok(), "hour {hour}");
        until("a failure", || bench.count("failed") == hour).await;
        // Who was never seen before is let in by the same keys.
        let mut claims = issuer.lasting_claims();
        claims["sub"] = format!("worker-{hour}").into();
        assert!(bench.show(&own.token(&claims)).await.is_ok(), "hour {hour}");
    }
    bench.clock.pass(3599);
    assert!(bench.show(&token).await.is_ok());
    until("a failure", || bench.count("failed") == 24).await;
    bench.clock.pass(1);
    assert_eq!(bench.verifier.providers_ready(), [("idp".into(), false)]);
    assert!(
        is_unavailable(bench.show(&token).await),
        "also a token that was seen before"
    );
    issuer.recover();
    bench.clock.pass(30);
    assert!(bench.show(&token).await.is_ok());
    assert_eq!(bench.verifier.providers_ready(), [("idp".into(), true)]);
}

#[tokio::test]
async fn a_failure_is_retried_by_time_and_not_by_request() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    issuer.fail();
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    bench.verifier.prefetch().await;
    assert_eq!(bench.count("failed"), 1);
    for (after, failures) in [(1, 2), (2, 3), (4, 4), (8, 5), (16, 6), (30, 7), (30, 8)] {
        for _ in 0..100 {
            assert!(is_unavailable(bench.show_without_waiting(&token).unwrap()));
        }
        bench.clock.pass(after);
        assert!(is_unavailable(bench.show(&token).await));
        assert_eq!(bench.count("failed"), failures);
        assert_eq!(issuer.asked_for_document(), usize::try_from(failures).unwrap());
    }
    issuer.recover();
    bench.clock.pass(30);
    assert!(bench.show(&token).await.is_ok());
}

#[tokio::test]
async fn whether_a_key_is_unknown_cannot_be_said_while_the_provider_is_down() {
    let (own, new) = (Signer::new("own"), Signer::new("new"));
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    issuer.publish(&[own.jwk(), new.jwk()]);
    issuer.fail();
    bench.clock.pass(30);
    let by_new = new.token(&issuer.claims());
    assert!(is_unavailable(bench.show(&by_new).await));
    assert!(is_unavailable(bench.show_without_waiting(&by_new).unwrap()));
    assert!(bench.show(&own.token(&issuer.claims())).await.is_ok());
    // Nothing was learned about the id, so nothing is held against it.
    issuer.recover();
    bench.clock.pass(1);
    assert!(bench.show(&by_new).await.is_ok());
}

#[tokio::test]
async fn a_slow_provider_holds_only_those_who_need_it_and_is_asked_once() {
    let (own, new) = (Signer::new("own"), Signer::new("new"));
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Arc::new(Bench::of(&issuer, ProviderKind::Okta));
    bench.verifier.prefetch().await;
    issuer.publish(&[own.jwk(), new.jwk()]);
    issuer.hold(true);
    bench.clock.pass(30);
    let (by_own, by_new) = (own.token(&issuer.claims()), new.token(&issuer.claims()));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (bench, token) = (bench.clone(), by_new.clone());
            tokio::spawn(async move { bench.show(&token).await.is_ok() })
        })
        .collect();
    until("the question", || issuer.asked_for_document() == 2).await;
    // Known keys are at hand, seen or not.
    assert!(bench.show_without_waiting(&by_own).unwrap().is_ok());
    assert!(bench.show_without_waiting(&by_own).unwrap().is_ok());
    assert!(waiting.iter().all(|it| !it.is_finished()));
    // One who gives up does not end it for the others.
    waiting[0].abort();
    issuer.hold(false);
    for one in waiting.into_iter().skip(1) {
        assert!(one.await.unwrap());
    }
    assert_eq!((issuer.asked_for_document(), issuer.asked_for_keys()), (2, 2));
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    issuer.hold(true);
    bench.clock.pass(30);
    let stranger = Signer::new("stranger").token(&issuer.claims());
    assert!(is_unavailable(bench.show(&stranger).await));
    assert_eq!(bench.count("failed"), 1);
    assert!(bench.show(&own.token(&issuer.claims())).await.is_ok());
}

/// The time of day of the tests, that goes on with the machine's.
#[derive(Debug)]
struct Going(Instant);

impl Clock for Going {
    fn now(&self) -> SystemTime {
        now() + self.0.elapsed()
    }
}

#[tokio::test]
async fn start_works_while_the_provider_is_down_and_it_is_found_when_it_comes() {
    let own = Signer::new("own");
    // An address where nobody listens yet.
    let address: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let settings = settings("idp", &format!("http://{address}/late"), ProviderKind::Okta);
    let clock = Arc::new(Going(Instant::now()));
    let verifier = Verifier::new(vec![settings], clock.clone(), &SystemRandom, Handle::current());
    verifier.prefetch().await;
    assert_eq!(verifier.providers_ready(), [("idp".into(), false)]);
    let listener = TcpListener::bind(address).await.unwrap();
    let issuer = Issuer::start_at(listener, "/late", vec![own.jwk()]);
    // Nobody comes with a token; it is asked again all the same.
    until("readiness", || verifier.providers_ready()[0].1).await;
    let token = Secret::new(own.token(&issuer.claims()));
    assert!(verifier.verify(&token, clock.now()).await.is_ok());
    drop(verifier);
    let held = Arc::downgrade(&clock);
    drop(clock);
    until("the end of the watch over the keys", || held.upgrade().is_none()).await;
}

#[tokio::test]
async fn a_document_of_another_issuer_gives_no_keys() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    issuer.change(|it| it.issuer.push('/'));
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    assert!(is_unavailable(bench.show(&own.token(&issuer.claims())).await));
    assert_eq!(issuer.asked_for_keys(), 0);
}

#[tokio::test]
async fn clocks_may_be_half_a_minute_apart() {
    let own = Signer::new("own");
    let issuer = Issuer::start(vec![own.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = own.token(&issuer.claims());
    let token = Secret::new(token);
    let at = |seconds: i64| {
        let moved = Duration::from_secs(seconds.unsigned_abs());
        let at = if seconds < 0 { now() - moved } else { now() + moved };
        bench.verifier.verify(&token, at)
    };
    // Issued ten seconds ago, for an hour.
    for (seconds, good) in [(-41, false), (-40, true), (0, true), (3629, true), (3630, false)] {
        let (first, again) = (at(seconds).await, at(seconds).await);
        assert_eq!(
            (first.is_ok(), again.is_ok()),
            (good, good),
            "{seconds}: {first:?}"
        );
    }
    // A clock that was set wrong and right again.
    assert!(at(86_400).await.is_err());
    assert!(at(0).await.is_ok());
    assert!(is_unknown_key(
        &bench.show(&Signer::new("x").token(&issuer.claims())).await
    ));
}
