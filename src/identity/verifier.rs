//! The one question that others ask: whose token is this?

use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Handle;

use crate::domain::{Clock, Identity, ProviderName, Random, Secret};
use crate::identity::attempts::Cause;
use crate::identity::provider::{Provider, Refreshes};
use crate::identity::seen::{Digest, Entry, Fingers};
use crate::identity::token::{self, TOKEN_BYTES_MAX, Token};
use crate::identity::{ProviderSettings, RefreshError, RefreshReport, TokenError, claims};

/// All configured providers with their keys. May be asked from any thread; what it fetches, it
/// fetches on the control runtime.
#[derive(Debug)]
pub struct Verifier {
    providers: Vec<Arc<Provider>>,
    clock: Arc<dyn Clock>,
    control: Handle,
    fingers: Arc<Fingers>,
    tended: bool,
}

impl Verifier {
    /// From now on keys are fetched and renewed on `control`, until this and all its successors are
    /// dropped.
    pub fn new(
        settings: Vec<ProviderSettings>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        control: Handle,
    ) -> Self {
        let first = Self {
            providers: Vec::new(),
            clock,
            control,
            fingers: Arc::new(Fingers::new(random)),
            tended: true,
        };
        first.successor(settings)
    }

    /// For new settings. A provider whose settings are the same is taken over as it is, with its keys,
    /// what it knows of tokens and key ids, and the refresh under way. Any other begins with nothing.
    #[must_use]
    pub fn successor(&self, settings: Vec<ProviderSettings>) -> Self {
        let providers = settings.into_iter().map(|settings| {
            let mut old = self.providers.iter();
            let same = old.clone().find(|it| *it.settings() == settings);
            let named = old.find(|it| it.settings().name == settings.name);
            // Counters only ever grow.
            let counted = named.map_or_else(Arc::<Refreshes>::default, |it| Arc::clone(it.refreshes()));
            same.map_or_else(|| self.begin(settings, counted), Arc::clone)
        });
        Self {
            providers: providers.collect(),
            clock: Arc::clone(&self.clock),
            control: self.control.clone(),
            fingers: Arc::clone(&self.fingers),
            tended: self.tended,
        }
    }

    fn begin(&self, settings: ProviderSettings, counted: Arc<Refreshes>) -> Arc<Provider> {
        let provider = Provider::new(settings, Arc::clone(&self.clock), self.control.clone(), counted);
        if self.tended {
            provider.tend_from_now_on();
        }
        provider
    }

    /// Waits for the keys that are missing. A provider that does not answer is logged, and asked
    /// again at growing distances.
    pub async fn prefetch(&self) {
        let missing = self.providers.iter().filter(|it| !it.ready());
        let fetches: Vec<_> = missing.map(|it| it.refresh(Cause::Age)).collect();
        for fetch in fetches.into_iter().flatten() {
            fetch.await.ok();
        }
    }

    /// Whose token is this? `at` is the time of day.
    pub async fn verify(&self, token: &Secret<Vec<u8>>, at: SystemTime) -> Result<Arc<Identity>, TokenError> {
        let bytes = token.expose().len();
        let digest = (bytes <= TOKEN_BYTES_MAX).then(|| self.fingers.digest(token.expose()));
        if let Some(identity) = digest.and_then(|digest| self.seen(&digest, at)) {
            return Ok(identity);
        }
        let token = Token::parse(token)?;
        let provider = self.provider_of(&token)?;
        let (key, times) = provider.check(&token, at).await?;
        let settings = provider.settings();
        let identity = Arc::new(claims::read(settings.kind, &settings.name, token.claims())?);
        if let Some(digest) = digest {
            let entry = Entry {
                identity: Arc::clone(&identity),
                times,
                key,
                bytes,
            };
            provider.remember(digest, entry);
        }
        Ok(identity)
    }

    fn seen(&self, token: &Digest, at: SystemTime) -> Option<Arc<Identity>> {
        self.providers.iter().find_map(|it| it.seen(token, at))
    }

    /// The issuer is only looked up here; it is believed once the signature holds.
    fn provider_of(&self, token: &Token) -> Result<&Arc<Provider>, TokenError> {
        let issuer = token.issuer()?;
        let mut mine = self
            .providers
            .iter()
            .filter(|it| it.issuer().accepts(issuer, token.tenant()));
        let first = mine.next().ok_or(TokenError::UnknownIssuer)?;
        if token.is_for(&first.settings().audiences) {
            return Ok(first);
        }
        // Two entries for one issuer differ in their audiences.
        let other = mine.find(|it| token.is_for(&it.settings().audiences));
        Ok(other.unwrap_or(first))
    }

    /// Would this identity, verified before, still be believed? Its provider must be configured, with an
    /// issuer and an audience that fit, and must read the claims as the same identity.
    pub fn still_accepts(&self, identity: &Identity) -> bool {
        self.providers.iter().any(|it| {
            let settings = it.settings();
            let read = || claims::read(settings.kind, &settings.name, &identity.claims);
            settings.name == identity.provider
                && token::are_acceptable(&identity.claims, settings, it.issuer())
                && read().is_ok_and(|again| again.key() == identity.key())
        })
    }

    /// Fetches a provider's keys now, for an operator. At most once a second; joins a refresh under way.
    pub async fn refresh(&self, provider: &ProviderName) -> Result<RefreshReport, RefreshError> {
        let mut named = self.providers.iter().filter(|it| it.settings().name == *provider);
        let found = named.next().ok_or_else(|| RefreshError::Unknown {
            provider: provider.clone(),
        })?;
        found.refresh_on_demand().await
    }

    /// Which providers have keys that may be believed.
    pub fn providers_ready(&self) -> Vec<(ProviderName, bool)> {
        let ready = |it: &Arc<Provider>| (it.settings().name.clone(), it.ready());
        self.providers.iter().map(ready).collect()
    }

    /// Refreshes so far by provider and result: `ok` (other keys than before), `unchanged`, `failed`.
    pub fn refreshes(&self) -> Vec<(ProviderName, &'static str, u64)> {
        let of_one = |it: &Arc<Provider>| {
            let name = it.settings().name.clone();
            let counted = it.refreshes().counted().into_iter();
            counted.map(move |(result, count)| (name.clone(), result, count))
        };
        self.providers.iter().flat_map(of_one).collect()
    }
}

/// Only for tests that move the clock: nothing happens but what they ask for.
#[cfg(test)]
impl Verifier {
    pub(super) fn untended(settings: Vec<ProviderSettings>, clock: Arc<dyn Clock>) -> Self {
        let none = Self {
            providers: Vec::new(),
            clock,
            control: Handle::current(),
            fingers: Arc::new(Fingers::new(&crate::tls::SystemRandom)),
            tended: false,
        };
        none.successor(settings)
    }

    pub(super) fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }
}
