//! `gatepost doctor`: every login that gatepost made in each target, and the end of those that nobody
//! answers for.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::{Environment, Target};
use crate::app::run;
use crate::cli::{Answer, Failure, check, live, say, with_causes};
use crate::credential::BrokerSettings;
use crate::credential::doctor::{self, Condition, Diagnosis, LoginReport, Repaired};
use crate::domain::{Clock, RoleName, TargetName};

/// How many objects of a login are told in text; --json has all of them.
const OBJECTS_TOLD: usize = 10;

/// List every login that gatepost made in each target, compare with the replicas that live, and tell
/// what the broker lacks.
///
/// Works while the proxy runs, and touches no other installation's logins. Exits with 1 when something
/// is left to be done.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost doctor --config gatepost.yaml
  gatepost doctor --config gatepost.yaml --target orders --repair
  gatepost doctor --config gatepost.yaml --json")]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// An entry under targets; all of them when left out.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// End the logins that were left behind: disable, end sessions, hand over what they own, drop.
    #[arg(long)]
    repair: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Visit {
    target: TargetName,
    /// Why the target could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repaired: Vec<Repaired>,
    /// After the repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnosis: Option<Diagnosis>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let built = match build::build(&arguments.config, &Environment::of_process(), SystemClock.now()) {
        Ok(built) => built,
        Err(mistakes) => {
            check::report(&mistakes);
            return Ok(Answer::No);
        }
    };
    let wanted = |target: &Target| {
        let name = arguments.target.as_deref();
        name.is_none_or(|name| target.name.as_str() == name)
    };
    let targets = built.settings.targets.iter().zip(&built.client_tls);
    let targets = targets.zip(&built.passwords);
    let targets: Vec<_> = targets.filter(|((target, _), _)| wanted(target)).collect();
    if let (Some(name), true) = (&arguments.target, targets.is_empty()) {
        return Err(format!("no target \"{name}\" in the configuration").into());
    }
    let runtime = run::control()?;
    let mut visits = Vec::new();
    for ((target, tls), password) in targets {
        let settings = build::broker_settings(&built.settings, target, tls, password);
        let visit = visit(&built, target, &settings, arguments.repair, runtime.handle());
        visits.push(runtime.block_on(visit));
    }
    let good = visits.iter().all(Visit::is_good);
    if arguments.json {
        let document = serde_json::json!({"good": good, "targets": visits});
        say(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for visit in &visits {
            say(&visit.text().trim_end())?;
        }
    }
    Ok(if good { Answer::Good } else { Answer::No })
}

async fn visit(
    built: &Built,
    target: &Target,
    settings: &BrokerSettings,
    repair: bool,
    control: &tokio::runtime::Handle,
) -> Visit {
    let mut visit = Visit {
        target: target.name.clone(),
        unreachable: None,
        repaired: Vec::new(),
        diagnosis: None,
    };
    let declared = built.policy.roles().iter();
    let mut roles: Vec<RoleName> = declared
        .filter(|role| role.target == target.name)
        .map(|role| role.name.clone())
        .collect();
    roles.dedup();
    if repair {
        match doctor::repair(settings, control).await {
            Ok(repaired) => visit.repaired = repaired,
            Err(error) => visit.unreachable = Some(with_causes(&error)),
        }
    }
    match doctor::examine(settings, &roles, control).await {
        Ok(diagnosis) => visit.diagnosis = Some(diagnosis),
        Err(error) => visit.unreachable = Some(with_causes(&error)),
    }
    visit
}

impl Visit {
    fn is_good(&self) -> bool {
        self.unreachable.is_none() && self.diagnosis.as_ref().is_some_and(Diagnosis::is_healthy)
    }

    fn text(&self) -> String {
        let mut text = format!("target {}:", self.target);
        if let Some(why) = &self.unreachable {
            let _ = write!(text, " {why}");
        }
        text.push('\n');
        for Repaired { login, failed } in &self.repaired {
            let _ = match failed {
                None => writeln!(text, "  {login}: ended"),
                Some(why) => writeln!(text, "  {login}: could not be ended: {why}"),
            };
        }
        let Some(diagnosis) = &self.diagnosis else {
            return text;
        };
        let _ = writeln!(text, "  logins: {}", tally(&diagnosis.logins));
        for report in diagnosis.logins.iter().filter(|report| !report.is_healthy()) {
            tell(&mut text, report);
        }
        for finding in &diagnosis.findings {
            let _ = writeln!(text, "  {}", live::told(finding).replace("\n  ", "\n    "));
        }
        text
    }
}

fn tally(logins: &[LoginReport]) -> String {
    let all = [
        Condition::Live,
        Condition::LeftOver,
        Condition::WithoutComment,
        Condition::UnreadableComment,
        Condition::OtherInstallation,
    ];
    let count = |wanted| logins.iter().filter(|report| report.condition == wanted).count();
    let told = all.map(|condition| (condition, count(condition)));
    let told = told.iter().filter(|(_, count)| *count > 0);
    let told: Vec<_> = told
        .map(|(condition, count)| format!("{count} {condition}"))
        .collect();
    match told.as_slice() {
        [] => "none".to_owned(),
        told => told.join(", "),
    }
}

fn tell(text: &mut String, report: &LoginReport) {
    let _ = writeln!(text, "  {}: {}", report.login, report.wrong.join("; "));
    let mut told = Vec::new();
    told.extend(
        report
            .replica
            .as_ref()
            .map(|replica| format!("replica {replica}")),
    );
    told.extend(report.role.as_ref().map(|role| format!("role {role}")));
    let until = report.until.as_ref();
    told.push(until.map_or("never expires".to_owned(), |until| format!("until {until}")));
    told.extend(report.expired.then(|| "expired".to_owned()));
    told.extend(report.disabled.then(|| "disabled".to_owned()));
    told.extend((report.sessions > 0).then(|| format!("{} sessions", report.sessions)));
    let _ = writeln!(text, "    {}", told.join(", "));
    let owned = report.objects.iter().filter(|object| object.owned);
    for object in owned.clone().take(OBJECTS_TOLD) {
        let _ = writeln!(text, "    owns {} in database {}", object.what, object.database);
    }
    if let Some(more) = owned.count().checked_sub(OBJECTS_TOLD + 1) {
        let _ = writeln!(text, "    and {} more", more + 1);
    }
    if !report.sql.is_empty() {
        let _ = writeln!(text, "    to end it by hand, as a superuser:");
        for sql in &report.sql {
            let end = if sql.starts_with('\\') { "" } else { ";" };
            let _ = writeln!(text, "      {sql}{end}");
        }
    }
}
