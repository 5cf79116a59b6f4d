//! What operators are told: what is not ready, and how much of everything there is.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::page::{Kind, Page};
use crate::admin::{Unready, Watch};
use crate::app::process;
use crate::app::reload::Reloader;
use crate::app::start::Shared;
use crate::sink;

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
        let ready = u64::from(self.unready().is_empty());
        page.family("gatepost_ready", Kind::Gauge, "1 when /readyz says ready.")
            .sample(&[], ready);
        page.family("gatepost_build_info", Kind::Gauge, "The version, as a label.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.sessions(page);
        self.statements(page);
        self.tickets(page);
        self.pools(page);
        self.logins(page);
        self.journal(page);
        self.policy(page);
        self.refreshes(page);
        self.certificates(page);
        process::measure(page);
    }
}

impl Watched {
    fn sessions(&self, page: &mut Page) {
        let counters = &self.shared.counters;
        page.family(
            "gatepost_client_connections",
            Kind::Gauge,
            "Client connections, logged in or not.",
        )
        .sample(&[], number(self.shared.drain.sessions()));
        page.family(
            "gatepost_sessions_opened_total",
            Kind::Counter,
            "Sessions that were let in.",
        )
        .sample(&[], counters.opened());
        let mut sessions = page.family("gatepost_sessions", Kind::Gauge, "Open sessions.");
        for (target, counters) in counters.targets() {
            let labels = [("engine", "postgres"), ("target", target.as_str())];
            sessions.sample(&labels, counters.sessions());
        }
        let mut refusals = page.family("gatepost_refusals_total", Kind::Counter, "Refusals by code.");
        for (code, count) in counters.refusals() {
            refusals.sample(&[("code", code.label())], count);
        }
        let mut cancels = page.family(
            "gatepost_cancels_total",
            Kind::Counter,
            "Cancel requests by what became of them.",
        );
        for (result, count) in counters.cancels() {
            cancels.sample(&[("result", result)], count);
        }
    }

    fn statements(&self, page: &mut Page) {
        let counters = &self.shared.counters;
        let mut transactions = page.family(
            "gatepost_transactions_total",
            Kind::Counter,
            "Transactions on record, as they end.",
        );
        for (target, counters) in counters.targets() {
            for (outcome, count) in counters.transactions() {
                let labels = [("target", target.as_str()), ("outcome", outcome)];
                transactions.sample(&labels, count);
            }
        }
        let mut unread = page.family(
            "gatepost_replies_unread_total",
            Kind::Counter,
            "Replies that went to the client as they came and that gatepost cannot read to their end.",
        );
        for (target, counters) in counters.targets() {
            unread.sample(&[("target", target.as_str())], counters.unread());
        }
        let mut statements = page.family(
            "gatepost_statement_seconds",
            Kind::Histogram,
            "From a statement's arrival to its completion, with what gatepost itself waited for.",
        );
        for (target, counters) in counters.targets() {
            for (kind, reading) in counters.statements() {
                let labels = [("target", target.as_str()), ("kind", kind.label())];
                statements.histogram(&labels, &reading);
            }
        }
    }

    fn tickets(&self, page: &mut Page) {
        page.family(
            "gatepost_tickets",
            Kind::Gauge,
            "Tickets that are good, and some that ended lately.",
        )
        .sample(&[], number(self.shared.office.tickets.count()));
    }

    fn pools(&self, page: &mut Page) {
        let budgets = &self.shared.budgets;
        let mut pools = page.family(
            "gatepost_pool_connections",
            Kind::Gauge,
            "Connections to a target by state; lent includes those being opened.",
        );
        for (target, budget) in budgets {
            let stats = budget.stats();
            let idle = number(stats.idle);
            let lent = u64::from(stats.taken).saturating_sub(idle);
            for (state, count) in [("lent", lent), ("idle", idle)] {
                pools.sample(&[("target", target.as_str()), ("state", state)], count);
            }
        }
        let help = "Connections that a target may have.";
        let mut most = page.family("gatepost_pool_connections_max", Kind::Gauge, help);
        for (target, budget) in budgets {
            most.sample(&[("target", target.as_str())], budget.stats().max.into());
        }
        let mut waiting = page.family(
            "gatepost_pool_waiting",
            Kind::Gauge,
            "Sessions in line: for a connection of the target, or of their own share.",
        );
        for (target, budget) in budgets {
            let stats = budget.stats();
            for (what, count) in [("target", stats.waiting), ("share", stats.parked)] {
                let labels = [("target", target.as_str()), ("for", what)];
                waiting.sample(&labels, number(count));
            }
        }
        let help = "How long sessions stood in line for a connection, those that did not among them.";
        let mut waits = page.family("gatepost_pool_wait_seconds", Kind::Histogram, help);
        for (target, budget) in budgets {
            waits.histogram(&[("target", target.as_str())], &budget.measures().waited());
        }
        let help = "Connections that were opened and logged in.";
        let mut opened = page.family("gatepost_pool_opened_total", Kind::Counter, help);
        for (target, budget) in budgets {
            opened.sample(&[("target", target.as_str())], budget.measures().opened());
        }
        let help = "Connections that were closed, by reason.";
        let mut closed = page.family("gatepost_pool_closed_total", Kind::Counter, help);
        for (target, budget) in budgets {
            for (why, count) in budget.measures().closed() {
                closed.sample(&[("target", target.as_str()), ("reason", why.label())], count);
            }
        }
    }

    fn logins(&self, page: &mut Page) {
        let help = "Transactions whose end is still to be found out.";
        let mut pending = page.family("gatepost_reconcile_pending", Kind::Gauge, help);
        for (target, broker) in &self.shared.brokers {
            pending.sample(&[("target", target.as_str())], number(broker.unresolved()));
        }
        let help = "How long it took to mint a login, on record and in the database.";
        let mut mints = page.family("gatepost_login_mint_seconds", Kind::Histogram, help);
        for target in self.shared.budgets.keys() {
            if let Some(broker) = self.shared.brokers.get(target) {
                mints.histogram(&[("target", target.as_str())], &broker.mint_times());
            }
        }
    }

    fn journal(&self, page: &mut Page) {
        let measures = self.shared.journal.measures();
        page.family(
            "gatepost_audit_append_seconds",
            Kind::Histogram,
            "How long those waited who had to wait for their audit records.",
        )
        .histogram(&[], &measures.appended);
        page.family(
            "gatepost_audit_write_seconds",
            Kind::Histogram,
            "How long the disk took for a group of audit records.",
        )
        .histogram(&[], &measures.written);
        page.family(
            "gatepost_audit_backlog",
            Kind::Gauge,
            "Audit records that wait for the disk.",
        )
        .sample(&[], number(measures.waiting));
        let mut heads = page.family(
            "gatepost_audit_heads_total",
            Kind::Counter,
            "Heads of the journal written to their second place.",
        );
        for (result, count) in [("kept", measures.heads_kept), ("failed", measures.heads_failed)] {
            heads.sample(&[("result", result)], count);
        }
        self.sinks(page);
        if let Some(free) = process::free_bytes(&self.reloader.built().settings.audit.directory) {
            page.family(
                "gatepost_audit_disk_free_bytes",
                Kind::Gauge,
                "Free space where the journal is written.",
            )
            .sample(&[], free);
        }
    }

    fn sinks(&self, page: &mut Page) {
        let mut family = |name, kind, help, value: fn(&sink::Measures) -> u64| {
            let mut samples = page.family(name, kind, help);
            for sink in &self.shared.sinks {
                samples.sample(&[("sink", sink.name())], value(&sink.measures()));
            }
        };
        family(
            "gatepost_audit_sink_sent_total",
            Kind::Counter,
            "Audit records that were sent on.",
            |it| it.sent,
        );
        family(
            "gatepost_audit_sink_failures_total",
            Kind::Counter,
            "Attempts to send audit records on that failed.",
            |it| it.failures,
        );
        family(
            "gatepost_audit_sink_behind",
            Kind::Gauge,
            "Audit records of the journal that were not sent on yet.",
            |it| it.behind,
        );
    }

    fn policy(&self, page: &mut Page) {
        let snapshot = self.reloader.current();
        let policy = &snapshot.policy;
        page.family(
            "gatepost_policy_info",
            Kind::Gauge,
            "The version of the policy in force, as a label.",
        )
        .sample(&[("version", policy.version())], 1);
        page.family(
            "gatepost_policy_rules",
            Kind::Gauge,
            "Rules of the policy in force.",
        )
        .sample(&[], number(policy.rule_count()));
        page.family(
            "gatepost_snapshot_epoch",
            Kind::Gauge,
            "Counts what was reloaded or revoked since the start, from 1.",
        )
        .sample(&[], snapshot.epoch);
    }

    fn refreshes(&self, page: &mut Page) {
        let mut refreshes = page.family(
            "gatepost_jwks_refresh_total",
            Kind::Counter,
            "Fetches of a provider's keys: ok (other keys than before), unchanged, failed.",
        );
        for (provider, result, count) in self.reloader.current().verifier.refreshes() {
            refreshes.sample(&[("provider", provider.as_str()), ("result", result)], count);
        }
    }

    /// When certificates expire: the one that clients see, and the ones that targets see.
    fn certificates(&self, page: &mut Page) {
        let snapshot = self.reloader.current();
        let ours = snapshot.listeners.tls.iter().map(|tls| ("", tls.not_after()));
        let mut expiries = page.family(
            "gatepost_tls_certificate_expiry_seconds",
            Kind::Gauge,
            "When a certificate of gatepost's own expires, in seconds since 1970.",
        );
        for (target, expiry) in ours {
            expiries.seconds(&[("side", "server"), ("target", target)], since_1970(expiry));
        }
        for (target, route) in &self.shared.routes {
            if let Some(expiry) = route.current().tls.not_after() {
                let labels = [("side", "client"), ("target", target.as_str())];
                expiries.seconds(&labels, since_1970(expiry));
            }
        }
    }
}

fn since_1970(at: SystemTime) -> f64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
