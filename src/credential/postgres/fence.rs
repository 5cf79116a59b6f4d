//! Does `pg_hba.conf` keep a minted login's password useless outside gatepost? Its lines are judged in
//! the server's own way: from the top, and the first that matches a connection decides.

use std::net::IpAddr;

use crate::credential::error::BrokerError;
use crate::credential::naming::MINTED_GROUP;
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::statements::INCLUDES_IN_HBA;

/// One line of `pg_hba_file_rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::credential) struct Rule {
    line: i32,
    kind: String,
    databases: Vec<String>,
    users: Vec<String>,
    address: Option<String>,
    netmask: Option<String>,
    method: String,
    options: Vec<String>,
    error: Option<String>,
}

/// A line that lets a minted login in by its password alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::credential) struct Gap {
    /// To be read after "`pg_hba.conf` line".
    pub(in crate::credential) text: String,
    /// Not over the network: whoever uses it is on the database server already.
    pub(in crate::credential) local: bool,
}

/// The ways in that lines tell apart, as bits.
const LOCAL: u8 = 1;
const TLS_V4: u8 = 1 << 1;
const TLS_V6: u8 = 1 << 2;
const CLEAR_V4: u8 = 1 << 3;
const CLEAR_V6: u8 = 1 << 4;

/// Lines that let members of the minted group, or of `roles`, in without a second factor.
pub(in crate::credential) fn gaps(rules: &[Rule], roles: &[&str]) -> Vec<Gap> {
    // What a line above has decided already.
    let mut decided = 0;
    let mut gaps = Vec::new();
    for rule in rules {
        if let Some(error) = &rule.error {
            let text = format!("{} is not understood by the server: {error}", rule.line);
            gaps.push(Gap { text, local: false });
            continue;
        }
        let ways = rule.ways();
        let matters = ways & !decided != 0;
        if !rule.names_minted(roles) || rule.is_replication() || !matters {
            continue;
        }
        if rule.takes_a_password_alone() && !rule.is_fenced_by_address() {
            gaps.push(Gap {
                text: format!(
                    "{} lets minted logins in from {} by {} alone",
                    rule.line,
                    rule.from(),
                    rule.method
                ),
                local: ways == LOCAL,
            });
        }
        if rule.is_for_all() {
            decided |= ways;
        }
    }
    gaps
}

impl Rule {
    fn ways(&self) -> u8 {
        let (tls, clear) = match self.kind.as_str() {
            "local" => return LOCAL,
            "hostssl" => (true, false),
            "hostnossl" => (false, true),
            _ => (true, true),
        };
        // Names of hosts and `samenet` may mean either family.
        let (v4, v6) = match self.address.as_deref().map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V4(_))) => (true, false),
            Some(Ok(IpAddr::V6(_))) => (false, true),
            Some(Err(_)) | None => (true, true),
        };
        [
            (TLS_V4, tls && v4),
            (TLS_V6, tls && v6),
            (CLEAR_V4, clear && v4),
            (CLEAR_V6, clear && v6),
        ]
        .into_iter()
        .filter(|(_, open)| *open)
        .fold(0, |ways, (way, _)| ways | way)
    }

    /// Every address of its family, or of both.
    fn is_everywhere(&self) -> bool {
        match (self.address.as_deref(), self.netmask.as_deref()) {
            (None, _) => self.kind == "local",
            (Some("all"), _) | (Some(_), Some("0.0.0.0" | "::")) => true,
            (Some(_), _) => false,
        }
    }

    fn names_minted(&self, roles: &[&str]) -> bool {
        self.users.iter().any(|user| match user.strip_prefix('+') {
            Some(group) => group == MINTED_GROUP || roles.contains(&group),
            // A regular expression (16 and later) is taken for one that matches.
            None => user == "all" || user.starts_with('/'),
        })
    }

    fn is_replication(&self) -> bool {
        self.databases.iter().all(|database| database == "replication")
    }

    /// No connection of these ways comes to a line below.
    fn is_for_all(&self) -> bool {
        // A regular expression may not match after all.
        let everyone = self
            .users
            .iter()
            .any(|user| user == "all" || user.strip_prefix('+') == Some(MINTED_GROUP));
        self.is_everywhere() && everyone && self.databases.iter().any(|database| database == "all")
    }

    /// Does whoever knows a password of the role get in, or whoever comes at all?
    fn takes_a_password_alone(&self) -> bool {
        let with_certificate = self
            .options
            .iter()
            .any(|option| option.starts_with("clientcert=verify"));
        matches!(
            self.method.as_str(),
            "trust" | "password" | "md5" | "scram-sha-256"
        ) && !with_certificate
    }

    /// A line made for minted logins that names where they come from: gatepost's addresses, one hopes.
    fn is_fenced_by_address(&self) -> bool {
        let minted = |user: &String| user.strip_prefix('+') == Some(MINTED_GROUP);
        self.method != "trust" && self.users.iter().all(minted) && !self.is_everywhere()
    }

    fn from(&self) -> String {
        match (self.address.as_deref(), self.netmask.as_deref()) {
            (None, _) => "the server itself".to_owned(),
            (Some("all"), _) => "everywhere".to_owned(),
            (Some(address), None) => address.to_owned(),
            (Some(address), Some(netmask)) => format!("{address} (mask {netmask})"),
        }
    }
}

impl Connection {
    /// In the order in which the server looks at them.
    pub(in crate::credential) async fn hba_rules(&self) -> Result<Vec<Rule>, BrokerError> {
        let order = if self.version().await? >= INCLUDES_IN_HBA {
            "rule_number NULLS LAST, line_number"
        } else {
            "line_number"
        };
        let sql = format!(
            "SELECT line_number, coalesce(type, ''), coalesce(database, '{{}}'), coalesce(user_name, '{{}}'), address, \
             netmask, coalesce(auth_method, ''), coalesce(options, '{{}}'), error FROM pg_hba_file_rules ORDER BY {order}"
        );
        let rows = self.query("reading pg_hba_file_rules", &sql, &[]).await?;
        let rule = |row: &tokio_postgres::Row| Rule {
            line: row.get(0),
            kind: row.get(1),
            databases: row.get(2),
            users: row.get(3),
            address: row.get(4),
            netmask: row.get(5),
            method: row.get(6),
            options: row.get(7),
            error: row.get(8),
        };
        Ok(rows.iter().map(rule).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `type database user address method option`, as in the file; `-` for no address.
    fn rules(text: &str) -> Vec<Rule> {
        let owned = |text: &str| text.to_owned();
        let rule = |(line, text): (usize, &str)| {
            let mut words = text.split_whitespace();
            let mut word = || words.next().unwrap_or_default();
            let (kind, database, user, address, method) = (word(), word(), word(), word(), word());
            let (address, netmask) = match address.split_once('/') {
                Some((address, mask)) => (Some(owned(address)), Some(owned(mask))),
                None => ((address != "-").then(|| owned(address)), None),
            };
            Rule {
                line: i32::try_from(line).unwrap() + 1,
                kind: owned(kind),
                databases: vec![owned(database)],
                users: vec![owned(user)],
                address,
                netmask,
                method: owned(method),
                options: words.map(owned).collect(),
                error: None,
            }
        };
        text.lines().enumerate().map(rule).collect()
    }

    fn lines(text: &str) -> Vec<String> {
        let found = gaps(&rules(text), &["writer"]);
        found
            .iter()
            .map(|gap| gap.text.split(' ').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_fences_of_the_documentation_hold() {
        let certificate = "hostssl all gatepost_broker all scram-sha-256\n\
            hostssl all +gatepost_minted all scram-sha-256 clientcert=verify-ca\n\
            host all +gatepost_minted all reject\nlocal all all - peer\nhost all all all scram-sha-256";
        assert_eq!(lines(certificate), [""; 0]);
        let address = "hostssl all gatepost_broker 10.0.5.0/255.255.255.240 scram-sha-256\n\
            hostssl all +gatepost_minted 10.0.5.0/255.255.255.240 scram-sha-256\n\
            host all +gatepost_minted all reject\nhost all all all md5";
        assert_eq!(lines(address), [""; 0]);
        // What no line lets in is refused.
        assert_eq!(lines("hostssl all +gatepost_minted all cert"), [""; 0]);
    }

    #[test]
    fn what_opens_the_fence_is_told_by_its_line() {
        let late =
            "host all all 127.0.0.1/255.255.255.255 scram-sha-256\nhost all +gatepost_minted all reject";
        assert_eq!(lines(late), ["1"]);
        assert_eq!(lines("hostssl all all all scram-sha-256"), ["1"]);
        assert_eq!(lines("host orders +writer all md5"), ["1"]);
        assert_eq!(
            lines("host all +gatepost_minted 10.0.0.1/255.255.255.255 trust"),
            ["1"]
        );
        assert_eq!(lines("hostssl all /^gp_ all scram-sha-256"), ["1"]);
        let anywhere = "host all +gatepost_minted 0.0.0.0/0.0.0.0 scram-sha-256";
        assert_eq!(lines(anywhere), ["1"]);
        // Written for both families.
        let both = "host all +gatepost_minted 0.0.0.0/0.0.0.0 reject\nhost all +gatepost_minted ::/:: reject\n\
            host all all all md5";
        assert_eq!(lines(both), [""; 0]);
        let one = "host all +gatepost_minted 0.0.0.0/0.0.0.0 reject\nhost all all ::/:: md5";
        assert_eq!(lines(one), ["2"]);
        // The fence shuts one way, the line below takes the other.
        let half = "hostssl all +gatepost_minted all reject\nhost all all all scram-sha-256";
        assert_eq!(lines(half), ["2"]);
        let one_database = "host orders +gatepost_minted all reject\nhost all all all scram-sha-256";
        assert_eq!(lines(one_database), ["2"]);
        let local = gaps(&rules("local all all - scram-sha-256"), &[]);
        assert!(local.first().unwrap().local);
    }

    #[test]
    fn lines_that_do_not_concern_minted_logins_are_no_gaps() {
        let others = "host all postgres 127.0.0.1/255.255.255.255 trust\nhost replication all all scram-sha-256\n\
            host all +dba all scram-sha-256\nhost all all all ldap";
        assert_eq!(lines(others), [""; 0]);
    }

    #[test]
    fn a_line_with_an_error_is_told() {
        let mut broken = rules("host all all all reject");
        broken[0].error = Some("end-of-line".to_owned());
        assert_eq!(gaps(&broken, &[]).len(), 1);
    }
}
