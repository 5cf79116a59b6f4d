//! The key that signs heads, and the public half that proves them.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::chain::Hash;
use crate::domain::secret::Secret;

/// What is signed is this text and the head's hash in hexadecimal: no signature made for another
/// purpose can pass for a head, and `openssl pkeyutl -verify -rawin` can check one.
const SIGNED_PREFIX: &str = "gatepost audit head v1 ";
/// An Ed25519 `SubjectPublicKeyInfo` is these bytes and the key itself (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PUBLIC_KEY_BYTES: usize = 32;
pub const SIGNATURE_BYTES: usize = 64;
const PEM_LINE: usize = 64;

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the signing key is not an ed25519 key in pkcs#8, pem or der")]
    NotPrivate,
    #[error("the public key is not an ed25519 key in pem")]
    NotPublic,
    #[error("no signing key could be made")]
    Generate,
}

/// The private key. Signs heads, and no other text whose signature anybody sees.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Reads PKCS#8 (version 1 as OpenSSL writes it, or version 2), as PEM or as DER.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyError> {
        let from_pem = pem_body(bytes, "PRIVATE KEY");
        let der = from_pem.as_deref().unwrap_or(bytes);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::NotPrivate)?;
        let public = PublicKey::of(&pair).ok_or(KeyError::NotPrivate)?;
        Ok(Self { pair, public })
    }

    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A secret for another purpose, which `label` names. Ed25519 signs the same text the same way each
    /// time, and only with the key; no head begins like a label.
    pub(crate) fn derive(&self, label: &str) -> [u8; 32] {
        let signature = self.pair.sign(label.as_bytes());
        Hash::of(&[label.as_bytes(), signature.as_ref()]).bytes()
    }

    pub(crate) fn sign(&self, hash: &Hash) -> Signature {
        let mut bytes = [0; SIGNATURE_BYTES];
        let signature = self.pair.sign(&signed_text(hash));
        // An Ed25519 signature always has 64 bytes.
        bytes
            .iter_mut()
            .zip(signature.as_ref())
            .for_each(|(to, from)| *to = *from);
        Signature(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// Makes a new signing key: PKCS#8 as PEM, for a file that only gatepost may read.
pub fn generate() -> Result<Secret<String>, KeyError> {
    let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::Generate)?;
    Ok(Secret::new(pem("PRIVATE KEY", document.as_ref())))
}

/// A signature over a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub(crate) [u8; SIGNATURE_BYTES]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The public key. Keep a copy where whoever can write the journal cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; PUBLIC_KEY_BYTES],
    id: String,
}

impl PublicKey {
    fn of(pair: &Ed25519KeyPair) -> Option<Self> {
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        Self::from_spki(der.as_ref())
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        let bytes = der.strip_prefix(&SPKI_PREFIX)?;
        Some(Self {
            bytes: bytes.try_into().ok()?,
            id: Hash::of(&[der]).to_string().chars().take(16).collect(),
        })
    }

    /// Reads the PEM that gatepost writes beside the journal as `signing.pub`.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        pem_body(text.as_bytes(), "PUBLIC KEY")
            .and_then(|der| Self::from_spki(&der))
            .ok_or(KeyError::NotPublic)
    }

    /// The first 16 hexadecimal digits of the SHA-256 of its DER form. Every head names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn to_pem(&self) -> String {
        let der: Vec<u8> = SPKI_PREFIX.iter().chain(&self.bytes).copied().collect();
        pem("PUBLIC KEY", &der)
    }

    /// Its DER form (RFC 8410), as records carry it.
    pub(crate) fn to_base64(&self) -> String {
        let der: Vec<u8> = SPKI_PREFIX.iter().chain(&self.bytes).copied().collect();
        STANDARD.encode(der)
    }

    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        Self::from_spki(&STANDARD.decode(text).ok()?)
    }

    pub(crate) fn verifies(&self, hash: &Hash, signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(&signed_text(hash), &signature.0)
            .is_ok()
    }
}

fn signed_text(hash: &Hash) -> Vec<u8> {
    format!("{SIGNED_PREFIX}{hash}").into_bytes()
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The DER inside the first PEM block with this label.
fn pem_body(bytes: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, after) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = after.split_once(&format!("-----END {label}-----"))?;
    let compact: String = body.split_whitespace().collect();
    STANDARD.decode(compact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_signs_and_its_public_half_survives_pem() {
        let key = SigningKey::read(generate().unwrap().expose().as_bytes()).unwrap();
        let hash = Hash::of(&[b"something"]);
        let signature = key.sign(&hash);
        let public = PublicKey::read(&key.public().to_pem()).unwrap();
        assert_eq!(&public, key.public());
        assert!(public.verifies(&hash, &signature));
        assert!(!public.verifies(&Hash::of(&[b"something else"]), &signature));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(SigningKey::read(b"hello").unwrap_err(), KeyError::NotPrivate);
        assert_eq!(PublicKey::read("hello").unwrap_err(), KeyError::NotPublic);
    }

    /// As `openssl genpkey -algorithm ed25519` writes it: PKCS#8 version 1, without the public half
    /// (RFC 8410, section 7), around a seed of sevens.
    #[test]
    fn a_key_from_openssl_is_read() {
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend_from_slice(&[7; 32]);
        let label = "PRIVATE KEY";
        let pem = format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        );
        assert!(SigningKey::read(pem.as_bytes()).is_ok());
    }
}
