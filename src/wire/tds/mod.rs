//! Tabular Data Stream, the protocol of SQL Server: versions 7.3 to 7.4, and 8.0, which is 7.4 inside TLS.
//!
//! Source for every constant and layout: Microsoft's open specification MS-TDS, the section that each
//! file names. What the specification leaves to the reader was settled by what six drivers do.
//! *Payload* means the bodies of a message's packets without their headers, in whatever pieces they come.

mod column;
mod data_type;
pub mod event;
pub mod feature;
pub mod fedauth;
pub mod handshake;
pub mod headers;
mod incoming;
pub mod login;
pub mod login7;
pub mod login_ack;
pub mod login_reply;
pub mod packet;
pub mod prelogin;
pub mod procedure;
pub mod reply;
pub mod request;
pub mod rows;
pub mod rpc;
mod table;
pub mod tag;
pub mod tls_wrap;
pub mod token;
pub mod turn;
pub mod utf16;
mod value;
pub mod version;
