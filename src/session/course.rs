//! The course of a session that was let in: welcome, relay, and what is left to do behind them.

use std::sync::Arc;

use crate::audit::record::{Event, Facts, Record};
use crate::audit::{Doubt, Marking};
use crate::credential::CatalogueWatch;
use crate::domain::ids::SessionId;
use crate::domain::refusal::{Reason, Refusal, RefusalCode};
use crate::session::dialogue::Dialogue;
use crate::session::farewell::take_leave;
use crate::session::front::Front;
use crate::session::ledger::Ledger;
use crate::session::notices::Notices;
use crate::session::prelude::Prelude;
use crate::session::relay::{Ending, Relay, Surroundings};
use crate::session::{Gate, Opened};
use crate::upstream::checkout::Checkout;
use crate::upstream::reset;

/// How a session ended, for its record.
struct Closing {
    why: &'static str,
    reason: Option<String>,
    transactions: u64,
    /// May the upstream connection be reset and kept?
    clean: bool,
}

impl Closing {
    fn of(why: &'static str, refusal: Option<&Refusal>, dialogue: &impl Dialogue) -> Self {
        Self {
            why,
            reason: refusal.map(Refusal::sentence),
            transactions: dialogue.transactions(),
            clean: dialogue.leaves_clean(),
        }
    }

    /// The client was gone when it was to be welcomed.
    const fn before_it_began() -> Self {
        Self {
            why: "client_left",
            reason: None,
            transactions: 0,
            clean: true,
        }
    }
}

/// What the client calls itself.
fn application(facts: &Facts) -> Option<&str> {
    facts.client.as_ref()?.application.as_deref()
}

impl Gate {
    /// Welcome, relay, and what is left to do behind them.
    pub(super) async fn converse(&self, mut front: impl Front, opened: Opened, session: SessionId) {
        let Opened {
            facts,
            correlation,
            mut standing,
            terms,
            grace,
            mut checkout,
            mut desk,
            permit,
            place,
            lease,
            seats,
        } = opened;
        let application = application(&facts);
        let welcome = front.welcome(permit, application, &checkout, &desk);
        if welcome.await.is_err() {
            return self.close(checkout, Closing::before_it_began(), &facts).await;
        }
        let counters = self.shared.counters.target(facts.target.as_ref());
        let (present, startup) = (counters.enter(), correlation.clone());
        let notices = Notices::new(&facts, &self.shared.counters);
        let prelude = Prelude {
            minted: lease.is_minted(),
            application,
            session,
            correlation: correlation.as_ref(),
            marker: self.marker(&facts),
            autocommit: self.shared.autocommit,
            facts: &facts,
        };
        let ledger = Ledger::new(facts.clone(), session, checkout.process(), startup, counters)
            .of_incarnation(checkout.incarnation().cloned());
        let catalogue = self.catalogue(&facts);
        let mut dialogue = front.dialogue(ledger, &checkout, &prelude, self.nonce(), catalogue);
        let Some((mut client, already_read)) = front.into_parts() else {
            return self.close(checkout, Closing::before_it_began(), &facts).await;
        };
        let surroundings = Surroundings {
            journal: &self.shared.journal,
            clock: self.shared.clock.as_ref(),
            cancels: &mut desk.requests,
            notices: notices.clone(),
            stopping: self.shared.stopping.clone(),
            place: &place,
            standing: &mut standing,
            terms,
            grace,
            desk: &self.shared.outcomes,
            facts: &facts,
        };
        let mut relay = Relay::new(&mut client, &mut checkout, surroundings, &already_read);
        let ending = relay.run(&mut dialogue).await;
        let outbound = relay.into_outbound();
        self.abandon(&mut dialogue, &notices);
        let running = dialogue.is_running_client_statement();
        let (why, refusal) = self.why(ending, session, &notices);
        let closing = Closing::of(why, refusal.as_ref(), &dialogue);
        let held = (place, lease, seats, desk, present);
        // A client that does not read must not keep what it no longer has a right to.
        let let_go = self.let_go(running, (checkout, closing), &facts, held);
        let Some(refusal) = refusal else {
            drop(client);
            return let_go.await;
        };
        let mut text = Vec::new();
        dialogue.put_farewell(&mut text, &refusal);
        tokio::join!(take_leave(client, outbound, &text), let_go);
    }

    /// Of the database that the session is in.
    fn catalogue(&self, facts: &Facts) -> Option<CatalogueWatch> {
        let broker = self.shared.brokers.get(facts.target.as_ref()?)?;
        broker.catalogue(facts.database.as_ref()?)
    }

    /// Gives back everything that the session `held`.
    async fn let_go<H>(
        &self,
        running: bool,
        (checkout, closing): (Checkout, Closing),
        facts: &Arc<Facts>,
        held: H,
    ) {
        if let Some(canceller) = checkout.canceller().filter(|_| running) {
            // Nobody waits for it any more.
            let _ = canceller.cancel().await;
        }
        self.close(checkout, closing, facts).await;
        drop(held);
    }

    /// What this target's transactions are marked with, where they are.
    fn marker(&self, facts: &Facts) -> Option<&Marking> {
        let target = facts.target.as_ref()?;
        self.shared.markers.get(target)
    }

    /// A transaction that was open when one side went, and those that had ended with nobody to take their
    /// records.
    fn abandon(&self, dialogue: &mut impl Dialogue, notices: &Notices) {
        let open = dialogue.abandon(self.shared.clock.now());
        let ended = dialogue.take_records();
        for record in ended.into_iter().chain(open) {
            let doubt = Doubt::left_by(&record, self.shared.journal.epoch(), self.shared.clock.now());
            if let Err(error) = self.shared.journal.submit(record) {
                let clock = self.shared.clock.as_ref();
                notices.unrecorded(&error, "an open transaction could not be recorded", clock);
            }
            if let Some(doubt) = doubt {
                self.ask_after(doubt);
            }
        }
    }

    /// A commit whose reply was lost is asked after, with nobody waiting.
    fn ask_after(&self, doubt: Doubt) {
        let target = doubt.facts.target.as_ref();
        if let Some(broker) = target.and_then(|target| self.shared.brokers.get(target)) {
            broker.reconcile([doubt]);
        }
    }

    /// The word for the record, and what the client is told, unless it left by itself.
    fn why(&self, ending: Ending, session: SessionId, notices: &Notices) -> (&'static str, Option<Refusal>) {
        let refusal = |code, reason| {
            Some(Refusal {
                code,
                reason,
                reference: session,
            })
        };
        match ending {
            Ending::ClientLeft => ("client_left", None),
            Ending::ServerLost => {
                let refusal = refusal(RefusalCode::TargetUnavailable, Reason::TargetDown);
                ("server_lost", refusal)
            }
            Ending::Refused(code, reason) => {
                self.shared.counters.refused(code);
                notices.ended(code, &reason.to_string());
                (code.label(), refusal(code, reason))
            }
        }
    }

    /// Returns the upstream connection if it can be proved clean, and records the end.
    async fn close(&self, mut checkout: Checkout, closing: Closing, facts: &Arc<Facts>) {
        let Closing {
            why,
            reason,
            transactions,
            clean,
        } = closing;
        self.record_end(facts, why, reason, transactions);
        if !clean {
            return;
        }
        match reset::clean(&mut checkout).await {
            Ok(slate) => checkout.give_back(slate),
            Err(error) => Notices::new(facts, &self.shared.counters).not_reset(&error),
        }
    }

    pub(super) fn record_end(
        &self,
        facts: &Arc<Facts>,
        why: &'static str,
        reason: Option<String>,
        transactions: u64,
    ) {
        let event = Event::SessionClosed {
            why,
            reason,
            transactions,
        };
        if let Err(error) = self.shared.journal.submit(Record::new(facts.clone(), event)) {
            let clock = self.shared.clock.as_ref();
            let what = "the end of a session could not be recorded";
            Notices::new(facts, &self.shared.counters).unrecorded(&error, what, clock);
        }
    }

    fn nonce(&self) -> u64 {
        let mut bytes = [0; 8];
        self.shared.random.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}
