//! TLS inside PRELOGIN packets: in versions 7 the handshake's bytes travel in packets, and the packets
//! end with it (MS-TDS 2.2.6.5, 3.2.5.2 "Sent TLS/SSL negotiation packet"). Version 8 has TLS below all.

use crate::wire::Decoded;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::packet;
use crate::wire::tds::packet::{HEADER_BYTES, LOGIN_PACKET_BYTES, PACKET_BYTES_MAX, PacketKind, Status};

/// Of one side's handshake: chains of certificates take 4 to 16 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// The types of TLS records (RFC 8446, 5.1): no packet of TDS begins so.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// First byte of a TLS record of type handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where TLS runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPlace {
    /// Below everything, from the first byte ("strict", version 8.0). TLS 1.3 may be used.
    Strict,
    /// The handshake in packets, then bare. TLS 1.2 at most: with 1.3 drivers wait for ever.
    InPrelogin,
}

/// Whether a client begins with TLS at once, told by its first byte.
pub fn is_strict_tls(input: &[u8]) -> bool {
    input.first() == Some(&TLS_HANDSHAKE)
}

/// Appends the handshake's bytes in packets. Both sides send them as PRELOGIN; some clients refuse
/// anything else from a server.
pub fn wrap(out: &mut Vec<u8>, tls: &[u8]) {
    if !tls.is_empty() {
        packet::put_message(out, PacketKind::Prelogin, Status::NORMAL, LOGIN_PACKET_BYTES, tls);
    }
}

/// Takes the packets off again, however the bytes are cut. Where the handshake has ended the other side
/// goes on bare, perhaps in the same segment; the first byte of a record shows it.
#[derive(Debug)]
pub struct Unwrap {
    /// From a server: old ones send the handshake as a reply.
    replies_too: bool,
    /// Of a header that is not whole yet.
    head: Vec<u8>,
    missing: usize,
    seen: usize,
    bare: bool,
}

impl Unwrap {
    pub const fn from_client() -> Self {
        Self::new(false)
    }

    pub const fn from_server() -> Self {
        Self::new(true)
    }

    const fn new(replies_too: bool) -> Self {
        Self {
            replies_too,
            head: Vec::new(),
            missing: 0,
            seen: 0,
            bare: false,
        }
    }

    /// Appends TLS bytes to `out` and says how many of `input` were taken: all of them, unless bare TLS
    /// begins (see [`Self::is_bare`]); from there on the input is TLS as it is.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, PeerMisbehaved> {
        let mut rest = input;
        while !rest.is_empty() && !self.bare {
            if self.missing > 0 {
                let (body, after) = rest.split_at_checked(self.missing).unwrap_or((rest, &[]));
                out.extend_from_slice(body);
                self.missing = self.missing.saturating_sub(body.len());
                rest = after;
            } else if self.is_record(rest) {
                self.bare = true;
            } else {
                rest = self.header(rest)?;
            }
        }
        Ok(input.len().saturating_sub(rest.len()))
    }

    /// Whether the other side has gone on without packets.
    pub const fn is_bare(&self) -> bool {
        self.bare
    }

    /// A record between packets. Not before the first: who has not begun cannot have ended.
    fn is_record(&self, rest: &[u8]) -> bool {
        let first = rest.first();
        self.head.is_empty() && self.seen > 0 && first.is_some_and(|byte| TLS_RECORDS.contains(byte))
    }

    /// Takes what is missing of a header, and looks at it as soon as it can.
    fn header<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], PeerMisbehaved> {
        let what = "TLS handshake";
        let wanted = HEADER_BYTES.saturating_sub(self.head.len());
        let (taken, rest) = input.split_at_checked(wanted).unwrap_or((input, &[]));
        self.head.extend_from_slice(taken);
        let allowed = |tag: u8| {
            tag == PacketKind::Prelogin.code() || self.replies_too && tag == PacketKind::Reply.code()
        };
        if let Some(tag) = self.head.first().copied().filter(|tag| !allowed(*tag)) {
            return Err(PeerMisbehaved::Unexpected { tag, awaited: what });
        }
        let Decoded::Message(header) = packet::header(&self.head, PACKET_BYTES_MAX)? else {
            return Ok(rest);
        };
        let length = self.seen.saturating_add(header.length);
        if length > HANDSHAKE_BYTES_MAX {
            let limit = HANDSHAKE_BYTES_MAX;
            return Err(PeerMisbehaved::TooLarge { what, length, limit });
        }
        self.seen = length;
        self.missing = header.body_bytes();
        self.head.clear();
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(tls: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        wrap(&mut out, tls);
        out
    }

    #[test]
    fn a_flight_is_cut_at_4096() {
        let tls = vec![0x16; 5000];
        let out = wrapped(&tls);
        assert_eq!(out.len(), 5000 + 2 * HEADER_BYTES);
        assert_eq!(&out[..4], b"\x12\x00\x10\x00");
        assert_eq!(&out[4096..4100], [0x12, 0x01, 0x03, 0x98]);
        assert_eq!(wrapped(b""), b"");
    }

    #[test]
    fn bare_records_are_left_alone() {
        let mut unwrap = Unwrap::from_client();
        let mut out = vec![];
        let input = [&wrapped(b"\x16finished")[..], b"\x17login"].concat();
        let taken = unwrap.take(&input, &mut out).unwrap();
        assert!(unwrap.is_bare());
        assert_eq!(
            (&input[taken..], &out[..]),
            (&b"\x17login"[..], &b"\x16finished"[..])
        );
        assert_eq!(unwrap.take(&input[taken..], &mut out), Ok(0));
    }

    #[test]
    fn a_handshake_begins_in_packets() {
        for input in [&b"\x16\x03\x01"[..], b"GET /", b"\x10\x01", b"\x04\x01"] {
            assert!(
                matches!(
                    Unwrap::from_client().take(input, &mut vec![]),
                    Err(PeerMisbehaved::Unexpected { .. })
                ),
                "{input:?}"
            );
        }
        let reply = b"\x04\x01\x00\x0a\0\0\0\0\x16\x03";
        let mut out = vec![];
        assert_eq!(Unwrap::from_server().take(reply, &mut out), Ok(reply.len()));
        assert_eq!(out, b"\x16\x03");
    }

    #[test]
    fn a_handshake_has_an_end() {
        let mut unwrap = Unwrap::from_client();
        let flight = wrapped(&[0; 4088]);
        let mut out = vec![];
        for _ in 0..HANDSHAKE_BYTES_MAX / 4096 {
            unwrap.take(&flight, &mut out).unwrap();
        }
        assert!(matches!(
            unwrap.take(&flight, &mut out),
            Err(PeerMisbehaved::TooLarge { .. })
        ));
        // Empty packets count too.
        let mut unwrap = Unwrap::from_client();
        let empty = b"\x12\x00\x00\x08\0\0\0\0".repeat(HANDSHAKE_BYTES_MAX / 8 + 1);
        assert!(unwrap.take(&empty, &mut vec![]).is_err());
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(length in 1_usize..9000, chunk in 1_usize..5000) {
            let tls: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let mut input = wrapped(&tls);
            input.extend_from_slice(b"\x17bare");
            let (mut unwrap, mut out, mut bare) = (Unwrap::from_server(), vec![], vec![]);
            for piece in input.chunks(chunk) {
                let taken = unwrap.take(piece, &mut out).unwrap();
                bare.extend_from_slice(&piece[taken..]);
            }
            prop_assert_eq!(out, tls);
            prop_assert_eq!(bare, b"\x17bare");
        }

        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>) {
            let _ = Unwrap::from_client().take(&input, &mut vec![]);
            let input = [&wrapped(b"x")[..], &input].concat();
            let _ = Unwrap::from_server().take(&input, &mut vec![]);
        }
    }
}
