//! What is read of a database's catalogue to prove statements harmless.
//!
//! Everything with a number below 16,384 (`FirstNormalObjectId`) came with the server, and is trusted as its
//! authors marked it. Of all else,
//! what a use of it may run is followed through two things that the server keeps: its dependencies
//! (`pg_depend`, which names everything that is not the server's own) and the functions in its stored
//! expressions (which names the server's own as well).

use std::fmt::Write as _;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::credential::error::BrokerError;
use crate::credential::postgres::connection::Connection;
use crate::sql::pg::catalogue::{Catalogue, Danger, Draft, Key, OBJECTS_MAX};
use crate::sql::pg::functions::{HARMLESS, RUNS_CODE, TRUSTED_EXTENSIONS, WRITES};

/// Changes whenever a row of these catalogues does: each row counts with the transaction that wrote it. One
/// statement, so it sees one state.
const DIGEST_OF: [(&str, &str); 15] = [
    ("pg_proc", "oid"),
    ("pg_class", "oid"),
    ("pg_type", "oid"),
    ("pg_rewrite", "oid"),
    ("pg_operator", "oid"),
    ("pg_opclass", "oid"),
    ("pg_cast", "oid"),
    ("pg_conversion", "oid"),
    ("pg_trigger", "oid"),
    ("pg_policy", "oid"),
    ("pg_constraint", "oid"),
    ("pg_attrdef", "oid"),
    ("pg_index", "indexrelid"),
    ("pg_inherits", "inhrelid"),
    ("pg_statistic_ext", "oid"),
];

/// What the other statements stand on: `fn` with what calling each function may do (0 nothing, 1 run code that
/// nobody looked at, 2 write), `bad_op` the operators of such functions.
const COMMON: &str = r"
WITH trusted AS MATERIALIZED (
  SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = ANY($1::text[])),
fn AS MATERIALIZED (
  SELECT p.oid, p.proname, CASE
    WHEN p.oid >= 16384 THEN CASE
      WHEN p.prolang IN (12, 13) AND p.prokind IN ('f', 'w') AND p.provolatile <> 'v' AND EXISTS (
        SELECT FROM trusted t WHERE t.classid = 'pg_proc'::regclass AND t.objid = p.oid) THEN 0
      ELSE 1 END
    WHEN p.prolang NOT IN (12, 13, 14) OR p.proname = ANY($2::text[])
      OR 2275 = ANY(p.proargtypes) OR 2281 = ANY(p.proargtypes) THEN 1
    WHEN p.proname = ANY($3::text[]) THEN 2
    WHEN p.provolatile = 'v' AND p.proname <> ALL($4::text[]) THEN 1
    ELSE 0 END AS danger,
    p.oid >= 16384 AND NOT (p.prolang IN (12, 13) AND EXISTS (
        SELECT FROM trusted t WHERE t.classid = 'pg_proc'::regclass AND t.objid = p.oid)) AS foreign_code
  FROM pg_proc p),
bad_op AS MATERIALIZED (
  SELECT o.oid, o.oprname FROM pg_operator o JOIN fn ON fn.oid = o.oprcode WHERE fn.danger <> 0)
";

/// Functions, operators (as 3) and what reaches every text (as 4).
const NAMES: &str = r"
SELECT DISTINCT proname::text, danger FROM fn WHERE danger <> 0
UNION ALL SELECT DISTINCT oprname::text, 3 FROM bad_op
UNION ALL SELECT '', 4 WHERE
  EXISTS (SELECT FROM pg_cast c JOIN fn ON fn.oid = c.castfunc
          WHERE fn.foreign_code AND c.castsource < 16384 AND c.casttarget < 16384)
  OR EXISTS (SELECT FROM pg_conversion c WHERE c.oid >= 16384)
  OR EXISTS (SELECT FROM pg_opclass c WHERE c.oid >= 16384 AND c.opcdefault AND c.opcmethod IN (403, 405)
          AND c.opcintype < 16384 AND NOT EXISTS (
            SELECT FROM trusted t WHERE t.classid = 'pg_opclass'::regclass AND t.objid = c.oid))";

/// Relations (class 0) and types (class 1) with what is dangerous about them at first sight: 1 to read,
/// 2 to write.
const OBJECTS: &str = r",
part AS MATERIALIZED (
  -- Everything with an expression that belongs to a relation or a domain; who evaluates it: 1 a reader (also
  -- the planner, which computes what is constant), 2 a writer.
  SELECT 'pg_class'::regclass::oid AS classid, i.indexrelid AS objid, 0 AS class, i.indrelid AS owner, 1 AS seen,
         concat(i.indexprs::text, i.indpred::text) AS expression, false AS strict
  FROM pg_index i WHERE i.indrelid >= 16384
  UNION ALL SELECT 'pg_rewrite'::regclass, oid, 0, ev_class, CASE WHEN ev_type = '1' THEN 1 ELSE 2 END,
         concat(ev_action::text, ev_qual::text), true FROM pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, 0, d.adrelid,
         CASE WHEN a.attgenerated = 'v' THEN 1 ELSE 2 END, d.adbin::text, a.attgenerated = 'v'
  FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  WHERE d.oid >= 16384
  UNION ALL SELECT 'pg_constraint'::regclass, oid, CASE WHEN contypid <> 0 THEN 1 ELSE 0 END,
         CASE WHEN contypid <> 0 THEN contypid ELSE conrelid END, 1, conbin::text, contypid <> 0
  FROM pg_constraint WHERE oid >= 16384
  UNION ALL SELECT 'pg_policy'::regclass, oid, 0, polrelid, 1, concat(polqual::text, polwithcheck::text), true
  FROM pg_policy
  UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0, stxrelid, 1, stxexprs::text, false
  FROM pg_statistic_ext WHERE stxexprs IS NOT NULL
  UNION ALL SELECT 'pg_class'::regclass, partrelid, 0, partrelid, 1, partexprs::text, false
  FROM pg_partitioned_table),
bad_part AS (
  SELECT p.class, p.owner, p.seen FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
  JOIN fn ON d.refclassid = 'pg_proc'::regclass AND fn.oid = d.refobjid WHERE fn.danger = 1
  UNION ALL
  SELECT p.class, p.owner, p.seen FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
  JOIN bad_op o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  UNION ALL
  SELECT p.class, p.owner, p.seen FROM part p,
    LATERAL regexp_matches(p.expression, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') m
  JOIN fn ON fn.oid = m[1]::oid WHERE fn.danger = 1 OR (fn.danger = 2 AND p.strict)
  UNION ALL
  -- A view that locks the rows it shows.
  SELECT p.class, p.owner, 1 FROM part p WHERE p.strict AND p.expression LIKE '%ROWMARKCLAUSE%'
  UNION ALL
  -- An index of an operator class, or on an access method, that is not trusted.
  SELECT 0, i.indrelid, 1 FROM pg_index i, unnest(i.indclass::oid[]) AS c(oid)
  WHERE c.oid >= 16384 AND NOT EXISTS (
    SELECT FROM trusted t WHERE t.classid = 'pg_opclass'::regclass AND t.objid = c.oid)
  UNION ALL
  SELECT 0, p.partrelid, 1 FROM pg_partitioned_table p, unnest(p.partclass::oid[]) AS c(oid)
  WHERE c.oid >= 16384
  UNION ALL
  SELECT 0, tgrelid, 2 FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL
  SELECT 0, ev_class, 2 FROM pg_rewrite WHERE ev_type <> '1' AND oid >= 16384
  UNION ALL
  SELECT 0, oid, CASE WHEN relkind = 'v' THEN 2 ELSE 1 END FROM pg_class
  WHERE oid >= 16384 AND (relkind IN ('f', 'v') OR relam >= 16384)
  UNION ALL
  -- Types whose input or output nobody looked at, and those with casts of that sort.
  SELECT 1, t.oid, 1 FROM pg_type t JOIN fn ON fn.oid = ANY(ARRAY[t.typinput, t.typoutput, t.typreceive,
    t.typsend, t.typmodin, t.typmodout, t.typanalyze]::oid[]) WHERE t.oid >= 16384 AND fn.foreign_code
  UNION ALL
  SELECT 1, r.rngtypid, 1 FROM pg_range r LEFT JOIN fn ON fn.oid IN (r.rngcanonical, r.rngsubdiff)
  WHERE r.rngtypid >= 16384 AND (fn.foreign_code OR r.rngsubopc >= 16384)
  UNION ALL
  -- Sorting, grouping and joining use it without a word.
  SELECT 1, c.opcintype, 1 FROM pg_opclass c WHERE c.oid >= 16384 AND c.opcintype >= 16384 AND NOT EXISTS (
    SELECT FROM trusted t WHERE t.classid = 'pg_opclass'::regclass AND t.objid = c.oid)
  UNION ALL
  SELECT 1, t.oid, 1 FROM pg_cast c JOIN fn ON fn.oid = c.castfunc
  JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget) AND t.oid >= 16384 WHERE fn.foreign_code)
SELECT 0 AS class, oid, relname::text AS name, 0 AS danger FROM pg_class
WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
UNION ALL SELECT 1, oid, typname::text, 0 FROM pg_type WHERE oid >= 16384
UNION ALL SELECT DISTINCT class, owner, '', seen FROM bad_part WHERE owner >= 16384";

/// What leads to what: an object of a class, `r` or `w`, another object of a class that is read or written
/// with it.
const EDGES: &str = r"
WITH part AS (
  SELECT 'pg_rewrite'::regclass::oid AS classid, oid AS objid, ev_class AS owner FROM pg_rewrite
  WHERE ev_type = '1'
  UNION ALL SELECT 'pg_policy'::regclass, oid, polrelid FROM pg_policy
  UNION ALL SELECT 'pg_attrdef'::regclass, oid, adrelid FROM pg_attrdef
  UNION ALL SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint WHERE conrelid <> 0
  UNION ALL SELECT 'pg_class'::regclass, indexrelid, indrelid FROM pg_index WHERE indrelid >= 16384)
SELECT 0, p.owner, 'r', 0, d.refobjid FROM part p
JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_class'::regclass
WHERE p.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)
  AND d.refobjid >= 16384 AND d.refobjid <> p.owner
UNION SELECT 0, p.owner, 'r', 1, d.refobjid FROM part p
JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_type'::regclass
UNION SELECT 1, c.contypid, 'r', 1, d.refobjid FROM pg_constraint c
JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
 AND d.refclassid = 'pg_type'::regclass
WHERE c.contypid <> 0 AND d.refobjid <> c.contypid
UNION SELECT 0, inhparent, 'r', 0, inhrelid FROM pg_inherits
UNION SELECT 0, inhparent, 'w', 0, inhrelid FROM pg_inherits
UNION SELECT 0, inhrelid, 'w', 0, inhparent FROM pg_inherits
UNION SELECT 0, confrelid, 'w', 0, conrelid FROM pg_constraint WHERE contype = 'f'
UNION SELECT 0, attrelid, 'r', 1, atttypid FROM pg_attribute
WHERE atttypid >= 16384 AND attrelid >= 16384 AND attnum > 0 AND NOT attisdropped
UNION SELECT 1, oid, 'r', 1, typelem FROM pg_type WHERE typelem >= 16384
UNION SELECT 1, oid, 'r', 1, typbasetype FROM pg_type WHERE typbasetype >= 16384
UNION SELECT 1, rngtypid, 'r', 1, rngsubtype FROM pg_range WHERE rngsubtype >= 16384
UNION SELECT 1, rngmultitypid, 'r', 1, rngtypid FROM pg_range WHERE rngtypid >= 16384
UNION SELECT 1, t.oid, 'r', 1, a.atttypid FROM pg_type t
JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND a.atttypid >= 16384
WHERE t.typrelid >= 16384";

/// What a database's state was when its catalogue was read.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Version {
    /// The transactions that were running or had ended. The same again: nothing has committed since.
    transactions: String,
    digest: String,
}

impl Version {
    /// Is the catalogue the same, whatever else was written?
    pub(in crate::credential) fn is_same_state(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Connection {
    /// What the catalogue is like now. Cheap when nothing was written since `known`.
    pub(in crate::credential) async fn catalogue_version(
        &self,
        known: Option<&Version>,
    ) -> Result<Version, BrokerError> {
        const WHAT: &str = "asking whether the catalogue has changed";
        let sql = "SELECT pg_current_snapshot()::text";
        let transactions = text(self.query(WHAT, sql, &[]).await?);
        if let Some(known) = known.filter(|known| known.transactions == transactions) {
            return Ok(known.clone());
        }
        // The digest sees at least what the snapshot before it sees.
        let digest = text(self.query(WHAT, &digest_sql(), &[]).await?);
        Ok(Version { transactions, digest })
    }

    /// Reads the catalogue of the database that this connection is in. `None`: it is too large.
    pub(in crate::credential) async fn catalogue(&self) -> Result<Option<Catalogue>, BrokerError> {
        const WHAT: &str = "reading the catalogue";
        self.run(WHAT, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let read = self.read_catalogue(WHAT).await;
        // Nothing was written; a connection that fails here is given up by whoever holds it.
        self.run(WHAT, "COMMIT").await?;
        read
    }

    async fn read_catalogue(&self, what: &'static str) -> Result<Option<Catalogue>, BrokerError> {
        let lists: [Vec<&str>; 4] = [
            TRUSTED_EXTENSIONS.to_vec(),
            RUNS_CODE.to_vec(),
            WRITES.to_vec(),
            HARMLESS.to_vec(),
        ];
        let [extensions, runs, writes, harmless] = &lists;
        let own_objects = "SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind NOT IN ('i', 'I', 't')) \
                           + (SELECT count(*) FROM pg_type WHERE oid >= 16384)";
        let rows = self.query(what, own_objects, &[]).await?;
        let count: i64 = rows.first().map_or(0, |row| row.get(0));
        if usize::try_from(count).is_ok_and(|count| count > OBJECTS_MAX) {
            return Ok(None);
        }
        let mut draft = Draft::default();
        let lists: [&(dyn ToSql + Sync); 4] = [extensions, runs, writes, harmless];
        let names = self.query(what, &format!("{COMMON}{NAMES}"), &lists).await?;
        for row in names {
            let name: &str = row.get(0);
            match row.get::<_, i32>(1) {
                1 => draft.function(name, Danger::CALL_RUNS),
                2 => draft.function(name, Danger::CALL_WRITES),
                3 => draft.operator(name),
                _ => draft.hopeless(),
            }
        }
        let objects = self.query(what, &format!("{COMMON}{OBJECTS}"), &lists).await?;
        for row in objects {
            let key = key(&row, 0);
            let danger = match row.get::<_, i32>(3) {
                0 => Danger::NONE,
                1 => Danger::READ_RUNS | Danger::WRITE_RUNS,
                _ => Danger::WRITE_RUNS,
            };
            match row.get(2) {
                "" => draft.mark(key, danger),
                name => draft.object(key, name, danger),
            }
        }
        for row in self.query(what, EDGES, &[]).await? {
            let (of, used) = (key(&row, 0), key(&row, 3));
            match row.get(2) {
                "r" => draft.reads(of, used),
                _ => draft.writes(of, used),
            }
        }
        Ok(Some(draft.finish()))
    }
}

/// The object whose class is in this column, and its number in the next.
fn key(row: &Row, at: usize) -> Key {
    match row.get::<_, i32>(at) {
        0 => Key::Relation(row.get(at + 1)),
        _ => Key::Type(row.get(at + 1)),
    }
}

fn text(rows: Vec<Row>) -> String {
    rows.first().map(|row| row.get(0)).unwrap_or_default()
}

fn digest_sql() -> String {
    let mut sql = String::from("SELECT concat_ws(' '");
    for (catalogue, number) in DIGEST_OF {
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            ", (SELECT concat_ws(',', count(*), sum(xmin::text::int8), \
             sum(xmin::text::int8 * ({number}::int8 % 65521 + 1))) FROM {catalogue})"
        );
    }
    sql.push(')');
    sql
}
