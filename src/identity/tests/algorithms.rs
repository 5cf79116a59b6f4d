//! Every algorithm with a true signature, and none under another's name.

use serde_json::{Value, json};

use crate::identity::ProviderKind;
use crate::identity::tests::Bench;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;

fn signers() -> [Signer; 5] {
    [
        Signer::new("p256"),
        Signer::p384("p384"),
        Signer::p521("p521"),
        Signer::rsa("rsa"),
        Signer::ed25519("ed"),
    ]
}

#[tokio::test]
async fn each_algorithm_verifies_under_its_own_name_only() {
    let signers = signers();
    let issuer = Issuer::start(signers.iter().map(Signer::jwk).collect()).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let claims = issuer.claims().to_string();
    let names = signers.iter().flat_map(|it| it.algorithms());
    let names: Vec<_> = names.chain(&["none", "HS256", "ES256K", "rs256", ""]).collect();
    for signer in &signers {
        for signed_as in signer.algorithms() {
            for said in &names {
                let header = json!({"alg": said, "kid": signer.id}).to_string();
                let token = signer.sign_as(signed_as, &header, &claims);
                let verified = bench.show(&token).await;
                // One algorithm with two names.
                let same = said == &signed_as || (signer.id == "ed" && signer.algorithms().contains(*said));
                assert_eq!(
                    verified.is_ok(),
                    same,
                    "{signed_as} said to be {said}: {verified:?}"
                );
            }
        }
    }
    assert_eq!(issuer.asked_for_keys(), 1);
}

#[tokio::test]
async fn a_key_for_one_algorithm_is_for_no_other() {
    let rsa = Signer::rsa("rsa");
    let mut jwk = rsa.jwk();
    jwk["alg"] = json!("PS384");
    let issuer = Issuer::start(vec![jwk]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let claims = issuer.claims().to_string();
    for algorithm in rsa.algorithms() {
        let header = json!({"alg": algorithm, "kid": "rsa"}).to_string();
        let verified = bench.show(&rsa.sign_as(algorithm, &header, &claims)).await;
        assert_eq!(verified.is_ok(), *algorithm == "PS384", "{algorithm}");
    }
}

#[tokio::test]
async fn one_key_needs_no_name_and_several_do() {
    let (rsa, ec) = (Signer::rsa("rsa"), Signer::new("ec"));
    let nameless = |signer: &Signer| {
        let mut jwk = signer.jwk();
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let issuer = Issuer::start(vec![nameless(&rsa)]).await;
    let bench = Bench::of(&issuer, ProviderKind::Okta);
    let token = |signer: &Signer, claims: &Value| {
        let header = json!({"alg": signer.algorithms()[0]}).to_string();
        signer.sign(&header, &claims.to_string())
    };
    let claims = issuer.claims();
    assert!(bench.show(&token(&rsa, &claims)).await.is_ok());
    // Replaced by another nameless one: a failed signature is all that tells.
    issuer.publish(&[nameless(&ec)]);
    let by_successor = token(&ec, &claims);
    assert!(bench.show(&by_successor).await.is_err());
    let next = Signer::rsa("rsa");
    issuer.publish(&[nameless(&next)]);
    bench.clock.pass(30);
    assert!(bench.show(&token(&next, &claims)).await.is_ok());
    assert_eq!(issuer.asked_for_keys(), 2);

    issuer.publish(&[nameless(&next), nameless(&ec)]);
    bench.clock.pass(3600);
    bench.verifier.refresh(&"idp".into()).await.unwrap();
    let asked = issuer.asked_for_keys();
    assert!(bench.show(&by_successor).await.is_err());
    assert_eq!(
        issuer.asked_for_keys(),
        asked,
        "a token without a key id costs no fetch"
    );
}
