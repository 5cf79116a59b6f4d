//! Certificates and keys from PEM, with errors that name the file.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_cert::der::Decode as _;

use crate::domain::Secret;
use crate::tls::TlsError;
use crate::tls::provider;

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = std::fs::read(file).map_err(|source| TlsError::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|_| TlsError::BadCertificate {
        file: file.to_owned(),
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    Ok(chain)
}

/// A chain with its key, proved to belong together.
pub(super) fn certified_key(file: &Path, key: &Secret<Vec<u8>>) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(file)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| TlsError::BadKey {
        certificate: file.to_owned(),
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        if error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            TlsError::KeyMismatch {
                certificate: file.to_owned(),
            }
        } else if matches!(error, rustls::Error::InvalidCertificate(_)) {
            TlsError::BadCertificate {
                file: file.to_owned(),
            }
        } else {
            TlsError::BadKey {
                certificate: file.to_owned(),
            }
        }
    })
}

/// The time of a chain's first certificate: from, until.
pub(super) fn times(file: &Path, chain: &[CertificateDer<'_>]) -> Result<(SystemTime, SystemTime), TlsError> {
    let bad = || TlsError::BadCertificate {
        file: file.to_owned(),
    };
    let first = chain.first().ok_or_else(bad)?;
    let parsed = x509_cert::Certificate::from_der(first).map_err(|_| bad())?;
    let validity = parsed.tbs_certificate.validity;
    Ok((
        validity.not_before.to_system_time(),
        validity.not_after.to_system_time(),
    ))
}

/// Refuses a chain whose first certificate is outside its time. Returns when that ends.
pub(super) fn check_times(
    file: &Path,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<SystemTime, TlsError> {
    let (not_before, not_after) = times(file, chain)?;
    if now < not_before {
        return Err(TlsError::NotYetValid {
            file: file.to_owned(),
        });
    }
    if now > not_after {
        return Err(TlsError::Expired {
            file: file.to_owned(),
        });
    }
    Ok(not_after)
}

pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|_| TlsError::BadCertificate {
            file: file.to_owned(),
        })?;
    }
    Ok(roots)
}

/// The machine's own authorities. Some that cannot be parsed are normal; none at all is an error.
pub(super) fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}
