//! No secret is told to anybody, with everything switched on that could tell it: gatepost's log at its
//! most talkative, and the database's log of every statement and connection. Secrets are looked for
//! as they are, in base64, in hexadecimal and percent-encoded, and in pieces.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::harness::programs::Caller;
use crate::harness::provider::{Shape, try_http};
use crate::harness::world::World;

/// A piece of this length of a token's signature is worth something to a thief, and is in no text by
/// accident.
const PIECE: usize = 24;

/// What must be nowhere.
struct Secret {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Secret {
    fn new(what: &'static str, text: impl Into<Vec<u8>>) -> Self {
        let bytes = text.into();
        assert!(bytes.len() >= 8, "{what} is too short to be looked for");
        Self { what, bytes }
    }

    /// Everything to look for: pieces of the secret, each in every spelling.
    fn pieces(&self) -> BTreeSet<Vec<u8>> {
        let length = PIECE.min(self.bytes.len());
        let mut pieces = BTreeSet::new();
        for piece in self.bytes.windows(length) {
            pieces.insert(piece.to_vec());
            pieces.insert(hex(piece).into_bytes());
            pieces.insert(percent(piece).into_bytes());
        }
        // Base64 depends on where in a group of three the text begins; the ends mix with neighbours.
        for shift in 0..3 {
            for engine in [&STANDARD as &dyn Encode, &URL_SAFE_NO_PAD] {
                let text = engine.text(&[&b"xxx"[..shift], &self.bytes].concat());
                let inner = &text.as_bytes()[4..text.len() - 4];
                pieces.extend(inner.windows(32.min(inner.len())).map(<[u8]>::to_vec));
            }
        }
        pieces
    }
}

trait Encode {
    fn text(&self, bytes: &[u8]) -> String;
}

impl<E: base64::Engine> Encode for E {
    fn text(&self, bytes: &[u8]) -> String {
        self.encode(bytes)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// A text that somebody can read, by its name.
type Output = (String, Vec<u8>);

/// Bytes by which a piece is found before it is compared: three tell enough to pass over nearly all.
const START: usize = 3;

/// Everything to look for, found by how it starts.
struct Search<'a> {
    pieces: HashMap<Vec<u8>, Vec<(&'static str, Vec<u8>)>>,
    starts: Vec<bool>,
    secrets: &'a [Secret],
}

fn start(bytes: &[u8]) -> usize {
    bytes[..START]
        .iter()
        .fold(0, |all, byte| all << 8 | usize::from(*byte))
}

impl<'a> Search<'a> {
    const KEY: usize = 8;

    fn new(secrets: &'a [Secret]) -> Self {
        let mut search = Self {
            pieces: HashMap::new(),
            starts: vec![false; 1 << (8 * START)],
            secrets,
        };
        for secret in search.secrets {
            for piece in secret.pieces() {
                search.starts[start(&piece)] = true;
                let row = search.pieces.entry(piece[..Self::KEY].to_vec()).or_default();
                row.push((secret.what, piece));
            }
        }
        search
    }

    fn find(&self, text: &[u8]) -> Option<(usize, &'static str)> {
        let candidates = text.windows(Self::KEY).enumerate();
        let mut candidates = candidates.filter(|(_, window)| self.starts[start(window)]);
        candidates.find_map(|(at, window)| {
            let pieces = self.pieces.get(window)?;
            let found = pieces.iter().find(|(_, piece)| text[at..].starts_with(piece));
            found.map(|(what, _)| (at, *what))
        })
    }
}

fn assert_silent(secrets: &[Secret], outputs: &[Output]) {
    let search = Search::new(secrets);
    for (name, text) in outputs {
        for text in [text, &text.to_ascii_lowercase()] {
            if let Some((at, what)) = search.find(text) {
                let around = &text[at.saturating_sub(80)..text.len().min(at + 80)];
                panic!(
                    "{name} holds a piece of {what}: {}",
                    String::from_utf8_lossy(around)
                );
            }
        }
    }
}

/// Claims are no secret where they are on purpose; the signature is what makes a token work. The
/// payload as a whole must not be anywhere either.
fn of_token(what: &'static str, token: &str) -> Vec<Secret> {
    let mut parts = token.split('.').skip(1);
    let (payload, signature) = (parts.next().unwrap(), parts.next().unwrap());
    vec![Secret::new(what, payload), Secret::new(what, signature)]
}

/// The private half of a key: 32 bytes in an OCTET STRING, in PKCS#8 of Ed25519 and of P-256 alike.
/// The public half stands beside it in the file, and is no secret.
fn of_key(what: &'static str, pem: &str) -> Secret {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let key = STANDARD.decode(lines.collect::<String>()).unwrap();
    let at = key.windows(2).position(|two| two == [0x04, 0x20]).unwrap() + 2;
    Secret::new(what, &key[at..at + 32])
}

/// Work that goes well, and every refusal that a token can have. Returns what clients were told.
fn everything(world: &World, tokens: &[(&'static str, String)]) -> Vec<Output> {
    let mut told = Vec::new();
    for (what, token) in tokens {
        let caller = Caller {
            user: "orders_writer",
            token: token.clone(),
        };
        let options = format!("-c my.token={token}");
        let sql = "INSERT INTO orders (customer) VALUES ('x'); SELECT 1/0";
        let halved = format!("{}x", &token[..token.len() / 2]);
        for (name, value) in [
            ("PGCONNECT_TIMEOUT", "60"),
            ("PGUSER", "nobody_s_role"),
            ("PGDATABASE", "no_such_database"),
            ("PGOPTIONS", "-c role=postgres"),
            ("PGPASSWORD", &halved),
            ("PGAPPNAME", token),
            ("PGOPTIONS", &options),
            ("PGDATABASE", token),
            ("PGUSER", token),
            ("PGSSLMODE", "disable"),
        ] {
            let said = world.psql_with(&caller, &[(name, value)], sql);
            // libpq names user and database itself, in its own line about where it connects to.
            let theirs = |line: &&str| !line.contains("connection to server at") || line.contains("FATAL");
            let err: Vec<_> = said.err.lines().filter(theirs).map(after_libpq).collect();
            let name = format!("the answer to a client with {what} and {name}");
            told.push((name, [said.out, err.join("\n")].concat().into_bytes()));
        }
    }
    told
}

/// Behind libpq's own words in a line.
fn after_libpq(line: &str) -> &str {
    line.split_once("FATAL:").map_or(line, |(_, rest)| rest)
}

fn secrets_of(world: &World, shown: &[(&'static str, String)]) -> Vec<Secret> {
    let mut secrets = vec![Secret::new("the broker's password", "broker secret")];
    for (what, shown) in shown {
        match shown.strip_prefix("gpt_") {
            Some(ticket) => secrets.push(Secret::new(what, ticket)),
            None => secrets.extend(of_token(what, shown)),
        }
    }
    for (what, file) in [
        ("the server's TLS key", "certs/server.key"),
        ("the client's TLS key", "certs/client.key"),
        ("the signing key", "certs/signing.key"),
    ] {
        secrets.push(of_key(what, &fs::read_to_string(world.path(file)).unwrap()));
    }
    secrets
}

fn pages(world: &World) -> Vec<Output> {
    let pages = ["healthz", "readyz", "metrics", "nothing"];
    let page = |page: &str| {
        let url = format!("http://{}/{page}", world.config.metrics);
        let (_, body) = try_http("GET", &url, "").unwrap();
        (format!("/{page}"), body.into_bytes())
    };
    pages.into_iter().map(page).collect()
}

fn files(world: &World) -> Vec<Output> {
    let journal = fs::read_dir(world.path("audit")).unwrap();
    let mut paths: Vec<_> = journal.map(|entry| entry.unwrap().path()).collect();
    paths.push(world.path("gatepost.log"));
    paths.push(world.path("postgres/postgres.log"));
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect()
}

/// What anybody on the machine can see of the process, and that it leaves no core behind.
fn of_the_process(world: &World) -> Vec<Output> {
    let folder = format!("/proc/{}", world.proxy_id());
    let limits = fs::read_to_string(format!("{folder}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "core dumps are on");
    ["cmdline", "environ", "comm"]
        .into_iter()
        .map(|name| {
            (
                format!("{folder}/{name}"),
                fs::read(format!("{folder}/{name}")).unwrap_or_default(),
            )
        })
        .collect()
}

fn nothing_is_told(format: &'static str) {
    let mut world = World::without_proxy(15);
    for setting in [
        "log_statement = 'all'",
        "log_connections = on",
        "log_disconnections = on",
        "log_min_messages = 'debug1'",
        "log_min_duration_statement = 0",
        "log_parameter_max_length = -1",
    ] {
        world.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    world.sql("SELECT pg_reload_conf()");
    world.config.level = "trace";
    world.config.format = format;
    world.serve();
    let token = |shape, client| world.provider.token(shape, client);
    let mut shown = vec![
        ("a good token", token(Shape::Entra, "order-consumer")),
        (
            "a good token of another provider",
            token(Shape::Okta, "order-consumer"),
        ),
        ("an expired token", token(Shape::Entra, "late")),
        ("a token for somebody else", token(Shape::Entra, "misled")),
        ("a token of a stranger", token(Shape::Stranger, "order-consumer")),
        ("a token without a rule", token(Shape::Entra, "nobody")),
        (
            "an ID token",
            world.provider.id_token(Shape::Entra, "order-consumer"),
        ),
    ];
    let wish = ["--target", "orders", "--lifetime", "15m"];
    let ticket = world.ticket(&shown[0].1, &wish).well();
    assert!(ticket.starts_with("gpt_"), "{ticket}");
    shown.push(("a good ticket", ticket));
    let mut outputs = everything(&world, &shown);
    assert!(
        outputs
            .iter()
            .any(|(_, told)| String::from_utf8_lossy(told).contains("division by zero")),
        "no statement ran: {outputs:?}"
    );
    outputs.extend(pages(&world));
    outputs.extend(of_the_process(&world));
    world.settled();
    world.stop_proxy();
    outputs.extend(files(&world));
    let secrets = secrets_of(&world, &shown);
    assert_silent(&secrets, &outputs);
    // The search finds what is there: the database was told the verifiers, and the policy is no secret.
    let all: Vec<u8> = outputs.iter().flat_map(|(_, text)| text.clone()).collect();
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("SCRAM-SHA-256$") && text.contains("looks like a token"));
    let there = [Secret::new("something that is there", "looks like a token")];
    assert!(std::panic::catch_unwind(|| assert_silent(&there, &[("all".to_owned(), all)])).is_err());
}

#[test]
fn a_talkative_log_in_json_tells_no_secret() {
    nothing_is_told("json");
}

#[test]
fn a_talkative_log_in_text_tells_no_secret() {
    nothing_is_told("text");
}

#[test]
fn every_spelling_of_a_secret_is_found() {
    let secret = || vec![Secret::new("it", "correct horse battery staple")];
    let bytes = b"correct horse battery staple";
    for spelling in [
        String::from_utf8_lossy(bytes).into_owned(),
        "…horse battery staple and more"
            .to_owned()
            .replace("…", "correct "),
        hex(bytes),
        hex(bytes).to_uppercase(),
        percent(bytes),
        STANDARD.encode(bytes),
        URL_SAFE_NO_PAD.encode([&b"with a prefix "[..], bytes, b" and more"].concat()),
    ] {
        let output = [(
            "text".to_owned(),
            format!("before {spelling} behind").into_bytes(),
        )];
        let found = std::panic::catch_unwind(|| assert_silent(&secret(), &output));
        assert!(found.is_err(), "{spelling} was not found");
    }
    let output = [("text".to_owned(), b"correct horse, but another battery".to_vec())];
    assert_silent(&secret(), &output);
}
