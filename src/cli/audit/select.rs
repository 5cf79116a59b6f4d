//! Which records: the options that `show` and `export` have alike.

use std::time::{Duration, SystemTime};

use clap::Args;

use crate::app::clock::SystemClock;
use crate::audit::filter::Filter;
use crate::domain::Clock as _;

/// Every condition that is given must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which records")]
pub(super) struct Selection {
    /// Part of the provider, subject, client id, tenant or name.
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// The whole subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// The whole client id.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A whole correlation id.
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// The database's transaction id.
    #[arg(long, value_name = "NUMBER")]
    xid: Option<u64>,
    /// The reference of a session, as the client was shown it.
    #[arg(long, value_name = "REFERENCE")]
    session: Option<String>,
    /// A target of the configuration.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// A role of the policy.
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// An event, or the beginning of several with `*`; can be given more than once.
    #[arg(long, value_name = "EVENT")]
    pub(super) event: Vec<String>,
    /// How it ended: committed, aborted, in_doubt, prepared, of a transaction also unknown; done,
    /// failed, refused.
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    #[command(flatten)]
    period: Period,
}

/// From when to when.
#[derive(Debug, Args)]
pub(super) struct Period {
    /// At this time or later: RFC 3339 in UTC, or how long ago (90s, 2h, 7d).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) from: Option<SystemTime>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) to: Option<SystemTime>,
}

impl Selection {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            identity: self.identity.clone(),
            subject: self.subject.clone(),
            client_id: self.client_id.clone(),
            correlation: self.correlation.clone(),
            xid: self.xid,
            session: self.session.clone(),
            target: self.target.clone(),
            role: self.role.clone(),
            events: self.event.clone(),
            outcome: self.outcome.clone(),
            from: self.period.from,
            until: self.period.to,
        }
    }
}

fn moment(text: &str) -> Result<SystemTime, String> {
    read_moment(text, SystemClock.now())
}

/// A time, a day, or how long ago.
fn read_moment(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let day = format!("{text}T00:00:00Z");
    if let Ok(time) = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&day)) {
        return Ok(time);
    }
    let ago: Duration = humantime::parse_duration(text)
        .map_err(|_| "neither a time like 2026-01-31T12:00:00Z nor how long ago, like 2h".to_owned())?;
    now.checked_sub(ago)
        .filter(|then| *then >= SystemTime::UNIX_EPOCH)
        .ok_or_else(|| "too long ago".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_how_long_ago() {
        let now = humantime::parse_rfc3339("2026-03-04T05:06:07Z").unwrap();
        let rows = [
            ("2026-01-31T12:00:00Z", Some("2026-01-31T12:00:00Z")),
            ("2026-01-31 12:00:00", Some("2026-01-31T12:00:00Z")),
            ("2026-01-31", Some("2026-01-31T00:00:00Z")),
            ("2h", Some("2026-03-04T03:06:07Z")),
            ("1day 5h", Some("2026-03-03T00:06:07Z")),
            ("yesterday", None),
            ("", None),
            ("99999999y", None),
        ];
        for (text, expected) in rows {
            let read = read_moment(text, now).ok();
            let expected = expected.map(|time| humantime::parse_rfc3339(time).unwrap());
            assert_eq!(read, expected, "{text}");
        }
    }
}
