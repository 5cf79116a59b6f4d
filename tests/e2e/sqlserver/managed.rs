//! gatepost logs in at SQL Server with tokens of its own identity: stand-ins for Azure's endpoints give
//! them, and the scripted server, as an Azure SQL Database, takes them by FEDAUTH and nothing else for that
//! user.

use serde_json::Value;
use tiberius::Client;
use tokio::net::TcpStream;
use tokio_util::compat::Compat;

use crate::harness::journal::{of_event, outcomes_under};
use crate::harness::provider::Shape;
use crate::harness::sqlserver::scripted::{LoginSeen, Server};
use crate::harness::sqlserver::{SqlServer, Way};
use crate::harness::token_giver::TokenGiver;
use crate::harness::wait_for;
use crate::harness::world::World;

/// The user that stands for the identity.
const USER: &str = "gatepost-prod";
/// As Azure has it: without a login, and with no password.
const MAKE_USER: &str = "CREATE USER [gatepost-prod] FROM EXTERNAL PROVIDER";
/// What the broker needs in Azure; the roles' own rights come with `roles apply`.
const MAKE_BROKER: &str = "GRANT KILL DATABASE CONNECTION TO [gatepost-prod]; \
                           GRANT VIEW DATABASE STATE TO [gatepost-prod]";

/// As long as Entra's, so that the login takes two packets.
fn token() -> String {
    let claims = "b2YtZ2F0ZXBvc3QtaXRzZWxm".repeat(70);
    format!("eyJ0b2tlbiI6Im9mIGdhdGVwb3N0In0.{claims}.c2lnbmF0dXJl")
}

/// Nothing is started yet but the server, which knows the identity. `None`: a real server is no Azure.
fn prepared(tls_mode: &'static str, broker: &'static str, more: &'static str) -> Option<(World, SqlServer)> {
    let mut world = World::without_proxy(15);
    // One thread has all connections, so that none is opened where another lies idle.
    world.config.threads = 1;
    let way = Way {
        tokens: vec![(token(), USER.to_owned())],
        azure: true,
        tls_mode,
        broker: Some(broker),
        more,
    };
    let server = SqlServer::prepared(&mut world, &way);
    server.inside()?.run("parcels", MAKE_USER).unwrap();
    Some((world, server))
}

fn lending() -> Option<(World, SqlServer)> {
    let broker = "user: gatepost-prod, managed_identity: {source: imds, client_id: mine}";
    prepared("verify-full", broker, "    credential: managed_identity\n")
}

/// What a client sees of itself.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    login: String,
    original: String,
    provider: String,
    subject: String,
    spid: i32,
}

async fn look(client: &mut Client<Compat<TcpStream>>) -> Seen {
    let sql = "SELECT SUSER_SNAME(), ORIGINAL_LOGIN(), \
               CAST(SESSION_CONTEXT(N'gatepost.provider') AS nvarchar(100)), \
               CAST(SESSION_CONTEXT(N'gatepost.subject') AS nvarchar(100)), CAST(@@SPID AS int)";
    let row = client.simple_query(sql).await.unwrap();
    let row = row.into_row().await.unwrap().unwrap();
    let text = |column: usize| row.get::<&str, _>(column).unwrap().to_owned();
    Seen {
        login: text(0),
        original: text(1),
        provider: text(2),
        subject: text(3),
        spid: row.get(4).unwrap(),
    }
}

/// A session of its own, from its beginning to its end, that writes one row under this correlation id.
fn visit(world: &World, server: &SqlServer, token: &str, n: u32) -> Seen {
    let seen = world.runtime.block_on(async {
        let mut client = server.connect(world, token).await.unwrap();
        let correlation = format!("EXEC sp_set_session_context N'correlation_id', N'visit-{n}'");
        let insert = format!("INSERT INTO dbo.parcels (driver, step, n) VALUES (N'managed', N'visit', {n})");
        for batch in [
            correlation.as_str(),
            "BEGIN TRANSACTION",
            &insert,
            "COMMIT TRANSACTION",
        ] {
            let stream = client.simple_query(batch).await.unwrap();
            stream.into_results().await.unwrap();
        }
        let seen = look(&mut client).await;
        client.close().await.unwrap();
        seen
    });
    world.settled();
    seen
}

/// gatepost itself came so often, with tokens only, and inside TLS.
fn came_by_token(logins: &[LoginSeen], often: usize) {
    assert_eq!(logins.len(), often, "{logins:?}");
    for login in logins {
        let well = login.by_token && login.tls.is_some() && login.user.is_empty() && login.refused.is_none();
        assert!(well, "{login:?}");
    }
}

/// The server says the same of each visit's transaction as the journal.
fn agree(records: &[Value], inside: &Server, visits: &[Seen]) {
    let committed = inside.committed();
    for (n, seen) in visits.iter().enumerate() {
        let correlation = format!("visit-{n}");
        let outcomes = outcomes_under(records, &correlation);
        let ours = outcomes.iter().find(|it| it["detail"]["id"].is_u64()).unwrap();
        assert_eq!(ours["identity"]["subject"], *seen.subject);
        assert_eq!(ours["login"], *seen.login);
        let id = ours["detail"]["id"].as_u64();
        let theirs = committed.iter().find(|it| u64::try_from(it.id).ok() == id);
        let theirs = theirs.unwrap();
        assert_eq!(theirs.login, seen.login);
        assert_eq!(theirs.subject.as_deref(), Some(&*seen.subject));
        assert_eq!(theirs.correlation, Some(correlation));
    }
}

#[test]
fn everybody_logs_in_as_the_managed_identity() {
    let giver = TokenGiver::start(Some(&token()));
    let Some((mut world, server)) = lending() else {
        return;
    };
    server.apply_roles(&world);
    let inside = server.inside().unwrap();
    let before = inside.logins_seen().len();
    world.launch_beside(&giver);
    world.wait_until_ready();
    let consumer = world.consumer().token;
    let other = world.caller(Shape::Okta, "order-consumer", "").token;
    let callers = [&consumer, &consumer, &other, &consumer];
    let seen: Vec<_> = (0..)
        .zip(callers)
        .map(|(n, caller)| visit(&world, &server, caller, n))
        .collect();
    for seen in &seen {
        assert_eq!((seen.login.as_str(), seen.original.as_str()), (USER, USER));
    }
    assert_eq!(
        (seen[0].provider.as_str(), seen[2].provider.as_str()),
        ("entra", "okta")
    );
    assert_ne!(seen[0].subject, seen[2].subject);
    // One identity's connection is lent to it again, and to nobody else, though the login is the same.
    assert_eq!((&seen[0], &seen[0]), (&seen[1], &seen[3]));
    assert_ne!(seen[0].spid, seen[2].spid);
    // The broker's own connection, and one for each.
    came_by_token(&inside.logins_seen()[before..], 3);

    let records = world.settled();
    for minted in ["login.minted", "login.renewed", "login.tampered", "login.dropped"] {
        assert!(of_event(&records, minted).is_empty(), "{minted}");
    }
    agree(&records, inside, &seen);
    assert_eq!(inside.users("parcels"), [USER]);
    let asked = giver.asked();
    assert_eq!(asked.len(), 1, "one token for all connections: {asked:?}");
    assert!(
        asked[0].contains("&resource=https%3A%2F%2Fdatabase.windows.net%2F&client_id=mine "),
        "{asked:?}"
    );
    assert!(
        asked[0].to_lowercase().contains("\r\nmetadata: true\r\n"),
        "{asked:?}"
    );
    world.stop_proxy();
    world.verify_journal();
    world.token_is_nowhere(&token());
}

/// The session context is what tells one from another, so nobody can change it, however it is said.
#[test]
fn nobody_can_pass_for_another() {
    let giver = TokenGiver::start(Some(&token()));
    let Some((mut world, server)) = lending() else {
        return;
    };
    server.apply_roles(&world);
    world.launch_beside(&giver);
    world.wait_until_ready();
    let consumer = world.consumer().token;
    let other = world.caller(Shape::Okta, "order-consumer", "").token;
    world.runtime.block_on(async {
        let mut one = server.connect(&world, &consumer).await.unwrap();
        let mut two = server.connect(&world, &other).await.unwrap();
        let (seen, theirs) = (look(&mut one).await, look(&mut two).await);
        assert_ne!((seen.spid, &seen.subject), (theirs.spid, &theirs.subject));
        let plain = format!(
            "EXEC sp_set_session_context N'gatepost.subject', N'{}'",
            theirs.subject
        );
        // gatepost cannot read what is made at run time; the server itself refuses that.
        let hidden = format!(
            "DECLARE @key nvarchar(40) = N'gate' + N'post.subject'; \
             EXEC sp_set_session_context @key, N'{}'",
            theirs.subject
        );
        for (batch, number) in [(&plain, 229), (&hidden, 15_664)] {
            let told = match one.simple_query(batch.as_str()).await {
                Ok(stream) => stream.into_results().await.map(drop).unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(told.code(), Some(number), "{told}");
        }
        assert_eq!(look(&mut one).await, seen);
    });
}

#[test]
fn deploying_makes_the_identity_a_member_and_what_is_too_much_is_told() {
    let giver = TokenGiver::start(Some(&token()));
    let Some((mut world, server)) = lending() else {
        return;
    };
    let inside = server.inside().unwrap();
    let check = |world: &World| giver.gatepost(world, &["check", "--live"]);
    let by = [
        "--target",
        "parcels",
        "--as",
        "sa",
        "--password-file",
        "sa-password",
    ];
    let (_, told) = giver.gatepost(&world, &[&["roles", "plan"], by.as_slice()].concat());
    assert!(
        told.contains("ALTER ROLE [parcels_writer] ADD MEMBER [gatepost-prod]"),
        "{told}"
    );
    assert!(!told.contains("ALTER ANY USER"), "{told}");
    inside.run("parcels", "CREATE ROLE parcels_writer").unwrap();
    let (good, told) = check(&world);
    assert!(
        !good && told.contains("membership of gatepost-prod in role parcels_writer"),
        "{told}"
    );
    server.apply_roles(&world);
    let (good, told) = check(&world);
    assert!(good, "{told}");
    inside
        .run("parcels", "ALTER ROLE db_datareader ADD MEMBER [gatepost-prod]")
        .unwrap();
    let (good, told) = check(&world);
    let drop = "ALTER ROLE [db_datareader] DROP MEMBER [gatepost-prod]";
    assert!(good && told.contains(drop), "{told}");

    // What somebody plants on the user that all share reaches nobody.
    world.launch_beside(&giver);
    world.wait_until_ready();
    inside
        .run(
            "parcels",
            "ALTER USER [gatepost-prod] WITH DEFAULT_SCHEMA = planted",
        )
        .unwrap();
    let consumer = world.consumer().token;
    let refused = world
        .runtime
        .block_on(server.connect(&world, &consumer))
        .unwrap_err();
    assert!(!refused.to_string().contains("schema"), "{refused}");
    assert!(world.log().contains("has another default schema"));
    let (good, told) = check(&world);
    let reset = "ALTER USER [gatepost-prod] WITH DEFAULT_SCHEMA = dbo";
    assert!(!good && told.contains(reset), "{told}");
    inside.run("parcels", reset).unwrap();
    visit(&world, &server, &consumer, 1);

    // An identity that nobody made a user for.
    inside.run("parcels", "DROP USER [gatepost-prod]").unwrap();
    let (good, told) = check(&world);
    assert!(
        !good && told.contains("refuses the broker's password or token (18456)"),
        "{told}"
    );
}

#[test]
fn without_a_token_nobody_gets_in_and_the_operator_reads_why() {
    let giver = TokenGiver::start(None);
    let Some((mut world, server)) = lending() else {
        return;
    };
    server.apply_roles(&world);
    world.launch_beside(&giver);
    let unready = |why: &str| {
        wait_for("an answer for operators", || {
            world
                .readiness()
                .filter(|(status, page)| *status == 503 && page.contains(why))
        })
    };
    let (_, page) = unready("Identity not found");
    assert!(page.contains("no token of gatepost's own identity"), "{page}");
    let consumer = world.consumer().token;
    let refused = world
        .runtime
        .block_on(server.connect(&world, &consumer))
        .unwrap_err();
    assert_eq!(refused.code(), Some(40613), "{refused}");
    assert!(!refused.to_string().contains("Identity not found"), "{refused}");
    giver.give(&token());
    world.wait_until_ready();
    assert_eq!(visit(&world, &server, &consumer, 1).login, USER);
}

/// In Azure: logins are users of the database, and the broker has no right on the server.
#[test]
fn a_broker_with_a_token_mints_as_one_with_a_password() {
    let giver = TokenGiver::start(Some(&token()));
    let broker = "user: gatepost-prod, managed_identity: {}";
    let Some((mut world, server)) = prepared("strict", broker, "    contained: true\n") else {
        return;
    };
    let inside = server.inside().unwrap();
    server.apply_roles(&world);
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    let missing = "USE [parcels]; GRANT KILL DATABASE CONNECTION TO [gatepost-prod]";
    assert!(!good && told.contains(missing), "{told}");
    inside.run("parcels", MAKE_BROKER).unwrap();
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    assert!(good, "{told}");
    let before = giver.asked().len();
    world.launch_with(|mut command| {
        giver.around(&mut command, "proof of the app");
        command
    });
    world.wait_until_ready();
    let consumer = world.consumer().token;
    let other = world.caller(Shape::Okta, "order-consumer", "").token;
    let seen = [(0, &consumer), (1, &other)].map(|(n, caller)| visit(&world, &server, caller, n));
    for seen in &seen {
        assert!(seen.login.starts_with("gp_e2e_"), "{seen:?}");
    }
    assert_ne!(seen[0].login, seen[1].login);
    agree(&world.records(), inside, &seen);
    let minted: Vec<_> = inside.users("parcels");
    assert!(seen.iter().all(|seen| minted.contains(&seen.login)), "{minted:?}");
    let asked = &giver.asked()[before..];
    assert_eq!(asked.len(), 1, "one token for all connections: {asked:?}");
    let url =
        "GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fdatabase.windows.net%2F HTTP/1.1\r\n";
    assert!(asked[0].starts_with(url), "{asked:?}");
    assert!(
        asked[0]
            .to_lowercase()
            .contains("\r\nx-identity-header: proof of the app\r\n"),
        "{asked:?}"
    );

    // Somebody is still there at the end.
    let held = world.runtime.block_on(async {
        let mut client = server.connect(&world, &consumer).await.unwrap();
        look(&mut client).await;
        client
    });
    world.stop_proxy();
    drop(held);
    let records = world.records();
    for event in ["login.minted", "login.dropped"] {
        assert_eq!(of_event(&records, event).len(), 2, "{event}");
    }
    assert_eq!(inside.users("parcels"), [USER]);
    world.verify_journal();
    world.token_is_nowhere(&token());
    assert!(!world.log().contains("proof of the app"));
}
