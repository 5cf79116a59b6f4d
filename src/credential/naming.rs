//! What a minted login is called, and the mark that says whose it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::clock::Random;
use crate::domain::identity::IdentityKey;
use crate::domain::ids::{Installation, ReplicaName, RoleName};
use crate::domain::target::DatabaseName;

/// PostgreSQL cuts longer names off without an error (NAMEDATALEN - 1). SQL Server takes 128, but
/// one kind of name is enough.
const NAME_BYTES_MAX: usize = 63;
/// Leaves room for the slug in names of installations that were named generously.
const INSTALLATION_BYTES_MAX: usize = 20;
/// 80 bits: no two mints ever meet, and a name cannot be guessed.
const RANDOM_BYTES: usize = 10;
/// 80 bits: no two processes ever share an epoch, and it fits into a login's name.
const EPOCH_BYTES: usize = 10;
/// The group that every minted login belongs to, so that `pg_hba.conf` can fence them all in.
pub const MINTED_GROUP: &str = "gatepost_minted";

/// The name of a minted login: only `[a-z0-9_]`, at most 63 bytes. Of one that is not minted: whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoginName(Arc<str>);

impl LoginName {
    /// `gp_<installation>_<readable slug>_<random>`. The slug helps people who read `pg_stat_activity`;
    /// nothing is ever decided by it.
    pub fn mint(installation: &Installation, identity: &IdentityKey, random: &dyn Random) -> Self {
        let mut bytes = [0; RANDOM_BYTES];
        random.fill(&mut bytes);
        let unique: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::ending_in(installation, identity, &unique)
    }

    /// `gp_<installation>_<readable slug>_<ending>`, where the ending is what makes it unique.
    pub(in crate::credential) fn ending_in(
        installation: &Installation,
        identity: &IdentityKey,
        ending: &str,
    ) -> Self {
        let room = NAME_BYTES_MAX.saturating_sub("_".len() + ending.len());
        // At least one character of the slug stays.
        let prefix_max = room.saturating_sub(1);
        let mut prefix = login_prefix(installation);
        prefix.truncate(prefix_max);
        let who = slug(&identity.subject, room.saturating_sub(prefix.len()));
        Self(format!("{prefix}{who}_{ending}").into())
    }

    /// Of a user that gatepost did not make: its managed identity, where nothing is minted. Any text.
    pub(in crate::credential) fn of_principal(user: &str) -> Self {
        Self(user.into())
    }

    /// A name that was read from a server, if it can be one of ours.
    pub(in crate::credential) fn found(name: &str) -> Option<Self> {
        let plain = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        (name.starts_with("gp_") && plain && name.len() <= NAME_BYTES_MAX).then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How every login of an installation begins; logins of others may begin so too (`pay`, `pay_eu`), so
/// this proves nothing.
pub(in crate::credential) fn login_prefix(installation: &Installation) -> String {
    format!("gp_{}_", slug(installation.as_str(), INSTALLATION_BYTES_MAX))
}

fn slug(text: &str, bytes_max: usize) -> String {
    let plain = text.chars().map(|character| match character {
        'a'..='z' | '0'..='9' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        _ => '_',
    });
    let mut out = String::new();
    for character in plain {
        if out.len() == bytes_max {
            break;
        }
        if !(character == '_' && (out.is_empty() || out.ends_with('_'))) {
            out.push(character);
        }
    }
    out.truncate(out.trim_end_matches('_').len());
    if out.is_empty() { "x".to_owned() } else { out }
}

/// One life of one gatepost process. Never used twice, so a lock on it says who is alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(Arc<str>);

impl Epoch {
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; EPOCH_BYTES];
        random.fill(&mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(text.into())
    }

    /// As a login's mark has it.
    pub(in crate::credential) fn found(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the comment on a login says, on PostgreSQL; on SQL Server its name says some of it. A sweep believes it: only roles with `CREATEROLE` (and, from
/// PostgreSQL 16 on, `ADMIN` on the login) can write it, which no minted login has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub gatepost: u32,
    pub installation: Installation,
    pub replica: ReplicaName,
    pub epoch: Epoch,
    pub generation: u64,
    /// Who inherits what the login owns when it ends.
    pub role: RoleName,
    /// The only one that the login can enter; `None` on PostgreSQL, where logins are the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
}

impl Mark {
    pub const VERSION: u32 = 1;

    pub(in crate::credential) fn to_comment(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None` for a comment that is not ours or of a version that we do not know.
    pub fn parse(comment: &str) -> Option<Self> {
        let mark: Self = serde_json::from_str(comment).ok()?;
        (mark.gatepost == Self::VERSION).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Constant(u8);

    impl Random for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn named(installation: &str, subject: &str) -> String {
        let identity = IdentityKey {
            provider: "entra".into(),
            tenant: None,
            subject: subject.to_owned(),
        };
        let name = LoginName::mint(&installation.into(), &identity, &Constant(0xab));
        assert_eq!(LoginName::found(name.as_str()), Some(name.clone()));
        name.as_str().to_owned()
    }

    #[test]
    fn names_are_readable_plain_and_short() {
        let unique = "ab".repeat(RANDOM_BYTES);
        assert_eq!(
            named("pay-prod", "Orders Consumer"),
            format!("gp_pay_prod_orders_consumer_{unique}")
        );
        assert_eq!(
            named("ü", "\"; DROP ROLE x; --"),
            format!("gp_x_drop_role_x_{unique}")
        );
        assert_eq!(named(&"i".repeat(200), &"s".repeat(200)).len(), NAME_BYTES_MAX);
        assert_eq!(named("a", ""), format!("gp_a_x_{unique}"));
    }

    #[test]
    fn a_mark_is_read_back_and_other_comments_are_not_ours() {
        let mark = Mark {
            gatepost: Mark::VERSION,
            installation: "prod".into(),
            replica: "a".into(),
            epoch: Epoch::random(&Constant(1)),
            generation: 3,
            role: "it's \"x\"".into(),
            database: None,
        };
        assert_eq!(Mark::parse(&mark.to_comment()), Some(mark));
        for other in ["", "a comment", "{}", r#"{"gatepost":2}"#] {
            assert_eq!(Mark::parse(other), None);
        }
    }
}
