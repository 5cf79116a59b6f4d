//! A standby that holds all that its primary has acknowledged, and takes its place: clients come by an address
//! that leads to whichever of the two is the primary.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use gatepost::cli::dev::children::{self, Process};
use tokio::sync::oneshot;

use super::way::{Place, Way};
use super::world::{World, signal};
use super::{tools, wait_for};

const MAJOR: u32 = 15;

/// The servers of a world beside its first, each a copy of the one before it.
pub(crate) struct Standbys {
    folder: PathBuf,
    way: Way,
    /// The way's thread ends with it.
    _open: oneshot::Sender<()>,
    /// `None`: it is the world's own.
    primary: Option<Server>,
    standby: Option<Server>,
    made: usize,
}

struct Server {
    process: Process,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once: a primary that stops in order would wait for its standby.
        if self.process.ended().unwrap().is_none() {
            signal("QUIT", &self.process.id().to_string());
            wait_for("the end of a server", || self.process.ended().unwrap());
        }
    }
}

impl Standbys {
    /// From here on the address of the world's server is the one that leads to the primary.
    pub(crate) fn of(world: &mut World) -> Self {
        let folder = world.path("standbys");
        fs::create_dir(&folder).unwrap();
        // The server may run as somebody else than the test.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let entrance = world.path("postgres/data/pg_hba.conf");
        let known = fs::read_to_string(&entrance).unwrap();
        let replication = "hostssl replication postgres 127.0.0.1/32 scram-sha-256\n";
        fs::write(&entrance, format!("{replication}{known}")).unwrap();
        world.sql("SELECT pg_reload_conf()");
        let (way, open) = open(place(world.config.server.port()));
        world.config.server = address(way.port());
        let mut standbys = Self {
            folder,
            way,
            _open: open,
            primary: None,
            standby: None,
            made: 0,
        };
        standbys.follow(world);
        standbys
    }

    /// The primary is gone at once, and its standby takes its place.
    pub(crate) fn fail_over(&mut self, world: &mut World) {
        self.way.lead_to(None);
        match self.primary.take() {
            Some(primary) => drop(primary),
            None => world.crash_server(),
        }
        let next = self.standby.take().unwrap();
        let server = address(next.port);
        wait_for("a promotion", || {
            let promoted = "SELECT pg_promote(wait => true)";
            (world.sql_at(server, promoted) == "t").then_some(())
        });
        self.way.lead_to(Some(place(next.port)));
        self.primary = Some(next);
        self.follow(world);
    }

    /// Makes a standby of the primary; when this returns nothing is acknowledged that it does not hold.
    fn follow(&mut self, world: &World) {
        self.made += 1;
        let data = self.folder.join(self.made.to_string());
        let port = free_port();
        let source = format!(
            "host=127.0.0.1 port={} user=postgres password='superuser secret' sslmode=require",
            world.config.server.port()
        );
        let mut copy = as_server(&world.path("postgres"), "pg_basebackup");
        copy.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--dbname",
            &source,
        ]);
        let copied = copy.arg("--pgdata").arg(&data).output().unwrap();
        assert!(
            copied.status.success(),
            "{}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let mut command = as_server(&world.path("postgres"), "postgres");
        command.arg("-D").arg(&data).args(["-c", &format!("port={port}")]);
        let log = self.folder.join(format!("{}.log", self.made));
        let process = Process::start("standby", command, &log).unwrap();
        self.standby = Some(Server { process, port });
        world.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        world.sql("SELECT pg_reload_conf()");
        wait_for("a standby that is waited for", || {
            let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (world.sql(synchronous) == "1").then_some(())
        });
    }
}

/// A way to this server with a thread of its own: nobody waits in the test's runtime all the time.
fn open(server: Place) -> (Way, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(async {
            tell.send(Way::open(server).await).ok().unwrap();
            // It ends when the other side does.
            let _ = stopped.await;
        });
    });
    (told.recv().unwrap(), stop)
}

/// A program of the server's, as whoever owns this folder, which the server does.
fn as_server(owned: &Path, program: &str) -> Command {
    let program = tools::server(MAJOR).program(program);
    let owner = fs::metadata(owned).unwrap();
    let is_other = owner.uid() != fs::metadata("/proc/self").unwrap().uid();
    let mut command = children::command(&program, is_other.then(|| (owner.uid(), owner.gid())));
    // Whose home they would look into for a certificate is not theirs.
    command.env_clear().env("HOME", owned).current_dir(owned);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn place(port: u16) -> Place {
    (Ipv4Addr::LOCALHOST.to_string(), port)
}
