//! What is read from tokens that were verified.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::Claimed;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, now};
use crate::identity::{ClaimsError, ProviderKind, claims};

#[tokio::test]
async fn a_good_token_becomes_an_identity() {
    let signer = Signer::new("k1");
    let issuer = Issuer::start(vec![signer.jwk()]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    bench.verifier.prefetch().await;
    assert_eq!(bench.verifier.providers_ready(), [("idp".into(), true)]);
    let identity = bench.show(&signer.token(&issuer.claims())).await.unwrap();
    assert_eq!(identity.subject, "worker-1");
    assert_eq!(identity.client_id.as_deref(), Some("client-1"));
    assert_eq!(identity.scopes, Claimed::Known(["write".to_owned()].into()));
    assert_eq!(identity.expires_at, now() + Duration::from_secs(3600));
}

#[test]
fn entra_claims_are_read_and_overage_is_unknown() {
    let read =
        |claims: Value| claims::read(ProviderKind::Entra, &"entra".into(), claims.as_object().unwrap());
    let identity = read(
        json!({"oid": "o", "tid": "t", "sub": "pairwise", "appid": "app", "uti": "u",
        "roles": ["Orders.Write"], "scp": "a b", "_claim_names": {"groups": "src1"}}),
    )
    .unwrap();
    assert_eq!(
        (identity.subject.as_str(), identity.tenant.as_deref()),
        ("o", Some("t"))
    );
    assert_eq!(identity.client_id.as_deref(), Some("app"));
    assert_eq!(identity.groups, Claimed::Unknown);
    assert_eq!(
        identity.scopes,
        Claimed::Known(["a".to_owned(), "b".to_owned()].into())
    );
    let odd = read(json!({"oid": "o", "tid": "t", "roles": "one", "hasgroups": true})).unwrap();
    assert_eq!((odd.roles, odd.groups), (Claimed::Unknown, Claimed::Unknown));
    assert_eq!(
        read(json!({"tid": "t"})).unwrap_err(),
        ClaimsError::Missing { name: "oid" }
    );
}
