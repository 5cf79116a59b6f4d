//! What stands before every request ("ALL_HEADERS", 2.2.5.3), since version 7.2.

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::incoming::{Incoming, Stop, within};

/// Kinds of header.
const QUERY_NOTIFICATION: u16 = 1;
const TRANSACTION: u16 = 2;
const TRACE_ACTIVITY: u16 = 3;

const TOTAL_BYTES: usize = 4;
/// Length and kind of one header.
const HEADER_BYTES: usize = 6;
/// The largest we read. One of each kind is some 60 bytes, but for the texts of a query notification.
const TOTAL_BYTES_MAX: usize = 1 << 13;

const WHAT: &str = "ALL_HEADERS";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub transaction: Option<Transaction>,
    /// The server shall tell, later and elsewhere, when the answer changes.
    pub has_notification: bool,
    pub activity: Option<Activity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// 0 outside of a transaction.
    pub descriptor: u64,
    /// Requests that are not answered yet, this one included: 1 without MARS.
    pub outstanding: u32,
}

/// What the client's own trace calls the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub id: [u8; 16],
    pub sequence: u32,
}

/// Reads the headers at the beginning of a request.
pub(super) fn read(incoming: &mut Incoming<'_>) -> Result<Headers, Stop> {
    let total = usize::try_from(incoming.u32()?).unwrap_or(usize::MAX);
    if total > TOTAL_BYTES_MAX {
        return Err(Stop::Broken(PeerMisbehaved::TooLarge {
            what: WHAT,
            length: total,
            limit: TOTAL_BYTES_MAX,
        }));
    }
    let body = total
        .checked_sub(TOTAL_BYTES)
        .ok_or(Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT }))?;
    let body = incoming.bytes(body)?;
    within(WHAT, body, each).map_err(Stop::Broken)
}

fn each(incoming: &mut Incoming<'_>) -> Result<Headers, Stop> {
    let wrong = Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT });
    let mut headers = Headers::default();
    while !incoming.is_empty() {
        let length = usize::try_from(incoming.u32()?).unwrap_or(usize::MAX);
        let kind = incoming.u16()?;
        let length = length.checked_sub(HEADER_BYTES).ok_or_else(|| wrong.clone())?;
        let mut body = Incoming::new(incoming.bytes(length)?);
        let is_second = match kind {
            QUERY_NOTIFICATION => std::mem::replace(&mut headers.has_notification, true),
            TRANSACTION => headers
                .transaction
                .replace(Transaction {
                    descriptor: body.u64()?,
                    outstanding: body.u32()?,
                })
                .is_some(),
            TRACE_ACTIVITY => headers
                .activity
                .replace(Activity {
                    id: body.array()?,
                    sequence: body.u32()?,
                })
                .is_some(),
            _ => return Err(wrong),
        };
        let has_more = kind != QUERY_NOTIFICATION && !body.is_empty();
        if is_second || has_more {
            return Err(wrong);
        }
    }
    Ok(headers)
}

/// Those of a request of gatepost's own: one at a time, without notification.
pub fn put(out: &mut Vec<u8>, descriptor: u64, activity: Option<Activity>) {
    let transaction_bytes = 18_u32;
    let activity_bytes = if activity.is_some() { 26_u32 } else { 0 };
    let total = transaction_bytes.saturating_add(activity_bytes).saturating_add(4);
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&transaction_bytes.to_le_bytes());
    out.extend_from_slice(&TRANSACTION.to_le_bytes());
    out.extend_from_slice(&descriptor.to_le_bytes());
    out.extend_from_slice(&1_u32.to_le_bytes());
    if let Some(Activity { id, sequence }) = activity {
        out.extend_from_slice(&activity_bytes.to_le_bytes());
        out.extend_from_slice(&TRACE_ACTIVITY.to_le_bytes());
        out.extend_from_slice(&id);
        out.extend_from_slice(&sequence.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVITY: Activity = Activity {
        id: *b"0123456789abcdef",
        sequence: 7,
    };

    fn written(activity: Option<Activity>) -> Vec<u8> {
        let mut out = vec![];
        put(&mut out, 0x0102_0304_0506_0708, activity);
        out
    }

    #[test]
    fn headers_come_back() {
        for activity in [None, Some(ACTIVITY)] {
            let bytes = written(activity);
            let mut incoming = Incoming::new(&bytes);
            let headers = read(&mut incoming).unwrap();
            assert!(incoming.is_empty());
            let transaction = Transaction {
                descriptor: 0x0102_0304_0506_0708,
                outstanding: 1,
            };
            assert_eq!(headers.transaction, Some(transaction));
            assert_eq!(headers.activity, activity);
            assert!(!headers.has_notification);
        }
    }

    #[test]
    fn a_notification_is_seen() {
        // An id, a deployment, both with their lengths.
        let bytes = [16, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, b'x', 0];
        let headers = read(&mut Incoming::new(&bytes)).unwrap();
        assert!(headers.has_notification);
        assert_eq!(headers.transaction, None);
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        let bytes = written(Some(ACTIVITY));
        for length in 0..bytes.len() {
            let read = read(&mut Incoming::new(&bytes[..length]));
            assert!(
                matches!(read, Err(Stop::Short { at_least }) if at_least > length && at_least <= bytes.len())
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let transaction = &written(None)[4..];
        let twice = [&[40, 0, 0, 0], transaction, transaction].concat();
        let mut unknown = written(None);
        unknown[8] = 9;
        let mut short = written(None);
        short[4] = 17;
        let mut long = written(None);
        long[4] = 19;
        let mut tiny = written(None);
        tiny[4] = 5;
        for bytes in [
            vec![3, 0, 0, 0],
            vec![0; 4],
            twice,
            unknown,
            short,
            long,
            tiny,
            vec![0xFF; 40],
        ] {
            let read = read(&mut Incoming::new(&bytes));
            assert!(matches!(read, Err(Stop::Broken(_))), "{bytes:?}");
        }
    }
}
