//! What a reload cannot change: doors, targets and folders are taken once, at the start.

use crate::app::config::settings::{Settings, Target};
use crate::domain::Mistake;

/// A mistake for every key that differs and would need a restart.
pub(super) fn frozen(old: &Settings, new: &Settings) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut check = |same: bool, key: &str| {
        if !same {
            let message =
                format!("{key} cannot change while gatepost runs; restart it, or put the old value back");
            mistakes.push(Mistake::general(message));
        }
    };
    check(old.installation == new.installation, "installation");
    check(old.replica == new.replica, "replica");
    check(old.postgres == new.postgres, "listen.postgres");
    check(old.sqlserver == new.sqlserver, "listen.sqlserver");
    check(old.metrics == new.metrics, "listen.metrics");
    check(old.api == new.api, "listen.api");
    check(old.admin_socket == new.admin_socket, "listen.admin_socket");
    check(
        old.tls.is_some() == new.tls.is_some(),
        "tls (whether there is one)",
    );
    check(old.audit.directory == new.audit.directory, "audit.directory");
    check(old.audit.durability == new.audit.durability, "audit.durability");
    check(old.audit.autocommit == new.audit.autocommit, "audit.autocommit");
    check(old.audit.heads == new.audit.heads, "audit.heads");
    check(old.audit.retention == new.audit.retention, "audit.retention");
    check(old.audit.sinks == new.audit.sinks, "audit.sinks");
    check(old.threads == new.threads, "threads");
    check(old.log == new.log, "log");
    let names = |settings: &Settings| -> Vec<_> {
        settings
            .targets
            .iter()
            .map(|target| target.name.clone())
            .collect()
    };
    if names(old) == names(new) {
        for (before, after) in old.targets.iter().zip(&new.targets) {
            check(is_same(before, after), &format!("targets.{}", after.name));
        }
    } else {
        check(false, "targets (which there are)");
    }
    mistakes
}

/// All but the secrets, the authorities and the certificates.
fn is_same(old: &Target, new: &Target) -> bool {
    old.engine == new.engine
        && old.host == new.host
        && old.port == new.port
        && old.databases == new.databases
        && old.broker_user == new.broker_user
        && old.broker.managed_identity() == new.broker.managed_identity()
        && old.logins == new.logins
        && old.pool == new.pool
        && old.wal_marker == new.wal_marker
        && old.marker_table == new.marker_table
        && old.contained == new.contained
        && old.tls.mode == new.tls.mode
}
