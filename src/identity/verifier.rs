//! The one question that others ask: whose token is this?

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;
use tokio::runtime::Handle;

use crate::domain::{Identity, ProviderName, Secret};
use crate::identity::provider::Provider;
use crate::identity::token::Token;
use crate::identity::{ProviderSettings, TokenError, claims};

/// All configured providers with their keys. May be asked from any thread; what it fetches, it
/// fetches on the control runtime.
#[derive(Debug)]
pub struct Verifier {
    providers: Vec<Arc<Provider>>,
}

impl Verifier {
    pub fn new(settings: Vec<ProviderSettings>, https: Arc<ClientConfig>, control: Handle) -> Self {
        let providers = settings
            .into_iter()
            .map(|settings| Arc::new(Provider::new(settings, https.clone(), control.clone())))
            .collect();
        Self { providers }
    }

    /// Fetches all keys at start. A provider that does not answer is logged, and asked again when
    /// its first token comes.
    pub async fn prefetch(&self) {
        let fetches: Vec<_> = self.providers.iter().map(Provider::start_refresh).collect();
        for fetch in fetches.into_iter().flatten() {
            fetch.await.ok();
        }
    }

    pub async fn verify(&self, token: &Secret<Vec<u8>>, at: SystemTime) -> Result<Identity, TokenError> {
        let token = Token::parse(token)?;
        // The issuer is only looked up here; it is believed once the signature holds.
        let issuer = token.issuer()?;
        let mut mine = self.providers.iter().filter(|it| it.settings().issuer == issuer);
        let provider = match (mine.next(), mine.next()) {
            (None, _) => return Err(TokenError::UnknownIssuer),
            (Some(only), None) => only,
            // Two entries for one issuer differ in their audiences.
            (Some(first), Some(_)) => self
                .providers
                .iter()
                .filter(|it| it.settings().issuer == issuer)
                .find(|it| token.is_for(&it.settings().audiences))
                .unwrap_or(first),
        };
        let keys = provider.keys_for(&token).await?;
        keys.check(&token, &provider.settings().name)?;
        token.check_claims(provider.settings(), at)?;
        Ok(claims::read(
            provider.settings().kind,
            &provider.settings().name,
            token.claims(),
        )?)
    }

    #[cfg(test)]
    pub(super) fn let_refresh_interval_pass(&self) {
        self.providers
            .iter()
            .for_each(|it| it.let_refresh_interval_pass());
    }

    pub fn successor(&self, _: Vec<ProviderSettings>) -> Self {
        Self {
            providers: self.providers.clone(),
        }
    }

    pub async fn refresh(&self, _: &ProviderName) -> Result<(), TokenError> {
        Ok(())
    }

    pub fn still_accepts(&self, _: &Identity) -> bool {
        true
    }

    pub fn providers_ready(&self) -> Vec<(ProviderName, bool)> {
        let ready = |it: &Arc<Provider>| (it.settings().name.clone(), it.ready());
        self.providers.iter().map(ready).collect()
    }
}
