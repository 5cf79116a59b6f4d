//! Providers whose hosts are signed for by different authorities.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::identity::ProviderKind;
use crate::identity::tests::provider::Issuer;
use crate::identity::tests::signers::Signer;
use crate::identity::tests::{Bench, is_unavailable, settings};
use crate::tls::HttpsTrust;

/// Puts TLS in front of a provider; gives the address and the authority.
async fn behind_tls(issuer: &Arc<Issuer>) -> (String, HttpsTrust) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = issuer.url.strip_prefix("http://").unwrap();
    let (plain, path) = plain.split_once('/').unwrap();
    let url = format!("https://localhost:{port}/{path}");
    let plain = plain.to_owned();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut outside) = acceptor.accept(socket).await else {
                continue;
            };
            let mut inside = TcpStream::connect(&plain).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    let (issuer_url, keys_at) = (url.clone(), format!("{url}/keys"));
    issuer.change(|it| (it.issuer, it.keys_at) = (issuer_url, keys_at));
    (url, HttpsTrust::trusting(roots))
}

#[tokio::test]
async fn each_provider_is_believed_by_its_own_authority_alone() {
    let signers = [Signer::new("k1"), Signer::new("k1")];
    let mut providers = Vec::new();
    let mut tokens = Vec::new();
    for (name, signer) in ["first", "second"].into_iter().zip(&signers) {
        let issuer = Issuer::start(vec![signer.jwk()]).await;
        let (url, https) = behind_tls(&issuer).await;
        let mut claims = issuer.claims();
        claims["iss"] = url.clone().into();
        tokens.push(signer.token(&claims));
        let mut settings = settings(name, &url, ProviderKind::Okta);
        settings.https = https;
        providers.push(settings);
    }
    let bench = Bench::with(providers.clone());
    for token in &tokens {
        assert!(bench.show(token).await.is_ok());
    }
    let [first, second] = [0, 1].map(|it| providers[it].https.clone());
    assert!(first != second && first == first.clone());
    (providers[0].https, providers[1].https) = (second, first);
    // Also the other way round, where a reload sees that more than a name changed.
    for bench in [
        Bench::with(providers.clone()),
        Bench {
            verifier: Arc::new(bench.verifier.successor(providers)),
            clock: bench.clock,
        },
    ] {
        for token in &tokens {
            assert!(is_unavailable(bench.show(token).await));
        }
    }
}
