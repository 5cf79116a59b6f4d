//! What a message asks for. Its text comes from strangers, and is bounded before the database sees it.

use std::fmt;

use serde::Deserialize;

use crate::broker::Taken;

/// An order is some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What gatepost takes as a correlation id.
const ID_BYTES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    /// Of the message, not of its delivery: the same when the sender or the broker sends it again.
    pub(crate) id: String,
    pub(crate) order: i64,
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

/// One message, read and found in order.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) taken: Taken,
    pub(crate) order: Order,
    /// Of what the message is part of; the message's own id when nothing else was said.
    pub(crate) correlation: String,
}

/// The order in a message's bytes, and its correlation id; `correlation` is what the message's properties say.
pub(crate) fn read(correlation: Option<&str>, body: Option<&[u8]>) -> Result<(Order, String), Malformed> {
    let body = body.unwrap_or_default();
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed(format!("{} bytes are too many", body.len())));
    }
    let order: Order = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
    let correlation = correlation.unwrap_or(&order.id).to_owned();
    for (what, id) in [("id", &order.id), ("correlation id", &correlation)] {
        if !is_id(id) {
            let why = format!("the {what} is not of 1 to {ID_BYTES_MAX} visible characters of ASCII");
            return Err(Malformed(why));
        }
    }
    Ok((order, correlation))
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// No sender will mend this by sending it again.
#[derive(Debug)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"m-1","order":1,"customer":"ada","cents":5}"#;

    fn text(correlation: Option<&str>, body: &str) -> Result<(Order, String), Malformed> {
        read(correlation, Some(body.as_bytes()))
    }

    #[test]
    fn the_message_s_own_id_stands_in_for_a_correlation_id() {
        assert_eq!(text(None, GOOD).unwrap().1, "m-1");
        assert_eq!(text(Some("case-1"), GOOD).unwrap().1, "case-1");
    }

    #[test]
    fn what_is_no_order_is_malformed() {
        let long = "x".repeat(MESSAGE_BYTES_MAX + 1);
        let no_id = GOOD.replace("m-1", "");
        let blank = GOOD.replace("m-1", "m 1");
        for body in ["this is no order", "{}", "", &long, &no_id, &blank] {
            text(None, body).unwrap_err();
        }
        read(None, None).unwrap_err();
        text(Some("case\n1"), GOOD).unwrap_err();
        text(Some(&"c".repeat(ID_BYTES_MAX + 1)), GOOD).unwrap_err();
    }
}
