//! What the catalogue says about all logins at once, and what follows from it.

use std::collections::BTreeSet;

use tokio::runtime::Handle;

use crate::credential::broker::BrokerSettings;
use crate::credential::doctor::{Condition, Locked, LoginReport, Marking, Objects, Sighting};
use crate::credential::error::BrokerError;
use crate::credential::live::Finding;
use crate::credential::naming::{Epoch, LoginName, login_prefix};
use crate::credential::server::Access;
use crate::domain::ids::RoleName;
use crate::domain::target::Engine;

pub(super) struct Look {
    access: Access,
    logins: Vec<Sighting>,
    locked: Locked,
    objects: Objects,
}

impl Look {
    pub(super) async fn at(
        settings: &BrokerSettings,
        control: &Handle,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, BrokerError> {
        let access = settings.access(control);
        let connection = access.connect(&settings.home()).await?;
        let logins = connection.sightings(&settings.installation).await?;
        let locked = connection.locked(&settings.installation, epochs(&logins)).await?;
        let names: Vec<&str> = logins.iter().map(|login| login.name.as_str()).collect();
        let objects = access.objects(&connection, &names, findings).await?;
        Ok(Self {
            access,
            logins,
            locked,
            objects,
        })
    }

    fn condition(&self, seen: &Sighting) -> Condition {
        match &seen.marking {
            Marking::None => Condition::WithoutComment,
            Marking::Unreadable => Condition::UnreadableComment,
            Marking::Read { ours: false, .. } => Condition::OtherInstallation,
            Marking::Read { epoch, .. } if self.locked.contains(epoch) => Condition::Live,
            Marking::Read { .. } => Condition::LeftOver,
        }
    }

    pub(super) fn reports(&self, settings: &BrokerSettings) -> Vec<LoginReport> {
        let report = |login: &Sighting| self.report(login, settings);
        self.logins.iter().map(report).collect()
    }

    fn report(&self, seen: &Sighting, settings: &BrokerSettings) -> LoginReport {
        let condition = self.condition(seen);
        let objects = self.objects.get(&seen.name).cloned().unwrap_or_default();
        // Somebody gave it a name under which no sweep looks for it.
        let renamed = LoginName::found(&seen.name).is_none();
        let mut wrong = Vec::new();
        match condition {
            Condition::Live => wrong.extend(seen.liberties.iter().cloned()),
            Condition::LeftOver if renamed => {
                wrong.push("was left behind by a replica that is gone, and renamed".to_owned());
            }
            Condition::LeftOver => wrong.push("was left behind by a replica that is gone".to_owned()),
            Condition::WithoutComment if self.is_proved_dead(seen, settings) => {
                wrong.push("has no comment, is ours and has expired".to_owned());
            }
            Condition::WithoutComment => wrong.push(self.unmarked().to_owned()),
            Condition::UnreadableComment => {
                wrong.push("has a comment that this version does not understand".to_owned());
            }
            Condition::OtherInstallation => {}
        }
        let stuck = seen.disabled && seen.sessions == 0 && objects.iter().any(|object| object.owned);
        if stuck && condition == Condition::Live {
            wrong.push("is disabled and still owns something: its end does not succeed".to_owned());
        }
        let by_hand = stuck
            || matches!(
                condition,
                Condition::WithoutComment | Condition::UnreadableComment
            );
        let sql = if by_hand && condition != Condition::OtherInstallation {
            self.access.end_by_hand(&seen.name, seen.role.as_ref(), &objects)
        } else {
            Vec::new()
        };
        let mut report = LoginReport {
            login: seen.name.clone(),
            condition,
            installation: None,
            replica: None,
            epoch: None,
            generation: None,
            role: seen.role.clone(),
            until: seen.until.clone(),
            expired: seen.expired,
            disabled: seen.disabled,
            sessions: seen.sessions,
            objects,
            wrong,
            sql,
        };
        if let Marking::Read {
            installation,
            replica,
            epoch,
            generation,
            ..
        } = &seen.marking
        {
            report.installation.clone_from(installation);
            report.replica.clone_from(replica);
            report.epoch = Some(epoch.as_str().to_owned());
            report.generation = Some(*generation);
        }
        report
    }

    const fn unmarked(&self) -> &'static str {
        match self.access.engine() {
            Engine::Postgres => "has no comment, so it is not proved whose it is",
            Engine::SqlServer => "is called like a login of ours, and its name does not say whose it is",
        }
    }

    /// Epochs of ours whose lock was free.
    pub(super) fn left_over(&self) -> BTreeSet<Epoch> {
        epochs(&self.logins).difference(&self.locked).cloned().collect()
    }

    /// Logins without comment that are ours and dead, with who inherits what they own.
    pub(super) fn proved_dead(&self, settings: &BrokerSettings) -> Vec<(LoginName, RoleName)> {
        let dead = self
            .logins
            .iter()
            .filter(|login| matches!(login.marking, Marking::None) && self.is_proved_dead(login, settings));
        dead.filter_map(|login| Some((LoginName::found(&login.name)?, login.role.clone()?)))
            .collect()
    }

    /// Ours: it is called so, it is one of the minted beyond doubt, and no other installation is here
    /// whose it could be. Dead: it has expired, which a replica that used it would have seen to, and it
    /// has no sessions.
    fn is_proved_dead(&self, seen: &Sighting, settings: &BrokerSettings) -> bool {
        let foreign = |login: &Sighting| matches!(login.marking, Marking::Read { ours: false, .. });
        seen.name.starts_with(&login_prefix(&settings.installation))
            && seen.certain
            && seen.expired
            && seen.sessions == 0
            && !self.logins.iter().any(foreign)
    }
}

/// Those that our logins say they are of.
fn epochs(logins: &[Sighting]) -> BTreeSet<Epoch> {
    let ours = logins.iter().filter_map(|login| match &login.marking {
        Marking::Read {
            ours: true, epoch, ..
        } => Some(epoch.clone()),
        Marking::Read { .. } | Marking::None | Marking::Unreadable => None,
    });
    ours.collect()
}
