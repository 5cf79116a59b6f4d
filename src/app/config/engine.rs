//! Keys that mean something for one engine only, and targets that no listener leads to.

use crate::app::config::file::{self, Credential, Engine, TlsMode};
use crate::app::config::resolve::Resolver;
use crate::domain::MarkerTable;

impl Resolver<'_, '_, '_> {
    /// What the target's engine has no use for is refused: it would look like protection.
    pub(super) fn of_engine(&mut self, written: &file::Target) {
        let Some(engine) = written.engine.get() else {
            return;
        };
        let tls = written.tls.as_ref().and_then(|tls| tls.get());
        let mode = tls.and_then(|tls| tls.mode.as_ref());
        match engine.value {
            Engine::Postgres => {
                if let Some(contained) = &written.contained {
                    let message = "contained users are SQL Server's; remove it";
                    self.reader.mistake(contained.at, message);
                }
                if let Some(table) = &written.marker_table {
                    let message = "marker_table is SQL Server's; on PostgreSQL it is wal_marker";
                    self.reader.mistake(table.at, message);
                }
                if let Some(mode) = mode.filter(|mode| mode.value == TlsMode::Strict) {
                    let message = "mode: strict is SQL Server's TDS 8.0; use verify-full";
                    self.reader.mistake(mode.at, message);
                }
            }
            Engine::SqlServer => {
                let credential = written.credential.as_ref();
                if let Some(contained) = written.contained.as_ref().filter(|it| it.value)
                    && credential.is_some_and(|it| it.value == Credential::ManagedIdentity)
                {
                    let message = "contained is about minted logins, and credential: managed_identity mints none; remove it";
                    self.reader.mistake(contained.at, message);
                }
                if let Some(marker) = &written.wal_marker {
                    let message = "wal_marker is PostgreSQL's; on SQL Server it is marker_table";
                    self.reader.mistake(marker.at, message);
                }
                if let Some(table) = &written.marker_table
                    && credential.is_some_and(|it| it.value == Credential::ManagedIdentity)
                {
                    let message = "marker_table wants minted logins: with credential: managed_identity clients are the \
                                   broker, which may remove markers";
                    self.reader.mistake(table.at, message);
                }
                if let Some(mode) = mode.filter(|mode| mode.value == TlsMode::VerifyCa) {
                    let message = "mode: verify-ca is not possible with SQL Server; use verify-full";
                    self.reader.mistake(mode.at, message);
                }
                if let Some(certificate) = tls.and_then(|tls| tls.client_certificate.as_ref()) {
                    let message = "SQL Server does not ask for a client certificate; remove it";
                    self.reader.mistake(certificate.at, message);
                }
            }
        }
    }

    pub(super) fn marker_table(&mut self, written: &file::Target) -> Option<MarkerTable> {
        let table = written.marker_table.as_ref()?;
        let parsed = table.value.parse().ok();
        if parsed.is_none() {
            let message = "not a table with its schema, of plain letters, digits and underscores, like gatepost.markers";
            self.reader.mistake(table.at, message);
        }
        parsed
    }

    /// A target that nobody can reach would look as if it were served.
    pub(super) fn reachable(&mut self, written: &file::ConfigFile) {
        let (Some(listen), Some(targets)) = (written.listen.get(), written.targets.get()) else {
            return;
        };
        let leads = |engine| {
            let mut engines = targets
                .value
                .0
                .iter()
                .filter_map(|(_, target)| target.engine.get());
            engines.any(|it| it.value == engine)
        };
        let postgres = listen
            .postgres
            .as_ref()
            .and_then(|door| door.get()?.address.get());
        let sqlserver = listen
            .sqlserver
            .as_ref()
            .and_then(|door| door.get()?.address.get());
        let doors = [(Engine::Postgres, postgres), (Engine::SqlServer, sqlserver)];
        let both = postgres.is_some() && sqlserver.is_some();
        for (_, address) in doors.into_iter().filter(|(engine, _)| both && !leads(*engine)) {
            if let Some(address) = address {
                let message = "this listener leads nowhere: there is no target of this engine";
                self.reader.mistake(address.at, message);
            }
        }
        for (_, target) in &targets.value.0 {
            let Some(engine) = target.engine.get() else {
                continue;
            };
            let (door, open) = match engine.value {
                Engine::Postgres => ("postgres", listen.postgres.is_some()),
                Engine::SqlServer => ("sqlserver", listen.sqlserver.is_some()),
            };
            if !open {
                let message = format!("no listener leads to this target: add \"listen.{door}\"");
                self.reader.mistake(engine.at, message);
            }
        }
    }
}
