//! One provider's word for another's people.

use serde_json::json;

use crate::domain::{Reason, Refuse as _};
use crate::identity::ProviderKind;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, settings};

#[tokio::test]
async fn a_provider_speaks_for_its_own_people_only() {
    let (a, b) = (Signer::new("same"), Signer::new("same"));
    let (only_a, only_b) = (Signer::new("a"), Signer::rsa("b"));
    let first = Issuer::start(vec![a.jwk(), only_a.jwk()]).await;
    let second = Issuer::start(vec![b.jwk(), only_b.jwk()]).await;
    let mut elsewhere = settings("second", &second.url, ProviderKind::Oidc);
    elsewhere.audiences = vec!["elsewhere".to_owned()];
    let bench = Bench::with(vec![settings("first", &first.url, ProviderKind::Okta), elsewhere]);
    let of_second = |audience: &str| {
        json!({"iss": second.url, "aud": audience, "sub": "s", "client_id": "c", "scope": "x",
               "exp": crate::identity::tests::NOW + 60})
    };
    assert_eq!(
        bench
            .show(&a.token(&first.claims()))
            .await
            .unwrap()
            .provider
            .as_str(),
        "first"
    );
    let good = b.token(&of_second("elsewhere"));
    assert_eq!(bench.show(&good).await.unwrap().provider.as_str(), "second");
    let asked = first.asked_for_keys() + second.asked_for_keys();
    bench.clock.pass(30);
    for (name, token, expected) in [
        (
            "the other's key under the same id",
            b.token(&first.claims()),
            Reason::TokenSignature,
        ),
        (
            "and back",
            a.token(&of_second("elsewhere")),
            Reason::TokenSignature,
        ),
        (
            "a key id that only the other has",
            only_b.token(&first.claims()),
            Reason::TokenSignature,
        ),
        (
            "and back again",
            only_a.token(&of_second("elsewhere")),
            Reason::TokenSignature,
        ),
        (
            "the other's audience",
            b.token(&of_second("gatepost")),
            Reason::TokenAudience,
        ),
    ] {
        let refused = bench.show(&token).await.unwrap_err();
        assert_eq!(refused.refusal().1, expected, "{name}: {refused}");
    }
    // Each provider has its own allowance, and no more.
    assert!(first.asked_for_keys() + second.asked_for_keys() <= asked + 2);
}
