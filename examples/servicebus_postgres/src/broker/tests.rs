//! The broker's side against a stand-in for Azure Service Bus: AMQP inside TLS, SASL ANONYMOUS, a node `$cbs`
//! that takes tokens, and a queue that nobody has without one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, LinkAcceptor, LinkEndpoint, SaslAnonymousMechanism, SessionAcceptor,
};
use fe2o3_amqp::types::definitions::{AmqpError, Error as LinkError, ErrorCondition};
use fe2o3_amqp::types::messaging::{ApplicationProperties, Body, Message, MessageId, Outcome, Properties};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Sender};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::{Broker, Inlet, Line};

const GOOD: &str = "a good token";
const RENEWED: &str = "a good token, renewed";
const WAIT: Duration = Duration::from_secs(5);

/// What the stand-in saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Token {
        kind: String,
        audience: String,
        token: String,
    },
    Settled(Outcome),
}

struct Cloud {
    broker: Broker,
    token: std::path::PathBuf,
    seen: mpsc::UnboundedReceiver<Seen>,
    _folder: tempfile::TempDir,
}

impl Cloud {
    /// Serves one connection, with one message in its queue.
    async fn start(token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = certificate(&folder.path().join("ca.crt"));
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(acceptor, stream, tell).await;
        });
        let file = folder.path().join("token");
        std::fs::write(&file, token).unwrap();
        let broker = Broker {
            url: format!("amqps://localhost:{port}").parse().unwrap(),
            ca: Some(folder.path().join("ca.crt")),
            user: None,
            password_file: None,
            cbs_token_file: Some(file.clone()),
        };
        Self {
            broker,
            token: file,
            seen,
            _folder: folder,
        }
    }

    async fn saw(&mut self) -> Seen {
        tokio::time::timeout(WAIT, self.seen.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn certificate(ca: &Path) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(tls: TlsAcceptor, stream: TcpStream, tell: mpsc::UnboundedSender<Seen>) {
    let stream = tls.accept(stream).await.unwrap();
    let acceptor = ConnectionAcceptor::builder()
        .container_id("cloud")
        .sasl_acceptor(SaslAnonymousMechanism {})
        .build();
    let mut connection = acceptor.accept(stream).await.unwrap();
    let mut session = SessionAcceptor::new().accept(&mut connection).await.unwrap();
    let links = LinkAcceptor::new();
    let mut requests = None;
    // Permitted while a good token was put last.
    let permitted = Arc::new(std::sync::atomic::AtomicBool::new(false));
    while let Ok(link) = links.accept(&mut session).await {
        match link {
            LinkEndpoint::Receiver(receiver) => requests = Some(receiver),
            LinkEndpoint::Sender(answers) if address(&answers) == "$cbs" => {
                let requests = requests.take().unwrap();
                tokio::spawn(cbs(requests, answers, Arc::clone(&permitted), tell.clone()));
            }
            LinkEndpoint::Sender(queue) => {
                assert_eq!(address(&queue), "orders");
                if permitted.load(std::sync::atomic::Ordering::Relaxed) {
                    tokio::spawn(one_message(queue, tell.clone()));
                } else {
                    let condition = ErrorCondition::AmqpError(AmqpError::UnauthorizedAccess);
                    let _ = queue
                        .close_with_error(LinkError::new(condition, None, None))
                        .await;
                }
            }
        }
    }
}

fn address(sender: &Sender) -> String {
    let source = sender.source().as_ref().unwrap();
    source.address.clone().unwrap()
}

async fn cbs(
    mut requests: Receiver,
    mut answers: Sender,
    permitted: Arc<std::sync::atomic::AtomicBool>,
    tell: mpsc::UnboundedSender<Seen>,
) {
    while let Ok(request) = requests.recv::<Body<Value>>().await {
        requests.accept(&request).await.unwrap();
        let message = request.into_message();
        let said = message.application_properties.unwrap();
        let said = |name: &str| match said.0.get(name) {
            Some(SimpleValue::String(text)) => text.clone(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said("operation"), "put-token");
        let Ok(Value::String(token)) = message.body.try_into_value() else {
            panic!("the token is not a string");
        };
        let good = token == GOOD || token == RENEWED;
        permitted.store(good, std::sync::atomic::Ordering::Relaxed);
        let (kind, audience) = (said("type"), said("name"));
        tell.send(Seen::Token {
            kind,
            audience,
            token,
        })
        .unwrap();
        let id = message.properties.unwrap().message_id.unwrap();
        // One that nobody waits for any more comes first.
        for id in [MessageId::from("put-token-0".to_owned()), id] {
            answers.send(answer(id, good)).await.unwrap();
        }
    }
}

fn answer(to: MessageId, good: bool) -> Message<fe2o3_amqp::types::messaging::AmqpValue<Value>> {
    let (code, why) = if good {
        (202, "Accepted")
    } else {
        (401, "InvalidIssuer: token is not for us")
    };
    let said = ApplicationProperties::builder()
        .insert("status-code", SimpleValue::Int(code))
        .insert("status-description", why)
        .build();
    Message::builder()
        .properties(Properties::builder().correlation_id(to).build())
        .application_properties(said)
        .value(Value::Null)
        .build()
}

async fn one_message(mut queue: Sender, tell: mpsc::UnboundedSender<Seen>) {
    let message = Message::builder()
        .properties(
            Properties::builder()
                .message_id("m-1".to_owned())
                .correlation_id("case-1".to_owned())
                .build(),
        )
        .data(b"{}".to_vec())
        .build();
    let outcome = queue.send(message).await.unwrap();
    tell.send(Seen::Settled(outcome)).unwrap();
    // The link lives as long as the connection.
    let _ = queue.on_detach().await;
}

#[tokio::test]
async fn a_token_opens_the_queue_and_is_renewed() {
    let mut cloud = Cloud::start(GOOD).await;
    let mut line = Line::open(&cloud.broker, "orders").await.unwrap();
    let put = |token: &str| Seen::Token {
        kind: "jwt".to_owned(),
        audience: "amqps://localhost/orders".to_owned(),
        token: token.to_owned(),
    };
    assert_eq!(cloud.saw().await, put(GOOD));

    let mut inlet = Inlet::open(&mut line, "orders").await.unwrap();
    let taken = inlet.take(10, WAIT).await.unwrap();
    let [one] = taken.as_slice() else {
        panic!("{taken:?}");
    };
    assert_eq!(one.id.as_deref(), Some("m-1"));
    assert_eq!(one.correlation.as_deref(), Some("case-1"));
    assert_eq!(one.body.as_deref(), Some(&b"{}"[..]));
    assert!(!one.again);
    // Nothing is settled by receiving it.
    assert!(cloud.seen.try_recv().is_err());
    inlet.accept(one).await.unwrap();
    assert!(matches!(cloud.saw().await, Seen::Settled(Outcome::Accepted(_))));

    // The file has not changed: there is nothing to put.
    line.badge.as_mut().unwrap().be_due();
    line.keep().await.unwrap();
    std::fs::write(&cloud.token, RENEWED).unwrap();
    line.badge.as_mut().unwrap().be_due();
    line.keep().await.unwrap();
    assert_eq!(cloud.saw().await, put(RENEWED));
}

#[tokio::test]
async fn a_token_that_is_refused_says_why() {
    let cloud = Cloud::start("a bad token").await;
    let Err(failure) = Line::open(&cloud.broker, "orders").await else {
        panic!("the token was taken");
    };
    assert_eq!(
        failure.to_string(),
        "`$cbs` refused the token: 401 InvalidIssuer: token is not for us"
    );
}

#[tokio::test]
async fn without_a_token_there_is_no_queue() {
    let mut cloud = Cloud::start(GOOD).await;
    cloud.broker.cbs_token_file = None;
    let mut line = Line::open(&cloud.broker, "orders").await.unwrap();
    let taken = match Inlet::open(&mut line, "orders").await {
        Ok(mut inlet) => inlet.take(10, WAIT).await.map_err(|lost| lost.to_string()),
        Err(failure) => Err(failure.to_string()),
    };
    let refused = taken.unwrap_err();
    assert!(refused.contains("UnauthorizedAccess"), "{refused}");
}

/// What the broker is told when a message is settled in this way.
async fn settled(settle: impl AsyncFnOnce(&mut Inlet, &super::Taken)) -> Outcome {
    let mut cloud = Cloud::start(GOOD).await;
    let mut line = Line::open(&cloud.broker, "orders").await.unwrap();
    cloud.saw().await;
    let mut inlet = Inlet::open(&mut line, "orders").await.unwrap();
    let taken = inlet.take(1, WAIT).await.unwrap();
    settle(&mut inlet, &taken[0]).await;
    match cloud.saw().await {
        Seen::Settled(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dead_letter_has_its_reason() {
    let outcome = settled(async |inlet: &mut Inlet, taken: &super::Taken| {
        inlet.reject(taken, "no order").await.unwrap();
    });
    let Outcome::Rejected(rejected) = outcome.await else {
        panic!("not rejected");
    };
    let error = format!("{:?}", rejected.error);
    assert!(error.contains("com.microsoft:dead-letter"), "{error}");
    assert!(
        error.contains("DeadLetterErrorDescription") && error.contains("no order"),
        "{error}"
    );
}

#[tokio::test]
async fn a_try_that_failed_counts_and_an_outage_does_not() {
    let counted = settled(async |inlet: &mut Inlet, taken: &super::Taken| {
        inlet.give_back(taken, true).await.unwrap();
    });
    let Outcome::Modified(modified) = counted.await else {
        panic!("not modified");
    };
    assert_eq!(modified.delivery_failed, Some(true));
    let outage = settled(async |inlet: &mut Inlet, taken: &super::Taken| {
        inlet.give_back(taken, false).await.unwrap();
    });
    assert!(matches!(outage.await, Outcome::Released(_)));
}

#[test]
fn a_password_or_a_token_in_clear_is_for_loopback_alone() {
    let is_loopback = |url: &str| super::is_loopback(&url.parse().unwrap());
    for near in ["amqp://localhost", "amqp://127.0.0.1:5672", "amqp://[::1]:5672"] {
        assert!(is_loopback(near), "{near}");
    }
    for far in [
        "amqp://broker.internal",
        "amqp://10.0.0.1",
        "amqp://localhost.example",
    ] {
        assert!(!is_loopback(far), "{far}");
    }
}
