//! `gatepost dev`: everything on one machine for a first look. An identity provider and a PostgreSQL
//! that end with it, certificates, a real gatepost.yaml, and `gatepost serve` on top.
//!
//! The proxy is a process of its own, started with the command and the files that anybody would use.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::app::build;
use crate::app::clock::SystemClock;
use crate::app::config::settings::Environment;
use crate::app::run;
use crate::cli::{Answer, Failure, certs, complain, say};
use crate::domain::Clock as _;
use crate::tls::SystemRandom;

pub mod children;
pub mod postgres;
pub mod provider;
pub mod world;

use children::{Process, Signal};
use postgres::{Binaries, Cluster, SUPERUSER};
use provider::{AUDIENCE, Application, Provider};
use world::{ANALYST, CONSUMER, DATABASE, Folder, World};

/// Keys are fetched and the broker logs in within a second; a loaded machine gets more.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The proxy drains for 20 s and then takes its logins back.
const STOP_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Run everything on this machine: an identity provider, a PostgreSQL, and the proxy in front of it.
///
/// Nothing is left behind when it ends (SIGINT or SIGTERM), unless --keep says so. While it runs,
/// `dev.env` in its folder tells scripts the addresses and secrets.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  gatepost dev\n  gatepost dev --dir /tmp/look --listen 127.0.0.1:6432 --keep"
)]
pub(super) struct Arguments {
    /// Where to put everything; must not exist. Default: a new folder among the temporary files.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Leave the folder, with its journal and logs, when ending.
    #[arg(long)]
    keep: bool,
    /// Where the proxy listens. Default: a free port on loopback.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A policy file or folder to use instead of the built-in one; rules name the provider "dev".
    #[arg(long, value_name = "PATH")]
    policies: Option<PathBuf>,
    /// Print one JSON object instead of text when ready.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    // The main thread starts all processes: the kernel ends them when it is gone.
    run::control()?.block_on(look(arguments))
}

async fn look(arguments: &Arguments) -> Result<Answer, Failure> {
    let mut signals = run::signals()?;
    let binaries = Binaries::find()?;
    let folder = Folder::make(arguments.dir.as_deref(), arguments.keep, &SystemRandom)?;
    let world = World::choose(
        &folder,
        arguments.listen,
        arguments.policies.as_deref(),
        &SystemRandom,
    )?;
    let prepared = tokio::select! {
        prepared = prepare(&world, binaries) => prepared?,
        _ = signals.recv() => return Ok(Answer::No),
    };
    let Prepared {
        provider,
        cluster,
        mut server,
    } = prepared;
    let mut proxy = Process::start("gatepost serve", serve(&world)?, &folder.join("gatepost.log"))?;
    let result = tokio::select! {
        result = stay(arguments, &world, &provider, (&mut proxy, &mut server)) => result,
        _ = signals.recv() => Ok(Answer::Good),
    };
    complain(&"gatepost dev: ending");
    proxy.stop(Signal::Terminate, STOP_WITHIN).await?;
    cluster.stop(&mut server).await?;
    result
}

struct Prepared {
    provider: Arc<Provider>,
    cluster: Cluster,
    server: Process,
}

/// Everything up to the proxy.
async fn prepare(world: &World, binaries: Binaries) -> Result<Prepared, Failure> {
    complain(&format_args!(
        "gatepost dev: certificates and identity provider in {}",
        world.folder.display()
    ));
    certs::write(
        &certs::Arguments::loopback(world.certificates()),
        SystemClock.now(),
    )?;
    let (listener, address) = provider::bind().await?;
    let provider = Arc::new(Provider::new(
        address,
        applications(world),
        Arc::new(SystemClock),
    )?);
    tokio::spawn(Arc::clone(&provider).serve(listener));
    world.write(provider.issuer(), AUDIENCE)?;
    check(world)?;

    complain(&format_args!(
        "gatepost dev: PostgreSQL {} on port {}",
        binaries.major()?,
        world.server_port
    ));
    let certificates = world.certificates();
    let plan = postgres::Plan {
        folder: &world.folder.join("postgres"),
        port: world.server_port,
        superuser_password: world.superuser_password.expose(),
        certificate: &certificates.join("server.crt"),
        private_key: &certificates.join("server.key"),
        client_ca: &certificates.join("ca.crt"),
    };
    let cluster = Cluster::make(binaries, &plan)?;
    cluster.execute("postgres", &world.server_statements())?;
    cluster.execute(DATABASE, World::database_statements())?;
    let server = cluster.start().await?;

    complain(&"gatepost dev: roles and grants as the policy declares them");
    apply_roles(world)?;
    Ok(Prepared {
        provider,
        cluster,
        server,
    })
}

fn applications(world: &World) -> BTreeMap<&'static str, Application> {
    let consumer = Application {
        secret: world.consumer_secret.clone(),
        roles: vec!["Orders.Write"],
    };
    let analyst = Application {
        secret: world.analyst_secret.clone(),
        roles: vec!["Orders.Read"],
    };
    [(CONSUMER, consumer), (ANALYST, analyst)].into()
}

/// Reads configuration and policies as `serve` will, so that mistakes show before anything runs.
fn check(world: &World) -> Result<(), Failure> {
    let built = build::build(&world.config(), &Environment::of_process(), SystemClock.now());
    built.map(drop).map_err(|mistakes| {
        mistakes.iter().for_each(|mistake| complain(mistake));
        "the configuration or the policies have mistakes".into()
    })
}

/// The deploy-time step, with the deploy-time credential.
fn apply_roles(world: &World) -> Result<(), Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["roles", "apply", "--as", SUPERUSER, "--password-file"])
        .arg(world.superuser_password_file())
        .arg("--config")
        .arg(world.config())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("gatepost roles apply failed:\n{told}").into())
}

fn serve(world: &World) -> Result<Command, Failure> {
    let program = std::env::current_exe()?;
    let mut command = children::command(&program, None);
    command.arg("serve").arg("--config").arg(world.config());
    Ok(command)
}

/// Waits until the proxy is ready, tells how to use it, and stays until something ends by itself.
async fn stay(
    arguments: &Arguments,
    world: &World,
    provider: &Provider,
    (proxy, server): (&mut Process, &mut Process),
) -> Result<Answer, Failure> {
    let ready = tokio::time::timeout(READY_WITHIN, ready(world.metrics));
    tokio::select! {
        ready = ready => ready.map_err(|_| not_ready(world, "is not ready"))?,
        status = proxy.wait() => return Err(not_ready(world, &format!("ended ({})", status?))),
    }
    tell(arguments, world, provider)?;
    let ended = tokio::select! {
        status = proxy.wait() => (proxy.name(), status?),
        status = server.wait() => (server.name(), status?),
    };
    Err(not_ready(
        world,
        &format!("cannot go on: {} ended ({})", ended.0, ended.1),
    ))
}

fn not_ready(world: &World, what: &str) -> Failure {
    let log = fs::read_to_string(world.folder.join("gatepost.log")).unwrap_or_default();
    format!("the proxy {what}; its log says:\n{log}").into()
}

/// Writes the tokens, `dev.env` and `dev.json`, and prints what to do next.
fn tell(arguments: &Arguments, world: &World, provider: &Provider) -> Result<(), Failure> {
    let folder = world.folder.join("tokens");
    fs::create_dir(&folder)?;
    for (client, secret) in [
        (CONSUMER, &world.consumer_secret),
        (ANALYST, &world.analyst_secret),
    ] {
        world::write_secret(&folder.join(client), &provider.token(client, secret.expose())?)?;
    }
    let facts = world.facts(&provider.token_url());
    world.announce(&facts)?;
    if arguments.json {
        say(&fs::read_to_string(world.folder.join("dev.json"))?)?;
        return Ok(());
    }
    let text = format!(
        "gatepost listens on {} (database {DATABASE}).\n\
         Addresses and secrets for scripts: {}\n\
         As the order consumer, who writes:\n  {}\n\
         As the analyst, who reads:\n  {}\n\
         Ctrl-C ends everything.",
        world.postgres,
        world.folder.join("dev.env").display(),
        world.psql_line(&folder.join(CONSUMER)),
        world.psql_line(&folder.join(ANALYST)),
    );
    say(&text)?;
    Ok(())
}

/// Comes back when `/readyz` says 200.
async fn ready(metrics: SocketAddr) {
    let mut look = interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if asked(metrics)
            .await
            .is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
        {
            return;
        }
    }
}

async fn asked(metrics: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(metrics).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policies of the repository and the configuration written here are what `check` accepts.
    #[test]
    fn the_world_that_is_written_is_without_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("world");
        let folder = Folder::make(Some(&at), false, &SystemRandom).unwrap();
        let world = World::choose(&folder, None, None, &SystemRandom).unwrap();
        certs::write(
            &certs::Arguments::loopback(world.certificates()),
            SystemClock.now(),
        )
        .unwrap();
        world.write("http://127.0.0.1:1", AUDIENCE).unwrap();
        check(&world).unwrap();
        drop(folder);
        assert!(!at.exists());
    }
}
