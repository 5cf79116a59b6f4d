//! The built binary, serving.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::support::http;
use crate::support::tools::{self, Said};
use crate::support::wait::until;

/// A `gatepost` command line.
pub(crate) fn gatepost() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gatepost"))
}

/// `gatepost serve`, ended by its process id when dropped.
pub(crate) struct Gatepost {
    process: Child,
    log: PathBuf,
    pub(crate) postgres: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Drop for Gatepost {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gatepost {
    /// Serves with this configuration, which must write its log as JSON; fails the test if it does not.
    pub(crate) async fn start(config: &Path) -> Self {
        Self::start_by(gatepost(), config).await
    }

    /// As `start`, with a command that ends in running gatepost with the arguments that it is given.
    pub(crate) async fn start_by(mut command: Command, config: &Path) -> Self {
        let log = config.with_extension("log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        // A restart appends to the log.
        let before = file.metadata().unwrap().len();
        let mut process = command
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let opened = until("gatepost says where it listens", async || {
            let text = fs::read_to_string(&log).unwrap();
            let own = &text[usize::try_from(before).unwrap()..];
            assert!(process.try_wait().unwrap().is_none(), "gatepost ended: {own}");
            Some((
                address(own, "accepting PostgreSQL clients")?,
                address(own, "answering operators")?,
            ))
        });
        let (postgres, metrics) = opened.await;
        Self {
            process,
            log,
            postgres,
            metrics,
        }
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(&self) {
        until("gatepost is ready", async || {
            let (status, _) = http::get(&self.metrics.to_string(), "/readyz")?;
            (status == 200).then_some(())
        })
        .await;
    }

    /// What `/readyz` says now: what stands in the way, a line each.
    pub(crate) fn unready(&self) -> String {
        http::get(&self.metrics.to_string(), "/readyz").unwrap().1
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// As when the machine loses patience: no chance to say goodbye.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        tools::succeed(Command::new("kill").args([format!("-{signal}"), self.id().to_string()]));
    }

    /// Waits for the end that a signal asked for.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("gatepost has ended", async || self.process.try_wait().unwrap()).await
    }
}

fn address(log: &str, message: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = &line["fields"];
        (fields["message"] == message).then(|| fields["address"].as_str()?.parse().ok())?
    })
}

/// A command of gatepost that ends by itself.
pub(crate) fn run_gatepost(arguments: &[&str]) -> Said {
    tools::run(gatepost().args(arguments))
}
