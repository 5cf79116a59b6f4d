//! `gatepost ticket`: a short secret in the place of an access token, for drivers that cut the token.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use crate::admin::client::{ApiAddress, Reach};
use crate::cli::reach::{self, Question};
use crate::cli::{Answer, Failure, say};

/// Get a ticket for the password field of a driver that a whole access token does not fit into.
///
/// The ticket stands for the token, for minutes and for one database, and only from this machine (as
/// gatepost sees its address). Standard output holds the ticket and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  export GATEPOST_API=https://gatepost.internal:8443
  tsql -S gatepost.internal -U auto -D orders -P \"$(gatepost ticket --token-file token.jwt --target orders)\"
  PGPASSWORD=$(GATEPOST_TOKEN=$TOKEN gatepost ticket --target orders) psql \"host=… dbname=orders user=auto\"")]
pub(super) struct Arguments {
    /// The database, as the driver will name it (orders, its alias, or target/database), or a target.
    #[arg(long, value_name = "NAME")]
    target: String,
    /// The API of gatepost, like https://gatepost.internal:8443.
    #[arg(long, value_name = "URL", env = "GATEPOST_API")]
    api: String,
    /// A file with the access token. Default: the environment variable GATEPOST_TOKEN.
    #[arg(long, visible_alias = "token", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file with the authority that signed the API's certificate. Default: the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long it can be used to connect, 15m at most. Default: 5m, and never longer than the token.
    #[arg(long, value_name = "DURATION")]
    lifetime: Option<String>,
    /// Good for one connection only. Without it, for as many as a pool opens.
    #[arg(long)]
    single_use: bool,
    /// From where it can be used: an address, a network like 10.0.0.0/8, or "any", as far as gatepost's
    /// configuration offers it. Default: from where this command is run.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Print the whole answer as JSON: the ticket, when it expires, what it is bound to.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let token = reach::token(arguments.token_file.as_deref())?;
    let api = ApiAddress::new(&arguments.api, token, arguments.ca.clone())?;
    let mut body = Map::new();
    body.insert("target".to_owned(), arguments.target.clone().into());
    for (key, value) in [("lifetime", &arguments.lifetime), ("address", &arguments.address)] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.clone().into());
        }
    }
    if arguments.single_use {
        body.insert("single_use".to_owned(), true.into());
    }
    let question = Question::Post("/v1/ticket", Some(Value::Object(body)));
    reach::ask(&Reach::Api(api), &question, arguments.json, |made| {
        let ticket = made["ticket"].as_str().ok_or("the answer holds no ticket")?;
        Ok(say(&ticket)?)
    })
}
