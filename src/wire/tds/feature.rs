//! What a login asks for beyond the fixed fields, and what the server grants of it (MS-TDS 2.2.6.4,
//! FeatureExt, and 2.2.7.11, FEATUREEXTACK): a list of one-byte names with their data.

use std::fmt;

use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;

/// Drivers of today ask for up to ten.
pub const FEATURES_MAX: usize = 32;

/// "FeatureId".
pub mod id {
    pub const SESSION_RECOVERY: u8 = 0x01;
    pub const FEDAUTH: u8 = 0x02;
    pub const COLUMN_ENCRYPTION: u8 = 0x04;
    pub const GLOBAL_TRANSACTIONS: u8 = 0x05;
    pub const AZURE_SQL_SUPPORT: u8 = 0x08;
    pub const DATA_CLASSIFICATION: u8 = 0x09;
    pub const UTF8_SUPPORT: u8 = 0x0a;
    pub const AZURE_SQL_DNS_CACHING: u8 = 0x0b;
    pub const JSON_SUPPORT: u8 = 0x0d;
    pub const VECTOR_SUPPORT: u8 = 0x0e;
    pub const ENHANCED_ROUTING: u8 = 0x0f;
    pub const USER_AGENT: u8 = 0x10;
    pub const TERMINATOR: u8 = 0xff;
}

#[derive(Clone, PartialEq, Eq)]
pub struct Feature {
    /// One of [`id`], or another that we do not know.
    pub id: u8,
    pub data: Vec<u8>,
}

/// Without the data, which may be a token.
impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feature(0x{:02x}, {} bytes)", self.id, self.data.len())
    }
}

/// Reads a list up to and with its end. A feature that is there twice is refused: one could be looked
/// at, and the other be obeyed.
pub fn list(what: &'static str, cursor: &mut Cursor<'_>) -> Result<Vec<Feature>, PeerMisbehaved> {
    let mut features: Vec<Feature> = Vec::new();
    loop {
        let id = cursor.u8()?;
        if id == id::TERMINATOR {
            return Ok(features);
        }
        if features.len() >= FEATURES_MAX {
            return Err(PeerMisbehaved::TooMany {
                what,
                limit: FEATURES_MAX,
            });
        }
        if find(&features, id).is_some() {
            return Err(PeerMisbehaved::Twice { what });
        }
        let length = usize::try_from(cursor.u32_le()?).unwrap_or(usize::MAX);
        let data = cursor.bytes(length)?.to_vec();
        features.push(Feature { id, data });
    }
}

/// The data of a feature.
pub fn find(features: &[Feature], id: u8) -> Option<&[u8]> {
    let found = features.iter().find(|feature| feature.id == id);
    found.map(|feature| feature.data.as_slice())
}

/// Appends a list and its end.
pub fn put_list<'a>(out: &mut Vec<u8>, features: impl IntoIterator<Item = (u8, &'a [u8])>) {
    for (id, data) in features {
        out.push(id);
        // What we write is bounded far below by LOGIN7 and by replies.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(data);
    }
    out.push(id::TERMINATOR);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Feature>, PeerMisbehaved> {
        list("features", &mut Cursor::new("features", bytes))
    }

    #[test]
    fn a_list_goes_there_and_back() {
        let mut out = vec![];
        put_list(
            &mut out,
            [(id::FEDAUTH, &b"\x02abc"[..]), (id::UTF8_SUPPORT, b"")],
        );
        assert_eq!(out, b"\x02\x04\0\0\0\x02abc\x0a\0\0\0\0\xff");
        let features = read(&out).unwrap();
        assert_eq!(find(&features, id::FEDAUTH), Some(&b"\x02abc"[..]));
        assert_eq!(find(&features, id::UTF8_SUPPORT), Some(&b""[..]));
        assert_eq!(find(&features, id::JSON_SUPPORT), None);
        for cut in 0..out.len() {
            assert!(read(&out[..cut]).is_err(), "{cut}");
        }
        assert!(!format!("{features:?}").contains("97"));
    }

    #[test]
    fn lists_that_cannot_be() {
        assert!(read(b"\x02\xff\xff\xff\xff\xff").is_err());
        assert_eq!(
            read(b"\x02\0\0\0\0\x02\0\0\0\0\xff"),
            Err(PeerMisbehaved::Twice { what: "features" })
        );
        let many: Vec<u8> = (0x20..0x41).flat_map(|id| [id, 0, 0, 0, 0]).collect();
        assert!(matches!(read(&many), Err(PeerMisbehaved::TooMany { .. })));
    }
}
