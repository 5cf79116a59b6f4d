//! The running proxy as its operators reach it: what the API and the socket ask for, done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::ticket::{TicketRefused, TicketView, TicketWish, Wishing};
use crate::admin::view::{
    LoginView, LoginsView, NewRevocation, PolicyView, PoolView, Reloaded, RevocationView, Unreachable,
};
use crate::admin::{Proxy, Trouble, Waiting};
use crate::app::reload::{Reloader, RevokeError};
use crate::app::start::Shared;
use crate::app::tickets;
use crate::audit::{AdminCall, Event, Facts, IdentityFacts, JournalError, Record};
use crate::credential::Rotated;
use crate::domain::revocation::{Named, Struck};
use crate::domain::{Identity, ProviderName, Revocation, Secret, TargetName};
use crate::identity::{RefreshError, TokenError};
use crate::policy::{AdminPermit, AdminRights};
use crate::session::roster::SessionView;
use crate::session::snapshot::REVOKED_GRACE;
use crate::tls::ServerTls;

/// Sessions that are struck end by themselves within their grace; this much later their logins go,
/// whatever they do.
const SESSIONS_END_WITHIN: Duration = REVOKED_GRACE.saturating_add(Duration::from_millis(100));
/// One that waits in line for a connection when it is struck hears of it at the end of its wait.
const STRAGGLERS_END_WITHIN: Duration = Duration::from_secs(60);
/// The step of that wait: small against the second that a revocation promises.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(super) struct Operations {
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
}

impl Operations {
    pub(super) const fn new(shared: Arc<Shared>, reloader: Arc<Reloader>) -> Self {
        Self { shared, reloader }
    }

    /// Whom a revocation strikes is let in no more when this begins; it waits for those who are in.
    async fn end_struck(&self, revocation: Revocation) {
        let revocation = Arc::new(revocation);
        let all_gone = self.wait_for_struck(&revocation, SESSIONS_END_WITHIN).await;
        end_logins(&self.shared, &revocation).await;
        if !all_gone {
            // One that was being let in may have had a login minted just now.
            let (shared, reloader) = (Arc::clone(&self.shared), Arc::clone(&self.reloader));
            tokio::spawn(async move {
                let stragglers = Self::new(Arc::clone(&shared), reloader);
                stragglers
                    .wait_for_struck(&revocation, STRAGGLERS_END_WITHIN)
                    .await;
                end_logins(&shared, &revocation).await;
            });
        }
    }

    /// Until no struck session is left, or not longer than this. Says whether none is left.
    async fn wait_for_struck(&self, revocation: &Revocation, within: Duration) -> bool {
        let give_up = Instant::now() + within;
        loop {
            let sessions = self.shared.registry.sessions();
            if !sessions
                .iter()
                .any(|session| is_struck(revocation, &session.facts))
            {
                return true;
            }
            if Instant::now() >= give_up {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Nobody waits for it.
    fn submit(&self, facts: Facts, event: Event) {
        match self.shared.journal.submit(Record::new(Arc::new(facts), event)) {
            Ok(_) | Err(JournalError::Summed) => {}
            Err(error) => tracing::error!(%error, "a call could not be recorded"),
        }
    }

    async fn rotate(&self, target: Option<TargetName>) -> Result<Vec<Rotated>, Trouble> {
        let chosen = |name: &TargetName| target.as_ref().is_none_or(|target| target == name);
        let mut brokers: Vec<_> = self
            .shared
            .brokers
            .iter()
            .filter(|(name, _)| chosen(name))
            .collect();
        brokers.sort_by_key(|(name, _)| *name);
        if let (Some(target), []) = (&target, brokers.as_slice()) {
            return Err(Trouble::NotFound(format!("there is no target {target}")));
        }
        let mut done = Vec::new();
        for (name, broker) in brokers {
            let rotated = broker.rotate().await;
            let rotated = rotated.map_err(|error| Trouble::Unavailable(format!("target {name}: {error}")))?;
            done.push(rotated);
        }
        Ok(done)
    }

    async fn all_logins(&self) -> LoginsView {
        let mut all = LoginsView::default();
        let mut brokers: Vec<_> = self.shared.brokers.iter().collect();
        brokers.sort_by_key(|(name, _)| *name);
        for (target, broker) in brokers {
            match broker.logins().await {
                Ok(logins) => all.logins.extend(logins.into_iter().map(|login| LoginView {
                    target: target.clone(),
                    login,
                })),
                Err(error) => all.unreachable.push(Unreachable {
                    target: target.clone(),
                    why: error.to_string(),
                }),
            }
        }
        all
    }
}

impl Proxy for Operations {
    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.reloader.current().listeners.tls.clone()
    }

    fn verify<'a>(&'a self, token: &'a Secret<Vec<u8>>) -> Waiting<'a, Result<Arc<Identity>, TokenError>> {
        Box::pin(async move {
            let snapshot = self.reloader.current();
            snapshot.verifier.verify(token, self.shared.clock.now()).await
        })
    }

    fn admit_wish(&self, who: Wishing<'_>) -> Result<(), Duration> {
        self.shared.office.admit(who, self.shared.clock.as_ref())
    }

    fn issue_ticket(&self, wish: TicketWish) -> Waiting<'_, Result<TicketView, TicketRefused>> {
        Box::pin(tickets::issue(&self.shared, &self.reloader, wish))
    }

    fn note_no_ticket(&self, facts: Facts, code: &'static str, reason: String) {
        self.submit(facts, Event::TicketDenied { code, reason });
    }

    fn rights(&self, identity: &Identity) -> AdminRights {
        let snapshot = self.reloader.current();
        let struck = snapshot
            .revocations
            .strike(identity, None, self.shared.clock.now());
        if struck.is_some() {
            return AdminRights::default();
        }
        snapshot.policy.admin(identity)
    }

    fn note(&self, facts: Facts, call: AdminCall) {
        self.submit(facts, Event::Admin(call));
    }

    fn record(&self, facts: Facts, call: AdminCall) -> Waiting<'_, Result<(), JournalError>> {
        let record = Record::new(Arc::new(facts), Event::Admin(call));
        Box::pin(async move { self.shared.journal.append(record).await.map(drop) })
    }

    fn sessions(&self, _: AdminPermit) -> Vec<SessionView> {
        self.shared.registry.sessions()
    }

    fn kill(&self, _: AdminPermit, reference: &str) -> bool {
        self.shared.registry.kill(reference)
    }

    fn pools(&self, _: AdminPermit) -> Vec<PoolView> {
        let budgets = self.shared.budgets.iter();
        budgets
            .map(|(target, budget)| PoolView::new(target.clone(), budget.stats()))
            .collect()
    }

    fn logins(&self, _: AdminPermit) -> Waiting<'_, LoginsView> {
        Box::pin(self.all_logins())
    }

    fn rotate_logins(
        &self,
        _: AdminPermit,
        target: Option<TargetName>,
    ) -> Waiting<'_, Result<Vec<Rotated>, Trouble>> {
        Box::pin(self.rotate(target))
    }

    fn policy(&self, _: AdminPermit) -> PolicyView {
        let (snapshot, built) = (self.reloader.current(), self.reloader.built());
        let files = built.settings.policies.iter();
        PolicyView {
            version: Arc::clone(snapshot.policy.version()),
            files: files.map(|path| path.display().to_string()).collect(),
            rules: snapshot.policy.rule_count(),
            admin_rules: snapshot.policy.admin_rule_count(),
            roles: snapshot.policy.roles().len(),
            epoch: snapshot.epoch,
            loaded_at: self.reloader.loaded_at(),
        }
    }

    fn reload(&self, _: AdminPermit) -> Waiting<'_, Result<Reloaded, Trouble>> {
        Box::pin(async move { self.reloader.reload().await.map_err(Trouble::Mistakes) })
    }

    fn refresh_keys(&self, _: AdminPermit, provider: ProviderName) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move {
            if !is_configured(&self.reloader, &provider) {
                return Err(Trouble::NotFound(format!(
                    "there is no identity provider {provider}"
                )));
            }
            let verifier = Arc::clone(&self.reloader.current().verifier);
            match verifier.refresh(&provider).await {
                Ok(_) => Ok(()),
                Err(error @ RefreshError::Unknown { .. }) => Err(Trouble::NotFound(error.to_string())),
                Err(error) => Err(Trouble::Unavailable(error.to_string())),
            }
        })
    }

    fn revocations(&self, _: AdminPermit) -> Vec<RevocationView> {
        let (snapshot, now) = (self.reloader.current(), self.shared.clock.now());
        let in_force = snapshot.revocations.iter().filter(|it| !it.is_over(now));
        in_force.map(RevocationView::from).collect()
    }

    fn revoke(
        &self,
        _: AdminPermit,
        revocation: NewRevocation,
    ) -> Waiting<'_, Result<RevocationView, Trouble>> {
        Box::pin(async move {
            if let Some(provider) = &revocation.provider
                && !is_configured(&self.reloader, provider)
            {
                // It would strike nobody and look as if it did.
                let text = format!("there is no identity provider {provider}");
                return Err(Trouble::Unusable(text));
            }
            let revocation = revocation.at(self.shared.clock.now());
            let made = self.reloader.revoke(revocation.clone()).await;
            made.map_err(|error| trouble(&error))?;
            let view = RevocationView::from(&revocation);
            self.end_struck(revocation).await;
            Ok(view)
        })
    }

    fn lift(&self, _: AdminPermit, id: String) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move { self.reloader.lift(&id).await.map_err(|error| trouble(&error)) })
    }
}

fn is_configured(reloader: &Reloader, provider: &ProviderName) -> bool {
    let built = reloader.built();
    built.settings.providers.iter().any(|it| it.name == *provider)
}

async fn end_logins(shared: &Shared, revocation: &Arc<Revocation>) {
    match revocation.struck {
        // Others of the same identity, who are not struck, share the login.
        Struck::TokenId(_) | Struck::Session(_) => {}
        Struck::Subject(_) | Struck::ClientId(_) => {
            for broker in shared.brokers.values() {
                let revocation = Arc::clone(revocation);
                let of = Arc::new(move |facts: &Facts| is_struck(&revocation, facts));
                broker.end_logins(of, "access was revoked").await;
            }
        }
    }
}

fn is_struck(revocation: &Revocation, facts: &Facts) -> bool {
    let reference = facts.session.map(|session| session.to_string());
    facts.identity.as_ref().is_some_and(|identity| {
        let IdentityFacts {
            provider,
            subject,
            client_id,
            token_id,
            ..
        } = identity;
        revocation.strikes_named(&Named {
            provider,
            subject,
            client_id: client_id.as_deref(),
            token_id: token_id.as_deref(),
            session: reference.as_deref(),
        })
    })
}

fn trouble(error: &RevokeError) -> Trouble {
    match error {
        RevokeError::File(source) => Trouble::Unavailable(format!("{error}: {source}")),
        RevokeError::TooMany => Trouble::Unusable(error.to_string()),
        RevokeError::Unknown => Trouble::NotFound(error.to_string()),
    }
}
