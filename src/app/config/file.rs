//! `gatepost.yaml` as written. Each section names its keys once; reading, the JSON Schema and the
//! list of known keys all come from that one place.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::app::config::read::{Later, Read, Reader, read_choice};
pub use crate::app::config::read::{Must, Named, Written};
pub use crate::app::config::yaml::Spot;
use crate::app::config::yaml::{Node, Value};

/// A mapping with fixed keys, and keys that are refused because they are not enforced yet.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } later $later:expr) => {
        $(#[$doc])*
        #[derive(Debug, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Read for $name {
            fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
                let later: &[Later] = &$later;
                let fields = reader.fields(node, &[$(stringify!($field)),*], later)?;
                // A field that cannot be read does not end its section, so that the rest is checked too.
                Some(Self { $($field: fields.take(stringify!($field), reader),)* })
            }
        }
    };
}

/// One word out of several.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* } later $later:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
        pub enum $name { $($(#[$variant_doc])* #[schemars(rename = $word)] $variant,)* }

        impl Read for $name {
            fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
                read_choice(node, &[$(($word, Self::$variant)),*], &$later, reader)
            }
        }
    };
}

/// Why a key that the design knows is refused for now.
const NOT_ENFORCED: &str = "it is not enforced by this version of gatepost, and must not look as if it were";

section! {
    /// The configuration of one gatepost process.
    ConfigFile {
        /// Part of every minted login's name; unique per database server.
        installation: Must<Written<String>>,
        /// This process among several of the installation. Default: host name and process id.
        replica: Option<Written<String>>,
        /// Where gatepost accepts connections.
        listen: Must<Listen>,
        /// The certificate that clients see.
        tls: Option<Must<ServerTls>>,
        /// Whose tokens are accepted.
        identity_providers: Must<Written<Named<Provider>>>,
        /// The database servers that can be reached.
        targets: Must<Written<Named<Target>>>,
        /// Policy files, or folders whose `*.yaml` files are read in order of name.
        policies: Must<Written<Vec<Written<String>>>>,
        /// The audit journal.
        audit: Must<Audit>,
        /// Data-path threads. Default: one per core.
        threads: Option<Written<u32>>,
        /// What the process writes to standard error.
        log: Option<Log>,
        session: Option<Session>,
        /// Tickets in the place of tokens, which the API gives to clients.
        tickets: Option<Written<Tickets>>,
    } later [("guardrails", NOT_ENFORCED)]
}

section! {
    /// Doors.
    Listen {
        /// Ordinary PostgreSQL drivers; the token comes in the password field.
        postgres: Option<Must<PostgresDoor>>,
        /// SQL Server drivers (TDS 7.3 and later, and TDS 8.0); the token comes as an access token, or in the
        /// password field.
        sqlserver: Option<Must<SqlServerDoor>>,
        /// `/healthz`, `/readyz` and `/metrics`; no secrets.
        metrics: Option<MetricsDoor>,
        /// The admin API over TLS, for operators with an access token and an `admin` rule.
        api: Option<ApiDoor>,
        /// The same API for root and for the user that gatepost runs as.
        admin_socket: Option<SocketDoor>,
    } later [("postgres_oauth", NOT_ENFORCED)]
}

section! {
    /// The admin API's listener. It needs `tls`.
    ApiDoor {
        /// `address:port`.
        address: Must<Written<String>>,
    } later []
}

section! {
    /// The admin API's Unix socket.
    SocketDoor {
        /// The folder must exist.
        path: Must<Written<String>>,
    } later []
}

section! {
    /// A PostgreSQL listener.
    PostgresDoor {
        /// `address:port`.
        address: Must<Written<String>>,
        /// Accept tokens outside TLS. Only on a loopback address, for trying things out.
        allow_plaintext: Option<Written<bool>>,
    } later []
}

section! {
    /// A SQL Server listener.
    SqlServerDoor {
        /// `address:port`.
        address: Must<Written<String>>,
        /// Accept tokens outside TLS. Only on a loopback address, for trying things out.
        allow_plaintext: Option<Written<bool>>,
        /// The identity provider that drivers are sent to when they ask where to fetch a token. Default: the
        /// only one.
        token_provider: Option<Written<String>>,
    } later []
}

section! {
    /// The operators' HTTP listener.
    MetricsDoor {
        /// `address:port`.
        address: Must<Written<String>>,
    } later []
}

section! {
    /// The server's certificate chain and key, both PEM.
    ServerTls {
        /// Path of the certificate chain.
        certificate: Must<Written<String>>,
        private_key: Must<Written<SecretRef>>,
    } later []
}

section! {
    /// An OpenID Connect issuer whose access tokens are accepted.
    Provider {
        /// Exactly as in the tokens' `iss` (for Entra's shared addresses: as in the configuration's address).
        /// https, or http on a loopback host.
        issuer: Must<Written<String>>,
        /// A token must be issued for one of these.
        audiences: Must<Written<Vec<Written<String>>>>,
        /// Entra's shared addresses (`…/organizations/v2.0`, `…/common/v2.0`) only, and needed there: ids
        /// of the tenants whose tokens are accepted.
        tenants: Option<Written<Vec<Written<String>>>>,
        /// How claims are read. Inferred from the issuer's host when it is Entra's or Okta's.
        kind: Option<Written<ProviderKind>>,
        /// PEM file of a private certificate authority that signs for the issuer's host.
        ca: Option<Written<String>>,
        /// Where SQL Server drivers that ask are sent to fetch a token. Default: the issuer without Entra's
        /// `/v2.0`.
        sts_url: Option<Written<String>>,
        /// The resource that they are told to ask for. Default: the first audience.
        spn: Option<Written<String>>,
    } later []
}

choice! {
    /// How a provider writes its claims.
    ProviderKind {
        Entra = "entra",
        Okta = "okta",
        Oidc = "oidc",
    } later []
}

section! {
    /// One database server.
    Target {
        engine: Must<Written<Engine>>,
        /// `host:port`.
        address: Must<Written<String>>,
        /// How gatepost talks to the server. Default: verify-full with the system's roots.
        tls: Option<Must<TargetTls>>,
        /// The databases that clients may name.
        databases: Must<Written<Vec<Database>>>,
        /// The account that mints logins.
        broker: Must<Written<Broker>>,
        /// How clients' connections prove themselves. Default: password, of a login that is minted for each identity.
        credential: Option<Written<Credential>>,
        /// PostgreSQL only: mark every transaction that writes in the server's WAL.
        wal_marker: Option<Written<bool>>,
        /// SQL Server only: the table, as schema.table, in which transactions that write are marked.
        marker_table: Option<Written<String>>,
        pool: Option<Pool>,
        /// SQL Server only: logins are contained users of the database, as Azure SQL wants them.
        contained: Option<Written<bool>>,
    } later []
}

choice! {
    Engine {
        Postgres = "postgres",
        SqlServer = "sqlserver",
    } later []
}

choice! {
    Credential {
        /// A login of its own for each identity, minted by the broker.
        Password = "password",
        /// Nothing is minted: everybody's connections log in as the broker's managed identity.
        ManagedIdentity = "managed_identity",
    } later [("certificate", NOT_ENFORCED)]
}

section! {
    /// TLS towards a database server.
    TargetTls {
        mode: Option<Written<TlsMode>>,
        /// PEM file of the certificate authority. Default: the system's roots.
        ca: Option<Written<String>>,
        /// PEM file of the certificate that proves to the server that this is gatepost.
        client_certificate: Option<Written<String>>,
        client_key: Option<Written<SecretRef>>,
    } later []
}

choice! {
    /// As libpq's `sslmode`, without the modes that fall back to plaintext.
    TlsMode {
        Disable = "disable",
        Require = "require",
        VerifyCa = "verify-ca",
        VerifyFull = "verify-full",
        /// SQL Server only: TLS before anything else (TDS 8.0), verified in full.
        Strict = "strict",
    } later [
        ("allow", "it falls back to plaintext"),
        ("prefer", "it falls back to plaintext"),
    ]
}

section! {
    /// The account that mints logins: with a password, or as gatepost's own managed identity in Azure.
    Broker {
        /// With managed_identity: the database's user that stands for it.
        user: Must<Written<String>>,
        password: Option<Must<Written<SecretRef>>>,
        managed_identity: Option<Must<Written<ManagedIdentity>>>,
    } later []
}

section! {
    /// Tokens of gatepost's own identity in Azure, in the place of a password. Needs tls: {mode: verify-full}.
    ManagedIdentity {
        /// Who is asked for tokens. Default: auto.
        source: Option<Written<TokenOrigin>>,
        /// Of a user-assigned identity. Default: the machine's or app's own; with workload identity AZURE_CLIENT_ID.
        client_id: Option<Written<String>>,
        /// What the tokens are for. Default: the engine's in Azure's public cloud.
        resource: Option<Written<String>>,
    } later []
}

choice! {
    /// Where tokens of a managed identity come from.
    TokenOrigin {
        /// Workload identity if its variables are in the environment, else App Service likewise, else instance metadata.
        Auto = "auto",
        /// The instance metadata service of a virtual machine.
        Imds = "imds",
        /// App Service, Functions, Container Apps.
        AppService = "app_service",
        /// Workload identity federation in Kubernetes.
        Workload = "workload",
    } later []
}

section! {
    /// Connections to one target, over all threads.
    Pool {
        /// Hard cap. Default: 20.
        max_connections: Option<Written<u32>>,
        mode: Option<Written<PoolMode>>,
        /// How long a client waits for a connection. Default: 30s.
        queue_timeout: Option<Written<String>>,
        /// How long an idle connection is kept. Default: 5m.
        idle_timeout: Option<Written<String>>,
    } later []
}

choice! {
    PoolMode {
        Session = "session",
    } later [("transaction", NOT_ENFORCED)]
}

section! {
    /// The audit journal.
    Audit {
        /// A folder that belongs to this replica alone.
        directory: Must<Written<String>>,
        /// Default: strict.
        durability: Option<Written<Durability>>,
        /// Default: ask_first where durability is strict, else hold_reply.
        autocommit: Option<Written<Autocommit>>,
        /// Ed25519, PKCS#8.
        signing_key: Must<Written<SecretRef>>,
        /// The key that was used before, for a start with another one: it signs that it is replaced.
        previous_signing_key: Option<Written<SecretRef>>,
        heads: Option<Heads>,
        retention: Option<Retention>,
        /// Where records are sent on to, beside the journal.
        sinks: Option<Written<Named<Sink>>>,
    } later []
}

section! {
    /// Where records are sent on to: one of the two.
    Sink {
        syslog: Option<Must<Written<SyslogSink>>>,
        otlp: Option<Must<Written<OtlpSink>>>,
    } later []
}

section! {
    /// Syslog over TLS.
    SyslogSink {
        /// `host:port`.
        address: Must<Written<String>>,
        /// PEM file of the certificate authority. Default: the system's roots.
        ca: Option<Written<String>>,
        /// Without TLS.
        allow_plaintext: Option<Written<bool>>,
        /// Default: rfc5424.
        form: Option<Written<SyslogForm>>,
    } later []
}

choice! {
    /// What a message is.
    SyslogForm {
        Rfc5424 = "rfc5424",
        Cef = "cef",
        Ocsf = "ocsf",
    } later []
}

section! {
    /// OpenTelemetry's logs over HTTP, as JSON.
    OtlpSink {
        /// `https://host:4318/v1/logs`.
        url: Must<Written<String>>,
        /// PEM file of the certificate authority. Default: the system's roots.
        ca: Option<Written<String>>,
        /// A bearer token for the receiver.
        token: Option<Written<SecretRef>>,
        /// Permits `http://`.
        allow_plaintext: Option<Written<bool>>,
    } later []
}

section! {
    /// A second place for the signed heads of the journal, out of reach for whoever could cut it off.
    Heads {
        /// A file on another disk; lines are added to it, at most one a second.
        file: Option<Written<String>>,
        /// Whether they are logged too, at most one a minute. Default: false.
        log: Option<Written<bool>>,
    } later []
}

section! {
    /// What becomes of old segments. Default: they stay as they are.
    Retention {
        /// The age, like 7d, from which on a segment is kept compressed (gzip).
        compress_after: Option<Written<String>>,
        /// The age, like 400d, from which on a segment is removed; a day or more.
        keep: Option<Written<String>>,
    } later []
}

choice! {
    /// When a record counts as written.
    Durability {
        /// On disk before the statement can commit.
        Strict = "strict",
        /// Written at once, on disk within 50 ms.
        Batched = "batched",
        /// Left to the operating system.
        Os = "os",
    } later []
}

choice! {
    /// When PostgreSQL is asked for the transaction id of a write outside of a block.
    Autocommit {
        /// Before it may commit: one more round trip, and its end can always be asked after.
        AskFirst = "ask_first",
        /// With its commit: faster, and in doubt if gatepost or the server is killed meanwhile.
        HoldReply = "hold_reply",
    } later []
}

section! {
    /// How sessions end.
    Session {
        /// How long a transaction that is open when its token or session ends may still commit. Default: 30s.
        expiry_grace: Option<Written<String>>,
    } later []
}

section! {
    /// Short secrets for drivers whose password field is too short for a token. They are bound to the
    /// address that asks for them.
    Tickets {
        /// Addresses, and networks like 10.0.0.0/8, that a caller may have a ticket bound to instead.
        networks: Option<Written<Vec<Written<String>>>>,
        /// Whether a caller may have one that is bound to no address. Default: false.
        any_address: Option<Written<bool>>,
    } later []
}

section! {
    Log {
        format: Option<Written<LogFormat>>,
        /// error, warn, info, debug or trace. Default: info.
        level: Option<Written<LogLevel>>,
    } later []
}

choice! {
    LogFormat {
        Text = "text",
        Json = "json",
    } later []
}

choice! {
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    } later []
}

section! {
    /// A database whose clients use another name, where two targets hold databases of one name.
    AliasedDatabase {
        name: Must<Written<String>>,
        alias: Must<Written<String>>,
    } later []
}

/// `orders`, or `{name: orders, alias: orders-eu}`.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Database {
    Plain(Written<String>),
    Aliased(AliasedDatabase),
}

impl Read for Database {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Map(_) => AliasedDatabase::read(node, reader).map(Self::Aliased),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Fraction
            | Value::Text(_)
            | Value::List(_) => Written::read(node, reader).map(Self::Plain),
        }
    }
}

/// Where a secret lies; never the secret itself.
#[derive(Clone, Debug)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; a single line break at its end does not count.
    File(String),
}

impl Read for SecretRef {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let wanted = "a secret is only accepted by reference: {env: NAME} or {file: PATH}";
        let Value::Map(entries) = &node.value else {
            // Neither the message nor the excerpt may repeat what stands here.
            reader.hide(node.at);
            reader.mistake(node.at, wanted);
            return None;
        };
        if let [(key, value)] = entries.as_slice() {
            match key.name.as_str() {
                "env" => return String::read(value, reader).map(Self::Env),
                "file" => return String::read(value, reader).map(Self::File),
                _ => {}
            }
        }
        reader.hide(node.at);
        for (key, value) in entries {
            reader.hide(key.at);
            reader.hide(value.at);
        }
        reader.mistake(node.at, wanted);
        None
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "Where a secret lies: {env: NAME} or {file: PATH}; never the secret itself.",
            "oneOf": [
                {
                    "type": "object", "additionalProperties": false, "required": ["env"],
                    "properties": {"env": {"type": "string", "description": "An environment variable."}}
                },
                {
                    "type": "object", "additionalProperties": false, "required": ["file"],
                    "properties": {"file": {"type": "string", "description": "A file's path."}}
                }
            ]
        })
    }
}

/// The JSON Schema of `gatepost.yaml`, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}
