//! The fence: what a minted login's password is worth to somebody who is not gatepost.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use gatepost::credential::{Finding, FindingKind, check_live};
use gatepost::domain::{Engine, Secret};
use gatepost::tls::{ClientSettings, ClientTls, Mode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::runtime::Handle;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::bench::{BROKER, Bench, LONG, SHORT, eventually, secret_of};
use crate::postgres::Options;

const FENCED: &str = "host all postgres 127.0.0.1/32 trust\n\
    hostssl all gatepost_broker all scram-sha-256\n\
    hostssl all +gatepost_minted all scram-sha-256 clientcert=verify-ca\n\
    host all +gatepost_minted all reject\n\
    host all all 127.0.0.1/32 scram-sha-256\n";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority() -> Authority {
    let mut params = params("authority", vec![]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key of a leaf.
fn leaf(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = params("leaf", vec![name.to_owned()]);
    (
        params.signed_by(&key, authority).unwrap().pem(),
        key.serialize_pem(),
    )
}

struct Certificates {
    folder: tempfile::TempDir,
    servers: Authority,
    clients: Authority,
}

impl Certificates {
    fn new() -> Self {
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            servers: authority(),
            clients: authority(),
        };
        fs::write(made.path("ca.crt"), made.servers.pem()).unwrap();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, hba: &str) -> Options {
        let (certificate, key) = leaf(&self.servers, "127.0.0.1");
        let owned = |name: &str, text: String| (name.to_owned(), text);
        Options {
            hba: Some(hba.to_owned()),
            settings: [
                "ssl=on",
                "ssl_cert_file={folder}/server.crt",
                "ssl_key_file={folder}/server.key",
                "ssl_ca_file={folder}/clients.crt",
            ]
            .map(str::to_owned)
            .into(),
            files: vec![
                owned("server.crt", certificate),
                owned("server.key", key),
                owned("clients.crt", self.clients.pem()),
            ],
            ..Options::default()
        }
    }

    /// How a client reaches the server, with a certificate of `signer` or without any.
    fn tls(&self, signer: Option<&Authority>) -> Arc<rustls::ClientConfig> {
        let client = signer.map(|signer| {
            let (certificate, key) = leaf(signer, "client");
            fs::write(self.path("client.crt"), certificate).unwrap();
            (self.path("client.crt"), Secret::new(key.into_bytes()))
        });
        let settings = ClientSettings {
            engine: Engine::Postgres,
            mode: Mode::VerifyFull,
            ca: Some(self.path("ca.crt")),
            client,
        };
        ClientTls::load(&settings).unwrap().rustls_config().unwrap()
    }
}

/// Whether this user gets in; else why not.
async fn enter(
    port: u16,
    user: &str,
    password: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<(), String> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(user)
        .password(password)
        .dbname("orders");
    let entered = match tls {
        None => config.connect(NoTls).await.map(drop),
        Some(tls) => {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            config
                .connect(MakeRustlsConnect::new(tls.as_ref().clone()))
                .await
                .map(drop)
        }
    };
    entered.map_err(|error| {
        let told = error
            .as_db_error()
            .map(|error| format!("{}: {}", error.code().code(), error.message()));
        told.unwrap_or_else(|| format!("{error:?}"))
    })
}

async fn let_the_broker_see(bench: &Bench) {
    bench
        .run(&format!(
            "GRANT SELECT ON pg_catalog.pg_hba_file_rules TO {BROKER}; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules() TO {BROKER}"
        ))
        .await;
}

#[tokio::test]
async fn a_stolen_password_is_refused_and_gatepost_gets_in() {
    let certificates = Certificates::new();
    let bench = Bench::with(certificates.server(FENCED)).await;
    let ours = certificates.tls(Some(&certificates.clients));
    let mut settings = bench.settings("a");
    settings.tls = Some(Arc::clone(&ours));
    let broker = bench.start(settings.clone());
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let (login, stolen) = (hold.login().as_str(), secret_of(&hold));
    let port = bench.server.port;

    enter(port, login, stolen, Some(Arc::clone(&ours))).await.unwrap();
    let clear = enter(port, login, stolen, None).await.unwrap_err();
    assert!(clear.starts_with("28000"), "{clear}");
    let bare = enter(port, login, stolen, Some(certificates.tls(None)))
        .await
        .unwrap_err();
    assert_eq!(bare, "28000: connection requires a valid client certificate");
    let forged = enter(port, login, stolen, Some(certificates.tls(Some(&authority())))).await;
    assert!(forged.is_err());
    // A password of its own making is of no more use.
    bench
        .run(&format!("ALTER ROLE {login} PASSWORD 'self-made'"))
        .await;
    let bare = enter(port, login, "self-made", Some(certificates.tls(None)))
        .await
        .unwrap_err();
    assert!(bare.starts_with("28000"), "{bare}");
    eventually("noticed", async || !bench.tampering(login).is_empty()).await;

    // Behind the fence a renewal finds its login as it was.
    let honest = bench.lease(&broker, "writer", SHORT).await.unwrap();
    eventually("renewed", async || {
        bench
            .events(honest.login().as_str())
            .contains(&"login.renewed".to_owned())
    })
    .await;
    assert!(bench.tampering(honest.login().as_str()).is_empty());

    let fence = |findings: Vec<Finding>| {
        findings
            .into_iter()
            .find(|finding| finding.sql.contains("The fence"))
    };
    let unseen = fence(broker.check_live(&["writer".into()]).await.unwrap()).unwrap();
    assert_eq!(unseen.kind, FindingKind::NotProven);
    assert!(unseen.missing.contains("could not see"), "{}", unseen.missing);
    let_the_broker_see(&bench).await;
    assert_eq!(fence(broker.check_live(&["writer".into()]).await.unwrap()), None);

    // A line in front of it opens it, and the report says which.
    let hba = bench.server.folder.path().join("pg_hba.conf");
    let opened = FENCED.replace(
        "hostssl all +",
        "hostssl all +writer all scram-sha-256\nhostssl all +",
    );
    fs::write(&hba, opened).unwrap();
    let gap = fence(broker.check_live(&["writer".into()]).await.unwrap()).unwrap();
    assert_eq!(gap.kind, FindingKind::MissingPrivilege);
    assert!(
        gap.missing
            .contains("line 3 lets minted logins in from everywhere"),
        "{}",
        gap.missing
    );
    bench.run("SELECT pg_reload_conf()").await;
    let honest = bench.lease(&broker, "writer", LONG).await.unwrap();
    eventually("the opened fence lets a thief in", async || {
        let (login, stolen) = (honest.login().as_str(), secret_of(&honest));
        enter(port, login, stolen, Some(certificates.tls(None)))
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_server_without_a_fence_is_told() {
    let bench = Bench::new().await;
    let_the_broker_see(&bench).await;
    let findings = check_live(&bench.settings("a"), &["writer".into()], &Handle::current())
        .await
        .unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, FindingKind::MissingPrivilege);
    assert!(
        findings[0]
            .missing
            .contains("line 2 lets minted logins in from 127.0.0.1"),
        "{}",
        findings[0].missing
    );
}

#[tokio::test]
async fn a_broker_that_may_not_see_the_server_s_lives_is_told() {
    let bench = Bench::new().await;
    let found = async || {
        let settings = bench.settings("a");
        let findings = check_live(&settings, &["writer".into()], &Handle::current()).await;
        let mut findings = findings.unwrap();
        findings.retain(|finding| finding.sql == "GRANT pg_read_all_stats TO \"gatepost_broker\"");
        findings.len()
    };
    assert_eq!(found().await, 0);
    bench.run("REVOKE pg_read_all_stats FROM gatepost_broker").await;
    assert_eq!(found().await, 1);
}

#[tokio::test]
async fn new_certificates_are_proved_like_a_new_password() {
    let certificates = Certificates::new();
    let hba = FENCED.replace(
        "gatepost_broker all scram-sha-256",
        "gatepost_broker all scram-sha-256 clientcert=verify-ca",
    );
    let bench = Bench::with(certificates.server(&hba)).await;
    let mut settings = bench.settings("a");
    settings.tls = Some(certificates.tls(Some(&certificates.clients)));
    let broker = bench.start(settings.clone());
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    settings.tls = Some(certificates.tls(Some(&authority())));
    broker.update(settings.clone());
    eventually("refused", async || broker.update_pending().is_some()).await;
    assert_eq!(broker.ready(), Ok(()));
    assert_eq!(
        bench.lease(&broker, "writer", LONG).await.unwrap().login(),
        hold.login()
    );
    settings.tls = Some(certificates.tls(Some(&certificates.clients)));
    broker.update(settings);
    eventually("proved", async || broker.update_pending().is_none()).await;
    let rotated = bench
        .all_records()
        .into_iter()
        .filter(|record| record["event"] == "secret.rotated");
    assert_eq!(rotated.count(), 0, "the password is the same");
    let login = hold.login().to_string();
    drop(hold);
    broker.rotate().await.unwrap();
    bench.gone(&login).await;
}
