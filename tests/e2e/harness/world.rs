//! Server, provider and proxy of one test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost::cli::dev::children::{self, Process, Signal};
use gatepost::cli::dev::postgres::{Cluster, Plan};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::config::{Config, POLICY, SERVER, TABLES};
use super::programs::Caller;
use super::provider::{Provider, Shape, try_http};
use super::{PATIENCE, journal, tools, wait_for};

pub(crate) struct World {
    // Fields end in this order: the proxy first, the folder last.
    proxy: Option<Process>,
    server: Option<Process>,
    pub(crate) provider: Provider,
    cluster: Cluster,
    pub(crate) config: Config,
    /// The gatepost that is launched.
    pub(crate) program: PathBuf,
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("gatepost.log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of gatepost.log");
            last.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
        drop(self.proxy.take());
        self.stop_server();
    }
}

impl World {
    /// A server, roles applied, and the proxy ready.
    pub(crate) fn start() -> Self {
        let mut world = Self::without_proxy(15);
        world.serve();
        world
    }

    /// All but the proxy; the configuration is written and can be changed.
    pub(crate) fn without_proxy(major: u32) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("gatepost-e2e-")
            .tempdir()
            .unwrap();
        // The server may run as somebody else than the test.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let provider = Provider::start(&folder.path().join("provider.log"));
        make_certificates(folder.path());
        let config = Config::new(&provider, free_addresses());
        fs::write(folder.path().join("broker-password"), "broker secret").unwrap();
        fs::write(folder.path().join("superuser-password"), "superuser secret").unwrap();
        fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
        config.write(&folder.path().join("gatepost.yaml"));
        let certificates = folder.path().join("certs");
        let plan = Plan {
            folder: &folder.path().join("postgres"),
            port: config.server.port(),
            superuser_password: "superuser secret",
            certificate: &certificates.join("server.crt"),
            private_key: &certificates.join("server.key"),
            client_ca: &certificates.join("ca.crt"),
        };
        let cluster = Cluster::make(tools::server(major), &plan).unwrap();
        cluster.execute("postgres", SERVER).unwrap();
        cluster.execute("orders", TABLES).unwrap();
        let server = runtime.block_on(cluster.start()).unwrap();
        let world = Self {
            proxy: None,
            server: Some(server),
            provider,
            cluster,
            config,
            program: PathBuf::from(env!("CARGO_BIN_EXE_gatepost")),
            runtime,
            folder,
        };
        world.apply_roles();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn apply_roles(&self) {
        let password = "superuser-password";
        self.gatepost(&[
            "roles",
            "apply",
            "--target",
            "orders",
            "--config",
            "gatepost.yaml",
            "--as",
            "postgres",
            "--password-file",
            password,
        ])
        .well();
    }

    /// The proxy as anybody starts it; does not wait.
    pub(crate) fn launch(&mut self) {
        self.launch_with(|command| command);
    }

    /// `wrap` may put another program in front.
    pub(crate) fn launch_with(&mut self, wrap: impl FnOnce(Command) -> Command) {
        self.config.write(&self.path("gatepost.yaml"));
        let mut command = children::command(&self.program, None);
        command
            .args(["serve", "--config", "gatepost.yaml"])
            .current_dir(self.folder.path());
        let started = Process::start("gatepost", wrap(command), &self.path("gatepost.log"));
        self.proxy = Some(started.unwrap());
    }

    /// The proxy, ready for clients.
    pub(crate) fn serve(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    pub(crate) fn wait_until_ready(&mut self) {
        wait_for("readiness", || {
            let ended = self.proxy.as_mut().and_then(|proxy| proxy.ended().unwrap());
            assert!(ended.is_none(), "gatepost ended ({ended:?})");
            self.readiness().filter(|(status, _)| *status == 200)
        });
    }

    /// What `/readyz` answers, if anything.
    pub(crate) fn readiness(&self) -> Option<(u16, String)> {
        let url = format!("http://{}/readyz", self.config.metrics);
        try_http("GET", &url, "").ok()
    }

    /// `kill -9`.
    pub(crate) fn kill_proxy(&mut self) {
        self.proxy.take().unwrap().kill().unwrap();
    }

    pub(crate) fn proxy_id(&self) -> u32 {
        self.proxy.as_ref().unwrap().id()
    }

    /// The most memory that the proxy ever had, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.proxy_id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// PostgreSQL's first process.
    pub(crate) fn server_id(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_proxy_to_end(&self) {
        self.proxy.as_ref().unwrap().tell(Signal::Terminate).unwrap();
    }

    /// SIGHUP: read everything again.
    pub(crate) fn tell_proxy_to_reload(&self) {
        self.proxy.as_ref().unwrap().tell(Signal::Hangup).unwrap();
    }

    /// SIGTERM, and wait until it has ended.
    pub(crate) fn stop_proxy(&mut self) {
        let mut proxy = self.proxy.take().unwrap();
        self.runtime
            .block_on(proxy.stop(Signal::Terminate, PATIENCE))
            .unwrap();
    }

    /// Waits for a proxy that ends by itself, and gives its exit code.
    pub(crate) fn proxy_ends(&mut self) -> Option<i32> {
        let proxy = self.proxy.as_mut().unwrap();
        let code = wait_for("the end of gatepost", || proxy.ended().unwrap()).code();
        self.proxy = None;
        code
    }

    pub(crate) fn stop_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            self.runtime.block_on(self.cluster.stop(&mut server)).unwrap();
        }
    }

    /// The server stops at once, as in a power cut: what is not on disk is lost.
    pub(crate) fn crash_server(&mut self) {
        signal("QUIT", &self.server_id().to_string());
        let mut server = self.server.take().unwrap();
        wait_for("the end of the server", || server.ended().unwrap());
    }

    /// `kill -9` of one of the server's processes: the server recovers by itself.
    pub(crate) fn crash_backend(&self, process: &str) {
        signal("KILL", process);
    }

    pub(crate) fn start_server(&mut self) {
        self.server = Some(self.runtime.block_on(self.cluster.start()).unwrap());
    }

    /// Roles are asked for by name.
    pub(crate) fn caller(&self, shape: Shape, client: &str, user: &'static str) -> Caller {
        Caller {
            user,
            token: self.provider.token(shape, client),
        }
    }

    /// The application that writes, in Entra's shape.
    pub(crate) fn consumer(&self) -> Caller {
        self.caller(Shape::Entra, "order-consumer", "orders_writer")
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        journal::records(&self.path("audit"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("gatepost.log")).unwrap_or_default()
    }

    /// Logins that gatepost made and that still exist.
    pub(crate) fn logins(&self) -> Vec<String> {
        let names = self.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'gp\\_%' ORDER BY 1");
        names.lines().map(str::to_owned).collect()
    }

    /// Those of them that can still be logged in with.
    pub(crate) fn logins_in_use(&self) -> Vec<String> {
        let names = self.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'gp\\_%' AND rolcanlogin");
        names.lines().map(str::to_owned).collect()
    }
}

pub(super) fn signal(which: &str, process: &str) {
    let sent = Command::new("kill").args(["-s", which, process]).status();
    assert!(sent.unwrap().success(), "could not send {which} to {process}");
}

/// With the command that people use.
fn make_certificates(folder: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["certs", "--directory", "certs"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Held together until all are known, so that they differ.
fn free_addresses() -> [SocketAddr; 4] {
    let held = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
