//! First bytes of tokens (2.2.4).

pub const ALTMETADATA: u8 = 0x88;
pub const ALTROW: u8 = 0xD3;
pub const COLINFO: u8 = 0xA5;
pub const COLMETADATA: u8 = 0x81;
/// Only comes to who asked for it at login, in a form that depends on what was asked; gatepost does not ask,
/// so its length cannot be known here.
pub const DATACLASSIFICATION: u8 = 0xA3;
pub const DONE: u8 = 0xFD;
pub const DONEINPROC: u8 = 0xFF;
pub const DONEPROC: u8 = 0xFE;
pub const ENVCHANGE: u8 = 0xE3;
pub const ERROR: u8 = 0xAA;
pub const FEATUREEXTACK: u8 = 0xAE;
pub const FEDAUTHINFO: u8 = 0xEE;
pub const INFO: u8 = 0xAB;
pub const LOGINACK: u8 = 0xAD;
pub const NBCROW: u8 = 0xD2;
pub const OFFSET: u8 = 0x78;
pub const ORDER: u8 = 0xA9;
pub const RETURNSTATUS: u8 = 0x79;
pub const RETURNVALUE: u8 = 0xAC;
pub const ROW: u8 = 0xD1;
pub const SESSIONSTATE: u8 = 0xE4;
pub const SSPI: u8 = 0xED;
pub const TABNAME: u8 = 0xA4;

/// DONE, DONEPROC and DONEINPROC alike, first byte included.
pub const DONE_BYTES: usize = 13;
