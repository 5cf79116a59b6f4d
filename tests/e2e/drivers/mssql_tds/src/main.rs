//! mssql-tds, Microsoft's Rust driver, through the steps of `sqlserver_steps.py`, whose environment and results these are.
//! Arguments: names of steps.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use async_trait::async_trait;
use mssql_tds::connection::bulk_copy::{BulkCopy, BulkLoadRow};
use mssql_tds::connection::client_context::{ClientContext, TdsAuthenticationMethod};
use mssql_tds::connection::tds_client::{
    ExecuteOptions, PreparedStatement, ResultSet as _, StatementResult, TdsClient,
};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{CancelHandle, EncryptionSetting, TdsResult};
use mssql_tds::datatypes::column_values::ColumnValues;
use mssql_tds::datatypes::sql_string::SqlString;
use mssql_tds::datatypes::sqltypes::SqlType;
use mssql_tds::error::Error;
use mssql_tds::message::bulk_load::StreamingBulkLoadWriter;
use mssql_tds::message::parameters::rpc_parameters::{RpcParameter, StatusFlags};
use mssql_tds::message::transaction_management::TransactionIsolationLevel;
use serde_json::{Value, json};
use tokio::time::Instant;

use steps::{BULK, Done, Failure, Surroundings, raised, same, tell, unexpected};

#[path = "../../sqlserver_steps.rs"]
mod steps;

const INSERT: &str =
    "INSERT INTO dbo.parcels (driver, step, n, body, raw) VALUES (@driver, @step, @n, @body, @raw)";
/// Where OpenSSL looks for authorities; this driver has no other way to name one.
const AUTHORITY: &str = "SSL_CERT_FILE";

type Row = Vec<ColumnValues>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let number = match &error {
            Error::SqlServerError { diagnostics } => diagnostics.errors.first().map(|it| it.number),
            _ => None,
        };
        Self {
            number,
            text: error.to_string(),
        }
    }
}

async fn open(at: &Surroundings) -> Result<TdsClient, Failure> {
    let place = format!("tcp:{},{}", at.host, at.port);
    let mut context = ClientContext::with_data_source(&place);
    context.database.clone_from(&at.database);
    context.application_name.clone_from(&at.name);
    context.connect_timeout = 30;
    context.connect_retry_count = 0;
    context.encryption_options.mode = if at.strict {
        EncryptionSetting::Strict
    } else {
        EncryptionSetting::Required
    };
    if at.token.is_some() {
        context.tds_authentication_method = TdsAuthenticationMethod::AccessToken;
        context.access_token.clone_from(&at.token);
    } else {
        context.user_name.clone_from(&at.user);
        context.password.clone_from(&at.password);
    }
    Ok(TdsConnectionProvider::new()
        .create_client(context, &place, None)
        .await?)
}

fn value(of: &ColumnValues) -> Value {
    match of {
        ColumnValues::Null => Value::Null,
        ColumnValues::TinyInt(it) => json!(it),
        ColumnValues::SmallInt(it) => json!(it),
        ColumnValues::Int(it) => json!(it),
        ColumnValues::BigInt(it) => json!(it),
        ColumnValues::String(it) => json!(it.to_utf8_string()),
        other => panic!("no way to tell {other:?}"),
    }
}

fn text(name: &str, value: Option<&str>) -> RpcParameter {
    let value = value.map(|it| SqlString::from_utf8_string(it.to_owned()));
    RpcParameter::new(
        Some(name.to_owned()),
        StatusFlags::NONE,
        SqlType::NVarcharMax(value),
    )
}

fn number(name: &str, value: i32) -> RpcParameter {
    RpcParameter::new(
        Some(name.to_owned()),
        StatusFlags::NONE,
        SqlType::Int(Some(value)),
    )
}

fn bytes(name: &str, value: Option<&[u8]>) -> RpcParameter {
    let value = SqlType::VarBinaryMax(value.map(<[u8]>::to_vec));
    RpcParameter::new(Some(name.to_owned()), StatusFlags::NONE, value)
}

/// All rows of an answer that has begun.
async fn drain(client: &mut TdsClient, mut result: StatementResult) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    loop {
        match result {
            StatementResult::Rows => {
                while let Some(row) = client.next_row().await? {
                    rows.push(row);
                }
            }
            StatementResult::NoRows { .. } => {}
            StatementResult::End => break,
        }
        result = client.advance().await?;
    }
    client.close_query().await?;
    Ok(rows)
}

async fn batch(client: &mut TdsClient, sql: &str) -> Result<Vec<Row>, Failure> {
    let begun = client.execute(sql.to_owned(), ()).await?;
    drain(client, begun).await
}

async fn query(
    client: &mut TdsClient,
    sql: &str,
    parameters: Vec<RpcParameter>,
) -> Result<Vec<Row>, Failure> {
    let begun = client
        .execute_sp_executesql(sql.to_owned(), parameters, ())
        .await?;
    drain(client, begun).await
}

fn only(rows: &[Row]) -> Result<Vec<Value>, Failure> {
    let [row] = rows else {
        return Err(unexpected(format!("{} rows", rows.len())));
    };
    Ok(row.iter().map(value).collect())
}

fn insertion(
    at: &Surroundings,
    step: &str,
    n: i32,
    body: Option<&str>,
    raw: Option<&[u8]>,
) -> Vec<RpcParameter> {
    vec![
        text("@driver", Some(&at.name)),
        text("@step", Some(step)),
        number("@n", n),
        text("@body", body),
        bytes("@raw", raw),
    ]
}

async fn insert(client: &mut TdsClient, at: &Surroundings, step: &str, n: i32) -> Result<(), Failure> {
    query(client, INSERT, insertion(at, step, n, None, None)).await?;
    Ok(())
}

async fn count(client: &mut TdsClient, at: &Surroundings, step: &str) -> Result<Value, Failure> {
    let sql = "SELECT COUNT(*) FROM dbo.parcels WHERE driver = @driver AND step = @step";
    let parameters = vec![text("@driver", Some(&at.name)), text("@step", Some(step))];
    Ok(only(&query(client, sql, parameters).await?)?.remove(0))
}

async fn begin(client: &mut TdsClient) -> Result<(), Failure> {
    Ok(client
        .begin_transaction(TransactionIsolationLevel::ReadCommitted, None)
        .await?)
}

async fn connect(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let values = only(&batch(&mut client, "SELECT 42, N'hi äöü 😀', @@SPID").await?)?;
    let expected = [json!(42), json!("hi äöü 😀"), values[2].clone()];
    client.close_connection().await?;
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
    let values = only(&batch(&mut client, &format!("SELECT n, body FROM {table}")).await?)?;
    batch(&mut client, &format!("DROP TABLE {table}")).await?;
    same(values, &[json!(1), json!("äöü")])
}

async fn prepared(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    begin(&mut client).await?;
    let mut statement = PreparedStatement::new(INSERT);
    for n in 1..=100_u8 {
        let body = format!("text {n} äöü 😀");
        let parameters = insertion(at, "prepared", n.into(), Some(&body), Some(&[0, 255, n]));
        let begun = client
            .execute_prepared(&mut statement, parameters, &mut None, ())
            .await?;
        drain(&mut client, begun).await?;
    }
    client.commit_transaction(None, None).await?;
    let sql = "SELECT body, raw FROM dbo.parcels WHERE driver = @driver AND step = 'prepared' AND n = 100";
    let rows = query(&mut client, sql, vec![text("@driver", Some(&at.name))]).await?;
    match rows.as_slice() {
        [row] => match row.as_slice() {
            [ColumnValues::String(body), ColumnValues::Bytes(raw)]
                if body.to_utf8_string() == "text 100 äöü 😀" && raw == &[0, 255, 100] => {}
            other => return Err(unexpected(other)),
        },
        other => return Err(unexpected(other)),
    }
    Ok(vec![count(&mut client, at, "prepared").await?].into())
}

async fn rollback(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    begin(&mut client).await?;
    insert(&mut client, at, "rollback", 1).await?;
    let within = count(&mut client, at, "rollback").await?;
    client.rollback_transaction(None, None).await?;
    Ok(vec![within, count(&mut client, at, "rollback").await?].into())
}

async fn procedure(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let shipped = Some("@shipped".to_owned());
    let parameters = vec![
        text("@driver", Some(&at.name)),
        number("@n", 21),
        RpcParameter::new(shipped, StatusFlags::BY_REF_VALUE, SqlType::Int(None)),
    ];
    let name = "dbo.ship".to_owned();
    let mut result = client
        .execute_stored_procedure(name, None, Some(parameters), ())
        .await?;
    while result != StatementResult::End {
        result = client.advance().await?;
    }
    let outputs = client.get_return_values();
    let returned = client.get_return_status();
    client.close_query().await?;
    let mut values: Vec<Value> = outputs.iter().map(|it| value(&it.value)).collect();
    values.push(json!(returned));
    values.push(count(&mut client, at, "procedure").await?);
    same(values, &[json!(42), json!(7), json!(1)])
}

async fn rows(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let sql = format!(
        "SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < {}",
        at.rows
    );
    let (mut seen, mut sum) = (0, 0);
    if client.execute(sql, ()).await? != StatementResult::Rows {
        return Err(unexpected("no rows"));
    }
    while let Some(row) = client.next_row().await? {
        seen += 1;
        sum += value(&row[0]).as_i64().unwrap();
    }
    client.close_query().await?;
    if sum != at.rows * (at.rows - 1) / 2 {
        return Err(unexpected(sum));
    }
    Ok(vec![json!(seen)].into())
}

async fn big(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let (raw, body) = at.big_values();
    query(
        &mut client,
        INSERT,
        insertion(at, "big", 1, Some(&body), Some(&raw)),
    )
    .await?;
    let sql = "SELECT DATALENGTH(raw), DATALENGTH(body), raw, body FROM dbo.parcels
        WHERE driver = @driver AND step = 'big'";
    let mut rows = query(&mut client, sql, vec![text("@driver", Some(&at.name))]).await?;
    let row = rows.pop().ok_or_else(|| unexpected("no row"))?;
    match row.as_slice() {
        [
            first,
            second,
            ColumnValues::Bytes(back),
            ColumnValues::String(text),
        ] if back == &raw && text.to_utf8_string() == body => Ok(vec![value(first), value(second)].into()),
        _ => Err(unexpected("other values")),
    }
}

/// A row of `dbo.parcels`.
struct Parcel(String, i32);

#[async_trait]
impl BulkLoadRow for Parcel {
    async fn write_to_packet(
        &self,
        writer: &mut StreamingBulkLoadWriter<'_>,
        column: &mut usize,
    ) -> TdsResult<()> {
        let text = |it: &str| ColumnValues::String(SqlString::from_utf8_string(it.to_owned()));
        let Self(driver, n) = self;
        let body = text(&format!("row {n} äöü"));
        for value in [
            text(driver),
            text("bulk"),
            ColumnValues::Int(*n),
            body,
            ColumnValues::Null,
        ] {
            writer.write_column_value(*column, &value).await?;
            *column += 1;
        }
        Ok(())
    }
}

async fn bulk(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let parcels: Vec<Parcel> = (1..=BULK).map(|n| Parcel(at.name.clone(), n)).collect();
    BulkCopy::new(&mut client, "dbo.parcels")
        .write_to_server_zerocopy(parcels)
        .await?;
    let sql = "SELECT body FROM dbo.parcels WHERE driver = @driver AND step = 'bulk' AND n = 77";
    let read = query(&mut client, sql, vec![text("@driver", Some(&at.name))]).await?;
    same(only(&read)?, &[json!("row 77 äöü")])?;
    Ok(vec![count(&mut client, at, "bulk").await?].into())
}

async fn cancel(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let mut handle = CancelHandle::new();
    handle.set_cancel_timeout_secs(30);
    let started = Instant::now();
    let options = ExecuteOptions::new().cancel(&handle);
    let long = async { Ok::<_, Failure>(client.execute(at.long.clone(), options).await?) };
    let stop = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        handle.cancel();
    };
    let (ended, ()) = tokio::join!(long, stop);
    // What was read of the answer before is an answer that has begun, and ends in the error as well.
    let error = match ended {
        Err(error) => error,
        Ok(begun) => raised(drain(&mut client, begun).await)?,
    };
    let waited = u64::try_from(started.elapsed().as_millis()).unwrap();
    let seven = only(&batch(&mut client, "SELECT 7").await?)?.remove(0);
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
    begin(&mut client).await?;
    insert(&mut client, at, "transactions", 1).await?;
    client.save_transaction("here".to_owned()).await?;
    insert(&mut client, at, "transactions", 2).await?;
    client.rollback_transaction(Some("here".to_owned()), None).await?;
    insert(&mut client, at, "transactions", 3).await?;
    client.commit_transaction(None, None).await?;
    let sql = "SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = @driver AND step = 'transactions'";
    let read = query(&mut client, sql, vec![text("@driver", Some(&at.name))]).await?;
    same(only(&read)?, &[json!(2), json!(4)])
}

async fn error(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let zero = raised(batch(&mut client, "SELECT 1 / 0").await)?;
    let stated = raised(batch(&mut client, "THROW 50001, N'stated äöü', 1;").await)?;
    let seven = only(&batch(&mut client, "SELECT 7").await?)?.remove(0);
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
    Ok(only(&batch(&mut client, statement).await?)?.into())
}

const STATE: &str = "SELECT @@LOCK_TIMEOUT, CASE WHEN OBJECT_ID('tempdb..#mark') IS NULL THEN 0 ELSE 1 END,
    CAST(SESSION_CONTEXT(N'mark') AS nvarchar(40)), @@SPID";

/// What a pool does when a connection is handed out again.
async fn reset(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let mark =
        "SET LOCK_TIMEOUT 1234; CREATE TABLE #mark (n int); EXEC sp_set_session_context N'mark', N'kept'";
    batch(&mut client, mark).await?;
    let before = only(&batch(&mut client, STATE).await?)?;
    if before[..3] != [json!(1234), json!(1), json!("kept")] {
        return Err(unexpected(before));
    }
    client.prepare_reset_connection(false);
    let mut after = only(&batch(&mut client, STATE).await?)?;
    after[3] = json!(after[3] == before[3]);
    Ok(after.into())
}

async fn correlation(at: &Surroundings) -> Result<Done, Failure> {
    let mut client = open(at).await?;
    let given = at.correlation();
    let set = format!("EXEC sp_set_session_context N'correlation_id', N'{given}'");
    batch(&mut client, &set).await?;
    query(
        &mut client,
        INSERT,
        insertion(at, "correlation", 1, Some(&given), None),
    )
    .await?;
    Ok(vec![json!(given)].into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let at = Surroundings::of_environment();
    if std::env::var_os(AUTHORITY).is_none_or(|it| it != at.authority) {
        let own = std::env::current_exe().unwrap();
        let mut again = std::process::Command::new(own);
        let error = again
            .args(std::env::args_os().skip(1))
            .env(AUTHORITY, &at.authority)
            .exec();
        panic!("{error}");
    }
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
            "reset" => reset(&at).await,
            "correlation" => correlation(&at).await,
            other => panic!("no step {other}"),
        };
        tell(&step, result);
    }
}
