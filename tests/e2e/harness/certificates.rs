//! Certificates that are replaced while the proxy runs, as a deploy replaces them: each file whole,
//! one after the other.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::world::World;

/// Told apart by it on the server's side.
static SERIAL: AtomicU64 = AtomicU64::new(4_711);

impl World {
    /// A new key and a new certificate for `server` or `client`, signed by the world's authority.
    /// Returns the serial number.
    pub(crate) fn reissue(&self, name: &str) -> u64 {
        let folder = self.path("certs");
        let key = fs::read_to_string(folder.join("ca.key")).unwrap();
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.distinguished_name = named("gatepost development authority");
        let issuer = Issuer::from_params(&authority, KeyPair::from_pem(&key).unwrap());
        let hosts = match name {
            "server" => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            _ => vec![],
        };
        let mut params = CertificateParams::new(hosts).unwrap();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name = named("gatepost");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        replace(&folder.join(format!("{name}.key")), &key.serialize_pem());
        replace(&folder.join(format!("{name}.crt")), &certificate.pem());
        serial
    }

    pub(crate) fn certificate_on_disk(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("certs/{name}.crt"))).unwrap()
    }

    /// What a client is shown now.
    pub(crate) fn certificate_shown(&self) -> CertificateDer<'static> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate_on_disk("ca")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(self.config.postgres).unwrap();
        // SSLRequest.
        socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        let mut answer = [0];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"S");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        tls.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
