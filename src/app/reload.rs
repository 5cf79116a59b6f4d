//! Changes while the process runs: a configuration that is read anew, revocations, keys. Everything
//! that sessions go by is swapped as one snapshot; a change that cannot be made whole is not made.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::admin::view::Reloaded;
use crate::app::build::{self, Built};
use crate::app::config::settings::{Environment, Settings, SqlServerDoor};
use crate::app::frozen::frozen;
use crate::app::revoked::{REVOCATIONS_MAX, RevocationFile};
use crate::app::start::{Shared, target_address};
use crate::audit::record::PolicyFacts;
use crate::audit::{Event, Facts, JournalError, Record, SigningKey};
use crate::domain::{Mistake, ParameterRule, Password, Revocation, Revocations};
use crate::policy::Policy;
use crate::session::door::{ListenerSettings, Listeners, SqlServerListener, TokenService};
use crate::session::snapshot::Snapshot;

/// Everything that changes while the process runs, and the one place that changes it.
#[derive(Debug)]
pub(super) struct Reloader {
    config: PathBuf,
    shared: Arc<Shared>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    revoked: RevocationFile,
    built: Mutex<Arc<Built>>,
    loaded_at: Mutex<SystemTime>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Why a revocation was not made. The list is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevokeError {
    #[error("the list of revocations cannot be written")]
    File(#[source] io::Error),
    #[error("there are {REVOCATIONS_MAX} revocations already")]
    TooMany,
    #[error("there is no such revocation")]
    Unknown,
}

impl Reloader {
    /// Begins with what was built for the start. The receiver is for sessions.
    pub(super) fn new(
        config: PathBuf,
        built: Built,
        shared: Arc<Shared>,
    ) -> io::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let now = shared.clock.now();
        let revoked = RevocationFile::in_folder(&built.settings.audit.directory);
        let first = Snapshot {
            epoch: 1,
            policy: Arc::clone(&built.policy),
            verifier: Arc::clone(&shared.verifier),
            revocations: Arc::new(revoked.load()?),
            listeners: listeners(&built),
            grace: built.settings.expiry_grace,
        };
        let (snapshots, receiver) = watch::channel(Arc::new(first));
        let reloader = Self {
            config,
            shared,
            snapshots,
            revoked,
            built: Mutex::new(Arc::new(built)),
            loaded_at: Mutex::new(now),
            turn: tokio::sync::Mutex::default(),
        };
        Ok((reloader, receiver))
    }

    pub(super) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    pub(super) fn built(&self) -> Arc<Built> {
        Arc::clone(&self.built.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the policy in force was put in force.
    pub(super) fn loaded_at(&self) -> SystemTime {
        *self.loaded_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything anew. All of it counts from now on, or none of it and the mistakes are told.
    pub(super) async fn reload(&self) -> Result<Reloaded, Vec<Mistake>> {
        let _turn = self.turn.lock().await;
        match self.prepare().await {
            Ok((new, changed)) => self.take_over(new, changed).await,
            Err(mistakes) => {
                for mistake in &mistakes {
                    tracing::error!(mistake = %mistake, "reload refused; everything stays as it was");
                }
                self.note(Event::PolicyRejected {
                    mistakes: mistakes.len(),
                });
                Err(mistakes)
            }
        }
    }

    async fn prepare(&self) -> Result<(Built, Vec<String>), Vec<Mistake>> {
        let (config, now) = (self.config.clone(), self.shared.clock.now());
        let building =
            tokio::task::spawn_blocking(move || build::build(&config, &Environment::of_process(), now));
        let mut built = building.await.unwrap_or_else(|_| {
            Err(vec![Mistake::general(
                "reading the configuration was interrupted",
            )])
        })?;
        let old = self.built();
        let frozen = frozen(&old.settings, &built.settings);
        if !frozen.is_empty() {
            return Err(frozen);
        }
        // Managed identities are frozen, so these are the same, and the old ones have tokens.
        for (new, old) in built.passwords.iter_mut().zip(&old.passwords) {
            if matches!(old, Password::Token(_)) {
                new.clone_from(old);
            }
        }
        built.own_identities.clone_from(&old.own_identities);
        let changed = changes(&old, &built);
        Ok((built, changed))
    }

    async fn take_over(&self, new: Built, changed: Vec<String>) -> Result<Reloaded, Vec<Mistake>> {
        let old = self.built();
        let version = Arc::clone(new.policy.version());
        let (facts, event) = loaded(&new.policy);
        // On record before anybody is judged by it.
        let signing_key = SigningKey::read(new.settings.audit.signing_key.expose());
        // It was read with the configuration, which would have been refused.
        let signing_key = signing_key.map_err(|error| vec![Mistake::general(error.to_string())])?;
        let key_id = signing_key.public().id().to_owned();
        // The key first: if the rest cannot be recorded, the next attempt finds it in use.
        self.shared
            .journal
            .rotate(signing_key)
            .await
            .map_err(unrecorded)?;
        let recorded = Record::new(Arc::new(facts), event);
        self.shared.journal.append(recorded).await.map_err(unrecorded)?;
        self.renew_targets(&old, &new);
        if changed.iter().any(|what| what == "tls") {
            self.note(rotated("server_certificate", None));
        }
        let verifier = self.current().verifier.successor(new.providers.clone());
        let epoch = self.publish(|snapshot| Snapshot {
            epoch: snapshot.epoch + 1,
            policy: Arc::clone(&new.policy),
            verifier: Arc::new(verifier),
            revocations: Arc::clone(&snapshot.revocations),
            listeners: listeners(&new),
            grace: new.settings.expiry_grace,
        });
        tracing::info!(epoch, policy = %version, changed = changed.join(", "), "reloaded");
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        *self.loaded_at.lock().unwrap_or_else(PoisonError::into_inner) = self.shared.clock.now();
        Ok(Reloaded {
            epoch,
            policy_version: version,
            signing_key: key_id,
            changed,
        })
    }

    /// Routes and brokers of targets whose secrets or authorities changed.
    fn renew_targets(&self, old: &Built, new: &Built) {
        let before = old.settings.targets.iter().zip(&old.client_tls);
        let after = new.settings.targets.iter().zip(&new.client_tls);
        for (((target_before, tls_before), (target, tls)), password) in before.zip(after).zip(&new.passwords)
        {
            let tls_changed = !tls.is_same(tls_before);
            let password_changed = target.broker != target_before.broker;
            if tls_changed && let Some(route) = self.shared.routes.get(&target.name) {
                route.replace(target_address(target, tls));
                self.note(rotated("client_certificate", Some(target.name.to_string())));
            }
            // The broker itself records a new password, once the server has accepted it.
            if (tls_changed || password_changed)
                && let Some(broker) = self.shared.brokers.get(&target.name)
            {
                broker.update(build::broker_settings(&new.settings, target, tls, password));
            }
        }
    }

    /// Takes one back, by its [id](Revocation::id).
    pub(super) async fn lift(&self, id: &str) -> Result<(), RevokeError> {
        self.change_revocations(|list, now| list.without(id, now).ok_or(RevokeError::Unknown))
            .await
    }

    /// Shuts out whom it strikes: nobody new comes in, and those who are in are told.
    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        self.change_revocations(|list, now| {
            let new = list.with(revocation, now);
            if new.len() > REVOCATIONS_MAX {
                return Err(RevokeError::TooMany);
            }
            Ok(new)
        })
        .await
    }

    /// Swaps the list: on disk first, then in force.
    async fn change_revocations(
        &self,
        change: impl FnOnce(&Revocations, SystemTime) -> Result<Revocations, RevokeError>,
    ) -> Result<(), RevokeError> {
        let _turn = self.turn.lock().await;
        let new = change(&self.current().revocations, self.shared.clock.now())?;
        let (file, list) = (self.revoked.clone(), new.clone());
        let saved = tokio::task::spawn_blocking(move || file.save(&list)).await;
        saved
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(RevokeError::File)?;
        let new = Arc::new(new);
        self.publish(|snapshot| Snapshot {
            epoch: snapshot.epoch + 1,
            policy: Arc::clone(&snapshot.policy),
            verifier: Arc::clone(&snapshot.verifier),
            revocations: new,
            listeners: snapshot.listeners.clone(),
            grace: snapshot.grace,
        });
        Ok(())
    }

    /// Sessions that begin from now on see the new one; those that are open are rung.
    fn publish(&self, make: impl FnOnce(&Snapshot) -> Snapshot) -> u64 {
        let next = make(&self.current());
        let epoch = next.epoch;
        self.snapshots.send_replace(Arc::new(next));
        self.shared.registry.ring_all();
        epoch
    }

    fn note(&self, event: Event) {
        if let Err(error) = self.shared.journal.submit(Record::new(Arc::default(), event)) {
            tracing::error!(%error, "a change could not be recorded");
        }
    }
}

/// What goes on record when a policy comes into force.
pub(super) fn loaded(policy: &Policy) -> (Facts, Event) {
    let facts = Facts {
        policy: Some(PolicyFacts {
            rule: None,
            version: Arc::clone(policy.version()),
            parameters: ParameterRule::Absent,
        }),
        ..Facts::default()
    };
    let event = Event::PolicyLoaded {
        rules: policy.rule_count(),
        outline: Box::new(policy.outline()),
    };
    (facts, event)
}

fn listeners(built: &Built) -> Listeners {
    let tls = built.server_tls.clone().map(Arc::new);
    Listeners {
        postgres: built.settings.postgres.as_ref().map(|door| ListenerSettings {
            tls: tls.clone(),
            allow_plaintext: door.allow_plaintext,
        }),
        sqlserver: built.settings.sqlserver.as_ref().map(|door| SqlServerListener {
            tls: tls.clone(),
            allow_plaintext: door.door.allow_plaintext,
            token_service: token_service(built, door),
        }),
        tls,
    }
}

/// Where drivers that ask are sent for a token.
fn token_service(built: &Built, door: &SqlServerDoor) -> Option<TokenService> {
    let wanted = door.token_provider.as_ref()?;
    let mut providers = built.settings.providers.iter();
    let provider = providers.find(|provider| provider.name == *wanted)?;
    Some(TokenService {
        sts_url: provider.sts_url.clone(),
        spn: provider.spn.clone(),
    })
}

const fn rotated(what: &'static str, which: Option<String>) -> Event {
    Event::SecretRotated { what, which }
}

fn unrecorded(error: JournalError) -> Vec<Mistake> {
    tracing::error!(%error, "reload refused: it could not be recorded");
    vec![Mistake::general(
        "the audit journal cannot be written, so nothing may change; everything stays as it was",
    )]
}

/// What differs, in the words of the configuration.
fn changes(old: &Built, new: &Built) -> Vec<String> {
    let mut changed = Vec::new();
    let mut note = |is_changed: bool, what: String| {
        if is_changed {
            changed.push(what);
        }
    };
    note(
        old.policy.version() != new.policy.version(),
        "policies".to_owned(),
    );
    let same_tls = match (&old.server_tls, &new.server_tls) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    note(!same_tls, "tls".to_owned());
    note(old.providers != new.providers, "identity_providers".to_owned());
    note(
        old.settings.expiry_grace != new.settings.expiry_grace,
        "session".to_owned(),
    );
    note(old.settings.tickets != new.settings.tickets, "tickets".to_owned());
    note(
        old.settings.audit.signing_key.expose() != new.settings.audit.signing_key.expose(),
        "audit.signing_key".to_owned(),
    );
    let targets = old.settings.targets.iter().zip(&new.settings.targets);
    for ((before, after), (tls_before, tls)) in targets.zip(old.client_tls.iter().zip(&new.client_tls)) {
        let password = before.broker != after.broker;
        note(password, format!("targets.{}.broker", after.name));
        note(!tls.is_same(tls_before), format!("targets.{}.tls", after.name));
    }
    changed
}

/// Files whose change is a reason to reload.
pub(super) fn watched_files(settings: &Settings) -> Vec<PathBuf> {
    let mut files = settings.files.clone();
    files.extend(settings.tls.iter().map(|tls| tls.certificate.clone()));
    files.extend(
        settings
            .providers
            .iter()
            .filter_map(|provider| provider.ca.clone()),
    );
    for target in &settings.targets {
        files.extend(target.tls.ca.clone());
        files.extend(
            target
                .tls
                .client
                .as_ref()
                .map(|(certificate, _)| certificate.clone()),
        );
    }
    files
}
