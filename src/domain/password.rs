//! How gatepost proves to a database who it is: a secret that is known beforehand, or a token of its own
//! identity, which is asked for at every connect.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::domain::secret::Secret;

/// Boxed, so that a source is one type for the rooms that only ask it.
pub type AwaitedToken<'a> = Pin<Box<dyn Future<Output = Result<Secret<String>, NoToken>> + Send + 'a>>;

/// Gives tokens of gatepost's own identity for one kind of database server.
pub trait TokenSource: Debug + Send + Sync {
    /// A token that is good for long enough to log in with it. Comes at once while there is one; else
    /// waits for its issuer a while. The caller may give up at any time.
    fn token(&self) -> AwaitedToken<'_>;
}

/// Why there is no token. For logs and operators, without any secret; never shown to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token of gatepost's own identity: {why}")]
pub struct NoToken {
    pub why: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub enum Password {
    Secret(Secret<String>),
    /// PostgreSQL: in the place of the password. SQL Server: a FEDAUTH security token.
    Token(Arc<dyn TokenSource>),
}

impl Password {
    pub fn new(secret: impl Into<String>) -> Self {
        Self::Secret(Secret::new(secret.into()))
    }

    /// `None` for tokens, of which there is another one every time.
    pub const fn secret(&self) -> Option<&Secret<String>> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::Token(_) => None,
        }
    }

    /// The same secret, or tokens of the very same source.
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(other)) => one == other,
            (Self::Token(one), Self::Token(other)) => Arc::ptr_eq(one, other),
            (Self::Secret(_), Self::Token(_)) | (Self::Token(_), Self::Secret(_)) => false,
        }
    }

    /// What is shown at this connect.
    pub async fn current(&self) -> Result<Secret<String>, NoToken> {
        match self {
            Self::Secret(secret) => Ok(secret.clone()),
            Self::Token(source) => source.token().await,
        }
    }
}

impl From<Secret<String>> for Password {
    fn from(secret: Secret<String>) -> Self {
        Self::Secret(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Never;

    impl TokenSource for Never {
        fn token(&self) -> AwaitedToken<'_> {
            Box::pin(async {
                Err(NoToken {
                    why: "never".to_owned(),
                })
            })
        }
    }

    #[test]
    fn sources_are_compared_by_what_they_are_and_secrets_by_value() {
        let source: Arc<dyn TokenSource> = Arc::new(Never);
        let token = Password::Token(Arc::clone(&source));
        assert!(token.is_same_as(&Password::Token(source)));
        assert!(!token.is_same_as(&Password::Token(Arc::new(Never))));
        assert!(!token.is_same_as(&Password::new("x")));
        assert!(Password::new("x").is_same_as(&Password::new("x")));
        assert!(!Password::new("x").is_same_as(&Password::new("y")));
        assert!(token.secret().is_none());
        assert!(!format!("{:?}", Password::new("hunter2")).contains("hunter2"));
    }
}
