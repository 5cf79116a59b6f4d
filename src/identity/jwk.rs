//! One key of a provider's set (RFC 7517, 7518, 8037): read by itself, so that a strange one spoils only itself.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::identity::token::KEY_ID_BYTES_MAX;

/// RFC 7518 §3.3 asks for 2048 bits at least.
const RSA_BITS_MIN: usize = 2048;
/// Larger ones make every check slow, and nobody has them.
const RSA_BITS_MAX: usize = 8192;

/// Members that only a private or symmetric key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

const RSA: [(&str, &RsaParameters); 6] = [
    ("RS256", &RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &RSA_PKCS1_2048_8192_SHA512),
    ("PS256", &RSA_PSS_2048_8192_SHA256),
    ("PS384", &RSA_PSS_2048_8192_SHA384),
    ("PS512", &RSA_PSS_2048_8192_SHA512),
];

/// Curve, algorithm, how it is checked, bytes of a coordinate.
const EC: [(&str, &str, &EcdsaVerificationAlgorithm, usize); 3] = [
    ("P-256", "ES256", &ECDSA_P256_SHA256_FIXED, 32),
    ("P-384", "ES384", &ECDSA_P384_SHA384_FIXED, 48),
    ("P-521", "ES512", &ECDSA_P521_SHA512_FIXED, 66),
];

/// Ed25519 points of small order (RFC 7748 §7 has why): under such a key anybody can sign. Their y
/// coordinates, little-endian, without the sign bit, and the two spellings that a modulus more has.
const SMALL_ORDER: [[u8; 32]; 7] = [
    edge(0x00, 0x00, 0x00),
    edge(0x01, 0x00, 0x00),
    edge(0xec, 0xff, 0x7f),
    edge(0xed, 0xff, 0x7f),
    edge(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// 32 bytes that differ only at their ends.
const fn edge(first: u8, between: u8, last: u8) -> [u8; 32] {
    let [b, l] = [between, last];
    [
        first, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, l,
    ]
}

/// Why a key of a set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unused {
    /// The provider published what it must keep to itself.
    Private,
    /// Another purpose, kind, curve, size or spelling.
    NotForUs,
}

/// What a key is: two of the same fingerprint sign the same tokens.
pub(super) type Fingerprint = [u8; 32];

#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    /// Entra's: whose tokens it signs.
    pub(super) issuer: Option<String>,
    pub(super) fingerprint: Fingerprint,
    /// The key says which algorithms it is for; a token only picks one of them.
    algorithms: Vec<(&'static str, ParsedPublicKey)>,
}

impl Key {
    pub(super) fn read(jwk: &Map<String, Value>) -> Result<Self, Unused> {
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(Unused::Private);
        }
        Self::read_public(jwk).ok_or(Unused::NotForUs)
    }

    fn read_public(jwk: &Map<String, Value>) -> Option<Self> {
        // A member of the wrong type is not the same as none.
        let optional = |name: &str| jwk.get(name).map_or(Some(None), |it| it.as_str().map(Some));
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok();
        if optional("use")?.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops")
            && !operations.as_array()?.iter().any(|it| it == "verify")
        {
            return None;
        }
        let id = optional("kid")?;
        if id.is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return None;
        }
        let (mut algorithms, material) = match optional("kty")?? {
            "RSA" => rsa(&bytes("n")?, &bytes("e")?)?,
            "EC" => ec(optional("crv")??, &bytes("x")?, &bytes("y")?)?,
            "OKP" if optional("crv")?? == "Ed25519" => ed25519(&bytes("x")?)?,
            _ => return None,
        };
        if let Some(only) = optional("alg")? {
            algorithms.retain(|(name, _)| *name == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        let issuer = optional("issuer")?;
        let names = algorithms.iter().map(|(name, _)| *name);
        Some(Self {
            id: id.map(str::to_owned),
            issuer: issuer.map(str::to_owned),
            fingerprint: fingerprint(id, issuer, names, &material),
            algorithms,
        })
    }

    pub(super) fn is_for(&self, algorithm: &str) -> bool {
        self.algorithms.iter().any(|(name, _)| *name == algorithm)
    }

    pub(super) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let mut own = self.algorithms.iter().filter(|(name, _)| *name == algorithm);
        own.any(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

type Checks = Vec<(&'static str, ParsedPublicKey)>;

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<(Checks, Vec<u8>)> {
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let bits = modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    // With the exponent 1 every text is its own signature, and an even one is no RSA key.
    let sound = *exponent.last()? % 2 == 1 && exponent != [1];
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !sound {
        return None;
    }
    let components = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    let checks = RSA.into_iter().map(|(name, parameters)| {
        let key = components.to_parsed_public_key(parameters);
        key.ok().map(|key| (name, key))
    });
    Some((checks.collect::<Option<_>>()?, [modulus, exponent].concat()))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let begin = number.iter().position(|byte| *byte != 0);
    begin.and_then(|begin| number.get(begin..)).unwrap_or_default()
}

fn ec(curve: &str, x: &[u8], y: &[u8]) -> Option<(Checks, Vec<u8>)> {
    let (_, name, algorithm, length) = EC.into_iter().find(|(own, ..)| *own == curve)?;
    if x.len() != length || y.len() != length {
        return None;
    }
    // The uncompressed form of SEC 1 §2.3.3; a point beside the curve is refused.
    let point = [&[4], x, y].concat();
    let key = ParsedPublicKey::new(algorithm, &point).ok()?;
    Some((vec![(name, key)], point))
}

fn ed25519(x: &[u8]) -> Option<(Checks, Vec<u8>)> {
    let mut y: [u8; 32] = x.try_into().ok()?;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    if SMALL_ORDER.contains(&y) {
        return None;
    }
    // RFC 9864 names the algorithm by its curve.
    let checks = ["EdDSA", "Ed25519"].into_iter().map(|name| {
        let key = ParsedPublicKey::new(&ED25519, x);
        key.ok().map(|key| (name, key))
    });
    Some((checks.collect::<Option<_>>()?, x.to_vec()))
}

/// Everything that decides which tokens the key signs, each part with its length.
fn fingerprint<'a>(
    id: Option<&str>,
    issuer: Option<&str>,
    algorithms: impl Iterator<Item = &'a str>,
    material: &[u8],
) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&bytes.len().to_be_bytes());
        context.update(bytes);
    };
    for text in [id, issuer] {
        part(&[u8::from(text.is_some())]);
        part(text.unwrap_or_default().as_bytes());
    }
    part(material);
    algorithms.for_each(|name| part(name.as_bytes()));
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}
