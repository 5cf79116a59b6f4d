//! Handshakes on loopback, and the errors that operators meet.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::domain::{Engine, Secret};
use crate::tls::stream::end_point;
use crate::tls::{ClientSettings, ClientTls, Door, Mode, ServerSettings, ServerTls, Stream, TlsError};

/// A folder with a CA, a server certificate for "db.test" and another CA.
struct Files {
    folder: tempfile::TempDir,
    key: String,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl Files {
    fn new(times: Option<(i32, i32)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = |file: &str| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            std::fs::write(folder.path().join(file), ca.pem()).unwrap();
            ca
        };
        let ca = authority("ca.crt");
        authority("other-ca.crt");
        let mut params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
        if let Some((from, to)) = times {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.path().join("server.crt"), certificate.pem()).unwrap();
        let key = key.serialize_pem();
        Self { folder, key }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn server(&self) -> ServerSettings {
        ServerSettings {
            certificate: self.path("server.crt"),
            private_key: Secret::new(self.key.clone().into_bytes()),
        }
    }

    fn client(&self, mode: Mode, ca: &str) -> ClientTls {
        let settings = ClientSettings {
            engine: Engine::Postgres,
            mode,
            ca: Some(self.path(ca)),
            client: None,
        };
        ClientTls::load(&settings).unwrap()
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (near.unwrap(), far.unwrap().0)
}

async fn shake(
    client: &ClientTls,
    server: &ServerTls,
    host: &str,
    door: Door,
) -> (Result<Stream, TlsError>, Result<Stream, TlsError>) {
    let (near, far) = sockets().await;
    tokio::join!(client.connect(near, host), server.accept(far, door))
}

#[tokio::test]
async fn each_mode_checks_what_its_name_says() {
    let files = Files::new(None);
    let server = ServerTls::load(&files.server(), now()).unwrap();
    for (mode, ca, host, passes) in [
        (Mode::Require, "other-ca.crt", "elsewhere.test", true),
        (Mode::VerifyCa, "ca.crt", "elsewhere.test", true),
        (Mode::VerifyCa, "other-ca.crt", "db.test", false),
        (Mode::VerifyFull, "ca.crt", "db.test", true),
        (Mode::VerifyFull, "ca.crt", "elsewhere.test", false),
        (Mode::VerifyFull, "ca.crt", "127.0.0.1", false),
        (Mode::VerifyFull, "other-ca.crt", "db.test", false),
    ] {
        let client = files.client(mode, ca);
        let (near, far) = shake(&client, &server, host, Door::Direct).await;
        assert_eq!(near.is_ok(), passes, "{mode:?} {ca} {host}");
        let (Ok(mut near), Ok(mut far)) = (near, far) else {
            continue;
        };
        assert!(near.encrypted() && far.encrypted());
        assert_eq!(far.alpn(), Some(b"postgresql".as_slice()));
        assert_eq!(near.server_end_point().map(|hash| hash.len()), Some(32));
        assert_eq!(far.server_end_point(), None);
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }
    let (near, _far) = sockets().await;
    let refused = files
        .client(Mode::Disable, "ca.crt")
        .connect(near, "db.test")
        .await;
    assert!(matches!(refused, Err(TlsError::Disabled)));
}

#[tokio::test]
async fn alpn_follows_postgresqls_rules() {
    let files = Files::new(None);
    let server = ServerTls::load(&files.server(), now()).unwrap();
    let base = files.client(Mode::VerifyFull, "ca.crt").rustls_config().unwrap();
    for (offered, door, passes) in [
        (None, Door::SslRequest, true),
        (None, Door::Direct, false),
        (Some("postgresql"), Door::SslRequest, true),
        (Some("h2"), Door::SslRequest, false),
        (Some("h2"), Door::Direct, false),
    ] {
        let mut config = base.as_ref().clone();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (near, far) = sockets().await;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let host = "db.test".try_into().unwrap();
        let (_near, far) = tokio::join!(connector.connect(host, near), server.accept(far, door));
        assert_eq!(far.is_ok(), passes, "{offered:?} {door:?}");
    }
}

#[test]
fn mistakes_name_the_file() {
    let check = |settings: ServerSettings, expected: &str| {
        let text = ServerTls::load(&settings, now()).unwrap_err().to_string();
        assert!(text.contains(expected) && text.contains(".crt"), "{text}");
    };
    let files = Files::new(None);
    let with_file = |file: &str| ServerSettings {
        certificate: files.path(file),
        ..files.server()
    };
    let with_key = |key: &str| ServerSettings {
        private_key: Secret::new(key.as_bytes().to_vec()),
        ..files.server()
    };
    check(with_file("absent.crt"), "cannot read");
    std::fs::write(files.path("text.crt"), "not PEM").unwrap();
    check(with_file("text.crt"), "no PEM certificate");
    check(with_key("nonsense"), "not a PEM key");
    check(
        with_key(&KeyPair::generate().unwrap().serialize_pem()),
        "does not match",
    );
    check(Files::new(Some((2001, 2002))).server(), "has expired");
    check(Files::new(Some((2090, 2091))).server(), "not valid yet");
    let absent = crate::tls::HttpsTrust::load(Some(Path::new("absent.crt")));
    assert!(absent.unwrap_err().to_string().contains("absent.crt"));
}

#[test]
fn the_end_point_hash_follows_the_signature() {
    for (algorithm, bytes) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
        (&rcgen::PKCS_ED25519, None),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(end_point(certificate.der()).map(|hash| hash.len()), bytes);
    }
}
