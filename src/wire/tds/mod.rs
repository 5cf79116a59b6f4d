//! The Tabular Data Stream protocol (MS-TDS), versions 7.2 to 8.0.
//!
//! Source for every constant and layout: the document MS-TDS, whose sections are named where they are used.
//! *Payload* means the bodies of a message's packets without their headers, in whatever pieces they come.

mod column;
mod data_type;
pub mod event;
pub mod headers;
mod incoming;
pub mod procedure;
pub mod reply;
pub mod request;
pub mod rows;
pub mod rpc;
mod table;
pub mod tag;
pub mod token;
pub mod turn;
pub mod utf16;
