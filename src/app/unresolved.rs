//! What the processes before this one have left open in the journal is taken up again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::start::Shared;
use crate::audit::Doubt;
use crate::audit::doubt::{self, Open};
use crate::domain::TargetName;

/// Reads the journal beside the work that begins, and hands each target's broker what it is to ask after.
pub(super) fn take_up(shared: &Arc<Shared>, directory: PathBuf) {
    let shared = Arc::clone(shared);
    let epoch = shared.journal.epoch();
    tokio::task::spawn_blocking(move || match doubt::open(&directory, epoch) {
        Ok(open) => hand_out(&shared, open),
        Err(error) => {
            tracing::error!(%error, "cannot read what the last run left open in the journal");
        }
    });
}

fn hand_out(shared: &Shared, open: Open) {
    if open.left_off > 0 {
        tracing::warn!(
            open.left_off,
            "too many transactions in doubt; some wait for the next start"
        );
    }
    let mut by_target = BTreeMap::<TargetName, Vec<Doubt>>::new();
    for doubt in open.doubts {
        if let Some(target) = doubt.facts.target.clone() {
            by_target.entry(target).or_default().push(doubt);
        }
    }
    for (target, doubts) in by_target {
        let count = doubts.len();
        match shared.brokers.get(&target) {
            Some(broker) => {
                tracing::info!(target_name = %target, count, "asking after transactions that the last run left open");
                broker.reconcile(doubts);
            }
            // It may come back with the next configuration.
            None => {
                tracing::warn!(target_name = %target, count, "transactions in doubt are of a target that is not there");
            }
        }
    }
}
