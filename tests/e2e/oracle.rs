//! What must be true after any story: each row was written under a correlation id that it carries as
//! its marker, so rows, WAL and journal can be held against each other.

use std::collections::BTreeSet;

use crate::support::journal::Outcome;
use crate::support::world::World;

/// Marker and the transaction that wrote the row, as the database knows it.
pub(crate) async fn rows(world: &World) -> Vec<(String, u64)> {
    let admin = world.admin().await;
    let rows = admin
        .query("SELECT marker, xmin::text FROM public.orders", &[])
        .await;
    let pairs = rows.unwrap().into_iter().map(|row| {
        let xid: String = row.get(1);
        (row.get(0), xid.parse().unwrap())
    });
    pairs.collect()
}

/// Every row's transaction has one committed outcome with its marker among the correlation ids; no
/// other outcome claims a commit with an id; the journal's chain is whole.
pub(crate) async fn rows_match_journal(world: &World) -> Vec<Outcome> {
    let outcomes = world.journal().settled().await;
    world.journal().verify();
    let rows = rows(world).await;
    for (marker, xid) in rows.iter().collect::<BTreeSet<_>>() {
        let own: Vec<_> = outcomes.iter().filter(|it| it.id == Some(*xid)).collect();
        assert_eq!(own.len(), 1, "outcomes of {marker}, transaction {xid}: {own:?}");
        assert_eq!(own[0].outcome, "committed", "{marker}");
        assert!(own[0].correlation.contains(marker), "{marker}: {:?}", own[0]);
    }
    let written: BTreeSet<_> = rows.iter().map(|(_, xid)| *xid).collect();
    let claimed: BTreeSet<_> = committed(&outcomes).collect();
    assert_eq!(
        claimed, written,
        "committed ids in the journal and xmin of the rows"
    );
    outcomes
}

pub(crate) fn committed(outcomes: &[Outcome]) -> impl Iterator<Item = u64> {
    outcomes
        .iter()
        .filter(|it| it.outcome == "committed")
        .filter_map(|it| it.id)
}

/// The one outcome under this correlation id.
pub(crate) fn only<'o>(outcomes: &'o [Outcome], marker: &str) -> &'o Outcome {
    let own: Vec<_> = outcomes
        .iter()
        .filter(|it| it.correlation.contains(marker))
        .collect();
    assert_eq!(own.len(), 1, "outcomes under {marker}: {own:?}");
    own[0]
}
