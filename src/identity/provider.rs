//! One identity provider: its discovery document, its keys, and when they are fetched again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openidconnect::core::{CoreJsonWebKeySet, CoreProviderMetadata};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::identity::fetch::{self, FetchError};
use crate::identity::keys::KeySet;
use crate::identity::token::Token;
use crate::identity::{ProviderSettings, TokenError};

/// A stranger can invent key ids: they make us ask the provider at most this often.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(30);

/// A withdrawn key must not be believed for ever. Keys older than this are fetched again beside
/// the work; if that fails the last good ones stay.
const KEYS_AGE_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Provider {
    settings: ProviderSettings,
    https: Arc<ClientConfig>,
    control: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: KeySet,
    fetched: Option<Instant>,
    started: Option<Instant>,
    /// Closed when the refresh under way has ended; everybody who needs it waits for the same.
    running: Option<watch::Receiver<()>>,
}

impl Provider {
    pub(super) fn new(settings: ProviderSettings, https: Arc<ClientConfig>, control: Handle) -> Self {
        Self {
            settings,
            https,
            control,
            state: Mutex::default(),
        }
    }

    pub(super) const fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    pub(super) fn ready(&self) -> bool {
        !self.state().keys.is_empty()
    }

    /// The keys to check `token` with: those at hand, or fresher ones if it names none of them.
    pub(super) async fn keys_for(self: &Arc<Self>, token: &Token) -> Result<KeySet, TokenError> {
        let (keys, stale) = {
            let state = self.state();
            let stale = state.fetched.is_some_and(|at| at.elapsed() >= KEYS_AGE_MAX);
            (state.keys.clone(), stale)
        };
        if keys.knows(token) {
            if stale {
                drop(self.start_refresh());
            }
            return Ok(keys);
        }
        if let Some(refresh) = self.start_refresh() {
            refresh.await.ok();
        }
        let keys = self.state().keys.clone();
        if keys.is_empty() {
            return Err(TokenError::Unavailable {
                provider: self.settings.name.clone(),
            });
        }
        Ok(keys)
    }

    /// Joins the refresh under way, or starts one unless the last began too recently. It runs on
    /// the control runtime, so a client that gives up does not end it for the others.
    pub(super) fn start_refresh(
        self: &Arc<Self>,
    ) -> Option<impl Future<Output = Result<(), watch::error::RecvError>> + Send + use<>> {
        let mut state = self.state();
        if let Some(running) = &state.running {
            return Some(until_closed(running.clone()));
        }
        let recent = |at: Instant| at.elapsed() < REFRESH_INTERVAL_MIN;
        if state.started.is_some_and(recent) {
            return None;
        }
        let (end, ended) = watch::channel(());
        state.started = Some(Instant::now());
        state.running = Some(ended.clone());
        // A runtime that has ended drops the refresh at once, and that takes the lock again.
        drop(state);
        let refresh = Running {
            provider: self.clone(),
            end,
        };
        self.control.spawn(refresh.run());
        Some(until_closed(ended))
    }

    /// As if the last refresh had begun long enough ago for another.
    #[cfg(test)]
    pub(super) fn let_refresh_interval_pass(&self) {
        let mut state = self.state();
        state.started = state.started.and_then(|at| at.checked_sub(REFRESH_INTERVAL_MIN));
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let issuer = self.settings.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let document = fetch::get(&url, &self.https).await?;
        let metadata: CoreProviderMetadata = parse(&url, &document)?;
        if metadata.issuer().as_str() != self.settings.issuer {
            return Err(FetchError::Issuer { url });
        }
        let url = metadata.jwks_uri().as_str();
        let set: CoreJsonWebKeySet = parse(url, &fetch::get(url, &self.https).await?)?;
        let keys = KeySet::from_jwks(&set);
        if keys.is_empty() {
            return Err(FetchError::NoKeys { url: url.to_owned() });
        }
        Ok(keys)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can leave the state half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until_closed(mut ended: watch::Receiver<()>) -> Result<(), watch::error::RecvError> {
    ended.changed().await
}

/// A refresh under way; however it ends, also by the runtime's end, the next one may start.
struct Running {
    provider: Arc<Provider>,
    #[expect(dead_code, reason = "dropping it wakes everybody who waits")]
    end: watch::Sender<()>,
}

impl Running {
    async fn run(self) {
        let name = &self.provider.settings.name;
        match self.provider.fetch().await {
            Ok(keys) => {
                let mut state = self.provider.state();
                state.keys = keys;
                state.fetched = Some(Instant::now());
                drop(state);
                tracing::info!(provider = %name, "identity provider keys refreshed");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(provider = %name, %error, cause, "identity provider keys not refreshed");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.provider.state().running = None;
    }
}

fn parse<T: serde::de::DeserializeOwned>(url: &str, document: &[u8]) -> Result<T, FetchError> {
    serde_json::from_slice(document).map_err(|source| FetchError::Document {
        url: url.to_owned(),
        source,
    })
}
