//! The streams and durable consumers of this example, and what they know afterwards.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{Context, Message};
use async_nats::{HeaderMap, header};
use futures_util::StreamExt as _;
use sqlserver_inbox::{Domain, Failure};

/// For how long JetStream remembers ids. A worker that is away for longer may publish a result twice.
const DUPLICATES_WINDOW: Duration = Duration::from_secs(3600);
const RESULTS: &str = "RESULTS";
/// JetStream has no dead-letter queue; what it says about terminated messages is kept here.
const TERMINATED: &str = "TERMINATED";
const TERMINATED_SUBJECT: &str = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>";
/// More results than an example publishes.
const RESULTS_SHOWN_MAX: usize = 10_000;
const FETCH_WAIT: Duration = Duration::from_millis(500);

pub(crate) struct Broker {
    jetstream: Context,
    domains: [(Domain, Stream); 2],
    results: Stream,
    terminated: Stream,
}

fn stream_name(domain: Domain) -> &'static str {
    match domain {
        Domain::Orders => "ORDERS",
        Domain::Payments => "PAYMENTS",
    }
}

fn subject(domain: Domain) -> &'static str {
    match domain {
        Domain::Orders => "orders.placed",
        Domain::Payments => "payments.received",
    }
}

impl Broker {
    /// Makes the streams that are not there yet.
    pub(crate) async fn new(jetstream: Context) -> Result<Self, Failure> {
        let make = async |name: &str, subjects: String| {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects],
                duplicate_window: DUPLICATES_WINDOW,
                ..stream::Config::default()
            };
            jetstream.get_or_create_stream(config).await
        };
        let orders = make(stream_name(Domain::Orders), "orders.>".to_owned()).await?;
        let payments = make(stream_name(Domain::Payments), "payments.>".to_owned()).await?;
        let results = make(RESULTS, "results.>".to_owned()).await?;
        let terminated = make(TERMINATED, TERMINATED_SUBJECT.to_owned()).await?;
        Ok(Self {
            jetstream,
            domains: [(Domain::Orders, orders), (Domain::Payments, payments)],
            results,
            terminated,
        })
    }

    /// False when the stream has a message of this id already.
    pub(crate) async fn publish(
        &self,
        domain: Domain,
        id: Option<&str>,
        body: String,
    ) -> Result<bool, Failure> {
        self.store(subject(domain).to_owned(), id, body).await
    }

    /// What became of a message, once for every message and whatever happens to the worker.
    pub(crate) async fn publish_result(
        &self,
        domain: Domain,
        message: &str,
        body: String,
    ) -> Result<bool, Failure> {
        let id = format!("{}:{message}", domain.consumer());
        self.store(format!("results.{}", domain.name()), Some(&id), body)
            .await
    }

    async fn store(&self, subject: String, id: Option<&str>, body: String) -> Result<bool, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert(header::NATS_MESSAGE_ID, id);
        }
        let stored = self
            .jetstream
            .publish_with_headers(subject, headers, body.into())
            .await?;
        Ok(!stored.await?.duplicate)
    }

    /// One durable consumer for every domain; several workers may share it. Deliveries are not limited: a
    /// message that no try will help is terminated, and an outage is not the message's fault.
    /// One that was not answered for `ack_wait` comes again.
    pub(crate) async fn consumer(&self, domain: Domain, ack_wait: Duration) -> Result<PullConsumer, Failure> {
        let config = pull::Config {
            durable_name: Some(domain.consumer().to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            ..pull::Config::default()
        };
        let stream = self.stream(domain)?;
        Ok(stream.get_or_create_consumer(domain.consumer(), config).await?)
    }

    fn stream(&self, domain: Domain) -> Result<&Stream, Failure> {
        let found = self.domains.iter().find(|(known, _)| *known == domain);
        Ok(&found.ok_or("no such domain")?.1)
    }

    pub(crate) async fn fate(&self, domain: Domain) -> Result<Fates, Failure> {
        let stream = self.stream(domain)?;
        let stored = stream.get_info().await?.state.messages;
        let consumer: Result<PullConsumer, _> = stream.get_consumer(domain.consumer()).await;
        let consumer = consumer.map_err(|error| format!("{}: {error}", domain.consumer()))?;
        let consumer = consumer.get_info().await?;
        let terminated = format!(
            "{}.{}.{}",
            TERMINATED_SUBJECT.trim_end_matches(".>"),
            stream_name(domain),
            domain.consumer()
        );
        let terminated = read_all(&self.terminated, terminated).await?.len();
        Ok(Fates {
            stored,
            waiting: consumer.num_pending,
            unanswered: consumer.num_ack_pending,
            // The one counts deliveries, the other messages: this consumer gets all of its stream.
            redelivered: consumer.delivered.consumer_sequence - consumer.delivered.stream_sequence,
            terminated,
        })
    }

    pub(crate) async fn results(&self) -> Result<Vec<String>, Failure> {
        let messages = read_all(&self.results, "results.>".to_owned()).await?;
        let shown = messages.iter().map(|message| {
            let body = String::from_utf8_lossy(&message.payload);
            format!("{} {body}", message.subject)
        });
        Ok(shown.collect())
    }
}

/// Everything that is stored under a subject, with a consumer that is gone afterwards.
async fn read_all(stream: &Stream, subject: String) -> Result<Vec<Message>, Failure> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        filter_subject: subject,
        ..pull::Config::default()
    };
    let consumer: consumer::Consumer<pull::Config> = stream.create_consumer(config).await?;
    let mut batch = consumer
        .fetch()
        .max_messages(RESULTS_SHOWN_MAX)
        .expires(FETCH_WAIT)
        .messages()
        .await?;
    let mut messages = Vec::new();
    while let Some(message) = batch.next().await {
        messages.push(message?);
    }
    Ok(messages)
}

/// The messages of one domain, as the broker counts them.
#[derive(Debug)]
pub(crate) struct Fates {
    stored: u64,
    waiting: u64,
    unanswered: usize,
    redelivered: u64,
    terminated: usize,
}

impl fmt::Display for Fates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "stored {}, waiting {}, unanswered {}, delivered again {}, terminated {}",
            self.stored, self.waiting, self.unanswered, self.redelivered, self.terminated
        )
    }
}
