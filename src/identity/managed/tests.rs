//! Tokens from stand-ins for Azure's endpoints on loopback, which count what they are asked, and a clock
//! that moves when the test says so.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::identity::tests::{FakeClock, NOW, now, until};

const RESOURCE: &str = "https://ossrdbms-aad.database.windows.net";

/// Answers every request with what the test says, and keeps the requests.
struct StandIn {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    says: Arc<Mutex<(String, String)>>,
}

impl StandIn {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stand_in = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            says: Arc::default(),
        };
        let (asked, says) = (Arc::clone(&stand_in.asked), Arc::clone(&stand_in.says));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                asked.lock().unwrap().push(request);
                let (head, body) = says.lock().unwrap().clone();
                if head == "silence" {
                    tokio::spawn(async move { socket.read_u8().await });
                    continue;
                }
                let length = body.len();
                let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        stand_in.gives("first", 3_600);
        stand_in
    }

    /// `head` is the status, and headers after line breaks.
    fn says(&self, head: &str, body: &str) {
        *self.says.lock().unwrap() = (head.to_owned(), body.to_owned());
    }

    fn gives(&self, token: &str, seconds: u64) {
        let body = format!(r#"{{"access_token": "{token}", "expires_in": "{seconds}"}}"#);
        self.says("200 OK", &body);
    }

    fn fails(&self) {
        self.says("500 Oops", "oops");
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn last(&self) -> String {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    fn imds(&self) -> Endpoint {
        Endpoint::Imds {
            origin: format!("http://{}", self.address),
            client_id: None,
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        if socket.read_buf(&mut request).await.unwrap() == 0 {
            return text;
        }
    }
}

fn identity(endpoint: Endpoint, clock: Arc<dyn Clock>) -> ManagedIdentity {
    let resource = RESOURCE.to_owned();
    ManagedIdentity::new(Settings { endpoint, resource }, None, clock)
}

async fn bench() -> (StandIn, ManagedIdentity, Arc<FakeClock>) {
    let stand_in = StandIn::start().await;
    let clock = Arc::new(FakeClock::default());
    let identity = identity(stand_in.imds(), clock.clone());
    (stand_in, identity, clock)
}

impl ManagedIdentity {
    async fn shown(&self) -> Result<String, String> {
        let token = self.token().await;
        token
            .map(|token| token.expose().clone())
            .map_err(|error| error.to_string())
    }

    fn failures(&self) -> u32 {
        self.0.state().failing.as_ref().map_or(0, |failing| failing.count)
    }

    /// One request more, whatever comes of it.
    async fn fail_once_more(&self) {
        let before = self.failures();
        self.0.tend();
        until("a failure", || self.failures() == before + 1).await;
    }
}

#[tokio::test]
async fn one_token_serves_everybody_and_the_next_is_fetched_from_half_of_its_life() {
    let (stand_in, identity, clock) = bench().await;
    // All at once, and all of them wait for one request.
    let (a, b, c) = tokio::join!(identity.shown(), identity.shown(), identity.shown());
    assert_eq!([a, b, c].map(Result::unwrap), ["first", "first", "first"]);
    clock.pass(1_799);
    identity.0.tend();
    assert_eq!(identity.shown().await.unwrap(), "first");
    assert_eq!(stand_in.asked(), 1);
    stand_in.gives("second", 3_600);
    clock.pass(1);
    // Nobody waits for it.
    assert_eq!(identity.shown().await.unwrap(), "first");
    until("the second", || stand_in.asked() == 2).await;
    until("the second is held", || identity.0.state().running.is_none()).await;
    assert_eq!(identity.shown().await.unwrap(), "second");
    // Without anybody asking.
    stand_in.gives("third", 3_600);
    clock.pass(1_800);
    identity.0.tend();
    until("the third is held", || identity.0.state().running.is_none()).await;
    assert_eq!(identity.shown().await.unwrap(), "third");
    assert_eq!(stand_in.asked(), 3);
}

#[tokio::test]
async fn the_last_good_token_serves_while_the_source_is_away_and_no_longer() {
    let (stand_in, identity, clock) = bench().await;
    identity.shown().await.unwrap();
    stand_in.fails();
    clock.pass(1_800);
    for failures in 1..=4 {
        assert_eq!(identity.shown().await.unwrap(), "first");
        until("a failure", || identity.failures() == failures).await;
        clock.pass(60);
    }
    clock.pass(3_600 - 1_800 - 240 - 16);
    assert_eq!(identity.shown().await.unwrap(), "first");
    until("a failure", || identity.failures() == 5).await;
    clock.pass(1);
    let asked = stand_in.asked();
    let why = identity.shown().await.unwrap_err();
    assert!(why.contains("answered 500"), "{why}");
    assert_eq!(
        stand_in.asked(),
        asked,
        "it rests, and says at once what was wrong"
    );
    stand_in.gives("second", 3_600);
    clock.pass(60);
    assert_eq!(identity.shown().await.unwrap(), "second");
    assert_eq!(identity.failures(), 0);
}

/// On a clock that runs.
#[derive(Debug)]
struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> SystemTime {
        now()
    }

    fn uptime(&self) -> Duration {
        self.0.elapsed()
    }
}

#[tokio::test]
async fn who_has_no_token_waits_for_the_next_attempt_after_a_blip() {
    let stand_in = StandIn::start().await;
    stand_in.says("410 Gone", "");
    let clock = Arc::new(Running(Instant::now()));
    let identity = identity(stand_in.imds(), clock);
    let recovering = async {
        until("the first attempt", || identity.failures() == 1).await;
        stand_in.gives("after-all", 60);
    };
    let (shown, ()) = tokio::join!(identity.shown(), recovering);
    assert_eq!(shown.unwrap(), "after-all");
    assert_eq!(stand_in.asked(), 2);
}

#[tokio::test]
async fn after_three_failures_nobody_is_kept_waiting() {
    let (stand_in, identity, clock) = bench().await;
    stand_in.fails();
    for rest in [1, 2, 4] {
        identity.fail_once_more().await;
        clock.pass(rest - 1);
        let asked = stand_in.asked();
        identity.0.tend();
        assert_eq!(stand_in.asked(), asked);
        assert!(identity.0.state().running.is_none(), "too soon after {rest}");
        if rest < 4 {
            clock.pass(1);
        }
    }
    let why = identity.shown().await.unwrap_err();
    assert!(why.contains("answered 500"), "{why}");
    assert_eq!(stand_in.asked(), 3);
}

#[tokio::test]
async fn a_refusal_is_told_at_once_in_the_issuers_words() {
    let (stand_in, identity, clock) = bench().await;
    stand_in.says(
        "400 Bad Request",
        r#"{"error": "invalid_request", "error_description": "Identity not found"}"#,
    );
    for _ in 0..3 {
        let why = identity.shown().await.unwrap_err();
        assert!(
            why.ends_with("answered 400 (invalid_request: Identity not found)"),
            "{why}"
        );
    }
    assert_eq!(stand_in.asked(), 1);
    // Somebody assigns the identity.
    stand_in.gives("assigned", 60);
    clock.pass(10);
    assert_eq!(identity.shown().await.unwrap(), "assigned");
}

#[tokio::test]
async fn a_source_that_says_when_to_come_again_is_believed_within_bounds() {
    let (stand_in, identity, clock) = bench().await;
    for (said, rest) in [("30", 30), ("86400", 60)] {
        stand_in.says(&format!("429 Slow Down\r\nRetry-After: {said}"), "");
        identity.fail_once_more().await;
        clock.pass(rest - 1);
        identity.0.tend();
        assert!(identity.0.state().running.is_none(), "{said}");
        clock.pass(1);
    }
    assert_eq!(stand_in.asked(), 2);
}

#[tokio::test]
async fn what_is_no_token_is_a_failure_that_repeats_nothing() {
    let (stand_in, identity, clock) = bench().await;
    let large = "x".repeat(ANSWER_BYTES_MAX + 1);
    for (body, told) in [
        ("<html>hunter2", "not a JSON object"),
        (r#"{"access_token": "hunter2", "expires_on": 1}"#, "ended already"),
        (r#"{"access_token": "hunter2"}"#, "does not say when"),
        (
            r#"{"access_token": "hunter2", "expires_in": 9}"#,
            "good for 9 s only",
        ),
        (large.as_str(), "larger than 64 KiB"),
    ] {
        stand_in.says("200 OK", body);
        identity.fail_once_more().await;
        let why = identity.0.state().failing.as_ref().unwrap().why.clone();
        assert!(why.contains(told), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
        clock.pass(60);
    }
}

#[tokio::test]
async fn a_source_that_is_silent_or_gone_is_a_failure_too() {
    let stand_in = StandIn::start().await;
    stand_in.says("silence", "");
    let mut silent = identity(stand_in.imds(), Arc::new(FakeClock::default()));
    Arc::get_mut(&mut silent.0).unwrap().attempt_max = Duration::from_millis(20);
    silent.fail_once_more().await;
    let why = |of: &ManagedIdentity| of.0.state().failing.as_ref().unwrap().why.clone();
    assert!(
        why(&silent).contains("did not answer in time"),
        "{}",
        why(&silent)
    );

    let port = TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let origin = format!("http://{port}");
    let gone = Endpoint::Imds {
        origin,
        client_id: None,
    };
    let gone = identity(gone, Arc::new(FakeClock::default()));
    gone.fail_once_more().await;
    assert!(
        why(&gone).contains("cannot connect to 127.0.0.1"),
        "{}",
        why(&gone)
    );
}

#[tokio::test]
async fn whoever_gives_up_does_not_end_the_request() {
    let (stand_in, identity, _) = bench().await;
    let waited = timeout(Duration::ZERO, identity.shown()).await;
    assert!(waited.is_err());
    until("the token", || identity.0.state().held.is_some()).await;
    assert_eq!(identity.shown().await.unwrap(), "first");
    assert_eq!(stand_in.asked(), 1);
}

#[tokio::test]
async fn plain_http_does_not_leave_this_machine_and_its_link() {
    for (origin, may) in [
        ("http://192.0.2.1", false),
        ("http://metadata.example", false),
        ("ftp://127.0.0.1", false),
        // Without authorities there is no https.
        ("https://127.0.0.1", false),
        ("http://127.0.0.1:1", true),
    ] {
        let endpoint = Endpoint::Imds {
            origin: origin.to_owned(),
            client_id: None,
        };
        let identity = identity(endpoint, Arc::new(FakeClock::default()));
        let failure = identity.0.fetch().await.map(drop).unwrap_err();
        let refused = failure.why.contains("is not an https address");
        assert_eq!(refused, !may, "{origin}: {}", failure.why);
    }
}

#[tokio::test]
async fn each_source_is_asked_as_azure_wants_it() {
    let stand_in = StandIn::start().await;
    let clock = || Arc::new(FakeClock::default());
    identity(stand_in.imds(), clock()).shown().await.unwrap();
    let asked = stand_in.last();
    assert!(
        asked.starts_with(
            "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2F"
        ),
        "{asked}"
    );
    assert!(asked.to_lowercase().contains("\r\nmetadata: true\r\n"), "{asked}");

    // The answer has the moment of the end alone.
    let ends = NOW + 600;
    let body = format!(r#"{{"access_token": "of the app", "expires_on": "{ends}", "token_type": "Bearer"}}"#);
    stand_in.says("200 OK", &body.replace("of the app", "of-the-app"));
    let app = Endpoint::AppService {
        url: format!("http://{}/msi/token", stand_in.address),
        header: Secret::new("proof".to_owned()),
        client_id: Some("c".to_owned()),
    };
    assert_eq!(identity(app, clock()).shown().await.unwrap(), "of-the-app");
    let asked = stand_in.last();
    assert!(
        asked.starts_with("GET /msi/token?api-version=2019-08-01&resource="),
        "{asked}"
    );
    assert!(
        asked.to_lowercase().contains("\r\nx-identity-header: proof\r\n"),
        "{asked}"
    );

    let folder = tempfile::tempdir().unwrap();
    let assertion = folder.path().join("token");
    std::fs::write(&assertion, "a.b.c\n").unwrap();
    let workload = || Endpoint::Workload {
        authority: format!("http://{}", stand_in.address),
        tenant: "1a1a".to_owned(),
        client_id: "client".to_owned(),
        assertion: assertion.clone(),
    };
    stand_in.gives("exchanged", 3_600);
    let clock = clock();
    let federated = identity(workload(), clock.clone());
    assert_eq!(federated.shown().await.unwrap(), "exchanged");
    let asked = stand_in.last();
    assert!(
        asked.starts_with("POST /1a1a/oauth2/v2.0/token HTTP/1.1"),
        "{asked}"
    );
    assert!(asked.ends_with("&client_assertion=a.b.c"), "{asked}");
    // The cluster has replaced its token by the next time.
    std::fs::write(&assertion, "d.e.f").unwrap();
    clock.pass(3_600);
    federated.shown().await.unwrap();
    assert!(stand_in.last().ends_with("&client_assertion=d.e.f"));
}

#[tokio::test]
async fn a_refused_exchange_shows_no_assertion() {
    let stand_in = StandIn::start().await;
    let folder = tempfile::tempdir().unwrap();
    let assertion = folder.path().join("token");
    let workload = Endpoint::Workload {
        authority: format!("http://{}", stand_in.address),
        tenant: "1a1a".to_owned(),
        client_id: "client".to_owned(),
        assertion: assertion.clone(),
    };
    let identity = identity(workload, Arc::new(FakeClock::default()));
    let why = async || identity.0.fetch().await.map(drop).unwrap_err().why;
    assert!(why().await.starts_with("cannot read "));
    std::fs::write(&assertion, "hunter2 hunter2").unwrap();
    assert!(why().await.ends_with("holds no token"));
    std::fs::write(&assertion, "hunter2").unwrap();
    stand_in.says(
        "401 No",
        r#"{"error": "invalid_client", "error_description": "you sent hunter2"}"#,
    );
    let told = why().await;
    assert!(told.ends_with("/1a1a/oauth2/v2.0/token answered 401"), "{told}");
}
