//! The Tabular Data Stream protocol (MS-TDS), versions 7.2 to 8.0.
//!
//! Source for every constant and layout: the document MS-TDS, whose sections are named where they are used.
//! *Payload* means the bodies of a message's packets without their headers, in whatever pieces they come.

mod column;
mod data_type;
pub mod event;
mod incoming;
pub mod reply;
pub mod rows;
pub mod tag;
pub mod token;
pub mod utf16;
