//! What the databases say to `gatepost check --live`: can the broker mint, are the declared roles
//! there, is there more than was declared.

use std::fmt;

use serde::Serialize;

use crate::app::build::{self, Built};
use crate::app::config::settings::Target;
use crate::app::run;
use crate::cli::{Failure, with_causes};
use crate::credential::roles::{self, DeployAccess, Plan};
use crate::credential::{BrokerSettings, Finding, FindingKind, check_live};
use crate::domain::{Password, RoleName, TargetName};
use crate::policy::RoleDeclaration;
use crate::tls::ClientTls;

/// What one target lacks, or has too much of.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    target: TargetName,
    /// Why the target could not be looked at to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
    findings: Vec<Finding>,
}

/// Looks at every target with its broker's own credential. Changes nothing.
pub(super) fn look(built: &Built) -> Result<Vec<Report>, Failure> {
    let runtime = run::control()?;
    let control = runtime.handle();
    let targets = built.settings.targets.iter().zip(&built.client_tls);
    let reports = targets.zip(&built.passwords).map(|((target, tls), password)| {
        let settings = build::broker_settings(&built.settings, target, tls, password);
        let mut report = Report {
            target: target.name.clone(),
            unreachable: None,
            findings: vec![],
        };
        let looked = runtime.block_on(async {
            let deploy = as_broker(target, tls, password, control);
            look_at(&settings, &deploy, built.policy.roles(), &mut report.findings).await
        });
        report.unreachable = looked.err().map(|error| with_causes(error.as_ref()));
        report
    });
    Ok(reports.collect())
}

async fn look_at(
    settings: &BrokerSettings,
    deploy: &DeployAccess,
    declared: &[RoleDeclaration],
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let here = declared.iter().filter(|role| role.target == settings.target);
    let mut names: Vec<RoleName> = here.map(|role| role.name.clone()).collect();
    names.dedup();
    findings.extend(check_live(settings, &names, &deploy.control).await?);
    let plan = roles::plan(deploy, declared).await?;
    add_plan(findings, plan);
    Ok(())
}

/// Comparing reads the catalogue only, so the broker may do it; applying it may not.
fn as_broker(
    target: &Target,
    tls: &ClientTls,
    password: &Password,
    control: &tokio::runtime::Handle,
) -> DeployAccess {
    DeployAccess {
        engine: build::engine_settings(target),
        target: target.name.clone(),
        address: (target.host.clone(), target.port),
        user: target.broker_user.clone(),
        password: password.clone(),
        tls: tls.rustls_config(),
        proven_server: tls.proven_server(),
        broker: target.broker_user.clone(),
        logins: target.logins,
        control: control.clone(),
    }
}

/// What the broker needs is also part of the plan; it is told once.
fn add_plan(findings: &mut Vec<Finding>, plan: Plan) {
    for step in plan.steps {
        if findings.iter().all(|finding| finding.sql != step.sql) {
            findings.push(Finding {
                missing: format!("declared in policy, not in database {}", step.database),
                sql: step.sql,
                kind: FindingKind::MissingPrivilege,
            });
        }
    }
    for object in plan.missing_objects {
        findings.push(Finding {
            missing: format!("{object}, which policy grants on"),
            sql: "-- create it, or correct the policy".to_owned(),
            kind: FindingKind::MissingPrivilege,
        });
    }
    for extra in plan.extras {
        findings.push(Finding {
            missing: format!("{extra}, which policy does not declare"),
            sql: "-- revoke it, or declare it".to_owned(),
            kind: FindingKind::TooMuch,
        });
    }
}

impl Report {
    /// Too much, or not proven, is worth reading; only what is missing stops sessions.
    pub(super) fn is_good(&self) -> bool {
        self.unreachable.is_none() && !self.findings.iter().any(|finding| stops(finding.kind))
    }
}

fn stops(kind: FindingKind) -> bool {
    match kind {
        FindingKind::MissingRole | FindingKind::MissingPrivilege => true,
        FindingKind::TooMuch | FindingKind::NotProven => false,
    }
}

const fn word(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::MissingRole => "missing role",
        FindingKind::MissingPrivilege => "missing",
        FindingKind::TooMuch => "too much",
        FindingKind::NotProven => "not proven",
    }
}

/// A finding on one line, and on the next what to run.
pub(super) fn told(Finding { missing, sql, kind }: &Finding) -> String {
    let end = if sql.starts_with("--") { "" } else { ";" };
    format!("{}: {missing}\n    {sql}{end}", word(*kind))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            unreachable,
            findings,
        } = self;
        if findings.is_empty() && unreachable.is_none() {
            return write!(f, "target {target}: as declared");
        }
        write!(f, "target {target}:")?;
        if let Some(why) = unreachable {
            write!(f, "\n  {why}")?;
        }
        for finding in findings {
            write!(f, "\n  {}", told(finding))?;
        }
        Ok(())
    }
}
