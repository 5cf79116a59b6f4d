//! Keys over HTTP, against a provider of our own on loopback that counts what it is asked, and a clock
//! that moves when the test says so.

mod algorithms;
#[cfg(feature = "dev")] // rcgen comes with it
mod authorities;
mod claims;
mod hostile;
mod outage;
pub(super) mod provider;
mod reload;
mod rotation;
mod seen;
pub(super) mod signers;
mod storm;
mod tenants;
mod ticket;

use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::domain::{Clock, Identity, Secret};
use crate::identity::tests::provider::Issuer;
use crate::identity::{ProviderKind, ProviderSettings, TokenError, Verifier};
use crate::tls::HttpsTrust;

pub(super) const NOW: u64 = 1_800_000_000;

/// The time of day in which tests begin, and for whoever needs no clock.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

#[derive(Debug, Default)]
pub(super) struct FakeClock(Mutex<Duration>);

impl FakeClock {
    pub(super) fn pass(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        now() + *self.0.lock().unwrap()
    }
}

/// A verifier of one provider, and the clock that it goes by.
pub(super) struct Bench {
    pub(super) verifier: Arc<Verifier>,
    pub(super) clock: Arc<FakeClock>,
}

impl Bench {
    pub(super) fn of(issuer: &Issuer, kind: ProviderKind) -> Self {
        Self::with(vec![settings("idp", &issuer.url, kind)])
    }

    pub(super) fn with(settings: Vec<ProviderSettings>) -> Self {
        let clock = Arc::new(FakeClock::default());
        let verifier = Arc::new(Verifier::untended(settings, clock.clone()));
        Self { verifier, clock }
    }

    /// What happens to somebody who shows this token now.
    pub(super) async fn show(&self, token: &[u8]) -> Result<Arc<Identity>, TokenError> {
        let token = Secret::new(token.to_vec());
        self.verifier.verify(&token, self.clock.now()).await
    }

    /// The same, for whom nothing is waited for.
    pub(super) fn show_without_waiting(&self, token: &[u8]) -> Option<Result<Arc<Identity>, TokenError>> {
        match pin!(self.show(token)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verified) => Some(verified),
            Poll::Pending => None,
        }
    }

    pub(super) fn count(&self, result: &str) -> u64 {
        let counted = self.verifier.refreshes();
        let of_result = counted.iter().filter(|it| it.1 == result);
        of_result.map(|it| it.2).sum()
    }

    /// What the process does each second.
    pub(super) fn tend(&self) {
        self.verifier.providers().iter().for_each(|it| it.tend());
    }
}

pub(super) fn settings(name: &str, issuer: &str, kind: ProviderKind) -> ProviderSettings {
    ProviderSettings {
        name: name.into(),
        kind,
        issuer: issuer.to_owned(),
        tenants: Vec::new(),
        audiences: vec!["gatepost".to_owned(), "api://gatepost".to_owned()],
        https: HttpsTrust::trusting(rustls::RootCertStore::empty()),
    }
}

/// Waits until it is so; only a failing test waits long.
pub(super) async fn until(what: &str, so: impl Fn() -> bool) {
    let looking = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), looking).await;
    assert!(waited.is_ok(), "waited in vain: {what}");
}

pub(super) fn is_unavailable(verified: Result<Arc<Identity>, TokenError>) -> bool {
    matches!(verified, Err(TokenError::Unavailable { .. }))
}

pub(super) fn is_unknown_key<T: Debug>(verified: &Result<T, TokenError>) -> bool {
    matches!(
        verified,
        Err(TokenError::Key {
            what: "no such key id"
        })
    )
}
