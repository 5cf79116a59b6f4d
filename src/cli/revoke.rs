//! `gatepost revoke`: somebody shall not come in any more, whatever the policy says.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value};

use crate::cli::reach::{Printable, Question, Target, path_name, table};
use crate::cli::{Answer, Failure, say};

/// Shut out an identity, a client, one token or one session until further notice.
///
/// Open sessions that it strikes end within a second, and so do their database logins. It survives a
/// restart and ends by itself (--for). What must last belongs into a deny rule of the policy.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  gatepost revoke --subject 00u1abcd --provider okta --for 24h --reason \"laptop stolen\"
  gatepost revoke --session s-0123456789abcdef0123
  gatepost revoke list
  gatepost revoke lift r-0123456789abcdef"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    new: New,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true))]
struct New {
    /// The subject (oid of Entra, sub of others).
    #[arg(long, value_name = "SUBJECT", group = "whom")]
    subject: Option<String>,
    /// The application (client id).
    #[arg(long, value_name = "ID", group = "whom")]
    client_id: Option<String>,
    /// One token by its id (jti, uti), never the token itself.
    #[arg(long, value_name = "ID", group = "whom")]
    token_id: Option<String>,
    /// One session by its reference.
    #[arg(long, value_name = "REFERENCE", group = "whom")]
    session: Option<String>,
    /// Only of this identity provider. Default: of any.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// How long it lasts, like 30m, 24h or 7days.
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    lasts: String,
    /// Why, for whoever reads the list.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the revocations in force.
    #[command(after_help = "Example:\n  gatepost revoke list --config gatepost.yaml")]
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Take a revocation back.
    #[command(after_help = "Example:\n  gatepost revoke lift r-0123456789abcdef --config gatepost.yaml")]
    Lift {
        /// Its id, as the list shows it.
        #[arg(value_parser = path_name)]
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    match &arguments.command {
        None => revoke(&arguments.new),
        Some(Command::List { target }) => target.ask(&Question::Get("/v1/revocations"), |body| {
            let columns = [
                ("ID", "/id"),
                ("KIND", "/kind"),
                ("WHOM", "/whom"),
                ("PROVIDER", "/provider"),
                ("UNTIL", "/until"),
                ("BY", "/by"),
                ("REASON", "/reason"),
            ];
            table(body, "revocations", &columns, "no revocations")
        }),
        Some(Command::Lift { id, target }) => {
            let path = format!("/v1/revocations/{id}");
            target.ask(&Question::Delete(&path), |_| {
                Ok(say(&format_args!("{} is lifted", Printable(id)))?)
            })
        }
    }
}

fn revoke(new: &New) -> Result<Answer, Failure> {
    let mut body = Map::new();
    for (key, value) in [
        ("subject", &new.subject),
        ("client_id", &new.client_id),
        ("token_id", &new.token_id),
        ("session", &new.session),
        ("provider", &new.provider),
        ("reason", &new.reason),
        ("for", &Some(new.lasts.clone())),
    ] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.clone().into());
        }
    }
    let question = Question::Post("/v1/revocations", Some(Value::Object(body)));
    new.target.ask(&question, |made| {
        let text = |key: &str| Printable(made[key].as_str().unwrap_or_default());
        Ok(say(&format_args!(
            "{}: {} {} is shut out until {}",
            text("id"),
            text("kind"),
            text("whom"),
            text("until")
        ))?)
    })
}

fn duration(text: &str) -> Result<String, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string());
    parsed.map(|_| text.to_owned())
}
