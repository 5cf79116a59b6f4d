//! `gatepost roles`: the roles that policy declares, compared with the databases at deploy time and
//! brought about with a credential of its own.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::runtime::Handle;

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::Environment;
use crate::app::run;
use crate::cli::{Answer, Failure, check, complain, say};
use crate::credential::roles::{self, DeployAccess, Plan};
use crate::domain::{Clock, Secret};

/// The variable that holds the deploy password where no file does.
const PASSWORD_VARIABLE: &str = "GATEPOST_DEPLOY_PASSWORD";

/// Compare the roles and grants that the policy declares with the databases, and create what is missing.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print what "apply" would run, and what is there without being declared. Changes nothing.
    ///
    /// Exits with 1 when something is missing.
    #[command(
        after_help = "Example:\n  GATEPOST_DEPLOY_PASSWORD=… gatepost roles plan --config gatepost.yaml --as postgres"
    )]
    Plan(Access),
    /// Create missing roles and grants, one transaction a database. Nothing is ever revoked.
    #[command(
        after_help = "Example:\n  gatepost roles apply --config gatepost.yaml --as postgres --password-file /run/secrets/deploy"
    )]
    Apply(Access),
}

#[derive(Debug, Args)]
struct Access {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// Who compares and applies: an administrator, not the broker.
    #[arg(long = "as", value_name = "USER")]
    user: String,
    /// Holds that user's password; a single line break at its end does not count. Without it the
    /// variable GATEPOST_DEPLOY_PASSWORD is read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Print one JSON object a target instead of SQL.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let (access, apply) = match &arguments.what {
        What::Plan(access) => (access, false),
        What::Apply(access) => (access, true),
    };
    let built = match build::build(&access.config, &Environment::of_process(), SystemClock.now()) {
        Ok(built) => built,
        Err(mistakes) => {
            check::report(&mistakes);
            return Ok(Answer::No);
        }
    };
    let password = password(access)?;
    let runtime = run::control()?;
    runtime.block_on(each_target(access, &built, &password, apply, runtime.handle()))
}

fn password(access: &Access) -> Result<Secret<String>, Failure> {
    let text = match &access.password_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
            format!(
                "the password of {} is in neither --password-file nor {PASSWORD_VARIABLE}",
                access.user
            )
        })?,
    };
    Ok(Secret::new(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

async fn each_target(
    access: &Access,
    built: &Built,
    password: &Secret<String>,
    apply: bool,
    control: &Handle,
) -> Result<Answer, Failure> {
    let mut answer = Answer::Good;
    for (target, tls) in built.settings.targets.iter().zip(&built.client_tls) {
        let deploy = DeployAccess {
            target: target.name.clone(),
            address: (target.host.clone(), target.port),
            user: access.user.clone(),
            password: password.clone(),
            tls: tls.rustls_config(),
            broker: target.broker_user.clone(),
            control: control.clone(),
        };
        let plan = roles::plan(&deploy, built.policy.roles()).await?;
        tell(access, target.name.as_str(), &plan)?;
        if apply {
            roles::apply(&deploy, &plan).await?;
            complain(&format_args!(
                "target {}: {} statements applied",
                target.name,
                plan.steps.len()
            ));
        } else if !plan.is_empty() {
            answer = Answer::No;
        }
    }
    Ok(answer)
}

fn tell(access: &Access, target: &str, plan: &Plan) -> Result<(), Failure> {
    if access.json {
        say(&json!({"target": target, "plan": plan}))?;
    } else {
        say(&format_args!(
            "-- target {target}\n{}",
            plan.to_string().trim_end()
        ))?;
    }
    Ok(())
}
