//! Ends the logins that dead replicas of this installation left behind.
//!
//! A replica that lives holds the lock of its epoch. One that merely lost its connection
//! takes it again within moments, so a sweep looks twice before it believes that an epoch is over,
//! and holds the epoch's lock itself while it ends its logins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::Facts;
use crate::credential::ending::{Ended, World, end};
use crate::credential::error::{BrokerError, chain};
use crate::credential::naming::Epoch;
use crate::credential::server::{Connection, Found};
use crate::domain::ids::Installation;

/// Time for a live replica whose connection broke to come back: well above the first steps of its
/// backoff.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// Returns how many logins of other epochs there still are, if that could be learned.
pub(super) async fn sweep(world: World, installation: Installation, own: Epoch) -> Option<usize> {
    let swept = attempt(&world, &installation, &own).await;
    swept
        .inspect_err(|error| {
            tracing::warn!(error = %chain(error), "could not look for logins that were left behind");
        })
        .ok()
}

async fn attempt(world: &World, installation: &Installation, own: &Epoch) -> Result<usize, BrokerError> {
    let connection = world.access().connect(&world.home).await?;
    let found = connection.minted(installation).await?;
    let mut others = found.iter().filter(|found| found.epoch != *own).count();
    for epoch in abandoned(&connection, installation, &epochs(&found, own)).await? {
        if !connection.try_lock(installation, &epoch).await? {
            continue;
        }
        for orphan in connection.minted_in(installation, &epoch).await? {
            tracing::info!(login = %orphan.login, replica = ?orphan.replica, "ending a login that was left behind");
            end(world.clone(), ended(world, orphan)).await;
            others = others.saturating_sub(1);
        }
        connection.unlock(installation, &epoch).await?;
    }
    Ok(others)
}

/// Those of the epochs that nobody held a while before this returns; the caller looks again by taking
/// their locks.
pub(super) async fn abandoned(
    connection: &Connection,
    installation: &Installation,
    epochs: &BTreeSet<Epoch>,
) -> Result<Vec<Epoch>, BrokerError> {
    let mut suspects = Vec::new();
    for epoch in epochs {
        if !connection.is_locked_by_others(installation, epoch).await? {
            suspects.push(epoch.clone());
        }
    }
    if !suspects.is_empty() {
        tokio::time::sleep(SECOND_LOOK).await;
    }
    Ok(suspects)
}

fn epochs(found: &[Found], own: &Epoch) -> BTreeSet<Epoch> {
    let all = found.iter().map(|found| found.epoch.clone());
    all.filter(|epoch| epoch != own).collect()
}

fn ended(world: &World, orphan: Found) -> Ended {
    let access = world.access();
    let facts = Facts {
        target: Some(access.target().clone()),
        engine: Some(access.engine()),
        role: orphan.role.clone(),
        login: Some(orphan.login.shared()),
        ..Facts::default()
    };
    Ended {
        login: orphan.login,
        role: orphan.role,
        facts: Arc::new(facts),
        why: "left behind by a replica that is gone",
    }
}
