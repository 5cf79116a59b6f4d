//! What an analyst sees: reading is allowed, writing is refused twice over (by the policy, and by the
//! database role), and every row in the table was written by a transaction that the journal knows.
//!
//! Reads `gatepost audit show --json` on standard input and compares it with the rows' own `xmin`.

#![expect(clippy::print_stdout, reason = "an example shows its findings")]

use std::collections::BTreeMap;
use std::io::BufRead as _;

use parts::{Access, Failure};
use serde_json::Value;
use tokio_postgres::error::SqlState;

mod parts;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let access = Access::from_environment("ANALYST")?;
    match access.connect("orders_writer", "order-auditor").await {
        Ok(_) => return Err("the analyst got the writer's role".into()),
        Err(refusal) => println!("  asking for the writer's role: {}", told(refusal.as_ref())),
    }
    let (client, _) = access.connect("auto", "order-auditor").await?;
    let written = client
        .execute("INSERT INTO orders VALUES (0, 'nobody', 1)", &[])
        .await;
    match written {
        Ok(_) => return Err("the analyst could write".into()),
        Err(refusal) if refusal.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            println!("  writing as a reader: {}", told(&refusal));
        }
        Err(other) => return Err(other.into()),
    }

    let journal = committed()?;
    let rows = client
        .query(
            "SELECT message_id, xmin::text FROM inbox ORDER BY message_id",
            &[],
        )
        .await?;
    let mut missing = 0;
    for row in &rows {
        let (message, xmin): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if journal.get(message).map(String::as_str) != Some(xmin) {
            missing += 1;
            println!(
                "  {message} was written by transaction {xmin}; the journal says {:?}",
                journal.get(message)
            );
        }
    }
    println!(
        "  {} rows, {} of them as the journal says",
        rows.len(),
        rows.len() - missing
    );
    if missing > 0 || rows.len() != journal.len() {
        return Err(format!(
            "the journal has {} committed messages, the table {}",
            journal.len(),
            rows.len()
        )
        .into());
    }
    Ok(())
}

/// Correlation id → transaction id as rows carry it (32 bits), of committed transactions.
fn committed() -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let record: Value = serde_json::from_str(&line?)?;
        let committed = record.get("outcome").and_then(Value::as_str) == Some("committed");
        let Some(id) = record.get("xid").and_then(Value::as_u64).filter(|_| committed) else {
            continue;
        };
        let correlation = record.get("correlation").and_then(Value::as_array);
        for given in correlation.into_iter().flatten().filter_map(Value::as_str) {
            if given.starts_with("msg-") {
                // A row knows the lower half of its transaction's id.
                found.insert(given.to_owned(), (id & 0xffff_ffff).to_string());
            }
        }
    }
    Ok(found)
}

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let refused = error
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::as_db_error);
    refused.map_or_else(
        || error.to_string(),
        |refused| format!("{} {}", refused.code().code(), refused.message()),
    )
}
