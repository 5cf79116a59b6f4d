//! The journal's disk is full: writes are refused with a clear error, nothing is committed unrecorded, and
//! what has begun finds room in the reserve.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tokio_postgres::error::SqlState;

use crate::harness::LOOK_EVERY;
use crate::harness::journal::{committed, of_event, records};
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

/// Blocks of 1,024 bytes that any file of the proxy may have: some hundred records.
const BLOCKS: &str = "192";

/// A world whose proxy can make no file larger than this.
fn limited() -> World {
    let mut world = World::without_proxy(15);
    world.launch_with(|command| {
        // A process that does not ignore the signal would be killed by it; a full disk kills nobody.
        let mut limited = Command::new("/bin/bash");
        limited.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", BLOCKS]);
        limited.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            limited.current_dir(folder);
        }
        limited
    });
    world.wait_until_ready();
    world
}

const INSERT: &str = "INSERT INTO orders (customer) VALUES ('full')";
const SENTENCE: &str = "the audit journal cannot be written, so writes are refused";

/// Refusals one behind the other after which not even the smallest record fits any more: gatepost tries
/// the disk twice a second, and what is still free is used up.
const REFUSALS_ENOUGH: usize = 100;

/// Writes until nothing is accepted any more; comes back when its session was ended.
async fn fill(world: &World, caller: &Caller) {
    let mut refusals = 0;
    let mut client = world.connect(caller, "").await.unwrap();
    while refusals < REFUSALS_ENOUGH {
        match client.execute(INSERT, &[]).await {
            Ok(_) => refusals = 0,
            Err(error) if error.is_closed() => match world.connect(caller, "").await {
                Ok(again) => client = again,
                Err(error) => assert_eq!(error.code(), Some(&SqlState::IO_ERROR), "{error:?}"),
            },
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::IO_ERROR), "{error:?}");
                assert_eq!(error.as_db_error().unwrap().message(), SENTENCE);
            }
        }
        refusals += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[test]
fn reads_go_on_while_writes_are_refused() {
    let mut world = limited();
    let caller = world.consumer();
    world.runtime.block_on(async {
        let reader = world.connect(&caller, "").await.unwrap();
        let mut writer = world.connect(&caller, "").await.unwrap();
        let block = writer.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('uncommitted')")
            .await
            .unwrap();
        fill(&world, &caller).await;
        let count = "SELECT count(*) FROM orders WHERE customer = 'full'";
        let before: i64 = reader.query_one(count, &[]).await.unwrap().get(0);
        assert!(before > 10);
        // A commit cannot be announced, so it does not happen.
        let refused = block.commit().await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::IO_ERROR), "{refused:?}");
        let after: i64 = reader.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(before, after);
        let written = reader.batch_execute(INSERT).await.unwrap_err();
        assert_eq!(written.code(), Some(&SqlState::IO_ERROR));
    });
    assert_eq!(
        world.sql("SELECT count(*) FROM orders WHERE customer = 'uncommitted'"),
        "0"
    );
    let (status, body) = world.readiness().unwrap();
    assert!(status == 503 && body.contains("journal"), "{body}");
    world.verify_journal();
    world.kill_proxy();
    world.verify_journal();
}

#[test]
fn writes_are_refused_when_the_journal_cannot_grow() {
    let mut world = limited();
    let caller = world.consumer();
    let writes = world.path("writes.sql");
    std::fs::write(
        &writes,
        "INSERT INTO orders (customer, cents) VALUES ('full', 1);\n".repeat(2_000),
    )
    .unwrap();
    let script = std::fs::read_to_string(&writes).unwrap();
    let refusal = world.psql_script(&caller, &script).refusal();
    assert!(refusal.contains(SENTENCE), "{refusal}");

    world.kill_proxy();
    let acknowledged = world.sql("SELECT xmin::text FROM orders");
    let records = world.records();
    let recorded = committed(&records);
    let intents: Vec<_> = records
        .iter()
        .filter(|it| it["event"] == "transaction.intent")
        .collect();
    let unrecorded: Vec<_> = acknowledged
        .lines()
        .filter(|id| !recorded.contains(&id.parse().unwrap()))
        .collect();
    // The write that met the full disk may have committed without an answer; its intent is there.
    assert!(unrecorded.len() <= 1, "{unrecorded:?}");
    assert!(
        intents.len() >= acknowledged.lines().count(),
        "{} intents",
        intents.len()
    );
    // With space again, it starts where it was.
    world.serve();
    world
        .psql(
            &caller,
            "INSERT INTO orders (customer, cents) VALUES ('again', 1)",
        )
        .well();
    world.verify_journal();
}

/// A small disk under the audit directory, seen only by processes that enter it: no privilege is needed
/// for that, and it is gone with the process that holds it.
struct SmallDisk {
    holder: Child,
    directory: PathBuf,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The reserve and a little more: some thousand records.
const DISK: &str = "size=20m";

impl SmallDisk {
    fn under(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let script =
            format!("mount -t tmpfs -o {DISK} none \"$0\" && touch \"$0/mounted\" && exec sleep 600");
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", &script])
            .arg(directory)
            .spawn()
            .unwrap();
        let mut disk = Self {
            holder,
            directory: directory.to_owned(),
        };
        wait_for("a disk of its own (user namespaces must be allowed)", || {
            assert!(disk.holder.try_wait().unwrap().is_none(), "there is none");
            disk.seen("mounted").exists().then_some(())
        });
        disk
    }

    /// A file on the disk, as a process outside finds it.
    fn seen(&self, name: &str) -> PathBuf {
        let inside = self.directory.strip_prefix("/").unwrap();
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(inside)
            .join(name)
    }

    /// The same command, run where the disk is.
    fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--user", "--mount", "--preserve-credentials", "--target"]);
        inside.arg(self.holder.id().to_string());
        if let Some(folder) = command.get_current_dir() {
            let mut wd = std::ffi::OsString::from("--wdns=");
            wd.push(folder);
            inside.arg(wd);
        }
        inside
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let file = std::fs::File::create(self.seen("of-somebody-else")).unwrap();
        let mut size = 32 << 20;
        // By halves: the last page counts.
        while size >= 4_096 {
            let length = file.metadata().unwrap().len();
            let chunk = vec![1; size];
            if std::os::unix::fs::FileExt::write_all_at(&file, &chunk, length).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.seen("of-somebody-else")).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_its_reserve_to_work_under_way() {
    let mut world = World::without_proxy(15);
    let disk = SmallDisk::under(&world.path("audit"));
    world.launch_with(|command| disk.enter(&command));
    world.wait_until_ready();
    let caller = world.consumer();
    let on_disk = || records(disk.seen("reserve").parent().unwrap());
    world.runtime.block_on(async {
        let mut writer = world.connect(&caller, "").await.unwrap();
        let block = writer.transaction().await.unwrap();
        block.batch_execute(INSERT).await.unwrap();
        let reserved = std::fs::metadata(disk.seen("reserve")).unwrap().len();
        assert!(reserved > 1 << 20);
        disk.fill();
        // What has begun ends as if nothing were amiss, and so does more work of open sessions.
        block.commit().await.unwrap();
        for _ in 0..100 {
            writer.execute(INSERT, &[]).await.unwrap();
        }
        assert_eq!(std::fs::metadata(disk.seen("reserve")).unwrap().len(), 0);
        // Nobody new comes in, and a stranger is told why, but takes no byte.
        let refused = world.connect(&caller, "").await.err().unwrap();
        assert_eq!(refused.code(), Some(&SqlState::IO_ERROR), "{refused:?}");
        let stranger = world.caller(Shape::Entra, "late", "orders_writer");
        let refused = world.connect(&stranger, "").await.err().unwrap();
        assert!(refused.as_db_error().unwrap().message().contains("token expired"));
        writer.execute(INSERT, &[]).await.unwrap();
        let so_far = on_disk();
        assert!(of_event(&so_far, "session.denied").is_empty(), "{so_far:#?}");
    });
    let (status, body) = world.readiness().unwrap();
    assert!(
        status == 503 && body.contains("reserved for work under way"),
        "{body}"
    );
    disk.free();
    world.wait_until_ready();
    assert!(std::fs::metadata(disk.seen("reserve")).unwrap().len() > 1 << 20);
    world.psql(&caller, INSERT).well();
    world.stop_proxy();
    let all = on_disk();
    let rows = world.sql("SELECT xmin::text FROM orders");
    let recorded = committed(&all);
    assert_eq!(rows.lines().count(), 103);
    for id in rows.lines() {
        assert!(recorded.contains(&id.parse().unwrap()), "{id} is not on record");
    }
    let sums = of_event(&all, "session.denied_many");
    let summed: u64 = sums
        .iter()
        .map(|sum| sum["detail"]["count"].as_u64().unwrap())
        .sum();
    assert_eq!(summed, 2, "{sums:#?}");
    let key = world.path("certs/signing.pub");
    let directory = disk.seen("reserve");
    let verified = [
        "audit",
        "verify",
        "--directory",
        directory.parent().unwrap().to_str().unwrap(),
    ];
    world
        .gatepost(&[&verified[..], &["--public-key", key.to_str().unwrap()]].concat())
        .well();
}
