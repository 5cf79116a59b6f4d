//! One pass over the records of a journal, from its beginning: what was before the period is needed for
//! what was in force when it began, what comes after it only settles what was open.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize as _;

use crate::audit::entry::Entry;
use crate::audit::report::Period;
use crate::audit::report::bounded::{Listing, bounded};
use crate::audit::report::control::Control;
use crate::audit::report::model::*;
use crate::audit::report::retries::{Retries, outcome_word};
use crate::audit::report::transactions::{Open, Relations, database, place, who};
use crate::audit::wording::summary;

/// Identities that are told apart.
const PEOPLE_MAX: usize = 2_000;
/// Logins that are followed at one time.
const LOGINS_MAX: usize = 50_000;
/// How long after its expiry a login may still be there before it counts as left over: what drops it
/// tries again with growing pauses.
const DROPPED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    Within,
    After,
}

/// A report in the making.
pub struct Gathering {
    period: Period,
    journal: JournalPart,
    policy: PolicyPart,
    /// The last policy that came into force before the period.
    earlier: Option<PolicyVersion>,
    people: BTreeMap<(String, Option<String>, String), Person>,
    of_others: u64,
    access: AccessPart,
    glass: BreakGlassPart,
    credentials: CredentialPart,
    logins: BTreeMap<String, Login>,
    refusals: RefusalPart,
    operators: OperatorPart,
    retries: Retries,
    gaps: GapPart,
    open: Open,
    relations: Relations,
    run: Option<(Run, bool)>,
}

/// A login that was not dropped yet.
struct Login {
    left: LeftOver,
    expires: Option<SystemTime>,
}

impl Gathering {
    pub fn new(period: Period) -> Self {
        Self {
            period,
            journal: JournalPart::default(),
            policy: PolicyPart::default(),
            earlier: None,
            people: BTreeMap::new(),
            of_others: 0,
            access: AccessPart::default(),
            glass: BreakGlassPart::default(),
            credentials: CredentialPart::default(),
            logins: BTreeMap::new(),
            refusals: RefusalPart::default(),
            operators: OperatorPart::default(),
            retries: Retries::default(),
            gaps: GapPart::default(),
            open: Open::default(),
            relations: Relations::default(),
            run: None,
        }
    }

    /// Takes the next record in.
    pub fn take(&mut self, entry: Entry) {
        let when = self.when(&entry);
        if when != When::After {
            self.learn(&entry, when);
        }
        if when == When::Within {
            self.count(&entry);
        }
        if entry.is_transaction() {
            self.transaction(entry, when);
        }
    }

    /// A record whose time cannot be read counts as within: it must not be lost.
    fn when(&self, entry: &Entry) -> When {
        match entry.time() {
            Some(at) if at < self.period.from => When::Before,
            Some(at) if at >= self.period.to => When::After,
            Some(_) | None => When::Within,
        }
    }

    /// What has to be known whether it was in the period or before.
    fn learn(&mut self, entry: &Entry, when: When) {
        self.follow_run(entry, when);
        match entry.event.as_str() {
            "policy.loaded" => self.policy(entry, when),
            "statement.seen" => self.relations.learn(entry),
            event if event.starts_with("login.") => self.login(entry),
            _ => {}
        }
    }

    fn follow_run(&mut self, entry: &Entry, when: When) {
        let last = Run {
            epoch: entry.epoch,
            last: place(entry),
        };
        let stopped = entry.event == "server.stopped";
        let Some((run, had_stopped)) = self.run.replace((last, stopped)) else {
            return;
        };
        let same = run.epoch == entry.epoch;
        if !same && !had_stopped && when == When::Within {
            self.gaps.unstopped.add(run);
        } else if same
            && had_stopped
            && let Some((_, stopped)) = &mut self.run
        {
            // The head behind it.
            *stopped = true;
        }
    }

    fn policy(&mut self, entry: &Entry, when: When) {
        let outline = Outline::deserialize(&entry.detail).unwrap_or_default();
        let glass = outline.roles.iter().filter(|role| role.break_glass);
        self.glass
            .roles
            .extend(glass.map(|role| bounded(&role.name)).take(NAMES));
        let version = entry.policy.as_ref().map_or("", |policy| policy.version.as_str());
        if when == When::Before {
            self.earlier = Some(loaded(version, entry, outline, true));
            return;
        }
        if let Some(earlier) = self.earlier.take() {
            self.policy.versions.add(earlier);
        }
        let mut known = self.policy.versions.rows.iter_mut();
        match known.find(|known| known.version == version) {
            Some(known) => known.loaded.add(place(entry)),
            None => self.policy.versions.add(loaded(version, entry, outline, false)),
        }
    }

    fn login(&mut self, entry: &Entry) {
        let Some(name) = entry.login.as_deref() else {
            return;
        };
        let expires_at = entry.text("expires_at").unwrap_or_default();
        match entry.event.as_str() {
            "login.minted" if self.logins.len() >= LOGINS_MAX => self.credentials.not_followed += 1,
            "login.minted" => {
                let left = LeftOver {
                    login: bounded(name),
                    who: who(entry),
                    role: bounded(entry.role.as_deref().unwrap_or_default()),
                    target: database(entry),
                    minted_at: entry.at.clone(),
                    expires_at: expires_at.to_owned(),
                    disabled: false,
                };
                let expires = humantime::parse_rfc3339(expires_at).ok();
                self.logins.insert(name.to_owned(), Login { left, expires });
            }
            "login.dropped" => drop(self.logins.remove(name)),
            event => {
                let Some(login) = self.logins.get_mut(name) else {
                    return;
                };
                login.left.disabled |= event == "login.disabled";
                if event == "login.renewed" {
                    login.left.expires_at = expires_at.to_owned();
                    login.expires = humantime::parse_rfc3339(expires_at).ok();
                }
            }
        }
    }

    /// What happened in the period.
    fn count(&mut self, entry: &Entry) {
        self.journal.installations.add(&entry.installation, 1);
        self.journal.replicas.add(&entry.replica, 1);
        self.journal.events.add(&entry.event, 1);
        self.journal.first.get_or_insert_with(|| place(entry));
        self.journal.last = Some(place(entry));
        match entry.event.as_str() {
            "policy.rejected" => self.policy.rejected.add(Rejected {
                place: place(entry),
                mistakes: entry.number("mistakes").unwrap_or_default(),
            }),
            "session.opened" => self.opened(entry),
            "session.closed" if entry.text("reason").is_some() => {
                self.refusals
                    .ended
                    .add(entry.text("reason").unwrap_or_default(), 1);
            }
            "session.denied" | "ticket.denied" | "session.denied_many" => self.refused(entry),
            "ticket.issued" => self.credentials.tickets_issued += 1,
            "secret.rotated" => self.credentials.rotated.add(happening(entry)),
            "journal.repaired" => self.gaps.repaired.add(happening(entry)),
            "journal.recovered" => self.gaps.recovered.add(happening(entry)),
            event if event.starts_with("login.") => self.credential(entry),
            event if event.starts_with("admin.") => self.operator(entry),
            _ => {}
        }
    }

    fn opened(&mut self, entry: &Entry) {
        let address = entry.address().unwrap_or_default();
        let rule = entry.policy.as_ref().and_then(|policy| policy.rule.as_deref());
        if let Some(person) = self.person(entry) {
            person.sessions += 1;
            person.addresses.add(address, 1);
            rule.into_iter().for_each(|rule| person.rules.add(rule, 1));
        }
        let role = entry.role.as_deref().unwrap_or_default();
        if self.glass.roles.contains(role) {
            self.glass.uses.add(Use {
                place: place(entry),
                who: who(entry),
                role: bounded(role),
                target: database(entry),
                session: entry.session.clone().unwrap_or_default(),
                address: bounded(address),
            });
        }
    }

    fn refused(&mut self, entry: &Entry) {
        let count = entry.number("count").unwrap_or(1);
        let code = entry.text("code").unwrap_or("summed_up");
        self.refusals.by_code.add(code, count);
        if let Some(reason) = entry.text("reason") {
            self.refusals.by_reason.add(&format!("{code}: {reason}"), count);
        }
        if let Some(address) = entry.address().or_else(|| entry.text("address")) {
            self.refusals.by_address.add(address, count);
        }
        if entry.identity.is_some() {
            self.refusals.by_identity.add(&who(entry), count);
        }
        if entry.event == "ticket.denied" {
            self.credentials.tickets_denied += 1;
        }
        if let Some(person) = self.person(entry) {
            person.refused += count;
        }
    }

    fn credential(&mut self, entry: &Entry) {
        let part = &mut self.credentials;
        match entry.event.as_str() {
            "login.minted" => part.minted += 1,
            "login.renewed" => part.renewed += 1,
            "login.disabled" => part.disabled.add(entry.text("why").unwrap_or("?"), 1),
            "login.dropped" => part.dropped += 1,
            "login.tampered" => part.tampered.add(happening(entry)),
            _ => {}
        }
    }

    fn operator(&mut self, entry: &Entry) {
        let action = entry.event.strip_prefix("admin.").unwrap_or_default();
        let result = entry.outcome().unwrap_or("?");
        self.operators.actions.add(&format!("{action} {result}"), 1);
        let looks = action.ends_with(".list") || action.ends_with(".show");
        // What was permitted is followed by what came of it.
        if result == "refused" || (!looks && result != "permitted") {
            let mut act = happening(entry);
            act.what = bounded(&format!("{action}: {}", act.what));
            self.operators.acts.add(act);
        }
    }

    fn transaction(&mut self, mut entry: Entry, when: When) {
        let earlier = self.open.settle(&entry);
        if entry.event == "transaction.reconciled" {
            self.verdict(&entry, earlier, when);
            return;
        }
        if when != When::Within {
            // What comes after the period only settles.
            if let Some(earlier) = earlier.filter(|_| is_open(&entry)) {
                self.open.keep(earlier);
            }
            return;
        }
        if entry.outcome().is_some() {
            self.settled(&entry);
        }
        if is_open(&entry) {
            if let Some(detail) = entry.detail.as_object_mut() {
                // They can be many, and were counted.
                detail.remove("statements");
            }
            self.open.keep(entry);
        } else {
            self.retries.add(&entry, outcome_word(entry.outcome()));
        }
    }

    /// A transaction whose end nobody had heard of was asked after. The first record says whose it is.
    fn verdict(&mut self, entry: &Entry, earlier: Option<Entry>, when: When) {
        if when == When::Within {
            self.gaps.reconciled.add(entry.outcome().unwrap_or("unknown"), 1);
        }
        let Some(mut earlier) = earlier else {
            return;
        };
        let had_outcome = earlier.outcome().is_some();
        if let (Some(outcome), Some(detail)) = (entry.outcome(), earlier.detail.as_object_mut()) {
            detail.insert("outcome".to_owned(), outcome.into());
        }
        if !had_outcome {
            self.settled(&earlier);
        }
        if is_open(&earlier) {
            self.open.keep(earlier);
        } else {
            self.retries.add(&earlier, outcome_word(earlier.outcome()));
        }
    }

    fn settled(&mut self, entry: &Entry) {
        let word = match entry.text("scope") {
            Some("read_only") => "read_only",
            _ => outcome_word(entry.outcome()),
        };
        self.access.transactions.add(word, 1);
        self.gaps.partial += u64::from(entry.text("scope") == Some("partial"));
        let role = entry.role.as_deref().unwrap_or_default();
        if self.glass.roles.contains(role) {
            self.glass.transactions.add(word, 1);
        }
        let touched: Vec<_> = self.relations.of(entry).cloned().collect();
        let Some(person) = self.person(entry) else {
            return;
        };
        person.transactions.add(word, 1);
        person.roles.add(role, 1);
        person.targets.add(&database(entry), 1);
        for statement in entry.statements() {
            person.statements.add(statement.kind, 1);
            person.rows = person.rows.saturating_add(statement.rows.unwrap_or_default());
        }
        for touched in touched {
            touched
                .written
                .iter()
                .for_each(|name| person.written.add(name, 1));
            touched.read.iter().for_each(|name| person.read.add(name, 1));
        }
    }

    /// Whose record this is; `None` of nobody, or of too many.
    fn person(&mut self, entry: &Entry) -> Option<&mut Person> {
        let identity = entry.identity.as_ref()?;
        let key = (
            bounded(&identity.provider),
            identity.tenant.as_deref().map(bounded),
            bounded(&identity.subject),
        );
        if self.people.len() >= PEOPLE_MAX && !self.people.contains_key(&key) {
            self.of_others += 1;
            return None;
        }
        let person = self.people.entry(key.clone()).or_insert_with(|| Person {
            provider: key.0,
            tenant: key.1,
            subject: key.2,
            first: place(entry),
            ..Person::default()
        });
        person.name = identity.name.as_deref().map(bounded).or(person.name.take());
        identity
            .client_id
            .iter()
            .for_each(|id| person.client_ids.add(id, 1));
        person.last = place(entry);
        Some(person)
    }

    /// The report, with what was proved of the journal.
    pub fn end(mut self, chain: Chain) -> Report {
        if let Some(earlier) = self.earlier.take() {
            self.policy.versions.add(earlier);
        }
        let (open, mut retries, mut gaps) = (self.open, self.retries, self.gaps);
        let (people, access) = (&mut self.people, &mut self.access);
        open.end(&mut gaps, &mut retries, &mut |entry| {
            access.transactions.add("unknown", 1);
            let who = entry.identity.as_ref().map(|identity| {
                let tenant = identity.tenant.as_deref().map(bounded);
                (bounded(&identity.provider), tenant, bounded(&identity.subject))
            });
            if let Some(person) = who.and_then(|key| people.get_mut(&key)) {
                person.transactions.add("unknown", 1);
            }
        });
        self.access.identities = self.people.into_values().collect();
        self.access.of_others = self.of_others;
        let as_of = self.period.to.min(self.period.now);
        for login in self.logins.into_values() {
            match login.expires {
                Some(expires) if expires > as_of => self.credentials.live_at_end += 1,
                Some(expires) if expires + DROPPED_WITHIN > as_of => {}
                Some(_) | None => self.credentials.left_over.add(login.left),
            }
        }
        let shown = |time| humantime::format_rfc3339_seconds(time).to_string();
        Report {
            schema: SCHEMA,
            generated_at: shown(self.period.now),
            from: shown(self.period.from),
            to: shown(self.period.to),
            controls: Control::ALL.to_vec(),
            journal: self.journal,
            chain,
            policy: Some(self.policy),
            access: Some(self.access),
            break_glass: Some(self.glass),
            credentials: Some(self.credentials),
            refusals: Some(self.refusals),
            operators: Some(self.operators),
            retries: Some(retries.end()),
            gaps: Some(gaps),
        }
    }
}

/// Is it not known yet whether it was committed?
fn is_open(entry: &Entry) -> bool {
    !matches!(entry.outcome(), Some("committed" | "aborted"))
}

fn loaded(version: &str, entry: &Entry, outline: Outline, at_beginning: bool) -> PolicyVersion {
    let mut loaded = Listing::default();
    loaded.add(place(entry));
    PolicyVersion {
        version: bounded(version),
        at_beginning,
        loaded,
        rules: entry.number("rules").unwrap_or_default(),
        outline,
    }
}

fn happening(entry: &Entry) -> Happening {
    Happening {
        place: place(entry),
        who: who(entry),
        what: bounded(&summary(entry)),
    }
}
