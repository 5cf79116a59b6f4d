//! A login's secret, and the SCRAM verifier that is all the server ever learns of it.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::domain::clock::Random;
use crate::domain::secret::Secret;

/// What the server itself would use. The secret has 256 random bits, so more would buy nothing and
/// cost the server CPU at every mint; some SCRAM clients refuse fewer.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
const SECRET_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// 256 random bits as text that SASLprep leaves alone.
pub(in crate::credential) fn random_secret(random: &dyn Random) -> Secret<String> {
    let mut bytes = [0; SECRET_BYTES];
    random.fill(&mut bytes);
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as `pg_authid` keeps it. Secret all
/// the same: it must not end in our logs.
pub(in crate::credential) fn verifier(secret: &Secret<String>, random: &dyn Random) -> Secret<String> {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt);
    Secret::new(salted(secret.expose().as_bytes(), &salt))
}

fn salted(password: &[u8], salt: &[u8]) -> String {
    let mut key = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, password, &mut key);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rust-postgres computes for the same password and salt.
    #[test]
    fn matches_a_verifier_that_others_computed() {
        let salt: Vec<u8> = (1..=16).collect();
        let expected = "SCRAM-SHA-256$4096:AQIDBAUGBwgJCgsMDQ4PEA==\
            $8rrDg00OqaiWXJ7p+sCgHEIaBSHY89ZJl3mfIsf32oY=:05L1f+yZbiN8O0AnO40Og85NNRhvzTS57naKRWCcsIA=";
        assert_eq!(salted(b"secret", &salt), expected);
    }
}
