//! Text as SQL Server sends it: UTF-16 with the small byte first (UCS-2 in the older words of MS-TDS
//! 2.2.5.1.2).

use crate::wire::misbehaved::PeerMisbehaved;

/// Bytes of one code unit.
pub(in crate::wire) const UNIT_BYTES: usize = 2;

/// The text; a lone half of a surrogate pair is refused, for two names that differ only there would
/// become one.
pub(in crate::wire) fn text(what: &'static str, bytes: &[u8]) -> Result<String, PeerMisbehaved> {
    if !bytes.len().is_multiple_of(UNIT_BYTES) {
        return Err(PeerMisbehaved::Truncated { what });
    }
    // A unit gives at most three bytes of UTF-8; what a token holds gives one.
    let mut text = String::with_capacity(bytes.len() / UNIT_BYTES);
    for decoded in char::decode_utf16(units(bytes)) {
        text.push(decoded.map_err(|_| PeerMisbehaved::NotUtf16 { what })?);
    }
    Ok(text)
}

/// The text, with U+FFFD for what is no text: for what is only shown.
pub(in crate::wire) fn shown(bytes: &[u8]) -> String {
    let decoded = char::decode_utf16(units(bytes));
    decoded
        .map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

pub(in crate::wire) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
}

/// As much of the text as fits into `units_max` code units, never half a character.
pub(in crate::wire) fn cut(text: &str, units_max: usize) -> &str {
    let mut units: usize = 0;
    for (at, character) in text.char_indices() {
        units = units.saturating_add(character.len_utf16());
        if units > units_max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<UNIT_BYTES>();
    pairs.iter().map(|pair| u16::from_le_bytes(*pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        for original in ["", "orders", "Bestände", "🐘 und 🦭"] {
            let mut out = vec![];
            put(&mut out, original);
            assert_eq!(text("test", &out).as_deref(), Ok(original));
            assert_eq!(shown(&out), original);
        }
    }

    #[test]
    fn half_a_pair_is_no_name_but_can_be_shown() {
        let lone = [0x41, 0, 0x3d, 0xd8];
        assert_eq!(
            text("name", &lone),
            Err(PeerMisbehaved::NotUtf16 { what: "name" })
        );
        assert_eq!(shown(&lone), "A\u{fffd}");
        assert_eq!(
            text("name", b"A\0B"),
            Err(PeerMisbehaved::Truncated { what: "name" })
        );
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("ab🐘c", 3), "ab");
        assert_eq!(cut("ab🐘c", 4), "ab🐘");
        assert_eq!(cut("ab🐘c", 5), "ab🐘c");
        assert_eq!(cut("x", 0), "");
    }
}
