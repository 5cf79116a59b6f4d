//! One identity provider: its discovery document, its keys, and when they are fetched again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use openidconnect::core::CoreProviderMetadata;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::domain::{Clock, Identity};
use crate::identity::attempts::{Attempts, Cause, UnknownKeys};
use crate::identity::fetch::{self, FetchError};
use crate::identity::issuer::Issuer;
use crate::identity::jwk::Fingerprint;
use crate::identity::keys::{KeySet, Reading};
use crate::identity::seen::{Digest, Entry, SeenTokens};
use crate::identity::token::{Times, Token};
use crate::identity::{ProviderSettings, RefreshError, TokenError};

/// For both documents together: clients with a new key wait for it with their login.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);

/// A provider that cannot be reached must not keep a withdrawn key alive for ever.
const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the keys lie changes with a provider's move, and a move is told in the discovery document.
const DOCUMENT_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys are renewed without waiting for a client, to the second, which is finer than any distance here.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// What a refresh found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshReport {
    /// Keys that can be used.
    pub keys: usize,
    /// They are not the same as before.
    pub changed: bool,
}

/// How refreshes ended, over the life of the process.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    changed: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
}

impl Refreshes {
    pub(super) fn counted(&self) -> [(&'static str, u64); 3] {
        let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
        [
            ("ok", count(&self.changed)),
            ("unchanged", count(&self.unchanged)),
            ("failed", count(&self.failed)),
        ]
    }
}

#[derive(Debug)]
pub(super) struct Provider {
    settings: ProviderSettings,
    issuer: Issuer,
    clock: Arc<dyn Clock>,
    control: Handle,
    refreshes: Arc<Refreshes>,
    state: Mutex<State>,
    seen: Mutex<SeenTokens>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Believed>,
    /// Where the keys lie, and when that was read.
    address: Option<(String, Duration)>,
    attempts: Attempts,
    unknown: UnknownKeys,
    /// The refresh under way; everybody who needs one waits for the same.
    running: Option<Ended>,
}

#[derive(Debug)]
struct Believed {
    keys: Arc<KeySet>,
    /// When the fetch that brought them began.
    since: Duration,
    fresh_for: Duration,
}

type Outcome = Result<RefreshReport, Arc<str>>;
type Ended = watch::Receiver<Option<Outcome>>;

impl Provider {
    pub(super) fn new(
        settings: ProviderSettings,
        clock: Arc<dyn Clock>,
        control: Handle,
        refreshes: Arc<Refreshes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            issuer: Issuer::of(&settings),
            settings,
            clock,
            control,
            refreshes,
            state: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// Fetches keys that are missing or no longer fresh without being asked, while anybody has this.
    pub(super) fn tend_from_now_on(self: &Arc<Self>) {
        let provider = Arc::downgrade(self);
        self.control.spawn(tend(provider));
    }

    pub(super) const fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    pub(super) const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(super) const fn refreshes(&self) -> &Arc<Refreshes> {
        &self.refreshes
    }

    pub(super) fn ready(&self) -> bool {
        self.state().believed(self.clock.uptime()).is_some()
    }

    /// The identity of a token that was verified before, if all that made it good still holds.
    pub(super) fn seen(self: &Arc<Self>, token: &Digest, at: SystemTime) -> Option<Arc<Identity>> {
        let keys = self.keys()?;
        self.seen_tokens().find(token, &keys, at)
    }

    pub(super) fn remember(&self, token: Digest, entry: Entry) {
        self.seen_tokens().add(token, entry);
    }

    /// Everything about the token but its claims' meaning: signed by one of our keys, for us, now.
    pub(super) async fn check(
        self: &Arc<Self>,
        token: &Token,
        at: SystemTime,
    ) -> Result<(Fingerprint, Times), TokenError> {
        let key = self.confirm(token).await?;
        let times = token.check_claims(&self.settings, &self.issuer, at)?;
        Ok((key, times))
    }

    /// Checks the signature with the keys at hand, or with fresher ones if they may know more.
    async fn confirm(self: &Arc<Self>, token: &Token) -> Result<Fingerprint, TokenError> {
        let mut error = self.unavailable();
        let mut cause = Cause::Age;
        if let Some(keys) = self.keys() {
            match keys.confirm(token, &self.settings) {
                Ok(key) => return Ok(key),
                Err(it) if !it.fresher_may_help || self.is_known_to_be_unknown(token) => return Err(it.error),
                Err(it) => error = it.error,
            }
            cause = Cause::UnknownKey;
        }
        let Some(refresh) = self.refresh(cause) else {
            let failing = self.state().attempts.failing();
            return Err(if failing { self.unavailable() } else { error });
        };
        let refreshed = refresh.await.is_ok();
        let keys = self.keys().ok_or_else(|| self.unavailable())?;
        keys.confirm(token, &self.settings).map_err(|it| {
            if it.fresher_may_help && !refreshed {
                return self.unavailable();
            }
            if it.fresher_may_help
                && let Some(id) = token.key_id()
            {
                self.state().unknown.add(id, self.clock.uptime());
            }
            it.error
        })
    }

    fn is_known_to_be_unknown(&self, token: &Token) -> bool {
        let now = self.clock.uptime();
        token.key_id().is_some_and(|id| self.state().unknown.has(id, now))
    }

    fn unavailable(&self) -> TokenError {
        TokenError::Unavailable {
            provider: self.settings.name.clone(),
        }
    }

    /// The keys at hand. If they are no longer fresh they are still served, and fetched again beside
    /// the work.
    fn keys(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let now = self.clock.uptime();
        let state = self.state();
        let believed = state.believed(now)?;
        let keys = Arc::clone(&believed.keys);
        let stale = now.saturating_sub(believed.since) >= believed.fresh_for;
        drop(state);
        if stale {
            drop(self.refresh(Cause::Age));
        }
        Some(keys)
    }

    /// One look at whether something is due.
    pub(super) fn tend(self: &Arc<Self>) {
        if self.keys().is_none() {
            drop(self.refresh(Cause::Age));
        }
        self.seen_tokens().forget_expired(self.clock.now());
    }

    pub(super) async fn refresh_on_demand(self: &Arc<Self>) -> Result<RefreshReport, RefreshError> {
        let provider = self.settings.name.clone();
        let Some(refresh) = self.refresh(Cause::Demand) else {
            return Err(RefreshError::TooSoon { provider });
        };
        refresh.await.map_err(|cause| RefreshError::Failed {
            provider,
            cause: cause.to_string(),
        })
    }

    /// Joins the refresh under way, or starts one unless the last began too recently. It runs on
    /// the control runtime, so a client that gives up does not end it for the others.
    pub(super) fn refresh(
        self: &Arc<Self>,
        cause: Cause,
    ) -> Option<impl Future<Output = Outcome> + Send + use<>> {
        let mut state = self.state();
        if let Some(running) = &state.running {
            return Some(outcome(running.clone()));
        }
        let now = self.clock.uptime();
        if !state.attempts.may_begin(cause, now) {
            return None;
        }
        let (end, ended) = watch::channel(None);
        let refresh = Refresh {
            address: state.address_for(cause, now),
            provider: self.clone(),
            cause,
            began: now,
            outcome: None,
            end,
        };
        state.attempts.begin(now);
        state.running = Some(ended.clone());
        // A runtime that has ended drops the refresh at once, and that takes the lock again.
        drop(state);
        self.control.spawn(refresh.run());
        Some(outcome(ended))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can leave the state half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_tokens(&self) -> MutexGuard<'_, SeenTokens> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn believed(&self, now: Duration) -> Option<&Believed> {
        let young = |it: &&Believed| now.saturating_sub(it.since) < KEYS_AGE_MAX;
        self.keys.as_ref().filter(young)
    }

    /// Only the ordinary renewal trusts what the discovery document said before: after a failure, or
    /// when a key is missed, the provider may have moved.
    fn address_for(&self, cause: Cause, now: Duration) -> Option<String> {
        if cause != Cause::Age || self.attempts.failing() {
            return None;
        }
        let young = |it: &&(String, Duration)| now.saturating_sub(it.1) < DOCUMENT_AGE_MAX;
        self.address.as_ref().filter(young).map(|it| it.0.clone())
    }
}

async fn tend(provider: Weak<Provider>) {
    let mut ticks = tokio::time::interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(provider) = provider.upgrade() else {
            return;
        };
        provider.tend();
    }
}

async fn outcome(mut ended: Ended) -> Outcome {
    let outcome = ended.wait_for(Option::is_some).await;
    let outcome = outcome.ok().and_then(|it| it.clone());
    outcome.unwrap_or_else(|| Err("the process is ending".into()))
}

/// A refresh under way; however it ends, also by the runtime's end, the next one may start.
struct Refresh {
    provider: Arc<Provider>,
    cause: Cause,
    began: Duration,
    /// Where the keys lie, if that need not be asked again.
    address: Option<String>,
    outcome: Option<Outcome>,
    end: watch::Sender<Option<Outcome>>,
}

struct Fetched {
    address: String,
    /// The discovery document was read for it.
    discovered: bool,
    reading: Reading,
    fresh_for: Duration,
}

impl Refresh {
    async fn run(mut self) {
        let issuer = &self.provider.settings.issuer;
        let fetched = tokio::time::timeout(FETCH_TIME_MAX, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(FetchError::TimedOut { url: issuer.clone() }));
        self.outcome = Some(match fetched {
            Ok(fetched) => Ok(self.keep(fetched)),
            Err(error) => Err(self.fail(&error)),
        });
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let settings = &self.provider.settings;
        let address = match &self.address {
            Some(known) => known.clone(),
            None => discover(settings, self.provider.issuer.discovered()).await?,
        };
        let answer = fetch::get(&address, &settings.https).await?;
        let reading = KeySet::read(&answer.body).map_err(|source| FetchError::Document {
            url: address.clone(),
            source,
        })?;
        self.complain(&reading);
        if reading.keys.len() == 0 {
            return Err(FetchError::NoKeys { url: address });
        }
        Ok(Fetched {
            address,
            discovered: self.address.is_none(),
            reading,
            fresh_for: answer.fresh_for,
        })
    }

    fn complain(&self, reading: &Reading) {
        let provider = &self.provider.settings.name;
        if reading.private > 0 {
            let keys = reading.private;
            tracing::warn!(%provider, keys, "identity provider publishes private keys; these are not used");
        }
        if reading.unused > 0 {
            let keys = reading.unused;
            tracing::debug!(%provider, keys, "some of the identity provider's keys are not for us");
        }
    }

    fn keep(&self, fetched: Fetched) -> RefreshReport {
        let provider = &self.provider;
        let keys = fetched.reading.keys;
        let report = {
            let mut state = provider.state();
            let same = state.keys.as_ref().is_some_and(|it| it.keys.is_same_as(&keys));
            let report = RefreshReport {
                keys: keys.len(),
                changed: !same,
            };
            if report.changed || self.cause == Cause::Demand {
                state.unknown.clear();
            }
            state.attempts.succeeded();
            if fetched.discovered {
                state.address = Some((fetched.address, self.began));
            }
            state.keys = Some(Believed {
                keys: Arc::new(keys),
                since: self.began,
                fresh_for: fetched.fresh_for,
            });
            report
        };
        let RefreshReport { keys, changed } = report;
        let counter = if changed {
            &provider.refreshes.changed
        } else {
            &provider.refreshes.unchanged
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let (name, fresh) = (&provider.settings.name, fetched.fresh_for.as_secs());
        tracing::info!(provider = %name, keys, changed, fresh, "identity provider keys refreshed");
        report
    }

    /// The last good keys stay, up to their greatest age.
    fn fail(&self, error: &FetchError) -> Arc<str> {
        let provider = &self.provider;
        provider.state().attempts.failed();
        provider.refreshes.failed.fetch_add(1, Ordering::Relaxed);
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let name = &provider.settings.name;
        tracing::warn!(provider = %name, %error, cause, "identity provider keys not refreshed");
        let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        text.into()
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.provider.state().running = None;
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| Err("the process is ending".into()));
        self.end.send_replace(Some(outcome));
    }
}

/// Where the keys lie, from a document that must be the issuer's own.
async fn discover(settings: &ProviderSettings, issuer: &str) -> Result<String, FetchError> {
    let base = settings.issuer.trim_end_matches('/');
    let url = format!("{base}/.well-known/openid-configuration");
    let document = fetch::get(&url, &settings.https).await?.body;
    let metadata: CoreProviderMetadata = match serde_json::from_slice(&document) {
        Ok(metadata) => metadata,
        Err(source) => return Err(FetchError::Document { url, source }),
    };
    if metadata.issuer().as_str() != issuer {
        return Err(FetchError::Issuer { url });
    }
    Ok(metadata.jwks_uri().as_str().to_owned())
}
