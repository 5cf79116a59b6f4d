//! `gatepost audit hash`: the hash under which a known value stands in the journal.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::audit::SigningKey;
use crate::audit::values::ValueKey;
use crate::cli::{Answer, Failure, say, with_causes};
use crate::domain::Secret;

/// More than of any value that is hashed.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Say which hash a value has in records of rules with "audit: {parameters: hashed}".
///
/// Reads the value from standard input, so that no list of processes and no history shows it, in the form
/// in which the database writes it as text. A line feed at its end is not part of it. Whoever has the signing
/// key can so find a value in the journal: "gatepost audit show --json", and look for the hash.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  printf %s 4711 | gatepost audit hash --signing-key signing.key")]
pub(super) struct Arguments {
    /// The private key (PKCS#8 Ed25519) that signed the journal at that time.
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,
    /// A line feed at the end is part of the value.
    #[arg(long)]
    exact: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let shown = arguments.signing_key.display();
    let pem = fs::read(&arguments.signing_key).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let pem = Secret::new(pem);
    let key = SigningKey::read(pem.expose()).map_err(|error| format!("{shown}: {}", with_causes(&error)))?;
    let mut value = Vec::new();
    io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX + 1)
        .read_to_end(&mut value)?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes").into());
    }
    if !arguments.exact && value.last() == Some(&b'\n') {
        value.pop();
    }
    let hash = ValueKey::of(&key).hash(&value);
    if arguments.json {
        let answer = json!({"hash": hash, "key": key.public().id()});
        say(&serde_json::to_string_pretty(&answer)?)?;
    } else {
        say(&hash)?;
    }
    Ok(Answer::Good)
}
