//! A value that must never be printed, logged or serialised.

use std::fmt;

/// Wraps a secret. There is no `Display` and no `Serialize`; `Debug` prints a placeholder;
/// `expose` is the only way out and easy to search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself. Every call site is a place to review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value() {
        let text = format!("{:?}", Some(Secret::new("hunter2")));
        assert_eq!(text, "Some([secret])");
    }
}
