//! A queue's two ends. Messages are taken under a lock (peek-lock: nothing is settled by receiving it), and
//! each is settled by what became of it.

use std::time::Duration;

use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::link::delivery::{Delivery, DeliveryInfo};
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::types::definitions::{
    Error as AmqpError, ErrorCondition, Fields, ReceiverSettleMode, SenderSettleMode,
};
use fe2o3_amqp::types::messaging::{
    ApplicationProperties, Body, Header, Message, MessageId, Modified, Outcome, Properties,
};
use fe2o3_amqp::types::primitives::{SimpleValue, Symbol, Value};
use fe2o3_amqp::{Receiver, Sender};
use tokio::time::timeout;

use super::{Line, Lost};
use crate::parts::Failure;

/// The rest of a batch is waited for no longer than this.
const LINGER: Duration = Duration::from_millis(200);
/// Service Bus reads the reason of a dead letter from this error.
const DEAD_LETTER: &str = "com.microsoft:dead-letter";
const DEAD_LETTER_DESCRIPTION: &str = "DeadLetterErrorDescription";
/// What a look at a queue shows at most.
const SHOWN_MAX: u32 = 1_000;
/// A queue that gives nothing for so long is looked through.
const LOOK_WAIT: Duration = Duration::from_secs(1);
const MODIFIED: &str = "amqp:modified:list";

/// A message that is locked for us until it is settled.
#[derive(Debug)]
pub(crate) struct Taken {
    lock: DeliveryInfo,
    pub(crate) id: Option<String>,
    pub(crate) correlation: Option<String>,
    /// It was delivered before, to whomever.
    pub(crate) again: bool,
    /// `None`: what came has no bytes that could be read.
    pub(crate) body: Option<Vec<u8>>,
    /// Why it is in a dead-letter queue; RabbitMQ does not tell.
    pub(crate) reason: Option<String>,
}

pub(crate) struct Inlet {
    receiver: Receiver,
    /// Whether the broker knows `modified`, which counts a failed delivery, beside `released`.
    modifies: bool,
    /// Service Bus counts deliveries; others say whether we are the first to get a message.
    counts: bool,
}

impl Inlet {
    pub(crate) async fn open(line: &mut Line, queue: &str) -> Result<Self, Failure> {
        let receiver = Receiver::builder()
            .name(format!("inlet-{}", std::process::id()))
            .source(queue)
            .sender_settle_mode(SenderSettleMode::Unsettled)
            .receiver_settle_mode(ReceiverSettleMode::First)
            // So that no message is locked for longer than it takes to apply it.
            .credit_mode(CreditMode::Manual)
            .attach(&mut line.session)
            .await?;
        let outcomes = receiver.source().as_ref().and_then(|it| it.outcomes.as_ref());
        let modifies = outcomes.is_none_or(|all| all.0.iter().any(|one| one.0 == MODIFIED));
        Ok(Self {
            receiver,
            modifies,
            counts: line.badge.is_some(),
        })
    }

    /// Up to `most` messages; none when nothing came for `wait`.
    pub(crate) async fn take(&mut self, most: u32, wait: Duration) -> Result<Vec<Taken>, Lost> {
        let lost = |error: &dyn std::fmt::Display| Lost::new("receiving", error);
        self.receiver
            .set_credit(most)
            .await
            .map_err(|error| lost(&error))?;
        let mut taken = Vec::new();
        let mut patience = wait;
        while taken.len() < usize::try_from(most).unwrap_or(usize::MAX) {
            match timeout(patience, self.receiver.recv::<Body<Value>>()).await {
                Ok(Ok(delivery)) => taken.push(Taken::new(delivery, self.counts)),
                Ok(Err(RecvError::MessageDecode(unreadable))) => {
                    taken.push(Taken::unreadable(unreadable.info));
                }
                Ok(Err(error)) => return Err(lost(&error)),
                Err(_) => break,
            }
            patience = LINGER;
        }
        Ok(taken)
    }

    /// Its transaction has committed: the broker may forget it.
    pub(crate) async fn accept(&self, taken: &Taken) -> Result<(), Lost> {
        let told = self.receiver.accept(taken.lock.clone()).await;
        told.map_err(|error| Lost::new("accepting", error))
    }

    /// No try will help: it goes to the dead-letter queue.
    pub(crate) async fn reject(&self, taken: &Taken, why: &str) -> Result<(), Lost> {
        let mut info = Fields::new();
        for (name, value) in [("DeadLetterReason", "refused"), (DEAD_LETTER_DESCRIPTION, why)] {
            info.insert(Symbol::from(name), Value::String(value.to_owned()));
        }
        let error = AmqpError {
            condition: ErrorCondition::Custom(Symbol::from(DEAD_LETTER)),
            description: Some(why.to_owned()),
            info: Some(Box::new(info)),
        };
        let told = self.receiver.reject(taken.lock.clone(), error).await;
        told.map_err(|error| Lost::new("rejecting", error))
    }

    /// For another try, by whomever. `counted` when the try itself failed: a broker that counts such tries
    /// gives a message up after some of them.
    pub(crate) async fn give_back(&self, taken: &Taken, counted: bool) -> Result<(), Lost> {
        let told = if counted && self.modifies {
            let failed = Modified {
                delivery_failed: Some(true),
                undeliverable_here: None,
                message_annotations: None,
            };
            self.receiver.modify(taken.lock.clone(), failed).await
        } else {
            self.receiver.release(taken.lock.clone()).await
        };
        told.map_err(|error| Lost::new("giving back", error))
    }
}

impl Taken {
    fn new(delivery: Delivery<Body<Value>>, counted: bool) -> Self {
        let lock = DeliveryInfo::from(&delivery);
        let message = delivery.into_message();
        let properties = message.properties.unwrap_or_default();
        let header = message.header;
        Self {
            lock,
            id: properties.message_id.map(text),
            correlation: properties.correlation_id.map(text),
            again: header.is_some_and(|it| it.delivery_count > 0 || !counted && !it.first_acquirer),
            body: bytes(message.body),
            reason: message.application_properties.as_ref().and_then(reason),
        }
    }

    fn unreadable(lock: DeliveryInfo) -> Self {
        Self {
            lock,
            id: None,
            correlation: None,
            again: false,
            body: None,
            reason: None,
        }
    }
}

/// As Service Bus notes it from [`Inlet::reject`].
fn reason(noted: &ApplicationProperties) -> Option<String> {
    match noted.0.get(DEAD_LETTER_DESCRIPTION)? {
        SimpleValue::String(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn text(id: MessageId) -> String {
    match id {
        MessageId::String(text) => text,
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Binary(bytes) => hexadecimal(&bytes),
        MessageId::Uuid(uuid) => hexadecimal(&uuid.into_inner()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Senders differ: bytes in one or several data sections, or a text or bytes as a value.
fn bytes(body: Body<Value>) -> Option<Vec<u8>> {
    match body {
        Body::Data(sections) => Some(
            sections
                .into_iter()
                .flat_map(|section| section.0.into_vec())
                .collect(),
        ),
        Body::Value(value) => match value.0 {
            Value::String(text) => Some(text.into_bytes()),
            Value::Binary(bytes) => Some(bytes.into_vec()),
            _ => None,
        },
        Body::Sequence(_) | Body::Empty => None,
    }
}

pub(crate) struct Outlet(Sender);

impl Outlet {
    pub(crate) async fn open(line: &mut Line, queue: &str) -> Result<Self, Failure> {
        let name = format!("outlet-{}", std::process::id());
        Ok(Self(Sender::attach(&mut line.session, name, queue).await?))
    }

    /// Returns when the broker has stored it.
    pub(crate) async fn send(&mut self, id: &str, correlation: &str, body: Vec<u8>) -> Result<(), Failure> {
        let properties = Properties::builder()
            .message_id(id.to_owned())
            .correlation_id(correlation.to_owned())
            .build();
        let message = Message::builder()
            .header(Header::builder().durable(true).build())
            .properties(properties)
            .data(body)
            .build();
        match self.0.send(message).await? {
            Outcome::Accepted(_) => Ok(()),
            other => Err(format!("the broker did not take {id}: {other:?}").into()),
        }
    }
}

/// The messages of a queue; they go back with the line. AMQP 1.0 has a mode for looking only (`copy`), and
/// neither Service Bus nor RabbitMQ has it; so whoever looks locks them for a moment.
pub(crate) async fn browse(inlet: &mut Inlet) -> Result<Vec<Taken>, Lost> {
    let mut seen = Vec::new();
    let most = usize::try_from(SHOWN_MAX).unwrap_or(usize::MAX);
    while seen.len() < most {
        let some = inlet.take(SHOWN_MAX, LOOK_WAIT).await?;
        if some.is_empty() {
            break;
        }
        seen.extend(some);
    }
    Ok(seen)
}
