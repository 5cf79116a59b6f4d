//! Records are sent on to a real syslog server, which comes and goes, and holds up nobody.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::certificates::replace;
use crate::harness::provider::try_http;
use crate::harness::wait_for;
use crate::harness::world::World;

/// rsyslogd with TLS, in the world's folder. It ends with this.
struct Rsyslog {
    process: Child,
    file: PathBuf,
}

impl Rsyslog {
    fn start(world: &World, port: u16) -> Self {
        let path = |name: &str| world.path(name).display().to_string();
        let file = world.path("received");
        let configuration = format!(
            r#"global(
    workDirectory="{folder}" defaultNetstreamDriver="gtls" maxMessageSize="256k"
    defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{certificate}"
    defaultNetstreamDriverKeyFile="{key}"
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="whole" type="string" string="%msgid% %msg%\n")
input(type="imtcp" port="{port}" address="127.0.0.1")
action(type="omfile" file="{file}" template="whole")
"#,
            folder = path("."),
            ca = path("certs/ca.crt"),
            certificate = path("certs/server.crt"),
            key = path("certs/server.key"),
            file = file.display(),
        );
        fs::write(world.path("rsyslog.conf"), configuration).unwrap();
        let mut command = Command::new(program());
        command
            .args(["-n", "-f", &path("rsyslog.conf"), "-i", &path("rsyslog.pid")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(world.path("rsyslog.log")).unwrap());
        Self {
            process: command.spawn().unwrap(),
            file,
        }
    }

    /// The journal's own lines, as they arrived.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let line = |line: &str| Some(serde_json::from_str(line.split_once(' ')?.1.trim()).unwrap());
        text.lines().filter_map(line).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _ended = self.process.wait();
    }
}

fn program() -> PathBuf {
    let places = ["/usr/sbin/rsyslogd", "/usr/bin/rsyslogd"].map(Path::new);
    let found = places.into_iter().find(|place| place.exists());
    let missing = "rsyslogd is missing: run tests/run.sh, or tests/setup/rsyslog.sh, which installs it";
    found.unwrap_or_else(|| panic!("{missing}")).to_owned()
}

/// What the sink called `siem` says of this.
fn measured(world: &World, name: &str) -> f64 {
    let label = format!("{name}{{sink=\"siem\"}} ");
    let url = format!("http://{}/metrics", world.config.metrics);
    let (_, page) = try_http("GET", &url, "").unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(&label));
    line.unwrap_or_else(|| panic!("{name}:\n{page}")).parse().unwrap()
}

#[test]
fn a_syslog_server_gets_every_record_also_what_it_missed() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut world = World::without_proxy(15);
    world.config.more_audit =
        format!(", sinks: {{siem: {{syslog: {{address: \"localhost:{port}\", ca: certs/ca.crt}}}}}}");
    world.serve();
    // Nobody listens yet, and nobody minds.
    let consumer = world.consumer();
    let insert = "INSERT INTO orders (customer) VALUES ('ada')";
    world.psql(&consumer, insert).well();
    wait_for("failures", || {
        (measured(&world, "gatepost_audit_sink_failures_total") > 0.0).then_some(())
    });
    assert!(measured(&world, "gatepost_audit_sink_behind") > 0.0);
    let told = "records cannot be sent on; they wait in the journal";
    assert_eq!(world.log().matches(told).count(), 1);

    // What would not be put in force is not accepted.
    let configuration = world.path("gatepost.yaml");
    let text = fs::read_to_string(&configuration).unwrap();
    replace(&configuration, &text.replace("{siem:", "{other:"));
    world.tell_proxy_to_reload();
    wait_for("the refusal of another sink", || {
        let told = "audit.sinks cannot change while gatepost runs";
        world.log().contains(told).then_some(())
    });
    replace(&configuration, &text);

    let rsyslog = Rsyslog::start(&world, port);
    wait_for("what was missed", || {
        (measured(&world, "gatepost_audit_sink_behind") == 0.0).then_some(())
    });
    world.psql(&consumer, insert).well();
    world.settled();
    world.stop_proxy();
    let records = world.records();
    wait_for("the last record", || {
        (rsyslog.lines().len() >= records.len()).then_some(())
    });
    assert_eq!(rsyslog.lines(), records);
    world.verify_journal();
}
