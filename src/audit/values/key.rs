//! Hashes of values: equal for equal values, and worth nothing to whoever has not the key.

use std::fmt;

use aws_lc_rs::hmac;

use crate::audit::key::SigningKey;

/// What it is for is part of the key, so that no other use of the signing key can lead to one.
const LABEL: &str = "gatepost value hash key v1";
/// 128 bits: no two values of a journal meet by accident.
const HASH_BYTES: usize = 16;

/// Makes hashes. Derived from the signing key: the same one wherever that key signs, and another one from
/// the record on that is signed with another.
#[derive(Clone)]
pub struct ValueKey(hmac::Key);

impl ValueKey {
    pub fn of(key: &SigningKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key.derive(LABEL)))
    }

    /// 32 hexadecimal digits.
    pub fn hash(&self, value: &[u8]) -> String {
        let mac = hmac::sign(&self.0, value);
        crate::wire::pg::value::hex(mac.as_ref().get(..HASH_BYTES).unwrap_or_default())
    }
}

impl fmt::Debug for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_hash_alike_under_one_key_only() {
        let key = |pem: &str| ValueKey::of(&SigningKey::read(pem.as_bytes()).unwrap());
        let made = || crate::audit::key::generate().unwrap();
        let (one, other) = (made(), made());
        let hash = key(one.expose()).hash(b"4711");
        assert_eq!(hash.len(), 32);
        assert_eq!(
            key(one.expose()).hash(b"4711"),
            hash,
            "the same key in another run"
        );
        assert_ne!(key(one.expose()).hash(b"4712"), hash);
        assert_ne!(key(other.expose()).hash(b"4711"), hash);
        assert_eq!(format!("{:?}", key(one.expose())), "[secret]");
    }
}
