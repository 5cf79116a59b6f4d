//! What an operator has withdrawn before its time: a person, a client, one token, one session.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::domain::identity::Identity;
use crate::domain::ids::{ProviderName, SessionId};

/// Whom it strikes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Struck {
    Subject(String),
    ClientId(String),
    /// One token by its id (`jti`, `uti`).
    TokenId(String),
    /// One session by its reference, as the client was told it.
    Session(String),
}

/// What a revocation can strike somebody by.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub provider: &'a ProviderName,
    pub subject: &'a str,
    pub client_id: Option<&'a str>,
    pub token_id: Option<&'a str>,
    pub session: Option<&'a str>,
}

/// Refuses what it strikes until it expires, whatever the policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    #[serde(flatten)]
    pub struck: Struck,
    /// `None`: whichever provider the identity comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// Seconds since 1970.
    pub made: u64,
    /// Seconds since 1970. Tokens that were issued before have expired by then, or it was made too short.
    pub until: u64,
    /// The operator, for the list; the journal has the whole identity.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All that are in force. Immutable; a change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revocations(Vec<Revocation>);

impl Struck {
    /// The kind, as policies and the command line spell it, and whom or what.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Subject(subject) => ("subject", subject),
            Self::ClientId(client) => ("client_id", client),
            Self::TokenId(token) => ("token_id", token),
            Self::Session(reference) => ("session", reference),
        }
    }
}

impl Revocation {
    pub fn is_over(&self, at: SystemTime) -> bool {
        seconds(at) >= self.until
    }

    /// Names it in lists and to whoever lifts it: the same for whom it strikes, whenever it was made.
    pub fn id(&self) -> String {
        /// FNV-1a with 64 bits. Who could make two that collide may lift both anyway.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let (kind, whom) = self.struck.parts();
        let provider = self.provider.as_ref().map_or("", ProviderName::as_str);
        // No name holds the separator.
        let text = [kind, whom, provider].join("\0");
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        format!("r-{:016x}", text.bytes().fold(BASIS, fold))
    }

    /// Does it strike this identity, or this session of it?
    pub fn strikes(&self, identity: &Identity, session: Option<SessionId>) -> bool {
        // Only for the one kind that looks at it.
        let reference = match &self.struck {
            Struck::Session(_) => session.map(|session| session.to_string()),
            Struck::Subject(_) | Struck::ClientId(_) | Struck::TokenId(_) => None,
        };
        self.strikes_named(&Named {
            provider: &identity.provider,
            subject: &identity.subject,
            client_id: identity.client_id.as_deref(),
            token_id: identity.token_id.as_deref(),
            session: reference.as_deref(),
        })
    }

    /// The same for somebody of whom only the names are at hand.
    pub fn strikes_named(&self, named: &Named<'_>) -> bool {
        let provider = self.provider.as_ref();
        if provider.is_some_and(|provider| provider != named.provider) {
            return false;
        }
        match &self.struck {
            Struck::Subject(subject) => named.subject == subject,
            Struck::ClientId(client) => named.client_id == Some(client),
            Struck::TokenId(token) => named.token_id == Some(token),
            Struck::Session(reference) => named.session == Some(reference),
        }
    }
}

impl Revocations {
    /// The first that strikes and is not over.
    pub fn strike(
        &self,
        identity: &Identity,
        session: Option<SessionId>,
        at: SystemTime,
    ) -> Option<&Revocation> {
        self.0
            .iter()
            .find(|revocation| !revocation.is_over(at) && revocation.strikes(identity, session))
    }

    /// The same with one more; what is over is left out, and an equal older one is replaced.
    #[must_use]
    pub fn with(&self, new: Revocation, at: SystemTime) -> Self {
        let stays = |old: &&Revocation| {
            !old.is_over(at) && (old.struck != new.struck || old.provider != new.provider)
        };
        let mut kept: Vec<_> = self.0.iter().filter(stays).cloned().collect();
        kept.push(new);
        Self(kept)
    }

    /// The same without the one of this id; what is over is left out. `None` if there is none.
    #[must_use]
    pub fn without(&self, id: &str, at: SystemTime) -> Option<Self> {
        let in_force = self.0.iter().filter(|old| !old.is_over(at));
        let (lifted, kept): (Vec<_>, Vec<_>) = in_force.cloned().partition(|old| old.id() == id);
        (!lifted.is_empty()).then_some(Self(kept))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::clock::Random;
    use crate::domain::identity::Claimed;

    #[derive(Debug)]
    struct Ones;

    impl Random for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(1);
        }
    }

    fn identity() -> Identity {
        Identity {
            provider: "okta".into(),
            subject: "ann".to_owned(),
            client_id: Some("worker".to_owned()),
            tenant: None,
            name: None,
            roles: Claimed::none(),
            groups: Claimed::none(),
            scopes: Claimed::none(),
            token_id: Some("t-1".to_owned()),
            expires_at: SystemTime::UNIX_EPOCH,
            claims: serde_json::Map::new(),
        }
    }

    fn revocation(struck: Struck) -> Revocation {
        Revocation {
            struck,
            provider: None,
            made: 0,
            until: 100,
            by: "test".to_owned(),
            reason: None,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn it_strikes_until_it_is_over_and_nobody_else() {
        let session = SessionId::random(&Ones);
        let none = Revocations::default();
        for struck in [
            Struck::Subject("ann".to_owned()),
            Struck::ClientId("worker".to_owned()),
            Struck::TokenId("t-1".to_owned()),
            Struck::Session("s-01010101010101010101".to_owned()),
        ] {
            let all = none.with(revocation(struck), at(1));
            assert!(all.strike(&identity(), Some(session), at(99)).is_some());
            assert!(all.strike(&identity(), Some(session), at(100)).is_none());
        }
        for other in [
            Struck::Subject("worker".to_owned()),
            Struck::ClientId("ann".to_owned()),
            Struck::TokenId("t-2".to_owned()),
            Struck::Session("s-02".to_owned()),
        ] {
            let all = none.with(revocation(other), at(1));
            assert!(all.strike(&identity(), Some(session), at(1)).is_none());
        }
        let elsewhere = Revocation {
            provider: Some("entra".into()),
            ..revocation(Struck::Subject("ann".to_owned()))
        };
        assert!(
            none.with(elsewhere, at(1))
                .strike(&identity(), Some(session), at(1))
                .is_none()
        );
    }

    #[test]
    fn a_list_keeps_one_of_each_and_forgets_what_is_over() {
        let ann = revocation(Struck::Subject("ann".to_owned()));
        let list = Revocations::default().with(ann.clone(), at(1));
        let longer = Revocation { until: 200, ..ann };
        let list = list.with(longer.clone(), at(2));
        assert_eq!(list.iter().collect::<Vec<_>>(), [&longer]);
        let list = list.with(revocation(Struck::TokenId("t".to_owned())), at(200));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn an_id_lifts_one_and_no_other() {
        let ann = revocation(Struck::Subject("ann".to_owned()));
        let client = revocation(Struck::ClientId("ann".to_owned()));
        let of_okta = Revocation {
            provider: Some("okta".into()),
            ..ann.clone()
        };
        let all = [&ann, &client, &of_okta];
        let list = all.iter().fold(Revocations::default(), |list, one| {
            list.with((*one).clone(), at(1))
        });
        for lifted in all {
            let left = list.without(&lifted.id(), at(1)).unwrap();
            assert_eq!(left.len(), 2);
            assert!(left.iter().all(|one| one != lifted));
        }
        assert_eq!(list.without(&ann.id(), at(100)), None);
        assert_eq!(list.without("r-0", at(1)), None);
    }
}
