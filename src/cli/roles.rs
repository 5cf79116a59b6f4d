//! `gatepost roles`: the roles and grants that policy declares, compared with a target's databases
//! and brought about at deploy time, with a credential that the running proxy never has.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::Environment;
use crate::app::run;
use crate::cli::{Answer, Failure, check, say};
use crate::credential::roles::{self, DeployAccess, Plan};
use crate::domain::{Clock, Secret, TargetName};

/// Compare the roles and grants that policy declares with a target's databases, or bring them about.
///
/// What is there without being declared is reported and never revoked.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the statements that are missing; change nothing. Exits with 1 when there are any.
    #[command(after_help = "Example:
  gatepost roles plan --config gatepost.yaml --target orders --as postgres --password-env ADMIN_PASSWORD")]
    Plan(Access),
    /// Run the statements that are missing, one transaction a database.
    #[command(after_help = "Example:
  gatepost roles apply --config gatepost.yaml --target orders --as postgres --password-file /run/secrets/admin")]
    Apply(Access),
}

/// Where, and as whom.
#[derive(Debug, Args)]
struct Access {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// An entry under targets. May be left out when there is one.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The database role that may create roles and grant; not the broker, which has no such right.
    #[arg(long = "as", value_name = "USER")]
    deployer: String,
    #[command(flatten)]
    password: Password,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// A command line is seen by everyone on the machine, so the password never stands on it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Password {
    /// The environment variable that holds the password.
    #[arg(long, value_name = "VAR")]
    password_env: Option<String>,
    /// The file that holds the password, on one line.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
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
    let runtime = run::control()?;
    let deploy = deploy_access(access, &built, runtime.handle().clone())?;
    let declared = built.policy.roles();
    let plan = runtime.block_on(roles::plan(&deploy, declared))?;
    if !apply {
        show(&plan, &deploy.target, access.json, None)?;
        return Ok(if plan.is_empty() { Answer::Good } else { Answer::No });
    }
    // The plan is seen even when it cannot be run to its end.
    let applied = runtime.block_on(roles::apply(&deploy, &plan));
    show(&plan, &deploy.target, access.json, Some(applied.is_ok()))?;
    applied?;
    Ok(Answer::Good)
}

fn deploy_access(
    access: &Access,
    built: &Built,
    control: tokio::runtime::Handle,
) -> Result<DeployAccess, Failure> {
    let mut targets = built.settings.targets.iter().zip(&built.client_tls);
    let (target, tls) = match (&access.target, targets.len()) {
        (Some(name), _) => targets
            .find(|(target, _)| target.name.as_str() == name)
            .ok_or_else(|| format!("no target \"{name}\" in the configuration"))?,
        (None, 1) => targets.next().ok_or("the configuration has no target")?,
        (None, _) => return Err("the configuration has several targets: give --target".into()),
    };
    Ok(DeployAccess {
        engine: build::engine_settings(target),
        target: target.name.clone(),
        address: (target.host.clone(), target.port),
        user: access.deployer.clone(),
        password: access.password.read()?.into(),
        tls: tls.rustls_config(),
        proven_server: tls.proven_server(),
        broker: target.broker_user.clone(),
        logins: target.logins,
        control,
    })
}

impl Password {
    /// An empty one is good: the server may ask for none.
    fn read(&self) -> Result<Secret<String>, Failure> {
        let text = match (&self.password_env, &self.password_file) {
            (Some(name), _) => std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set, or not UTF-8 text"))?,
            (None, Some(path)) => fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            (None, None) => return Err("give --password-env or --password-file".into()),
        };
        // Editors end files with a line break that is not part of the password.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains('\n') {
            return Err("the password has more than one line".into());
        }
        Ok(Secret::new(line.to_owned()))
    }
}

/// `applied`: whether the plan was run, if that was asked for.
fn show(plan: &Plan, target: &TargetName, as_json: bool, applied: Option<bool>) -> Result<(), Failure> {
    if as_json {
        let mut document = json!({
            "target": target,
            "good": applied.unwrap_or_else(|| plan.is_empty()),
            "plan": plan,
        });
        if let (Some(applied), Some(document)) = (applied, document.as_object_mut()) {
            document.insert("applied".to_owned(), applied.into());
        }
        say(&serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    say(&plan.to_string().trim_end())?;
    match applied {
        Some(true) => say(&format_args!("-- applied: {} statements", plan.steps.len()))?,
        Some(false) => say(&"-- NOT applied")?,
        None => {}
    }
    Ok(())
}
