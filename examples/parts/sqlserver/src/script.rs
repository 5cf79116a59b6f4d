//! T-SQL scripts for setting an example up, and the rows that show how it ended.

use std::path::Path;

use crate::trouble::{plainly, told};
use crate::{Failure, Server};

const APPLICATION: &str = "example-setup";

/// Runs the batches of a file, which stand between lines that say `GO`.
pub async fn run_script(server: &Server, file: &Path) -> Result<usize, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mut session, _) = server.connect(APPLICATION).await.map_err(plainly)?;
    let batches = batches(&text);
    for batch in &batches {
        let refused = |error| format!("{}: {}\n{batch}", file.display(), told(&error));
        let results = session.simple_query(batch.as_str()).await.map_err(refused)?;
        results.into_results().await.map_err(refused)?;
    }
    Ok(batches.len())
}

/// One line for every order and payment: its number, and the correlation id of the session that made it.
pub async fn rows(server: &Server) -> Result<Vec<String>, Failure> {
    const TABLES: [(&str, &str); 2] = [
        ("order", "SELECT id, correlation_id FROM dbo.orders ORDER BY id"),
        (
            "payment",
            "SELECT id, correlation_id FROM dbo.payments ORDER BY id",
        ),
    ];
    let (mut session, _) = server.connect(APPLICATION).await.map_err(plainly)?;
    let mut lines = Vec::new();
    for (name, query) in TABLES {
        for row in session.simple_query(query).await?.into_first_result().await? {
            let id: Option<i64> = row.try_get(0)?;
            let correlation: Option<&str> = row.try_get(1)?;
            let (id, correlation) = id.zip(correlation).ok_or("a row without its columns")?;
            lines.push(format!("{name} {id} {correlation}"));
        }
    }
    Ok(lines)
}

fn batches(text: &str) -> Vec<String> {
    let mut batches = vec![String::new()];
    for line in text.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            batches.push(String::new());
        } else if let Some(batch) = batches.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    batches.retain(|batch| !batch.trim().is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use super::batches;

    #[test]
    fn batches_stand_between_lines_that_say_go() {
        assert_eq!(
            batches("SELECT 1\ngo\n\n GO \nSELECT 'GO'\nGOTO x\n"),
            ["SELECT 1\n", "SELECT 'GO'\nGOTO x\n"]
        );
        assert!(batches("\nGO\n").is_empty());
    }
}
