//! The API over real sockets, in front of a proxy that only remembers what it was asked.

mod calls;
mod routes;
mod tickets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::admin::client::{ApiAddress, Reach};
use crate::admin::ticket::{NoTicket, TicketRefused, TicketView, TicketWish, Wishing};
use crate::admin::view::{LoginsView, NewRevocation, PolicyView, PoolView, Reloaded, RevocationView};
use crate::admin::{ApiDoor, Proxy, SocketDoor, Trouble, Waiting};
use crate::audit::{AdminCall, AdminResult, Facts, JournalError};
use crate::credential::Rotated;
use crate::domain::{Claimed, Identity, Mistake, Network, ProviderName, Secret, TargetName, TicketId};
use crate::identity::{IssueError, ShownFrom, TokenError};
use crate::policy::{self, AdminPermit, AdminRights, Policy, SourceText, Surroundings};
use crate::session::roster::SessionView;
use crate::tls::{self, ServerSettings, ServerTls};

/// Believes tokens of the form `good.<subject>`; what the subjects may do says this policy, in which
/// everybody of the name of an action may ask for that action alone.
#[derive(Debug)]
pub(super) struct Fake {
    policy: Policy,
    tls: Mutex<Option<Arc<ServerTls>>>,
    pub(super) seen: Mutex<Vec<String>>,
    pub(super) journal_fails: AtomicBool,
    /// So many tickets were asked for from everywhere.
    pub(super) addresses_wait: AtomicBool,
}

impl Fake {
    fn new() -> Arc<Self> {
        let mut text =
            "version: 1\nadmin:\n  - {name: boss, identity: {provider: dev, subject: boss}, allow: [all]}\n"
                .to_owned();
        for action in crate::domain::AdminAction::ALL {
            let line = format!(
                "  - {{name: {action}, identity: {{provider: dev, subject: {action}}}, allow: [{action}]}}\n"
            );
            text.push_str(&line);
        }
        let around = Surroundings {
            providers: ["dev".into()].into(),
            targets: BTreeMap::new(),
        };
        let source = SourceText {
            path: "p.yaml".into(),
            text,
        };
        Arc::new(Self {
            policy: policy::load(&[source], &around).unwrap().policy,
            tls: Mutex::default(),
            seen: Mutex::default(),
            journal_fails: AtomicBool::new(false),
            addresses_wait: AtomicBool::new(false),
        })
    }

    fn see(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    /// What was asked and recorded since the last look.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn write(&self, how: &str, facts: &Facts, call: &AdminCall) {
        let who = match (&facts.identity, call.uid) {
            (Some(identity), _) => identity.subject.clone(),
            (None, Some(_)) => "local".to_owned(),
            (None, None) => "stranger".to_owned(),
        };
        let result = match call.result {
            AdminResult::Permitted => "permitted",
            AdminResult::Done => "done",
            AdminResult::Refused => "refused",
            AdminResult::Failed => "failed",
        };
        let what = call
            .what
            .as_deref()
            .map_or_else(String::new, |what| format!(" [{what}]"));
        assert_eq!(call.door, if call.uid.is_some() { "socket" } else { "api" });
        assert_eq!(facts.client.is_some(), call.uid.is_none());
        self.see(format!("{how} {who} {} {result}{what}", call.action));
    }
}

fn identity(subject: &str) -> Identity {
    Identity {
        provider: "dev".into(),
        subject: subject.to_owned(),
        client_id: None,
        tenant: None,
        name: None,
        roles: Claimed::none(),
        groups: Claimed::none(),
        scopes: Claimed::none(),
        token_id: None,
        expires_at: SystemTime::UNIX_EPOCH,
        claims: serde_json::Map::new(),
    }
}

impl Proxy for Fake {
    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.lock().unwrap().clone()
    }

    fn verify<'a>(&'a self, token: &'a Secret<Vec<u8>>) -> Waiting<'a, Result<Arc<Identity>, TokenError>> {
        let text = String::from_utf8(token.expose().clone()).unwrap();
        Box::pin(async move {
            match text.strip_prefix("good.") {
                Some(subject) => Ok(Arc::new(identity(subject))),
                None if text.starts_with("down.") => Err(TokenError::Unavailable {
                    provider: "dev".into(),
                }),
                None => Err(TokenError::Signature {
                    provider: "dev".into(),
                }),
            }
        })
    }

    fn admit_wish(&self, who: Wishing<'_>) -> Result<(), Duration> {
        match who {
            Wishing::Address(_) if self.addresses_wait.load(Ordering::SeqCst) => Err(Duration::from_secs(60)),
            Wishing::Identity(key) if key.subject == "greedy" => Err(Duration::from_millis(29_001)),
            Wishing::Address(_) | Wishing::Identity(_) => Ok(()),
        }
    }

    /// Only `client` is granted anything, and only at `orders`; other names stand for other troubles.
    fn issue_ticket(&self, wish: TicketWish) -> Waiting<'_, Result<TicketView, TicketRefused>> {
        let (who, target) = (wish.identity.subject.clone(), wish.target.clone());
        let why = match target.as_str() {
            _ if who != "client" => Some(NoTicket::NoGrant),
            "orders" => None,
            "revoked" => Some(NoTicket::Revoked),
            "elsewhere" => Some(NoTicket::AddressNotOffered),
            "full" => Some(NoTicket::Issue(IssueError::TooMany)),
            "late" => Some(NoTicket::Issue(IssueError::TokenExpired {
                ago: Duration::from_secs(7),
            })),
            "unrecorded" => Some(NoTicket::Unrecorded),
            _ => Some(NoTicket::NoGrant),
        };
        if let Some(why) = why {
            let facts = Box::new(wish.facts);
            return Box::pin(async { Err(TicketRefused { facts, why }) });
        }
        let from = wish.from.map_or("own".to_owned(), |from| from.to_string());
        let lifetime = wish.lifetime.as_secs();
        let times = if wish.single_use { "once" } else { "often" };
        self.see(format!("act ticket {who} {target} {from} {lifetime} {times}"));
        let made = TicketView {
            ticket: Secret::new("gpt_0a".to_owned()),
            id: TicketId::random(&crate::tls::SystemRandom),
            expires_at: SystemTime::UNIX_EPOCH + wish.lifetime,
            target: "orders/orders".to_owned(),
            bound_to: ShownFrom::Network(Network::of(wish.peer.ip())),
            single_use: wish.single_use,
        };
        Box::pin(async { Ok(made) })
    }

    fn note_no_ticket(&self, facts: Facts, code: &'static str, reason: String) {
        let who = facts.identity.map_or("stranger".to_owned(), |it| it.subject);
        assert!(facts.client.is_some() && !reason.is_empty());
        self.see(format!("note {who} ticket {code}"));
    }

    fn rights(&self, identity: &Identity) -> AdminRights {
        self.policy.admin(identity)
    }

    fn note(&self, facts: Facts, call: AdminCall) {
        self.write("note", &facts, &call);
    }

    fn record(&self, facts: Facts, call: AdminCall) -> Waiting<'_, Result<(), JournalError>> {
        if self.journal_fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(JournalError::QueueFull) });
        }
        self.write("record", &facts, &call);
        Box::pin(async { Ok(()) })
    }

    fn sessions(&self, permit: AdminPermit) -> Vec<SessionView> {
        self.see(format!("act {}", permit.action()));
        Vec::new()
    }

    fn kill(&self, permit: AdminPermit, reference: &str) -> bool {
        self.see(format!("act {} {reference}", permit.action()));
        reference == "s-1"
    }

    fn pools(&self, permit: AdminPermit) -> Vec<PoolView> {
        self.see(format!("act {}", permit.action()));
        (0..10_001)
            .map(|number| PoolView {
                target: TargetName::new(format!("t{number}")),
                max: 20,
                lent: 1,
                idle: 2,
                waiting: 0,
            })
            .collect()
    }

    fn logins(&self, permit: AdminPermit) -> Waiting<'_, LoginsView> {
        self.see(format!("act {}", permit.action()));
        Box::pin(async { LoginsView::default() })
    }

    fn rotate_logins(
        &self,
        permit: AdminPermit,
        target: Option<TargetName>,
    ) -> Waiting<'_, Result<Vec<Rotated>, Trouble>> {
        self.see(format!("act {} {target:?}", permit.action()));
        Box::pin(async { Ok(Vec::new()) })
    }

    fn policy(&self, permit: AdminPermit) -> PolicyView {
        self.see(format!("act {}", permit.action()));
        PolicyView {
            version: "v".into(),
            files: vec![],
            rules: 0,
            admin_rules: 12,
            roles: 0,
            epoch: 1,
            loaded_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn reload(&self, permit: AdminPermit) -> Waiting<'_, Result<Reloaded, Trouble>> {
        self.see(format!("act {}", permit.action()));
        let mistake = Mistake::at(Path::new("p.yaml"), "a: b\n", 1, 4, "not that");
        Box::pin(async { Err(Trouble::Mistakes(vec![mistake])) })
    }

    fn refresh_keys(&self, permit: AdminPermit, provider: ProviderName) -> Waiting<'_, Result<(), Trouble>> {
        self.see(format!("act {} {provider}", permit.action()));
        Box::pin(async { Err(Trouble::Unavailable("it does not answer".to_owned())) })
    }

    fn revocations(&self, permit: AdminPermit) -> Vec<RevocationView> {
        self.see(format!("act {}", permit.action()));
        Vec::new()
    }

    fn revoke(
        &self,
        permit: AdminPermit,
        revocation: NewRevocation,
    ) -> Waiting<'_, Result<RevocationView, Trouble>> {
        self.see(format!("act {} by {}", permit.action(), revocation.by));
        let made = revocation.at(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        Box::pin(async move { Ok(RevocationView::from(&made)) })
    }

    fn lift(&self, permit: AdminPermit, id: String) -> Waiting<'_, Result<(), Trouble>> {
        self.see(format!("act {} {id}", permit.action()));
        Box::pin(async { Ok(()) })
    }
}

/// Both doors open in front of a fake; they close when this is dropped.
pub(super) struct House {
    pub(super) fake: Arc<Fake>,
    pub(super) address: SocketAddr,
    pub(super) folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

impl House {
    pub(super) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        *fake.tls.lock().unwrap() = Some(certificate(folder.path(), "ca.crt"));
        let (stop, stopped) = watch::channel(false);
        let api = ApiDoor::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = api.address().unwrap();
        let socket = SocketDoor::bind(&folder.path().join("admin.sock")).await.unwrap();
        let proxy: Arc<dyn Proxy> = fake.clone();
        tokio::spawn(api.serve(Arc::clone(&proxy), stopped.clone()));
        tokio::spawn(socket.serve(proxy, stopped));
        Self {
            fake,
            address,
            folder,
            _stop: stop,
        }
    }

    /// From now on the API shows another certificate, signed by itself.
    pub(super) fn change_certificate(&self, file: &str) {
        *self.fake.tls.lock().unwrap() = Some(certificate(self.folder.path(), file));
    }

    pub(super) fn reach_api(&self, subject: &str, ca: &str) -> Reach {
        let url = format!("https://127.0.0.1:{}", self.address.port());
        let token = Secret::new(format!("good.{subject}"));
        Reach::Api(ApiAddress::new(&url, token, Some(self.folder.path().join(ca))).unwrap())
    }

    pub(super) fn reach_socket(&self) -> Reach {
        Reach::Socket(self.folder.path().join("admin.sock"))
    }

    /// Raw bytes through the TLS door, and everything that comes back.
    pub(super) async fn api(&self, request: &str) -> Reply {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let ca = self.folder.path().join("ca.crt");
        let stream = tls::connect_https(socket, "127.0.0.1", Some(&ca)).await.unwrap();
        exchange(stream, request).await
    }

    pub(super) async fn socket(&self, request: &str) -> Reply {
        let stream = UnixStream::connect(self.folder.path().join("admin.sock"));
        exchange(stream.await.unwrap(), request).await
    }
}

fn certificate(folder: &Path, file: &str) -> Arc<ServerTls> {
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let path = folder.join(file);
    std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
    let settings = ServerSettings {
        certificate: path,
        private_key: Secret::new(key.serialize_pem().into_bytes()),
    };
    Arc::new(
        ServerTls::load(
            &settings,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        )
        .unwrap(),
    )
}

/// An answer taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A server that closes without reading the rest may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
