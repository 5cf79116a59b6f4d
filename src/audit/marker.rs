//! The mark that gatepost writes into a transaction, so that it can be found again in the server's WAL or in
//! a table: a payload that says which transaction it is of, and that nobody else can make.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde::{Serialize, Serializer};

use crate::audit::key::SigningKey;
use crate::domain::ids::{Installation, SessionId};
use crate::domain::marker_table::MarkerTable;

/// What it is for is part of the key, so that no other use of the signing key can lead to one.
const LABEL: &str = "gatepost wal marker key v1 ";
const VERSION: u8 = 1;
const SESSION_BYTES: usize = 10;
const NUMBER_BYTES: usize = 8;
const NONCE_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
const MARKED_BYTES: usize = 1 + SESSION_BYTES + NUMBER_BYTES + NONCE_BYTES;
/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = MARKED_BYTES + MAC_BYTES;

/// Makes and knows payloads. Derived from the signing key: the same one in every run of an installation,
/// and lost with that key.
#[derive(Clone)]
pub struct MarkerKey(Arc<hmac::Key>);

impl MarkerKey {
    pub fn of(key: &SigningKey, installation: &Installation) -> Self {
        let secret = key.derive(&format!("{LABEL}{installation}"));
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// The payload for this transaction of this session.
    pub fn payload(&self, session: SessionId, number: u64, nonce: u64) -> Vec<u8> {
        let mut payload = Self::beginning(session, number, nonce);
        let mac = hmac::sign(&self.0, &payload);
        payload.extend_from_slice(mac.as_ref());
        payload
    }

    /// How every payload begins that could be of this transaction and nonce, whatever key made it.
    pub fn beginning(session: SessionId, number: u64, nonce: u64) -> Vec<u8> {
        let mut begin = Vec::with_capacity(PAYLOAD_BYTES);
        begin.push(VERSION);
        begin.extend_from_slice(session.bytes());
        begin.extend_from_slice(&number.to_be_bytes());
        begin.extend_from_slice(&nonce.to_be_bytes());
        begin
    }

    /// Did a gatepost with this key make the payload, for this transaction?
    pub fn made(&self, payload: &[u8], session: SessionId, number: u64) -> bool {
        let Some((marked, mac)) = payload.split_at_checked(MARKED_BYTES) else {
            return false;
        };
        let mut begin = vec![VERSION];
        begin.extend_from_slice(session.bytes());
        begin.extend_from_slice(&number.to_be_bytes());
        marked.starts_with(&begin) && hmac::verify(&self.0, marked, mac).is_ok()
    }
}

impl fmt::Debug for MarkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a target's transactions are marked with, and where.
#[derive(Clone, Debug)]
pub struct Marking {
    pub key: MarkerKey,
    /// The table that holds the marks; `None`: the WAL does.
    pub table: Option<MarkerTable>,
}

/// Where the mark of one transaction is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The WAL holds it from here on.
    Wal(Lsn),
    /// It is a row of this table, with this nonce.
    Row(MarkerTable, u64),
}

/// A text that names no place of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMarker;

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wal(from) => from.fmt(f),
            Self::Row(table, nonce) => write!(f, "{table}:{nonce:016x}"),
        }
    }
}

impl FromStr for Marker {
    type Err = NoMarker;

    fn from_str(text: &str) -> Result<Self, NoMarker> {
        let Some((table, nonce)) = text.split_once(':') else {
            return text.parse().map(Self::Wal).map_err(|_| NoMarker);
        };
        let table = table.parse().map_err(|_| NoMarker)?;
        let nonce = u64::from_str_radix(nonce, 16).map_err(|_| NoMarker)?;
        Ok(Self::Row(table, nonce))
    }
}

impl Serialize for Marker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A place in the WAL, as PostgreSQL writes it: two hexadecimal numbers with a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A text that is no place in a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLsn;

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> Result<Self, NoLsn> {
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        let half = |text| u32::from_str_radix(text, 16).map_err(|_| NoLsn);
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Random;

    #[derive(Debug)]
    struct Same(u8);

    impl Random for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn key(installation: &str) -> MarkerKey {
        // RFC 8410, section 10.3.
        let pem = b"-----BEGIN PRIVATE KEY-----\n\
                    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                    -----END PRIVATE KEY-----\n";
        MarkerKey::of(&SigningKey::read(pem).unwrap(), &Installation::new(installation))
    }

    #[test]
    fn only_its_own_payload_for_its_own_transaction_counts() {
        let (mine, other) = (SessionId::random(&Same(1)), SessionId::random(&Same(2)));
        let payload = key("a").payload(mine, 3, 99);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        assert!(key("a").made(&payload, mine, 3), "the same key in another run");
        assert!(!key("b").made(&payload, mine, 3));
        assert!(!key("a").made(&payload, mine, 4));
        assert!(!key("a").made(&payload, other, 3));
        for at in 0..payload.len() {
            let mut forged = payload.clone();
            forged[at] ^= 1;
            assert!(!key("a").made(&forged, mine, 3), "byte {at}");
        }
        assert!(!key("a").made(&payload[..20], mine, 3));
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for place in [0, 0x16B_3748, 0x1_0000_0028, u64::MAX] {
            assert_eq!(Lsn(place).to_string().parse(), Ok(Lsn(place)));
        }
        assert_eq!(Lsn(0x1_0000_0028).to_string(), "1/28");
        assert_eq!("x/1".parse::<Lsn>(), Err(NoLsn));
        let row = Marker::Row("gatepost.markers".parse().unwrap(), 0xab);
        for marker in [Marker::Wal(Lsn(0x1_0000_0028)), row] {
            assert_eq!(marker.to_string().parse(), Ok(marker));
        }
        assert_eq!("gatepost.markers".parse::<Marker>(), Err(NoMarker));
    }
}
