//! Tabular Data Stream, the protocol of SQL Server: versions 7.3 to 7.4, and 8.0, which is 7.4 inside TLS.
//!
//! Source for every constant and layout: Microsoft's open specification MS-TDS, the section that each
//! file names. What the specification leaves to the reader was settled by what six drivers do.

pub mod answer;
pub mod feature;
pub mod fedauth;
pub mod handshake;
pub mod login;
pub mod login7;
pub mod login_ack;
pub mod login_reply;
pub mod packet;
pub mod prelogin;
pub mod tls_wrap;
pub(super) mod utf16;
pub mod version;
