//! tiberius through the steps of `sqlserver_steps.py`, whose environment and results these are. Arguments: names of
//! steps.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tiberius::{
    AuthMethod, Client, ColumnData, Command, Config, EncryptionLevel, IntoRow as _, QueryItem, ToSql,
};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

use steps::{BULK, Done, Failure, Surroundings, raised, same, tell, unexpected};

#[path = "../../../sqlserver_steps.rs"]
mod steps;

type Connection = Client<Compat<TcpStream>>;

/// How long a statement runs before it is given up.
const HURRY: Duration = Duration::from_secs(2);

impl From<tiberius::error::Error> for Failure {
    fn from(error: tiberius::error::Error) -> Self {
        Self {
            number: error.code(),
            text: error.to_string(),
        }
    }
}

async fn open(at: &Surroundings) -> Result<Connection, Failure> {
    let mut config = Config::new();
    config.host(&at.host);
    config.port(at.port);
    config.database(&at.database);
    config.application_name(&at.name);
    config.authentication(match &at.token {
        Some(token) => AuthMethod::aad_token(token),
        None => AuthMethod::sql_server(&at.user, &at.password),
    });
    config.encryption(if at.strict {
        EncryptionLevel::Strict
    } else {
        EncryptionLevel::Required
    });
    config.trust_cert_ca(at.authority.display());
    config.command_timeout(None);
    let stream = TcpStream::connect(config.get_addr()).await;
    let stream = stream.map_err(tiberius::error::Error::from)?;
    stream.set_nodelay(true).unwrap();
    Ok(Client::connect(config, stream.compat_write()).await?)
}

fn value(data: &ColumnData<'_>) -> Value {
    match data {
        ColumnData::U8(it) => json!(it),
        ColumnData::I16(it) => json!(it),
        ColumnData::I32(it) => json!(it),
        ColumnData::I64(it) => json!(it),
        ColumnData::String(it) => json!(it),
        other => panic!("no way to tell {other:?}"),
    }
}

async fn batch(client: &mut Connection, sql: &str) -> Result<(), Failure> {
    client.simple_query(sql).await?.into_results().await?;
    Ok(())
}

/// The one row of a batch without parameters.
async fn plain(client: &mut Connection, sql: &str) -> Result<Vec<Value>, Failure> {
    let row = client.simple_query(sql).await?.into_row().await?;
    let row = row.ok_or_else(|| unexpected("no row"))?;
    Ok(row.cells().map(|(_, data)| value(data)).collect())
}

async fn row(client: &mut Connection, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Value>, Failure> {
    let row = client.query(sql, parameters).await?.into_row().await?;
    let row = row.ok_or_else(|| unexpected("no row"))?;
    Ok(row.cells().map(|(_, data)| value(data)).collect())
}

async fn insert(client: &mut Connection, at: &Surroundings, step: &str, n: i32) -> Result<(), Failure> {
    write(client, at, step, n, None, None).await
}

/// What is not given is left out: this driver sends NULL without a type, which not every server takes.
async fn write(
    client: &mut Connection,
    at: &Surroundings,
    step: &str,
    n: i32,
    body: Option<&str>,
    raw: Option<&[u8]>,
) -> Result<(), Failure> {
    let mut columns = vec!["driver", "step", "n"];
    let mut values: Vec<&dyn ToSql> = vec![&at.name, &step, &n];
    if let Some(body) = &body {
        columns.push("body");
        values.push(body);
    }
    if let Some(raw) = &raw {
        columns.push("raw");
        values.push(raw);
    }
    let places: Vec<String> = (1..=values.len()).map(|it| format!("@P{it}")).collect();
    let (columns, places) = (columns.join(", "), places.join(", "));
    let insert = format!("INSERT INTO dbo.parcels ({columns}) VALUES ({places})");
    client.execute(insert, &values).await?;
    Ok(())
}

async fn count(client: &mut Connection, at: &Surroundings, step: &str) -> Result<Value, Failure> {
    let query = "SELECT COUNT(*) FROM dbo.parcels WHERE driver = @P1 AND step = @P2";
    Ok(row(client, query, &[&at.name, &step]).await?.remove(0))
}

async fn connect(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let values = plain(&mut client, "SELECT 42, N'hi äöü 😀', @@SPID").await?;
    let expected = [json!(42), json!("hi äöü 😀"), values[2].clone()];
    same(values, &expected)
}

async fn refused(at: &Surroundings) -> Result<Done, Failure> {
    Ok(Done::told(vec![], raised(open(at).await)?))
}

async fn ddl(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let table = at.ddl_table();
    let create = format!("CREATE TABLE {table} (n int NOT NULL PRIMARY KEY, body nvarchar(50) NULL)");
    batch(&mut client, &create).await?;
    batch(&mut client, &format!("INSERT INTO {table} VALUES (1, N'äöü')")).await?;
    let values = plain(&mut client, &format!("SELECT n, body FROM {table}")).await?;
    batch(&mut client, &format!("DROP TABLE {table}")).await?;
    same(values, &[json!(1), json!("äöü")])
}

async fn prepared(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    client.begin_transaction().await?;
    for n in 1..=100_u8 {
        let body = format!("text {n} äöü 😀");
        let step = "prepared";
        write(&mut client, at, step, n.into(), Some(&body), Some(&[0, 255, n])).await?;
    }
    client.commit_transaction().await?;
    let query = "SELECT body, raw FROM dbo.parcels WHERE driver = @P1 AND step = 'prepared' AND n = 100";
    let row = client.query(query, &[&at.name]).await?.into_row().await?;
    let row = row.ok_or_else(|| unexpected("no row"))?;
    let (body, raw): (Option<&str>, Option<&[u8]>) = (row.get(0), row.get(1));
    if (body, raw) != (Some("text 100 äöü 😀"), Some(&[0, 255, 100])) {
        return Err(unexpected((body, raw)));
    }
    Ok(vec![count(&mut client, at, "prepared").await?].into())
}

async fn rollback(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    client.begin_transaction().await?;
    insert(&mut client, at, "rollback", 1).await?;
    let within = count(&mut client, at, "rollback").await?;
    client.rollback_transaction().await?;
    Ok(vec![within, count(&mut client, at, "rollback").await?].into())
}

async fn procedure(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let mut command = Command::new("dbo.ship");
    command.bind_param("@driver", at.name.as_str());
    command.bind_param("@n", 21_i32);
    command.bind_out_param("@shipped", 0_i32);
    let result = command.exec(&mut client).await?.into_command_result().await?;
    let shipped: Option<i32> = result.try_return_value("@shipped")?;
    let values = vec![
        json!(shipped),
        json!(result.return_code()),
        count(&mut client, at, "procedure").await?,
    ];
    same(values, &[json!(42), json!(7), json!(1)])
}

async fn rows(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let query = format!(
        "SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < {}",
        at.rows
    );
    let (mut seen, mut sum) = (0, 0);
    let mut stream = client.query(query, &[]).await?;
    while let Some(item) = stream.try_next().await? {
        if let QueryItem::Row(row) = item {
            seen += 1;
            sum += i64::from(row.get::<i32, _>(0).unwrap());
        }
    }
    if sum != at.rows * (at.rows - 1) / 2 {
        return Err(unexpected(sum));
    }
    Ok(vec![json!(seen)].into())
}

async fn big(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let (raw, body) = at.big_values();
    write(&mut client, at, "big", 1, Some(&body), Some(&raw)).await?;
    let query = "SELECT DATALENGTH(raw), DATALENGTH(body), raw, body FROM dbo.parcels WHERE driver = @P1 AND step = 'big'";
    let row = client.query(query, &[&at.name]).await?.into_row().await?;
    let row = row.ok_or_else(|| unexpected("no row"))?;
    if row.get::<&[u8], _>(2) != Some(raw.as_slice()) || row.get::<&str, _>(3) != Some(body.as_str()) {
        return Err(unexpected("other values"));
    }
    Ok(row
        .cells()
        .take(2)
        .map(|(_, data)| value(data))
        .collect::<Vec<_>>()
        .into())
}

async fn bulk(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let columns = ["driver", "step", "n", "body"];
    let mut load = client.bulk_insert_columns("dbo.parcels", &columns).await?;
    for n in 1..=BULK {
        let body = format!("row {n} äöü");
        load.send((at.name.as_str(), "bulk", n, body).into_row()).await?;
    }
    load.finalize().await?;
    let query = "SELECT body FROM dbo.parcels WHERE driver = @P1 AND step = 'bulk' AND n = 77";
    let read = row(&mut client, query, &[&at.name]).await?;
    same(read, &[json!("row 77 äöü")])?;
    Ok(vec![count(&mut client, at, "bulk").await?].into())
}

/// The program stops waiting; then the driver must tell the server so.
async fn cancel(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let started = Instant::now();
    let waited = tokio::time::timeout(HURRY, batch(&mut client, &at.long)).await;
    let Err(elapsed) = waited else {
        return Err(unexpected("it was over before"));
    };
    client.cancel_query().await?;
    let waited = u64::try_from(started.elapsed().as_millis()).unwrap();
    let seven = plain(&mut client, "SELECT 7").await?.remove(0);
    let error = Failure {
        number: None,
        text: elapsed.to_string(),
    };
    Ok(Done::told(vec![seven, json!(waited)], error))
}

async fn recovery(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let syntax = raised(batch(&mut client, "SELECT 1 +").await)?;
    insert(&mut client, at, "recovery", 1).await?;
    let twice = raised(insert(&mut client, at, "recovery", 1).await)?;
    insert(&mut client, at, "recovery", 2).await?;
    let counted = count(&mut client, at, "recovery").await?;
    Ok(vec![json!(syntax.number), json!(twice.number), counted].into())
}

async fn transactions(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    client.begin_transaction().await?;
    insert(&mut client, at, "transactions", 1).await?;
    batch(&mut client, "SAVE TRANSACTION here").await?;
    insert(&mut client, at, "transactions", 2).await?;
    batch(&mut client, "ROLLBACK TRANSACTION here").await?;
    insert(&mut client, at, "transactions", 3).await?;
    client.commit_transaction().await?;
    let query = "SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = @P1 AND step = 'transactions'";
    let values = row(&mut client, query, &[&at.name]).await?;
    same(values, &[json!(2), json!(4)])
}

async fn error(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let zero = raised(plain(&mut client, "SELECT 1 / 0").await)?;
    let stated = raised(batch(&mut client, "THROW 50001, N'stated äöü', 1;").await)?;
    let seven = plain(&mut client, "SELECT 7").await?.remove(0);
    Ok(Done::told(vec![json!(zero.number), seven], stated))
}

async fn idle(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    tell("idle", Ok(vec![json!("ready")].into()));
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.unwrap().unwrap();
    let statement = if line.trim().is_empty() {
        "SELECT 43"
    } else {
        line.trim()
    };
    Ok(plain(&mut client, statement).await?.into())
}

async fn correlation(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let given = at.correlation();
    let mut command = Command::new("sp_set_session_context");
    command.bind_param("@key", "correlation_id");
    command.bind_param("@value", given.as_str());
    command.exec(&mut client).await?.into_command_result().await?;
    write(&mut client, at, "correlation", 1, Some(&given), None).await?;
    Ok(vec![json!(given)].into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let at = Surroundings::of_environment();
    for step in std::env::args().skip(1) {
        let result = match step.as_str() {
            "connect" => connect(&at).await,
            "refused" => refused(&at).await,
            "ddl" => ddl(&at).await,
            "prepared" => prepared(&at).await,
            "rollback" => rollback(&at).await,
            "procedure" => procedure(&at).await,
            "rows" => rows(&at).await,
            "big" => big(&at).await,
            "bulk" => bulk(&at).await,
            "cancel" => cancel(&at).await,
            "recovery" => recovery(&at).await,
            "transactions" => transactions(&at).await,
            "error" => error(&at).await,
            "idle" => idle(&at).await,
            "reset" => Err(Failure {
                number: None,
                text: "this driver has no pool and no reset".to_owned(),
            }),
            "correlation" => correlation(&at).await,
            other => panic!("no step {other}"),
        };
        tell(&step, result);
    }
}
