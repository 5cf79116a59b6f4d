//! A reader that checks every bound. All codecs read through it, so that no length that a peer sent
//! can lead outside of what the peer sent.

use crate::wire::misbehaved::PeerMisbehaved;

#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    /// Named in errors.
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub fn u8(&mut self) -> Result<u8, PeerMisbehaved> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub fn i16(&mut self) -> Result<i16, PeerMisbehaved> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, PeerMisbehaved> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, PeerMisbehaved> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, PeerMisbehaved> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, PeerMisbehaved> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn u16_le(&mut self) -> Result<u16, PeerMisbehaved> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn i16_le(&mut self) -> Result<i16, PeerMisbehaved> {
        self.array().map(i16::from_le_bytes)
    }

    pub fn u32_le(&mut self) -> Result<u32, PeerMisbehaved> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32_le(&mut self) -> Result<i32, PeerMisbehaved> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64_le(&mut self) -> Result<u64, PeerMisbehaved> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64_le(&mut self) -> Result<i64, PeerMisbehaved> {
        self.array().map(i64::from_le_bytes)
    }

    /// The bytes up to the next NUL, which is passed over.
    pub fn cstr(&mut self) -> Result<&'a [u8], PeerMisbehaved> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let text = self.bytes(end.ok_or(PeerMisbehaved::Truncated { what: self.what })?)?;
        self.u8()?;
        Ok(text)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], PeerMisbehaved> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(PeerMisbehaved::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// For messages that must end where their last field ends.
    pub fn finish(self) -> Result<(), PeerMisbehaved> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::TrailingBytes { what: self.what })
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PeerMisbehaved> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(PeerMisbehaved::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_ends() {
        let mut cursor = Cursor::new("test", b"\x01\xff\xfe\0\0\0\x05ab\0xyz");
        assert_eq!(cursor.u8(), Ok(1));
        assert_eq!(cursor.i16(), Ok(-2));
        assert_eq!(cursor.i32(), Ok(5));
        assert_eq!(cursor.cstr(), Ok(&b"ab"[..]));
        assert_eq!(cursor.bytes(2), Ok(&b"xy"[..]));
        assert_eq!(
            cursor.clone().finish(),
            Err(PeerMisbehaved::TrailingBytes { what: "test" })
        );
        assert_eq!(cursor.rest(), b"z");
        assert_eq!(cursor.finish(), Ok(()));
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let short = Err(PeerMisbehaved::Truncated { what: "test" });
        assert_eq!(Cursor::new("test", b"").u8(), short);
        assert_eq!(Cursor::new("test", b"abc").u32().map(|_| 0), short);
        assert_eq!(Cursor::new("test", b"abc").cstr().map(|_| 0), short);
        assert_eq!(Cursor::new("test", b"abc").bytes(usize::MAX).map(|_| 0), short);
    }

    #[test]
    fn reads_with_the_small_end_first() {
        let mut cursor = Cursor::new(
            "test",
            b"\x01\x02\xfe\xff\x01\0\0\x80\xff\xff\xff\xff\x01\0\0\0\0\0\0\x80",
        );
        assert_eq!(cursor.u16_le(), Ok(0x0201));
        assert_eq!(cursor.i16_le(), Ok(-2));
        assert_eq!(cursor.u32_le(), Ok(0x8000_0001));
        assert_eq!(cursor.i32_le(), Ok(-1));
        assert_eq!(cursor.clone().i64_le(), Ok(i64::MIN + 1));
        assert_eq!(cursor.u64_le(), Ok(0x8000_0000_0000_0001));
        assert_eq!(cursor.finish(), Ok(()));
    }

    #[test]
    fn a_failed_read_takes_nothing() {
        let mut cursor = Cursor::new("test", b"abc");
        assert!(cursor.u32().is_err());
        assert_eq!(cursor.remaining(), 3);
    }
}
