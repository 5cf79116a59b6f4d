//! Looks for gatepost's marker in the WAL, with the extension `pg_walinspect`.

use crate::audit::{Doubt, Lsn, Marker, MarkerKey};
use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind};
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::naming::quote_name;

/// Read with one question, a second of a fast disk. A COMMIT follows its marker at once; between the two
/// stands what others wrote meanwhile.
const WINDOW_BYTES: u64 = 64 << 20;
/// Questions for one marker: behind 1 GiB of others' writes nobody is still committing.
const WINDOWS_MAX: usize = 16;
/// What stands around the payload in the extension's description of a message.
const PREFIX: &str = "prefix \"gatepost\"; payload (";

const EXTENSION: &str = "SELECT n.nspname::text, has_function_privilege(current_user, \
    format('%I.pg_get_wal_records_info(pg_lsn, pg_lsn)', n.nspname), 'EXECUTE') FROM pg_extension AS e \
    JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pg_walinspect'";
/// The end of what can be read, or nothing if that is not behind the beginning.
const END: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text WHERE pg_current_wal_flush_lsn() > $1::text::pg_lsn";

impl Connection {
    /// Does our marker of this transaction stand in the WAL, and the commit of its transaction behind it?
    /// What cannot be read (the extension is missing, the WAL is gone) proves nothing.
    pub(in crate::credential) async fn is_marked(
        &self,
        doubt: &Doubt,
        key: &MarkerKey,
    ) -> Result<bool, BrokerError> {
        let Some(Marker::Wal(from)) = doubt.marker else {
            return Ok(false);
        };
        match self.search(doubt, from, key).await {
            Err(error) if !error.ends_connection() => {
                tracing::warn!(target_name = %self.target(), %error, "the WAL cannot be searched for a marker");
                Ok(false)
            }
            other => other,
        }
    }

    async fn search(&self, doubt: &Doubt, from: Lsn, key: &MarkerKey) -> Result<bool, BrokerError> {
        let (Some(id), Some(session)) = (doubt.id, doubt.facts.session) else {
            return Ok(false);
        };
        let Some(schema) = self.wal_extension().await?.map(|(schema, _)| schema) else {
            return Ok(false);
        };
        let what = "reading the WAL";
        let sql = format!(
            "SELECT resource_manager, record_type, description FROM {}.pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn) \
             WHERE xid = xid($3::text::xid8) AND resource_manager IN ('LogicalMessage', 'Transaction') ORDER BY start_lsn",
            quote_name(&schema)
        );
        let (mut from, mut marked) = (from, false);
        for _ in 0..WINDOWS_MAX {
            let end = self.query(what, END, &[&from.to_string()]).await?;
            let end: Option<u64> = end.first().and_then(|row| row.get::<_, &str>(0).parse().ok());
            let Some(end) = end else { return Ok(false) };
            let until = Lsn(end.min(from.0.saturating_add(WINDOW_BYTES)));
            let ends = (from.to_string(), until.to_string());
            let rows = self
                .query(what, &sql, &[&ends.0, &ends.1, &id.to_string()])
                .await?;
            for row in rows {
                let (manager, record, description): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
                if manager == "LogicalMessage" {
                    let payload = payload(description);
                    marked |= payload.is_some_and(|payload| key.made(&payload, session, doubt.number));
                } else if record == "COMMIT" {
                    return Ok(marked);
                }
            }
            from = until;
        }
        Ok(false)
    }

    /// Where the extension is, and whether the broker may read the WAL with it.
    async fn wal_extension(&self) -> Result<Option<(String, bool)>, BrokerError> {
        let rows = self.query("looking for pg_walinspect", EXTENSION, &[]).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }

    /// Why markers could not be found again, if so.
    pub(in crate::credential) async fn marker_unseen(&self) -> Result<Option<Finding>, BrokerError> {
        let found = self.wal_extension().await?;
        let finding = |missing: &str, sql| Finding {
            missing: format!("{missing}: wal_marker writes what nobody can find again"),
            sql,
            kind: FindingKind::NotProven,
        };
        let Some((schema, allowed)) = found else {
            let sql = "CREATE EXTENSION pg_walinspect".to_owned();
            return Ok(Some(finding("the extension pg_walinspect", sql)));
        };
        if allowed {
            return Ok(None);
        }
        let what = "reading the broker's name";
        let rows = self.query(what, "SELECT current_user::text", &[]).await?;
        let user: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
        let sql = format!(
            "GRANT EXECUTE ON FUNCTION {}.pg_get_wal_records_info(pg_lsn, pg_lsn) TO {}",
            quote_name(&schema),
            quote_name(&user)
        );
        Ok(Some(finding("EXECUTE on pg_get_wal_records_info", sql)))
    }
}

/// The bytes of a message with our prefix, which clients can write as well.
fn payload(description: &str) -> Option<Vec<u8>> {
    let (_, rest) = description.split_once(PREFIX)?;
    let (_, digits) = rest.split_once("): ")?;
    let bytes = digits.split_ascii_whitespace();
    bytes.map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_as_the_extension_writes_them() {
        let written = "transactional, prefix \"gatepost\"; payload (3 bytes): 01 AB FF";
        assert_eq!(payload(written), Some(vec![0x01, 0xab, 0xff]));
        for other in [
            "transactional, prefix \"other\"; payload (1 bytes): 01",
            "transactional, prefix \"gatepost\"; payload (1 bytes): 0x",
            "",
        ] {
            assert_eq!(payload(other), None, "{other}");
        }
    }
}
