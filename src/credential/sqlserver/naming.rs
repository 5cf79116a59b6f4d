//! How names and texts stand in statements for SQL Server, what a minted login's name says, and its
//! secret. SQL Server has no comments on logins, and the broker no right to keep a table, so the name is
//! the mark: a login can change neither its own name nor anybody else's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::credential::naming::{Epoch, LoginName, Mark};
use crate::domain::clock::Random;
use crate::domain::identity::IdentityKey;
use crate::domain::ids::Installation;
use crate::domain::secret::Secret;

/// Of the digest of an installation's name. Names of installations may begin alike and look alike once
/// they are spelled in plain letters; 24 bits tell those apart that share a server.
const TAG_DIGITS: usize = 6;
/// As `Epoch` makes them.
const EPOCH_DIGITS: usize = 20;
/// `sp_getapplock` takes 255 characters.
const LOCK_INSTALLATION_CHARS_MAX: usize = 200;
/// With the ending 64 characters of base64: 360 random bits.
const SECRET_BYTES: usize = 45;
/// One of each kind that a password policy may ask for.
const SECRET_ENDING: &str = "aZ3_";

/// What the name of a minted login says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::credential) struct Spoken {
    tag: String,
    pub(in crate::credential) epoch: Epoch,
    pub(in crate::credential) generation: u64,
}

impl Spoken {
    /// `gp_<installation>_<readable slug>_<tag of the installation><epoch>_<generation>`. `None`: not a
    /// name of ours.
    pub(in crate::credential) fn by(name: &str) -> Option<Self> {
        LoginName::found(name)?;
        let (rest, generation) = name.rsplit_once('_')?;
        let (_, digits) = rest.rsplit_once('_')?;
        let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if digits.len() != TAG_DIGITS + EPOCH_DIGITS || !digits.bytes().all(hex) {
            return None;
        }
        let (tag, epoch) = digits.split_at_checked(TAG_DIGITS)?;
        Some(Self {
            tag: tag.to_owned(),
            epoch: Epoch::found(epoch),
            generation: generation.parse().ok()?,
        })
    }

    pub(in crate::credential) fn is_of(&self, installation: &Installation) -> bool {
        self.tag == tag(installation)
    }
}

/// What a login with this mark is called. An epoch counts its generations, so no two are called alike.
pub(in crate::credential) fn login_name(mark: &Mark, identity: &IdentityKey) -> LoginName {
    let ending = format!(
        "{}{}_{}",
        tag(&mark.installation),
        mark.epoch.as_str(),
        mark.generation
    );
    LoginName::ending_in(&mark.installation, identity, &ending)
}

fn tag(installation: &Installation) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, installation.as_str().as_bytes());
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.take(TAG_DIGITS.div_ceil(2)).collect()
}

/// What a session of the replica of this epoch holds while it lives.
pub(in crate::credential) fn lock_name(installation: &Installation, epoch: &Epoch) -> String {
    let installation: String = installation
        .as_str()
        .chars()
        .take(LOCK_INSTALLATION_CHARS_MAX)
        .collect();
    format!("gatepost:{installation}:{}", epoch.as_str())
}

/// 64 characters that need no quoting and satisfy every password policy that is about kinds of
/// characters.
pub(in crate::credential) fn random_secret(random: &dyn Random) -> Secret<String> {
    let mut bytes = [0; SECRET_BYTES];
    random.fill(&mut bytes);
    Secret::new(format!("{}{SECRET_ENDING}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// A name as a T-SQL identifier. The only place where one is put into a statement.
pub(in crate::credential) fn quote_name(name: &str) -> String {
    format!("[{}]", without_nul(name).replace(']', "]]"))
}

/// A text as a T-SQL literal. There are no escapes but the doubled quote.
pub(in crate::credential) fn quote_text(text: &str) -> String {
    format!("N'{}'", without_nul(text).replace('\'', "''"))
}

/// `schema.name` as it stands in a policy, each part quoted. Without a schema it is `dbo`'s.
pub(in crate::credential) fn quote_object(name: &str) -> (String, String) {
    let (schema, object) = name.split_once('.').unwrap_or(("dbo", name));
    (schema.to_owned(), object.to_owned())
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
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

    fn mark(installation: &str, generation: u64) -> Mark {
        Mark {
            gatepost: Mark::VERSION,
            installation: installation.into(),
            replica: "a".into(),
            epoch: Epoch::random(&Constant(0xab)),
            generation,
            role: "writer".into(),
            database: None,
        }
    }

    fn named(installation: &str, subject: &str, generation: u64) -> String {
        let identity = IdentityKey {
            provider: "entra".into(),
            tenant: None,
            subject: subject.to_owned(),
        };
        login_name(&mark(installation, generation), &identity)
            .as_str()
            .to_owned()
    }

    #[test]
    fn a_name_says_whose_login_it_is() {
        for (installation, subject, generation) in [
            ("prod", "Orders Consumer", 1),
            ("Größe", "Müller]]; DROP LOGIN sa; --", 12),
            (&*"i".repeat(200), &*"s".repeat(200), u64::MAX),
            ("a", "", 7),
        ] {
            let name = named(installation, subject, generation);
            assert!(name.len() <= 63 && name.starts_with("gp_"), "{name}");
            let spoken = Spoken::by(&name).unwrap();
            assert_eq!(
                (spoken.epoch.clone(), spoken.generation),
                (Epoch::random(&Constant(0xab)), generation)
            );
            assert!(spoken.is_of(&installation.into()));
            assert!(!spoken.is_of(&"another".into()));
        }
    }

    #[test]
    fn installations_that_look_alike_are_told_apart() {
        let spoken = Spoken::by(&named("pay-eu", "x", 1)).unwrap();
        assert!(!spoken.is_of(&"pay_eu".into()) && !spoken.is_of(&"pay".into()));
    }

    #[test]
    fn other_names_are_not_ours() {
        let epoch = "0123456789abcdef0123456789";
        assert!(Spoken::by(&format!("gp_a_x_{epoch}_1")).is_some());
        for name in [
            "sa".to_owned(),
            "gp_".to_owned(),
            format!("gp_a_x_{epoch}"),
            format!("gp_a_x_{epoch}_"),
            format!("gp_a_x_{epoch}_x"),
            format!("gp_a_x_{}_1", &epoch[1..]),
            format!("gp_a_x_{}g_1", &epoch[1..]),
            format!("GP_a_x_{epoch}_1"),
        ] {
            assert_eq!(Spoken::by(&name), None, "{name}");
        }
    }

    #[test]
    fn quoting_survives_hostile_names() {
        assert_eq!(quote_name("a]; DROP LOGIN sa; --"), "[a]]; DROP LOGIN sa; --]");
        assert_eq!(quote_name("]]"), "[]]]]]");
        assert_eq!(quote_name("nul\0"), "[nul]");
        assert_eq!(quote_text("it's\\"), "N'it''s\\'");
        assert_eq!(quote_text("Ü\0"), "N'Ü'");
    }

    #[test]
    fn a_secret_is_long_and_of_all_kinds() {
        let secret = random_secret(&Constant(0));
        let secret = secret.expose();
        assert_eq!(secret.len(), 64);
        for kind in [
            char::is_lowercase,
            char::is_uppercase,
            |c: char| c.is_ascii_digit(),
            |c: char| c.is_ascii_punctuation(),
        ] {
            assert!(secret.chars().any(kind), "{secret}");
        }
        assert!(!secret.contains(['\'', ']', '"', '\\']));
    }

    #[test]
    fn a_lock_fits() {
        let lock = lock_name(&"ü".repeat(300).as_str().into(), &Epoch::random(&Constant(1)));
        assert!(lock.chars().count() <= 255);
    }
}
