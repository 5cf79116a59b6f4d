//! Names and identifiers that look alike as text and must not be mixed up.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::clock::Random;

/// A cheap-to-clone name; the macro makes one distinct type per concept.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn new(name: impl AsRef<str>) -> Self {
                Self(Arc::from(name.as_ref()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}
pub(crate) use name;

name!(
    /// An entry under `identity_providers`.
    ProviderName
);
name!(
    /// A least-privilege database role declared under `roles` in policy.
    RoleName
);
name!(
    /// A rule of the policy.
    RuleName
);
name!(
    /// `installation` of the config: part of every minted login's name.
    Installation
);
name!(
    /// One running gatepost process of an installation.
    ReplicaName
);

/// 80 random bits, so that one can be neither guessed nor repeated; the macro makes one distinct type
/// per kind of thing that records refer to.
macro_rules! reference {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type([u8; 10]);

        impl $type {
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; 10];
                random.fill(&mut bytes);
                Self(bytes)
            }

            pub const fn bytes(&self) -> &[u8; 10] {
                &self.0
            }

            /// Reads what `Display` writes: how records that are read back refer to one.
            pub fn read(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix)?;
                let mut bytes = [0; 10];
                if !digits.is_ascii() || digits.len() != 2 * bytes.len() {
                    return None;
                }
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

reference!(
    /// One client connection. Shown to the client as the reference under which the operator finds the
    /// rest.
    SessionId,
    "s-"
);
reference!(
    /// One ticket, as records name it. It is not the ticket, and opens nothing.
    TicketId,
    "t-"
);
