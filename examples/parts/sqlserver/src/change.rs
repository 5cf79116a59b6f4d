//! What a message asks for. Its text comes from strangers, and is bounded before the database sees it.

use std::error::Error;
use std::fmt;

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A business message of these domains is some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What the inbox has room for, and what gatepost takes as a correlation id.
const ID_BYTES_MAX: usize = 256;

/// A kind of messages: its own subject or queue, its own consumer, its own role in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Domain {
    Orders,
    Payments,
}

impl Domain {
    pub const ALL: [Self; 2] = [Self::Orders, Self::Payments];

    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }

    /// Of the consumer's connections, and in the inbox.
    pub fn consumer(self) -> &'static str {
        match self {
            Self::Orders => "orders-consumer",
            Self::Payments => "payments-consumer",
        }
    }
}

/// The one thing that every message has.
#[derive(Debug, Deserialize)]
pub struct Envelope {
    pub id: String,
}

#[derive(Debug, Deserialize)]
pub struct Order {
    pub(crate) order: i64,
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

#[derive(Debug, Deserialize)]
pub struct Payment {
    pub(crate) payment: i64,
    pub(crate) order: i64,
    pub(crate) cents: i64,
}

#[derive(Debug)]
pub enum Change {
    Order(Order),
    Payment(Payment),
}

/// One message, read and found in order.
#[derive(Debug)]
pub struct Delivery {
    pub domain: Domain,
    /// Of the message, not of its delivery: the same when the sender or the broker sends it again.
    pub id: String,
    /// Of what the message is part of; the message's own id when nothing else was said.
    pub correlation: String,
    pub change: Change,
}

impl Delivery {
    pub fn read(domain: Domain, correlation: Option<&str>, body: &[u8]) -> Result<Self, Malformed> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed(format!("{} bytes are too many", body.len())));
        }
        let Envelope { id } = json(body)?;
        let correlation = correlation.unwrap_or(&id).to_owned();
        for (what, text) in [("id", &id), ("correlation id", &correlation)] {
            if !is_id(text) {
                return Err(Malformed(format!(
                    "the {what} is not of 1 to {ID_BYTES_MAX} visible characters of ASCII"
                )));
            }
        }
        let change = match domain {
            Domain::Orders => Change::Order(json(body)?),
            Domain::Payments => Change::Payment(json(body)?),
        };
        Ok(Self {
            domain,
            id,
            correlation,
            change,
        })
    }
}

/// No space among them: T-SQL takes `a` and `a ` for the same.
fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))
}

/// No sender will mend this by sending it again.
#[derive(Debug)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::{Change, Delivery, Domain, ID_BYTES_MAX, MESSAGE_BYTES_MAX};

    const ORDER: &str = r#"{"id":"msg-1","order":7,"customer":"Ada","cents":100}"#;

    #[test]
    fn the_messages_id_correlates_when_nothing_else_does() {
        let delivery = Delivery::read(Domain::Orders, None, ORDER.as_bytes()).unwrap();
        assert_eq!((&*delivery.id, &*delivery.correlation), ("msg-1", "msg-1"));
        assert!(matches!(delivery.change, Change::Order(order) if order.order == 7));
        let delivery = Delivery::read(Domain::Orders, Some("case-9"), ORDER.as_bytes()).unwrap();
        assert_eq!((&*delivery.id, &*delivery.correlation), ("msg-1", "case-9"));
    }

    #[test]
    fn what_no_one_can_apply_is_malformed() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        let malformed = |domain, correlation, body: &str| {
            Delivery::read(domain, correlation, body.as_bytes()).unwrap_err();
        };
        malformed(Domain::Payments, None, ORDER);
        malformed(Domain::Orders, Some(""), ORDER);
        malformed(Domain::Orders, Some("a b"), ORDER);
        malformed(Domain::Orders, Some(&long), ORDER);
        malformed(Domain::Orders, None, &ORDER.replace("msg-1", "msg-1 "));
        malformed(Domain::Orders, None, &ORDER.replace("100", "\"much\""));
        malformed(Domain::Orders, None, "hello");
        malformed(Domain::Orders, None, &" ".repeat(MESSAGE_BYTES_MAX + 1));
    }
}
