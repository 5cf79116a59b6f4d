//! Processes that `dev` starts: each ends when `dev` ends, however that happens, and by its own id.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, interval};

/// How often a process is asked whether it still runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running process, with a name for messages. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
}

/// What a process is told.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// PostgreSQL: end the sessions, write everything, stop.
    Interrupt,
    Terminate,
    /// Read the configuration again.
    Hangup,
}

/// A user and a group id.
pub type Account = (u32, u32);

/// `program`, to be run with the rights of `account` if there is one, and to be told to stop by
/// the kernel when the thread that starts it ends. setpriv is part of util-linux, which Debian calls
/// essential; an ordinary user without it only loses the second half.
pub fn command(program: &Path, account: Option<Account>) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists());
    let Some(setpriv) = setpriv else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "INT"]);
    if let Some((user, group)) = account {
        let (user, group) = (user.to_string(), group.to_string());
        command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

impl Process {
    /// Starts `command` apart from the terminal's signals, its output in `log`.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn()?;
        Ok(Self { name, child })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let mut look = interval(LOOK_EVERY);
        loop {
            look.tick().await;
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
        }
    }

    /// Tells it to stop, and kills it when `within` is over.
    pub async fn stop(&mut self, signal: Signal, within: Duration) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.tell(signal)?;
        let until = Instant::now() + within;
        if tokio::time::timeout_at(until, self.wait()).await.is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }

    /// The standard library can only kill; every shell can tell.
    pub fn tell(&self, signal: Signal) -> io::Result<()> {
        let signal = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Hangup => "HUP",
        };
        let id = self.id().to_string();
        Command::new("/bin/sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &id])
            .status()?;
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed.
        let _ = self.kill();
    }
}
