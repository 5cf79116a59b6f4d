//! How names and texts stand in statements for PostgreSQL, and the lock that stands for an epoch.

use crate::credential::naming::Epoch;
use crate::domain::ids::Installation;

/// The two keys of the advisory lock that the replica of this epoch holds while it lives.
pub(in crate::credential) fn lock_keys(installation: &Installation, epoch: &Epoch) -> (i32, i32) {
    let text = format!("gatepost\0{installation}\0{}", epoch.as_str());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let word = |from: usize| {
        let bytes = digest.as_ref().get(from..from + 4);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i32::from_be_bytes)
    };
    (word(0), word(4))
}

/// A name as an SQL identifier. The only place where one is put into a statement.
pub(in crate::credential) fn quote_name(name: &str) -> String {
    format!("\"{}\"", without_nul(name).replace('"', "\"\""))
}

/// A text as an SQL literal that means the same whatever `standard_conforming_strings` says.
pub(in crate::credential) fn quote_text(text: &str) -> String {
    let text = without_nul(text).replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\"))
    } else {
        format!("'{text}'")
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_hostile_names() {
        assert_eq!(quote_name("a\"b; drop"), "\"a\"\"b; drop\"");
        assert_eq!(quote_text("it's"), "'it''s'");
        assert_eq!(quote_text("a\\'b"), "E'a\\\\''b'");
        assert_eq!(quote_name("nul\0"), "\"nul\"");
    }
}
