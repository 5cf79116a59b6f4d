//! A database server as the broker knows it, whatever its engine: what is asked of it, once for both.
//!
//! Who mints, renews, ends and sweeps knows only what is here. What is sent, and what the answers
//! mean, is in the engines' own rooms.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;

use crate::credential::broker::{BrokerSettings, EngineSettings};
use crate::credential::doctor::{Object, Objects, Sighting};
use crate::credential::error::BrokerError;
use crate::credential::lease::Lease;
use crate::credential::live::Finding;
use crate::credential::naming::{Epoch, LoginName, Mark};
use crate::credential::postgres;
use crate::credential::postgres::verifier;
use crate::credential::sqlserver;
use crate::domain::clock::Random;
use crate::domain::identity::IdentityKey;
use crate::domain::ids::{Installation, ReplicaName, RoleName};
use crate::domain::incarnation::Incarnation;
use crate::domain::marker_table::MarkerTable;
use crate::domain::secret::Secret;
use crate::domain::target::{DatabaseName, Engine, TargetName};

/// An instant on the server's clock.
#[derive(Clone, Debug)]
pub(super) struct ServerTime {
    pub(super) at: SystemTime,
    /// As the server writes it, so that nothing is lost on the way back.
    pub(super) text: String,
}

/// A login found on the server.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) login: LoginName,
    pub(super) epoch: Epoch,
    /// `None` where the server does not keep it.
    pub(super) replica: Option<ReplicaName>,
    /// Who inherits what it owns, if that can be told.
    pub(super) role: Option<RoleName>,
}

/// What is not as gatepost left it, one phrase each.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) what: Vec<String>,
    /// Would the server take the login's secret now, if nobody changed it? Not past its end.
    pub(super) secret_counts: bool,
}

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(super) enum Access {
    Postgres(postgres::connection::Access),
    SqlServer(sqlserver::connection::Access),
}

/// A connection with a time limit on everything. Dropping it closes it.
#[derive(Debug)]
pub(super) enum Connection {
    Postgres(postgres::connection::Connection),
    SqlServer(sqlserver::connection::Connection),
}

impl Access {
    pub(super) fn new(settings: &BrokerSettings, control: &Handle) -> Self {
        match &settings.engine {
            EngineSettings::Postgres => Self::Postgres(postgres::connection::Access {
                target: settings.target.clone(),
                address: settings.address.clone(),
                user: settings.user.clone(),
                password: settings.password.clone(),
                tls: settings.tls.clone(),
                proven_server: settings.proven_server,
                control: control.clone(),
            }),
            EngineSettings::SqlServer(sqlserver) => Self::SqlServer(sqlserver::connection::Access {
                target: settings.target.clone(),
                address: settings.address.clone(),
                user: settings.user.clone(),
                password: settings.password.clone(),
                settings: sqlserver.clone(),
                databases: settings.databases.clone().into(),
                control: control.clone(),
            }),
        }
    }

    pub(super) const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(_) => Engine::Postgres,
            Self::SqlServer(_) => Engine::SqlServer,
        }
    }

    pub(super) const fn target(&self) -> &TargetName {
        match self {
            Self::Postgres(access) => &access.target,
            Self::SqlServer(access) => &access.target,
        }
    }

    pub(super) const fn control(&self) -> &Handle {
        match self {
            Self::Postgres(access) => &access.control,
            Self::SqlServer(access) => &access.control,
        }
    }

    /// Where transactions are marked, if it is in a table.
    pub(super) const fn marker_table(&self) -> Option<&MarkerTable> {
        match self {
            Self::Postgres(_) => None,
            Self::SqlServer(access) => access.settings.marker_table.as_ref(),
        }
    }

    pub(super) fn same_login_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Postgres(one), Self::Postgres(other)) => one.same_login_as(other),
            (Self::SqlServer(one), Self::SqlServer(other)) => one.same_login_as(other),
            (Self::Postgres(_), Self::SqlServer(_)) | (Self::SqlServer(_), Self::Postgres(_)) => false,
        }
    }

    /// Is there nothing to prove about the other?
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Postgres(one), Self::Postgres(other)) => one.same_as(other),
            (Self::SqlServer(one), Self::SqlServer(other)) => one.same_as(other),
            (Self::Postgres(_), Self::SqlServer(_)) | (Self::SqlServer(_), Self::Postgres(_)) => false,
        }
    }

    /// Does the server refuse this login's secret? Anything else that goes wrong proves nothing.
    pub(super) async fn refuses_secret(&self, lease: &Lease, database: &DatabaseName) -> bool {
        match self {
            Self::Postgres(access) => access.refuses_secret(lease, database).await,
            Self::SqlServer(access) => access.refuses_secret(lease, database).await,
        }
    }

    pub(super) async fn connect(&self, database: &DatabaseName) -> Result<Connection, BrokerError> {
        match self {
            Self::Postgres(access) => access.connect(database).await.map(Connection::Postgres),
            Self::SqlServer(access) => access.connect(database).await.map(Connection::SqlServer),
        }
    }

    /// What the logins own and were granted, database by database. One that the broker may not enter
    /// becomes a finding.
    pub(super) async fn objects(
        &self,
        connection: &Connection,
        names: &[&str],
        findings: &mut Vec<Finding>,
    ) -> Result<Objects, BrokerError> {
        match (self, connection) {
            (Self::Postgres(access), Connection::Postgres(connection)) => {
                postgres::doctor::objects(access, connection, names, findings).await
            }
            (_, Connection::SqlServer(connection)) => {
                sqlserver::doctor::objects(connection, names, findings).await
            }
            // A connection is of the access that made it.
            (Self::SqlServer(_), Connection::Postgres(_)) => Ok(Objects::new()),
        }
    }

    /// The statements that end a login, in the order in which gatepost would send them.
    pub(super) fn end_by_hand(
        &self,
        login: &str,
        role: Option<&RoleName>,
        objects: &[Object],
    ) -> Vec<String> {
        match self {
            Self::Postgres(_) => postgres::doctor::end_by_hand(login, role, objects),
            Self::SqlServer(access) => {
                let contained = access.settings.contained;
                sqlserver::doctor::end_by_hand(login, role, objects, &access.databases, contained)
            }
        }
    }

    /// What a login with this mark is called.
    pub(super) fn name(&self, mark: &Mark, identity: &IdentityKey, random: &dyn Random) -> LoginName {
        match self {
            Self::Postgres(_) => LoginName::mint(&mark.installation, identity, random),
            Self::SqlServer(_) => sqlserver::naming::login_name(mark, identity),
        }
    }

    /// A secret, and what the server is told of it.
    pub(super) fn secret(&self, random: &dyn Random) -> (Secret<String>, Secret<String>) {
        match self {
            Self::Postgres(_) => {
                let secret = verifier::random_secret(random);
                let verifier = verifier::verifier(&secret, random);
                (secret, verifier)
            }
            // It takes no verifier in a way that is meant for this; TLS protects the secret.
            Self::SqlServer(_) => {
                let secret = sqlserver::naming::random_secret(random);
                (secret.clone(), secret)
            }
        }
    }
}

impl Connection {
    pub(super) const fn target(&self) -> &TargetName {
        match self {
            Self::Postgres(connection) => connection.target(),
            Self::SqlServer(connection) => connection.target(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Postgres(connection) => connection.is_closed(),
            Self::SqlServer(connection) => connection.is_closed(),
        }
    }

    /// The server's clock, `from_now` ahead.
    pub(super) async fn time(&self, from_now: Duration) -> Result<ServerTime, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.time(from_now).await,
            Self::SqlServer(connection) => connection.time(from_now).await,
        }
    }

    /// The life of the server that this connection is of; `None` where it cannot be told.
    pub(super) async fn incarnation(&self) -> Result<Option<Incarnation>, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.incarnation().await.map(Some),
            Self::SqlServer(_) => Ok(None),
        }
    }

    /// Why markers could not be written or found again, if so.
    pub(super) async fn markers_unseen(&self) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.marker_unseen().await.map(Vec::from_iter),
            Self::SqlServer(connection) => sqlserver::markers::unseen(connection).await,
        }
    }

    /// There is never a login without its mark.
    pub(super) async fn create(
        &self,
        login: &LoginName,
        mark: &Mark,
        verifier: &Secret<String>,
        until: &ServerTime,
    ) -> Result<(), BrokerError> {
        match self {
            Self::Postgres(connection) => connection.create(login, mark, verifier, until).await,
            Self::SqlServer(connection) => connection.create(login, mark, verifier).await,
        }
    }

    /// What is not as gatepost left it. A login that goes by another name gets its own back, so that it
    /// can be ended. `untils`: the ends that it may have.
    pub(super) async fn changes(
        &self,
        login: &LoginName,
        mark: &Mark,
        untils: &[&ServerTime],
    ) -> Result<Changes, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.changes(login, mark, untils).await,
            Self::SqlServer(connection) => connection.changes(login, mark).await,
        }
    }

    /// Moves the login's end, where the server knows of one. `Ok(false)`: it is gone.
    pub(super) async fn renew(
        &self,
        login: &LoginName,
        verifier: &Secret<String>,
        until: &ServerTime,
    ) -> Result<bool, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.renew(login, verifier, until).await,
            // The end is ours to keep, and a login cannot change its secret without knowing it.
            Self::SqlServer(_) => Ok(true),
        }
    }

    /// Whether no new connection can be made with this login any more. `Ok(false)`: it is gone.
    pub(super) async fn disable(&self, login: &LoginName) -> Result<bool, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.disable(login).await,
            Self::SqlServer(connection) => connection.disable(login).await,
        }
    }

    /// Asks the sessions of a login to end; returns how many there still are.
    pub(super) async fn terminate(&self, login: &LoginName) -> Result<i64, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.terminate(login).await,
            Self::SqlServer(connection) => connection.terminate(login).await,
        }
    }

    /// Databases in which a login has left something that would keep it from being dropped.
    pub(super) async fn databases_touched(
        &self,
        login: &LoginName,
    ) -> Result<Vec<DatabaseName>, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.databases_touched(login).await,
            Self::SqlServer(connection) => connection.databases_touched(login).await,
        }
    }

    /// In this connection's database: what the login owns goes to the role, what it was granted goes.
    pub(super) async fn hand_over(
        &self,
        login: &LoginName,
        role: Option<&RoleName>,
    ) -> Result<(), BrokerError> {
        match self {
            Self::Postgres(connection) => connection.hand_over(login, role).await,
            Self::SqlServer(connection) => connection.hand_over(login, role).await,
        }
    }

    pub(super) async fn drop_login(&self, login: &LoginName) -> Result<(), BrokerError> {
        match self {
            Self::Postgres(connection) => connection.drop_login(login).await,
            Self::SqlServer(connection) => connection.drop_login(login).await,
        }
    }

    /// Logins of this installation, whatever replica and epoch made them.
    pub(super) async fn minted(&self, installation: &Installation) -> Result<Vec<Found>, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.minted(installation).await,
            Self::SqlServer(connection) => connection.minted(installation).await,
        }
    }

    pub(super) async fn minted_in(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<Vec<Found>, BrokerError> {
        let mut found = self.minted(installation).await?;
        found.retain(|found| found.epoch == *epoch);
        Ok(found)
    }

    /// Takes an epoch's lock for this connection, if nobody has it.
    pub(super) async fn try_lock(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.try_lock(installation, epoch).await,
            Self::SqlServer(connection) => connection.try_lock(installation, epoch).await,
        }
    }

    /// Whether another connection holds an epoch's lock, in whatever database.
    pub(super) async fn is_locked_by_others(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        match self {
            Self::Postgres(connection) => connection.is_locked_by_others(installation, epoch).await,
            Self::SqlServer(connection) => connection.is_locked_by_others(installation, epoch).await,
        }
    }

    pub(super) async fn unlock(&self, installation: &Installation, epoch: &Epoch) -> Result<(), BrokerError> {
        match self {
            Self::Postgres(connection) => connection.unlock(installation, epoch).await,
            Self::SqlServer(connection) => connection.unlock(installation, epoch).await,
        }
    }

    /// Those of the epochs whose lock somebody else holds.
    pub(super) async fn locked(
        &self,
        installation: &Installation,
        epochs: BTreeSet<Epoch>,
    ) -> Result<BTreeSet<Epoch>, BrokerError> {
        let mut locked = BTreeSet::new();
        for epoch in epochs {
            if self.is_locked_by_others(installation, &epoch).await? {
                locked.insert(epoch);
            }
        }
        Ok(locked)
    }

    /// Every login that is called like one of ours.
    pub(super) async fn sightings(&self, installation: &Installation) -> Result<Vec<Sighting>, BrokerError> {
        match self {
            Self::Postgres(connection) => postgres::doctor::sightings(connection, installation).await,
            Self::SqlServer(connection) => sqlserver::doctor::sightings(connection, installation).await,
        }
    }

    /// What stands in the way of minting members of `roles`, most basic first.
    pub(super) async fn missing(&self, roles: &[RoleName]) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Postgres(connection) => postgres::live::missing(connection, roles).await,
            Self::SqlServer(connection) => sqlserver::live::missing(connection, roles).await,
        }
    }

    /// What the user that everybody logs in as lacks, or has too much of, where nothing is minted.
    pub(super) async fn missing_as_principal(&self, roles: &[RoleName]) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Postgres(connection) => postgres::principal::missing(connection, roles).await,
            Self::SqlServer(connection) => sqlserver::principal::missing(connection, roles).await,
        }
    }

    /// What else is to be said about the server and these databases.
    pub(super) async fn surroundings(
        &self,
        roles: &[RoleName],
        databases: &[DatabaseName],
    ) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Postgres(connection) => postgres::live::surroundings(connection, roles, databases).await,
            // What there is to say of the databases is among what is missing.
            Self::SqlServer(_) => Ok(Vec::new()),
        }
    }
}
