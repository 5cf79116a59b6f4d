//! The configuration and the policy that the tests start from.

use std::net::SocketAddr;
use std::path::Path;

use super::provider::{Provider, Shape};

/// What a configuration is written from; tests change fields before they write it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) postgres: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) entra: String,
    pub(crate) okta: String,
    /// Within the door's braces, after the address.
    pub(crate) door: &'static str,
    pub(crate) broker: &'static str,
    pub(crate) broker_password_file: &'static str,
    /// Instead of the password.
    pub(crate) managed_identity: Option<&'static str>,
    pub(crate) credential: &'static str,
    pub(crate) certificate: &'static str,
    pub(crate) max_connections: u32,
    pub(crate) queue_timeout: &'static str,
    /// Data-path threads: with one, an idle connection is at hand for every session.
    pub(crate) threads: u32,
    pub(crate) replica: &'static str,
    pub(crate) durability: &'static str,
    pub(crate) level: &'static str,
    pub(crate) format: &'static str,
    pub(crate) databases: &'static str,
    /// Further sections, as lines.
    pub(crate) more: &'static str,
    /// Further listeners and targets, as lines.
    pub(crate) more_listen: String,
    pub(crate) more_targets: String,
    /// Further keys of `audit`, each with a comma before it.
    pub(crate) more_audit: String,
}

impl Config {
    pub(crate) fn new(provider: &Provider, ports: [SocketAddr; 4]) -> Self {
        let [postgres, metrics, server, api] = ports;
        Self {
            postgres,
            metrics,
            server,
            api,
            entra: provider.issuer(Shape::Entra).to_owned(),
            okta: provider.issuer(Shape::Okta).to_owned(),
            door: "",
            broker: "gatepost_broker",
            broker_password_file: "broker-password",
            managed_identity: None,
            credential: "password",
            certificate: "server",
            max_connections: 40,
            queue_timeout: "30s",
            threads: 2,
            replica: "replica-1",
            durability: "strict",
            level: "debug",
            format: "text",
            databases: "[orders]",
            more: "",
            more_listen: String::new(),
            more_targets: String::new(),
            more_audit: String::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let proof = match self.managed_identity {
            Some(identity) => format!("managed_identity: {identity}"),
            None => format!("password: {{file: {}}}", self.broker_password_file),
        };
        format!(
            "installation: e2e
replica: {replica}
listen:
  postgres: {{address: \"{postgres}\"{door}}}
  metrics: {{address: \"{metrics}\"}}
  api: {{address: \"{api}\"}}
  admin_socket: {{path: admin.sock}}
{more_listen}tls: {{certificate: certs/{certificate}.crt, private_key: {{file: certs/{certificate}.key}}}}
identity_providers:
  entra: {{issuer: \"{entra}\", audiences: [\"api://gatepost\"], kind: entra}}
  okta: {{issuer: \"{okta}\", audiences: [\"api://gatepost\"], kind: okta}}
targets:
  orders:
    engine: postgres
    address: \"{server}\"
    tls: {{mode: verify-full, ca: certs/ca.crt, client_certificate: certs/client.crt, client_key: {{file: certs/client.key}}}}
    databases: {databases}
    broker: {{user: {broker}, {proof}}}
    credential: {credential}
    pool: {{max_connections: {max_connections}, queue_timeout: {queue_timeout}}}
{more_targets}policies: [policy.yaml]
audit: {{directory: audit, durability: {durability}, signing_key: {{file: certs/signing.key}}{more_audit}}}
log: {{level: {level}, format: {format}}}
threads: {threads}
{more}",
            replica = self.replica,
            durability = self.durability,
            postgres = self.postgres,
            door = self.door,
            metrics = self.metrics,
            api = self.api,
            certificate = self.certificate,
            entra = self.entra,
            okta = self.okta,
            server = self.server,
            broker = self.broker,
            credential = self.credential,
            max_connections = self.max_connections,
            queue_timeout = self.queue_timeout,
            threads = self.threads,
            level = self.level,
            format = self.format,
            databases = self.databases,
            more = self.more,
            more_listen = self.more_listen,
            more_targets = self.more_targets,
            more_audit = self.more_audit,
        )
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.text()).unwrap();
    }
}

pub(crate) const POLICY: &str = "
version: 1
roles:
  orders_writer:
    target: orders
    database: orders
    grants:
      - {privileges: [select, insert, update, delete], on: {tables: [public.orders, public.inbox, public.pgbench_accounts, public.pgbench_branches, public.pgbench_tellers, public.pgbench_history]}}
      - {privileges: [usage], on: {sequences: [public.orders_id_seq]}}
  orders_reader:
    target: orders
    database: orders
    grants:
      - {privileges: [select], on: {tables: [public.orders, public.inbox]}}
rules:
  - name: entra-consumers
    identity: {provider: entra, client_id: [order-consumer, brief], roles: [Orders.Write]}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
  - name: entra-analysts
    identity: {provider: entra, roles: [Orders.Read]}
    grant: {role: orders_reader, login_ttl: 30m, session_max: 8h}
    limits: {sessions: 2}
  - name: okta-consumers
    identity: {provider: okta, client_id: order-consumer, groups: [Orders.Write]}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
admin:
  - {name: lookers, identity: {provider: entra, client_id: analyst}, allow: [read]}
";

/// The tables behind the policy, pgbench's own among them, and the broker; for single-user mode.
pub(crate) const SERVER: &str = "CREATE ROLE gatepost_broker LOGIN CREATEROLE PASSWORD 'broker secret';

GRANT pg_read_all_stats TO gatepost_broker;

CREATE DATABASE orders;

REVOKE ALL ON DATABASE orders FROM PUBLIC;

GRANT CONNECT ON DATABASE orders TO gatepost_broker;

";

pub(crate) const TABLES: &str = "CREATE TABLE orders (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, customer text NOT NULL, cents bigint NOT NULL DEFAULT 1 CONSTRAINT orders_cost_something CHECK (cents > 0));

CREATE TABLE inbox (message_id text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));

CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));

CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));

CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));

";
