//! LOGIN7, in which a client says who it is and what it wants (MS-TDS 2.2.6.4): fixed fields, a table of
//! offsets, and the texts that they point to.

use crate::domain::Secret;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::feature;
use crate::wire::tds::feature::Feature;
use crate::wire::tds::packet::{Expected, PACKET_BYTES_MAX, PacketKind};
use crate::wire::tds::utf16;
use crate::wire::tds::version::TdsVersion;

/// "128K-1", the specification's own limit of the whole record. Nobody is known yet, but tokens are long
/// and take two bytes a letter.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024 - 1;

/// Tokens with many groups come near 8 KiB; this is the limit towards PostgreSQL clients too.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The specification grants names 128 characters. Server names hold what the user typed: a host name of
/// up to 253, an instance, a port.
pub const NAME_CHARS_MAX: usize = 512;

/// What a server awaits after TLS.
pub const FROM_CLIENT: Expected = Expected {
    kinds: &[PacketKind::Login7],
    what: "LOGIN7",
    payload_bytes_max: PAYLOAD_BYTES_MAX,
    packet_bytes_max: PACKET_BYTES_MAX,
};

/// The fixed fields and the table.
pub const HEAD_BYTES: usize = 94;

const PASSWORD_MASK: u8 = 0xa5;

/// "cbSSPI" says so when the length stands in "cbSSPILong".
const SSPI_IS_LONG: u16 = u16::MAX;

/// Bits of the four flag bytes; those that gatepost looks at.
pub mod flags {
    /// "fODBC" of `OptionFlags2`: settings as ODBC wants them (ANSI_DEFAULTS, TEXTSIZE …).
    pub const TWO_ODBC: u8 = 0x02;
    /// "fIntSecurity" of `OptionFlags2`.
    pub const TWO_INTEGRATED_SECURITY: u8 = 0x80;
    /// "fReadOnlyIntent" of `TypeFlags`: a replica that can only be read will do.
    pub const TYPE_READ_ONLY_INTENT: u8 = 0x20;
    /// "fChangePassword" of `OptionFlags3`.
    pub const THREE_CHANGE_PASSWORD: u8 = 0x01;
    /// "fUserInstance" of `OptionFlags3`: start a server for this user.
    pub const THREE_USER_INSTANCE: u8 = 0x04;
    /// "fUnknownCollationHandling" of `OptionFlags3`: the client copes with collations it does not know.
    pub const THREE_UNKNOWN_COLLATION: u8 = 0x08;
    /// "fExtension" of `OptionFlags3`: there is a list of features.
    pub const THREE_EXTENSION: u8 = 0x10;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login7 {
    pub version: TdsVersion,
    /// What the client asks for; 0 for "as the server likes".
    pub packet_bytes: u32,
    /// Of the driver; every driver has its own order of the bytes.
    pub program_version: u32,
    pub process: u32,
    pub connection: u32,
    pub flags_one: u8,
    pub flags_two: u8,
    pub type_flags: u8,
    /// Without "fExtension", which follows from `features`.
    pub flags_three: u8,
    /// Minutes.
    pub time_zone: i32,
    pub lcid: u32,
    pub host: String,
    pub user: String,
    pub password: Secret<String>,
    pub application: String,
    /// As the user typed it.
    pub server: String,
    pub library: String,
    pub language: String,
    pub database: String,
    /// Usually the hardware address of a network card.
    pub client_id: [u8; 6],
    pub sspi: Vec<u8>,
    pub attach_file: String,
    pub change_password: Secret<String>,
    pub features: Vec<Feature>,
}

/// A login of nobody, to be filled in.
impl Default for Login7 {
    fn default() -> Self {
        Self {
            version: TdsVersion::V7_4,
            packet_bytes: 0,
            program_version: 0,
            process: 0,
            connection: 0,
            flags_one: 0,
            flags_two: 0,
            type_flags: 0,
            flags_three: 0,
            time_zone: 0,
            lcid: 0,
            host: String::new(),
            user: String::new(),
            password: Secret::new(String::new()),
            application: String::new(),
            server: String::new(),
            library: String::new(),
            language: String::new(),
            database: String::new(),
            client_id: [0; 6],
            sspi: Vec::new(),
            attach_file: String::new(),
            change_password: Secret::new(String::new()),
            features: Vec::new(),
        }
    }
}

/// What a login can ask for that gatepost does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    WindowsAuthentication,
    ChangePassword,
    AttachFile,
    UserInstance,
}

/// A field does not fit into the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} is too long for a login")]
pub struct TooLong {
    pub what: &'static str,
}

/// The version alone, which stands where it always stood. What follows is older clients' own matter.
pub fn version(payload: &[u8]) -> Result<TdsVersion, PeerMisbehaved> {
    let mut cursor = Cursor::new("LOGIN7", payload);
    let _length = cursor.u32_le()?;
    cursor.u32_le().map(TdsVersion)
}

impl Login7 {
    /// Reads a login of version 7.2 or later.
    pub fn decode(payload: &[u8]) -> Result<Self, PeerMisbehaved> {
        let what = "LOGIN7";
        let mut cursor = Cursor::new(what, payload);
        let word = cursor.u32_le()?;
        match usize::try_from(word).unwrap_or(usize::MAX) {
            length if length < HEAD_BYTES => {
                return Err(PeerMisbehaved::LengthTooSmall { what, length: word });
            }
            length if length > payload.len() => return Err(PeerMisbehaved::Truncated { what }),
            length if length < payload.len() => return Err(PeerMisbehaved::TrailingBytes { what }),
            _ => {}
        }
        let mut login = Self {
            version: TdsVersion(cursor.u32_le()?),
            packet_bytes: cursor.u32_le()?,
            program_version: cursor.u32_le()?,
            process: cursor.u32_le()?,
            connection: cursor.u32_le()?,
            flags_one: cursor.u8()?,
            flags_two: cursor.u8()?,
            type_flags: cursor.u8()?,
            flags_three: cursor.u8()?,
            time_zone: cursor.i32_le()?,
            lcid: cursor.u32_le()?,
            ..Self::default()
        };
        login.texts(payload, &mut cursor)?;
        Ok(login)
    }

    /// The table and what it points to, in its order.
    fn texts(&mut self, payload: &[u8], table: &mut Cursor<'_>) -> Result<(), PeerMisbehaved> {
        let mut next = |what| Pointer::read(table, what);
        let host = next("host name")?;
        let user = next("user name")?;
        let password = next("password")?;
        let application = next("application name")?;
        let server = next("server name")?;
        let extension = next("list of features")?;
        let library = next("library name")?;
        let language = next("language")?;
        let database = next("database name")?;
        self.client_id = table.array()?;
        let mut next = |what| Pointer::read(table, what);
        let mut sspi = next("SSPI data")?;
        let attach_file = next("file name")?;
        let change_password = next("new password")?;
        if sspi.count == usize::from(SSPI_IS_LONG) {
            let long = usize::try_from(table.u32_le()?).unwrap_or(usize::MAX);
            sspi.count = sspi.count.max(long);
        }
        self.host = host.shown(payload)?;
        self.user = user.name(payload)?;
        self.password = password.password(payload)?;
        self.application = application.shown(payload)?;
        self.server = server.shown(payload)?;
        self.library = library.shown(payload)?;
        self.language = language.name(payload)?;
        self.database = database.name(payload)?;
        self.sspi = sspi.bytes(payload, 1)?.to_vec();
        self.attach_file = attach_file.name(payload)?;
        self.change_password = change_password.password(payload)?;
        if self.flags_three & flags::THREE_EXTENSION != 0 {
            self.flags_three &= !flags::THREE_EXTENSION;
            self.features = extension.features(payload)?;
        }
        Ok(())
    }

    /// The first thing that gatepost does not do. Everything else of a login it does, or may pass over.
    pub fn objection(&self) -> Option<Objection> {
        if self.flags_two & flags::TWO_INTEGRATED_SECURITY != 0 || !self.sspi.is_empty() {
            Some(Objection::WindowsAuthentication)
        } else if self.flags_three & flags::THREE_CHANGE_PASSWORD != 0
            || !self.change_password.expose().is_empty()
        {
            Some(Objection::ChangePassword)
        } else if !self.attach_file.is_empty() {
            Some(Objection::AttachFile)
        } else if self.flags_three & flags::THREE_USER_INSTANCE != 0 {
            Some(Objection::UserInstance)
        } else {
            None
        }
    }

    /// Settings as ODBC wants them; part of what makes two upstream connections alike.
    pub const fn is_odbc(&self) -> bool {
        self.flags_two & flags::TWO_ODBC != 0
    }

    pub const fn is_read_only_intent(&self) -> bool {
        self.type_flags & flags::TYPE_READ_ONLY_INTENT != 0
    }

    /// Appends the payload, for [`crate::wire::tds::packet`] to put into packets.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let mut layout = Layout::default();
        layout.text("host name", &self.host)?;
        layout.text("user name", &self.user)?;
        layout.password("password", &self.password)?;
        layout.text("application name", &self.application)?;
        layout.text("server name", &self.server)?;
        let pointer = layout.extension(!self.features.is_empty())?;
        layout.text("library name", &self.library)?;
        layout.text("language", &self.language)?;
        layout.text("database name", &self.database)?;
        layout.table.extend_from_slice(&self.client_id);
        layout.sspi(&self.sspi)?;
        layout.text("file name", &self.attach_file)?;
        layout.password("new password", &self.change_password)?;
        let sspi_long = u32::try_from(self.sspi.len()).unwrap_or(u32::MAX);
        layout.table.extend_from_slice(&sspi_long.to_le_bytes());
        let mut flags_three = self.flags_three & !flags::THREE_EXTENSION;
        if let Some(at) = pointer {
            flags_three |= flags::THREE_EXTENSION;
            layout.features(at, &self.features);
        }
        let length = HEAD_BYTES.saturating_add(layout.texts.len());
        if length > PAYLOAD_BYTES_MAX {
            return Err(TooLong { what: "whole" });
        }
        let fixed = [
            u32::try_from(length).unwrap_or(u32::MAX),
            self.version.0,
            self.packet_bytes,
            self.program_version,
            self.process,
            self.connection,
        ];
        out.extend(fixed.into_iter().flat_map(u32::to_le_bytes));
        out.extend_from_slice(&[self.flags_one, self.flags_two, self.type_flags, flags_three]);
        out.extend_from_slice(&self.time_zone.to_le_bytes());
        out.extend_from_slice(&self.lcid.to_le_bytes());
        out.extend_from_slice(&layout.table);
        out.extend_from_slice(&layout.texts);
        Ok(())
    }
}

/// A line of the table: an offset from the beginning, and a count of bytes or of characters.
struct Pointer {
    what: &'static str,
    offset: usize,
    count: usize,
}

impl Pointer {
    fn read(table: &mut Cursor<'_>, what: &'static str) -> Result<Self, PeerMisbehaved> {
        Ok(Self {
            what,
            offset: usize::from(table.u16_le()?),
            count: usize::from(table.u16_le()?),
        })
    }

    /// What it points to. An empty field may point anywhere.
    fn bytes<'a>(&self, payload: &'a [u8], unit_bytes: usize) -> Result<&'a [u8], PeerMisbehaved> {
        if self.count == 0 {
            return Ok(&[]);
        }
        let end = self.count.saturating_mul(unit_bytes).saturating_add(self.offset);
        let found = payload.get(self.offset..end);
        found
            .filter(|_| self.offset >= HEAD_BYTES)
            .ok_or(PeerMisbehaved::OutOfRange { what: self.what })
    }

    fn name_bytes<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], PeerMisbehaved> {
        if self.count > NAME_CHARS_MAX {
            return Err(PeerMisbehaved::TooLarge {
                what: self.what,
                length: self.count,
                limit: NAME_CHARS_MAX,
            });
        }
        self.bytes(payload, utf16::UNIT_BYTES)
    }

    /// A text that decides something.
    fn name(&self, payload: &[u8]) -> Result<String, PeerMisbehaved> {
        utf16::text(self.what, self.name_bytes(payload)?)
    }

    /// A text that drivers may have cut in the middle of a character.
    fn shown(&self, payload: &[u8]) -> Result<String, PeerMisbehaved> {
        self.name_bytes(payload).map(utf16::shown)
    }

    fn password(&self, payload: &[u8]) -> Result<Secret<String>, PeerMisbehaved> {
        if self.count > TOKEN_BYTES_MAX {
            return Err(PeerMisbehaved::TooLarge {
                what: self.what,
                length: self.count,
                limit: TOKEN_BYTES_MAX,
            });
        }
        let hidden = self.bytes(payload, utf16::UNIT_BYTES)?;
        let shown: Vec<u8> = hidden
            .iter()
            .map(|byte| (byte ^ PASSWORD_MASK).rotate_left(4))
            .collect();
        utf16::text(self.what, &shown).map(Secret::new)
    }

    /// The list is behind a second pointer, which can reach farther.
    fn features(&self, payload: &[u8]) -> Result<Vec<Feature>, PeerMisbehaved> {
        let what = self.what;
        let offset = Cursor::new(what, self.bytes(payload, 1)?).u32_le()?;
        let list = usize::try_from(offset)
            .ok()
            .filter(|offset| *offset >= HEAD_BYTES)
            .and_then(|offset| payload.get(offset..))
            .ok_or(PeerMisbehaved::OutOfRange { what })?;
        feature::list(what, &mut Cursor::new(what, list))
    }
}

/// The table and the texts while they are written.
#[derive(Default)]
struct Layout {
    table: Vec<u8>,
    texts: Vec<u8>,
}

impl Layout {
    fn text(&mut self, what: &'static str, text: &str) -> Result<(), TooLong> {
        self.entry(what, text.encode_utf16().count())?;
        utf16::put(&mut self.texts, text);
        Ok(())
    }

    fn password(&mut self, what: &'static str, password: &Secret<String>) -> Result<(), TooLong> {
        let password = password.expose();
        self.entry(what, password.encode_utf16().count())?;
        let shown = password.encode_utf16().flat_map(u16::to_le_bytes);
        self.texts
            .extend(shown.map(|byte| byte.rotate_left(4) ^ PASSWORD_MASK));
        Ok(())
    }

    fn sspi(&mut self, sspi: &[u8]) -> Result<(), TooLong> {
        self.entry("SSPI data", sspi.len().min(usize::from(SSPI_IS_LONG)))?;
        self.texts.extend_from_slice(sspi);
        Ok(())
    }

    /// Room for the second pointer, and where it stands.
    fn extension(&mut self, present: bool) -> Result<Option<usize>, TooLong> {
        if !present {
            self.entry("list of features", 0)?;
            return Ok(None);
        }
        self.entry("list of features", size_of::<u32>())?;
        let at = self.texts.len();
        self.texts.extend_from_slice(&[0; size_of::<u32>()]);
        Ok(Some(at))
    }

    fn features(&mut self, at: usize, features: &[Feature]) {
        let offset = HEAD_BYTES.saturating_add(self.texts.len());
        let word = u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(pointer) = self.texts.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *pointer = word;
        }
        let features = features
            .iter()
            .map(|feature| (feature.id, feature.data.as_slice()));
        feature::put_list(&mut self.texts, features);
    }

    fn entry(&mut self, what: &'static str, count: usize) -> Result<(), TooLong> {
        let offset = HEAD_BYTES.saturating_add(self.texts.len());
        for number in [offset, count] {
            let word = u16::try_from(number).map_err(|_| TooLong { what })?;
            self.table.extend_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
