//! Whoever signs tokens in tests, with every algorithm. Keys are made anew each time.

use aws_lc_rs::encoding::{AsBigEndian as _, Curve25519SeedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair, RsaSignatureEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pub(crate) pair: Pair,
}

impl Signer {
    /// ES256.
    pub(crate) fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::of(id, Pair::P256(pair))
    }

    pub(crate) fn p384(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::of(id, Pair::P384(pair))
    }

    pub(crate) fn p521(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        Self::of(id, Pair::P521(pair))
    }

    pub(crate) fn rsa(id: &'static str) -> Self {
        Self::of(id, Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn ed25519(id: &'static str) -> Self {
        Self::of(id, Pair::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    const fn of(id: &'static str, pair: Pair) -> Self {
        Self { id, pair }
    }

    /// The public half, without `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::P256(pair) => ec("P-256", pair),
            Pair::P384(pair) => ec("P-384", pair),
            Pair::P521(pair) => ec("P-521", pair),
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                json!({"kty": "RSA", "n": b64(public.modulus().big_endian_without_leading_zero()),
                       "e": b64(public.exponent().big_endian_without_leading_zero())})
            }
            Pair::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
        };
        jwk["use"] = json!("sig");
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// The same with what it must keep to itself.
    pub(crate) fn private_jwk(&self) -> Value {
        let mut jwk = self.jwk();
        let secret = match &self.pair {
            Pair::Ed25519(pair) => {
                let seed = pair.seed().unwrap();
                let bytes: Curve25519SeedBin<'_> = seed.as_be_bytes().unwrap();
                b64(bytes.as_ref())
            }
            Pair::P256(_) | Pair::P384(_) | Pair::P521(_) | Pair::Rsa(_) => b64([7; 32]),
        };
        jwk["d"] = json!(secret);
        jwk
    }

    pub(crate) fn algorithms(&self) -> &'static [&'static str] {
        match self.pair {
            Pair::P256(_) => &["ES256"],
            Pair::P384(_) => &["ES384"],
            Pair::P521(_) => &["ES512"],
            Pair::Rsa(_) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Pair::Ed25519(_) => &["EdDSA", "Ed25519"],
        }
    }

    pub(crate) fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) | Pair::P521(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static RsaSignatureEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// Header and claims as they are, with a true signature of the first algorithm.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> Vec<u8> {
        self.sign_as(self.algorithms()[0], header, claims)
    }

    pub(crate) fn sign_as(&self, algorithm: &str, header: &str, claims: &str) -> Vec<u8> {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.signature(algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature)).into_bytes()
    }

    pub(crate) fn token(&self, claims: &Value) -> Vec<u8> {
        let header = json!({"alg": self.algorithms()[0], "kid": self.id, "typ": "JWT"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

fn ec(curve: &str, pair: &EcdsaKeyPair) -> Value {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
}
