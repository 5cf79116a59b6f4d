//! Tokens in a login (MS-TDS 2.2.6.3, 2.2.6.4 FEDAUTH, 2.2.7.12): sent with it ("SecurityToken"), or
//! fetched after the server has said where (the library's name changed from ADAL to MSAL).

use std::fmt;

use crate::domain::Secret;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::login7::TOKEN_BYTES_MAX;
use crate::wire::tds::packet::{Expected, PACKET_BYTES_MAX, PacketKind};
use crate::wire::tds::prelogin::NONCE_BYTES;
use crate::wire::tds::utf16;

/// The type of the FEDAUTHINFO token.
pub const FEDAUTHINFO: u8 = 0xee;

/// Two entries are defined; there is room for some that may come.
pub const INFO_ENTRIES_MAX: usize = 8;

/// An address of a token service and the name of what is asked for: far below.
pub const INFO_TEXT_CHARS_MAX: usize = 2048;

/// Two length words, two bytes a letter, and a nonce.
const TOKEN_MESSAGE_BYTES_MAX: usize = 2 * size_of::<u32>() + 2 * TOKEN_BYTES_MAX + NONCE_BYTES;

/// What a server awaits after FEDAUTHINFO.
pub const FROM_CLIENT: Expected = Expected {
    kinds: &[PacketKind::FederatedToken],
    what: "the token",
    payload_bytes_max: TOKEN_MESSAGE_BYTES_MAX,
    packet_bytes_max: PACKET_BYTES_MAX,
};

/// "bFedAuthLibrary", the upper seven bits of the first byte.
mod library {
    pub(super) const SECURITY_TOKEN: u8 = 0x01;
    pub(super) const MSAL: u8 = 0x02;
}

/// "FedAuthInfoID".
mod info {
    pub(super) const STSURL: u8 = 0x01;
    pub(super) const SPN: u8 = 0x02;
}

/// The data of the feature FEDAUTH in a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federated {
    /// What the server's PRELOGIN said of FEDAUTHREQUIRED, so that nobody in between can have changed
    /// it unseen; false if it said nothing.
    pub echo: bool,
    pub way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The token, in UTF-8.
    SecurityToken(Secret<Vec<u8>>),
    /// The client asks where to fetch one. The workflow says by what means it will; that is its own
    /// matter.
    Directed { workflow: u8 },
    /// Live ID, or what may come.
    Other { library: u8 },
}

impl Federated {
    pub fn decode(data: &[u8]) -> Result<Self, PeerMisbehaved> {
        let what = "FEDAUTH";
        let mut cursor = Cursor::new(what, data);
        let options = cursor.u8()?;
        let echo = options & 1 == 1;
        let way = match options >> 1 {
            library::SECURITY_TOKEN => {
                let token = token_text(&mut cursor)?;
                // For a nonce of the server's, which gatepost does not send.
                if cursor.remaining() > 0 {
                    cursor.array::<NONCE_BYTES>()?;
                }
                cursor.finish()?;
                Way::SecurityToken(token)
            }
            library::MSAL => {
                let workflow = cursor.u8()?;
                cursor.finish()?;
                Way::Directed { workflow }
            }
            library => Way::Other { library },
        };
        Ok(Self { echo, way })
    }

    /// Appends the data of the feature.
    pub fn put(&self, out: &mut Vec<u8>) {
        let options = |library: u8| library << 1 | u8::from(self.echo);
        match &self.way {
            Way::SecurityToken(token) => {
                out.push(options(library::SECURITY_TOKEN));
                put_token_text(out, token);
            }
            Way::Directed { workflow } => {
                out.extend_from_slice(&[options(library::MSAL), *workflow]);
            }
            Way::Other { library } => out.push(options(*library)),
        }
    }
}

/// Where to fetch a token, and for what ("STSURL" and "SPN").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenService {
    pub sts_url: String,
    pub spn: String,
}

impl TokenService {
    /// Appends the token FEDAUTHINFO, which is the whole of a reply.
    pub fn put(&self, out: &mut Vec<u8>) {
        let entries = [(info::STSURL, &self.sts_url), (info::SPN, &self.spn)];
        let entry_bytes = size_of::<u8>() + 2 * size_of::<u32>();
        let (mut table, mut texts) = (word(entries.len()).to_vec(), Vec::new());
        // From the count, which stands before the table.
        let texts_at = entry_bytes
            .saturating_mul(entries.len())
            .saturating_add(table.len());
        for (id, text) in entries {
            let text = utf16::cut(text, INFO_TEXT_CHARS_MAX);
            let before = texts.len();
            utf16::put(&mut texts, text);
            table.push(id);
            table.extend_from_slice(&word(texts.len().saturating_sub(before)));
            table.extend_from_slice(&word(texts_at.saturating_add(before)));
        }
        out.push(FEDAUTHINFO);
        out.extend_from_slice(&word(table.len().saturating_add(texts.len())));
        out.extend_from_slice(&table);
        out.extend_from_slice(&texts);
    }

    /// Reads what follows the type of the token.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, PeerMisbehaved> {
        let what = "FEDAUTHINFO";
        let length = length_word(cursor)?;
        let body = cursor.bytes(length)?;
        let mut table = Cursor::new(what, body);
        let count = length_word(&mut table)?;
        if count > INFO_ENTRIES_MAX {
            return Err(PeerMisbehaved::TooMany {
                what,
                limit: INFO_ENTRIES_MAX,
            });
        }
        let mut service = Self::default();
        for _ in 0..count {
            let id = table.u8()?;
            let length = length_word(&mut table)?;
            let offset = length_word(&mut table)?;
            let end = offset.saturating_add(length);
            let text = body
                .get(offset..end)
                .filter(|text| text.len() <= INFO_TEXT_CHARS_MAX * utf16::UNIT_BYTES)
                .ok_or(PeerMisbehaved::OutOfRange { what })?;
            match id {
                info::STSURL => service.sts_url = utf16::text(what, text)?,
                info::SPN => service.spn = utf16::text(what, text)?,
                _ => {}
            }
        }
        Ok(service)
    }
}

/// The message that answers FEDAUTHINFO.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenMessage {
    /// In UTF-8.
    pub token: Secret<Vec<u8>>,
    pub nonce: Option<[u8; NONCE_BYTES]>,
}

impl fmt::Debug for TokenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMessage").finish_non_exhaustive()
    }
}

impl TokenMessage {
    pub fn decode(payload: &[u8]) -> Result<Self, PeerMisbehaved> {
        let what = "token message";
        let mut cursor = Cursor::new(what, payload);
        let length = length_word(&mut cursor)?;
        let mut body = Cursor::new(what, cursor.bytes(length)?);
        cursor.finish()?;
        let token = token_text(&mut body)?;
        let nonce = match body.remaining() {
            0 => None,
            _ => Some(body.array()?),
        };
        body.finish()?;
        Ok(Self { token, nonce })
    }

    /// Appends the payload, for [`crate::wire::tds::packet`] to put into packets.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        put_token_text(&mut body, &self.token);
        body.extend(self.nonce.iter().flatten());
        out.extend_from_slice(&word(body.len()));
        out.extend_from_slice(&body);
    }
}

/// A length in bytes and the token in UTF-16.
fn token_text(cursor: &mut Cursor<'_>) -> Result<Secret<Vec<u8>>, PeerMisbehaved> {
    let what = "token";
    let length = length_word(cursor)?;
    if length > TOKEN_BYTES_MAX * utf16::UNIT_BYTES {
        return Err(PeerMisbehaved::TooLarge {
            what,
            length: length / utf16::UNIT_BYTES,
            limit: TOKEN_BYTES_MAX,
        });
    }
    let text = utf16::text(what, cursor.bytes(length)?)?;
    Ok(Secret::new(text.into_bytes()))
}

fn put_token_text(out: &mut Vec<u8>, token: &Secret<Vec<u8>>) {
    let mut text = Vec::new();
    utf16::put(&mut text, &String::from_utf8_lossy(token.expose()));
    out.extend_from_slice(&word(text.len()));
    out.extend_from_slice(&text);
}

fn length_word(cursor: &mut Cursor<'_>) -> Result<usize, PeerMisbehaved> {
    let word = cursor.u32_le()?;
    Ok(usize::try_from(word).unwrap_or(usize::MAX))
}

fn word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(text: &str) -> Secret<Vec<u8>> {
        Secret::new(text.as_bytes().to_vec())
    }

    fn put(federated: &Federated) -> Vec<u8> {
        let mut out = vec![];
        federated.put(&mut out);
        out
    }

    fn service() -> TokenService {
        TokenService {
            sts_url: "https://login.example/tenant".to_owned(),
            spn: "api://gatepost".to_owned(),
        }
    }

    #[test]
    fn the_feature_is_as_drivers_send_it() {
        let token = Federated {
            echo: true,
            way: Way::SecurityToken(secret("eyJ")),
        };
        assert_eq!(put(&token), b"\x03\x06\0\0\0e\0y\0J\0");
        let with_nonce = [&put(&token)[..], &[7; NONCE_BYTES]].concat();
        assert_eq!(Federated::decode(&with_nonce), Ok(token.clone()));
        let directed = Federated {
            echo: false,
            way: Way::Directed { workflow: 1 },
        };
        assert_eq!(put(&directed), b"\x04\x01");
        let other = Federated {
            echo: false,
            way: Way::Other { library: 0 },
        };
        for federated in [token, directed, other] {
            let bytes = put(&federated);
            assert_eq!(Federated::decode(&bytes), Ok(federated));
            for cut in 0..bytes.len() {
                assert!(Federated::decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
        assert!(Federated::decode(b"\x04\x01x").is_err());
    }

    #[test]
    fn tokens_are_as_long_as_they_may_be() {
        let of = |length: usize| {
            let way = Way::SecurityToken(Secret::new(vec![b'x'; length]));
            Federated::decode(&put(&Federated { echo: true, way }))
        };
        assert!(of(TOKEN_BYTES_MAX).is_ok());
        assert!(matches!(
            of(TOKEN_BYTES_MAX + 1),
            Err(PeerMisbehaved::TooLarge { what: "token", .. })
        ));
        assert!(Federated::decode(b"\x02\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn the_token_service_is_found_by_its_offsets() {
        let mut out = vec![];
        service().put(&mut out);
        assert_eq!(&out[..9], b"\xee\x6a\0\0\0\x02\0\0\0");
        assert_eq!(&out[9..18], b"\x01\x38\0\0\0\x16\0\0\0");
        let decoded = TokenService::decode(&mut Cursor::new("reply", &out[1..]));
        assert_eq!(decoded, Ok(service()));
        for cut in 1..out.len() {
            assert!(TokenService::decode(&mut Cursor::new("reply", &out[1..cut])).is_err());
        }
        let many = b"\x04\0\0\0\xff\xff\xff\xff";
        assert!(matches!(
            TokenService::decode(&mut Cursor::new("reply", many)),
            Err(PeerMisbehaved::TooMany { .. })
        ));
    }

    #[test]
    fn the_token_message_goes_there_and_back() {
        for nonce in [None, Some([7; NONCE_BYTES])] {
            let message = TokenMessage {
                token: secret("eyJhbGciOi"),
                nonce,
            };
            let mut out = vec![];
            message.put(&mut out);
            assert_eq!(TokenMessage::decode(&out).as_ref(), Ok(&message));
            for cut in 0..out.len() {
                assert!(TokenMessage::decode(&out[..cut]).is_err(), "{cut}");
            }
            out.push(0);
            assert!(TokenMessage::decode(&out).is_err());
            assert!(!format!("{message:?}").contains("101"));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Federated::decode(&bytes);
            let _ = TokenMessage::decode(&bytes);
            let _ = TokenService::decode(&mut Cursor::new("reply", &bytes));
        }
    }
}
