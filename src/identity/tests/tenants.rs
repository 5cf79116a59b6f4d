//! Entra's shared addresses: one set of keys for every tenant in the world, of which some are ours.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, NOW, is_unavailable, settings};
use crate::identity::{ProviderKind, ProviderSettings, TokenError};

const OURS: &str = "1a1a1a1a-2222-4333-8444-555555555555";
const ALSO_OURS: &str = "11111111-2222-4333-8444-666666666666";
const THEIRS: &str = "99999999-2222-4333-8444-555555555555";

struct Shared {
    issuer: std::sync::Arc<Issuer>,
    origin: String,
}

impl Shared {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Issuer::start_at(listener, "/organizations/v2.0", keys);
        let origin = issuer.url.replace("/organizations/v2.0", "");
        let template = format!("{origin}/{{tenantid}}/v2.0");
        issuer.change(|it| it.issuer = template);
        Self { issuer, origin }
    }

    fn bench(&self) -> Bench {
        let mut settings = settings("entra", &self.issuer.url, ProviderKind::Entra);
        settings.tenants = vec![OURS.to_owned(), ALSO_OURS.to_owned()];
        Bench::with(vec![settings])
    }

    fn claims(&self, issuer_tenant: &str, tenant: &Value) -> Value {
        json!({"iss": format!("{}/{issuer_tenant}/v2.0", self.origin), "tid": tenant, "oid": "o",
               "aud": "gatepost", "exp": NOW + 60, "azp": "app", "roles": ["r"]})
    }
}

#[tokio::test]
async fn listed_tenants_are_let_in_and_no_others() {
    let signer = Signer::new("k1");
    let shared = Shared::start(vec![signer.jwk()]).await;
    let bench = shared.bench();
    for tenant in [OURS, ALSO_OURS] {
        let token = signer.token(&shared.claims(tenant, &json!(tenant)));
        let identity = bench.show(&token).await.unwrap();
        assert_eq!(identity.tenant.as_deref(), Some(tenant));
    }
    for (name, issuer_tenant, tenant) in [
        ("another tenant", THEIRS, json!(THEIRS)),
        ("another tenant that says it is ours", THEIRS, json!(OURS)),
        ("ours that says it is another", OURS, json!(THEIRS)),
        ("one of ours that says it is the other", OURS, json!(ALSO_OURS)),
        ("no tenant", OURS, Value::Null),
        ("a list of tenants", OURS, json!([OURS])),
        ("the template itself", "{tenantid}", json!("{tenantid}")),
        ("the shared address", "organizations", json!(OURS)),
        ("in capitals", &OURS.to_uppercase(), json!(OURS.to_uppercase())),
    ] {
        let token = signer.token(&shared.claims(issuer_tenant, &tenant));
        let refused = bench.show(&token).await.unwrap_err();
        assert_eq!(refused, TokenError::UnknownIssuer, "{name}");
    }
}

#[tokio::test]
async fn a_tenant_that_is_taken_off_the_list_is_no_longer_accepted() {
    let signer = Signer::new("k1");
    let shared = Shared::start(vec![signer.jwk()]).await;
    let bench = shared.bench();
    let token = signer.token(&shared.claims(OURS, &json!(OURS)));
    let identity = bench.show(&token).await.unwrap();
    assert!(bench.verifier.still_accepts(&identity));
    let settings = bench.verifier.providers()[0].settings().clone();
    let changed = |change: fn(&mut ProviderSettings)| {
        let mut settings = settings.clone();
        change(&mut settings);
        bench.verifier.successor(vec![settings]).still_accepts(&identity)
    };
    assert!(changed(|it| it.audiences.push("more".to_owned())));
    assert!(changed(|it| it.tenants = vec![OURS.to_owned()]));
    assert!(!changed(|it| it.tenants = vec![ALSO_OURS.to_owned()]));
    assert!(!changed(|it| it.audiences = vec!["api://gatepost".to_owned()]));
    assert!(!changed(|it| it.issuer.insert("http://".len(), 'x')));
    assert!(!changed(|it| it.name = "renamed".into()));
    // Other claims would say who it is.
    assert!(!changed(|it| it.kind = ProviderKind::Okta));
    assert!(!bench.verifier.successor(vec![]).still_accepts(&identity));
}

#[tokio::test]
async fn a_key_signs_only_for_the_issuer_that_it_names() {
    let signers = ["any", "ours", "theirs", "silent"].map(Signer::new);
    let with_issuer = |signer: &Signer, issuer: Option<&str>| {
        let mut jwk = signer.jwk();
        jwk["issuer"] = json!(issuer);
        jwk
    };
    let shared = Shared::start(vec![]).await;
    let of = |tenant: &str| format!("{}/{tenant}/v2.0", shared.origin);
    let issuers = [Some(of("{tenantid}")), Some(of(OURS)), Some(of(THEIRS)), None];
    let keys = signers.iter().zip(&issuers);
    let keys = keys.map(|(signer, issuer)| match issuer {
        Some(issuer) => with_issuer(signer, Some(issuer)),
        None => signer.jwk(),
    });
    let keys: Vec<_> = keys.collect();
    shared.issuer.publish(&keys);
    let bench = shared.bench();
    for (signer, tenant, good) in [
        (0, OURS, true),
        (0, ALSO_OURS, true),
        (1, OURS, true),
        (1, ALSO_OURS, false),
        (2, OURS, false),
        (3, OURS, true),
    ] {
        let token = signers[signer].token(&shared.claims(tenant, &json!(tenant)));
        let verified = bench.show(&token).await;
        assert_eq!(
            verified.is_ok(),
            good,
            "{} {tenant}: {verified:?}",
            signers[signer].id
        );
    }
}

#[tokio::test]
async fn the_document_must_name_the_template_of_the_same_host() {
    let signer = Signer::new("k1");
    let shared = Shared::start(vec![signer.jwk()]).await;
    let token = signer.token(&shared.claims(OURS, &json!(OURS)));
    for wrong in [
        shared.issuer.url.clone(),
        "http://127.0.0.1:1/{tenantid}/v2.0".to_owned(),
        format!("{}/{OURS}/v2.0", shared.origin),
        format!("{}/{{tenantid}}/v2.0/", shared.origin),
    ] {
        shared.issuer.change(|it| it.issuer = wrong);
        assert!(is_unavailable(shared.bench().show(&token).await));
    }
}
