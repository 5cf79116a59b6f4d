//! What operators are told: what is not ready, and how much of everything there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::page::{Kind, Page};
use crate::admin::{Unready, Watch};
use crate::app::reload::Reloader;
use crate::app::start::Shared;

/// Looks at what the threads share.
#[derive(Debug)]
pub(super) struct Watched {
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
}

impl Watched {
    pub(super) fn new(shared: Arc<Shared>, reloader: Arc<Reloader>) -> Self {
        Self { shared, reloader }
    }
}

impl Watch for Watched {
    fn unready(&self) -> Vec<Unready> {
        let mut unready = Vec::new();
        let mut note = |what: String, why: String| unready.push(Unready { what, why });
        if let Err(error) = self.shared.journal.health() {
            note("journal".to_owned(), error.to_string());
        }
        for (name, ready) in self.reloader.current().verifier.providers_ready() {
            if !ready {
                note(
                    format!("identity provider {name}"),
                    "its keys cannot be fetched".to_owned(),
                );
            }
        }
        for (target, broker) in &self.shared.brokers {
            if let Err(why) = broker.ready() {
                note(format!("target {target}"), why);
            }
        }
        if self.shared.drain.signal().has_begun() {
            note("process".to_owned(), "it is shutting down".to_owned());
        }
        unready
    }

    fn measure(&self, page: &mut Page) {
        let sessions = u64::try_from(self.shared.drain.sessions()).unwrap_or(u64::MAX);
        page.family(
            "gatepost_client_connections",
            Kind::Gauge,
            "Client connections, logged in or not.",
        )
        .sample(&[], sessions);
        let counters = &self.shared.counters;
        page.family(
            "gatepost_sessions_opened_total",
            Kind::Counter,
            "Sessions that were let in.",
        )
        .sample(&[], counters.opened.load(Ordering::Relaxed));
        page.family(
            "gatepost_sessions",
            Kind::Gauge,
            "Sessions that policy let in and that have not ended.",
        )
        .sample(
            &[],
            u64::try_from(self.shared.registry.session_count()).unwrap_or(u64::MAX),
        );
        let transactions = counters.transactions.load(Ordering::Relaxed);
        page.family(
            "gatepost_transactions_total",
            Kind::Counter,
            "Transactions on record, of ended sessions.",
        )
        .sample(&[], transactions);
        let mut refusals = page.family("gatepost_refusals_total", Kind::Counter, "Refusals by code.");
        for (code, count) in counters.refusals() {
            refusals.sample(&[("code", code.label())], count);
        }
        let mut refreshes = page.family(
            "gatepost_jwks_refresh_total",
            Kind::Counter,
            "Fetches of a provider's keys: ok (other keys than before), unchanged, failed.",
        );
        for (provider, result, count) in self.reloader.current().verifier.refreshes() {
            refreshes.sample(&[("provider", provider.as_str()), ("result", result)], count);
        }
        let ready = u64::from(self.unready().is_empty());
        page.family("gatepost_ready", Kind::Gauge, "1 when /readyz says ready.")
            .sample(&[], ready);
        let mut pools = page.family(
            "gatepost_pool_connections",
            Kind::Gauge,
            "Connections to a target by state.",
        );
        for (target, budget) in &self.shared.budgets {
            let stats = budget.stats();
            let idle = u64::try_from(stats.idle).unwrap_or(u64::MAX);
            let lent = u64::from(stats.taken).saturating_sub(idle);
            let waiting = u64::try_from(stats.waiting).unwrap_or(u64::MAX);
            for (state, count) in [("lent", lent), ("idle", idle), ("waiting", waiting)] {
                pools.sample(&[("target", target.as_str()), ("state", state)], count);
            }
        }
    }
}
