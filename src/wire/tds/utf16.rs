//! Text as it travels: UTF-16, little endian, not always well formed (UCS-2 in the older words of MS-TDS
//! 2.2.5.1.2).

use std::fmt;

use crate::wire::misbehaved::PeerMisbehaved;

pub(super) const UNIT_BYTES: usize = 2;

/// Borrowed text. It may be a statement, a secret or a person's data, so `Debug` shows only its length.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf16<'a>(&'a [u8]);

impl fmt::Debug for Utf16<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Utf16({} units)", self.len())
    }
}

impl<'a> Utf16<'a> {
    /// An odd byte at the end is left out.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// As it travelled.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// In UTF-16 units.
    pub const fn len(self) -> usize {
        self.0.len() / UNIT_BYTES
    }

    pub fn units(self) -> impl Iterator<Item = u16> + use<'a> {
        let (units, _odd) = self.0.as_chunks::<UNIT_BYTES>();
        units.iter().map(|unit| u16::from_le_bytes(*unit))
    }

    /// None if a surrogate stands alone: no `String` can hold that, and to replace it would change what was said.
    pub fn decoded(self) -> Option<String> {
        char::decode_utf16(self.units()).collect::<Result<_, _>>().ok()
    }

    /// With the replacement character for what cannot be decoded; for people to read.
    pub fn lossy(self) -> String {
        let chars = char::decode_utf16(self.units());
        chars
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }

    /// Is it `ascii`, letters compared without case?
    pub fn is_like(self, ascii: &str) -> bool {
        let same =
            |(unit, byte): (u16, u8)| u8::try_from(unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte));
        self.len() == ascii.len() && self.units().zip(ascii.bytes()).all(same)
    }
}

/// The text; a lone half of a surrogate pair is refused, for two names that differ only there would
/// become one.
pub(super) fn text(what: &'static str, bytes: &[u8]) -> Result<String, PeerMisbehaved> {
    if !bytes.len().is_multiple_of(UNIT_BYTES) {
        return Err(PeerMisbehaved::Truncated { what });
    }
    // A unit gives at most three bytes of UTF-8; what a token holds gives one.
    let mut text = String::with_capacity(bytes.len() / UNIT_BYTES);
    for decoded in char::decode_utf16(Utf16::new(bytes).units()) {
        text.push(decoded.map_err(|_| PeerMisbehaved::NotUtf16 { what })?);
    }
    Ok(text)
}

/// The text, with U+FFFD for what is no text: for what is only shown.
pub(super) fn shown(bytes: &[u8]) -> String {
    Utf16::new(bytes).lossy()
}

/// As much of the text as fits into `units_max` code units, never half a character.
pub(super) fn cut(text: &str, units_max: usize) -> &str {
    let mut units: usize = 0;
    for (at, character) in text.char_indices() {
        units = units.saturating_add(character.len_utf16());
        if units > units_max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// Appends `text` and says how many units it took.
pub(super) fn put(out: &mut Vec<u8>, text: &str) -> usize {
    put_at_most(out, text, usize::MAX)
}

/// Appends as much of `text` as fits `units_max`, whole characters only, and says how many units it took.
pub(super) fn put_at_most(out: &mut Vec<u8>, text: &str, units_max: usize) -> usize {
    let mut units = 0_usize;
    for char in text.chars() {
        let after = units.saturating_add(char.len_utf16());
        if after > units_max {
            break;
        }
        units = after;
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.extend_from_slice(&unit.to_le_bytes());
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<u8> {
        let mut out = vec![];
        put(&mut out, text);
        out
    }

    #[test]
    fn text_comes_back() {
        for text in ["", "SELECT 1", "größer 😀"] {
            let bytes = written(text);
            assert_eq!(Utf16::new(&bytes).decoded().as_deref(), Some(text));
            assert_eq!(Utf16::new(&bytes).lossy(), text);
        }
    }

    #[test]
    fn a_lone_surrogate_is_not_a_string() {
        let bytes = [b'a', 0, 0x00, 0xD8, b'b', 0];
        assert_eq!(Utf16::new(&bytes).decoded(), None);
        assert_eq!(Utf16::new(&bytes).lossy(), "a\u{FFFD}b");
    }

    #[test]
    fn names_are_compared_without_case() {
        let bytes = written("Sp_ExecuteSQL");
        assert!(Utf16::new(&bytes).is_like("sp_executesql"));
        assert!(!Utf16::new(&bytes).is_like("sp_executesq"));
        assert!(!Utf16::new(&written("ſp_executesql")).is_like("sp_executesql"));
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let mut out = vec![];
        assert_eq!(put_at_most(&mut out, "ab😀", 3), 2);
        assert_eq!(Utf16::new(&out).lossy(), "ab");
    }

    #[test]
    fn debug_does_not_show_the_text() {
        assert_eq!(format!("{:?}", Utf16::new(&written("secret"))), "Utf16(6 units)");
    }

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
