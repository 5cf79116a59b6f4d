//! The controls of SOC 2 (Trust Services Criteria, 2017 with revised points of focus of 2022) that the
//! journal is evidence for: what it shows, and where that ends.

use serde::Serialize;

/// A criterion of the common criteria.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Control {
    #[serde(rename = "CC6.1")]
    AccessSecurity,
    #[serde(rename = "CC6.2")]
    Credentials,
    #[serde(rename = "CC6.3")]
    RoleBasedAccess,
    #[serde(rename = "CC6.6")]
    OutsideThreats,
    #[serde(rename = "CC7.2")]
    Monitoring,
    #[serde(rename = "CC7.3")]
    Evaluation,
}

impl Control {
    pub const ALL: [Self; 6] = [
        Self::AccessSecurity,
        Self::Credentials,
        Self::RoleBasedAccess,
        Self::OutsideThreats,
        Self::Monitoring,
        Self::Evaluation,
    ];

    /// As auditors write it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AccessSecurity => "CC6.1",
            Self::Credentials => "CC6.2",
            Self::RoleBasedAccess => "CC6.3",
            Self::OutsideThreats => "CC6.6",
            Self::Monitoring => "CC7.2",
            Self::Evaluation => "CC7.3",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::AccessSecurity => "Logical access security over protected information",
            Self::Credentials => "Credentials are issued on authorization, and removed",
            Self::RoleBasedAccess => "Role-based access and least privilege",
            Self::OutsideThreats => "Protection against threats from outside",
            Self::Monitoring => "Monitoring for anomalies",
            Self::Evaluation => "Evaluation of security events",
        }
    }

    /// What this report shows for it.
    pub const fn evidence(self) -> &'static str {
        match self {
            Self::AccessSecurity => {
                "Every access to a database through gatepost was made by an identity whose token was verified and \
                 whom a rule of a recorded version of the policy permitted; both are listed."
            }
            Self::Credentials => {
                "Database logins were minted only for such identities, for a limited time, and were dropped; what \
                 is left over is listed by name."
            }
            Self::RoleBasedAccess => {
                "Which identity could have which role, by which version of the policy, and which roles were used; \
                 roles for emergencies are set apart."
            }
            Self::OutsideThreats => {
                "Who was turned away at the door, from which address and why, counted in full, including those \
                 that are only summed up."
            }
            Self::Monitoring => {
                "Every transaction that could write was recorded before it could commit; the hash chain shows that \
                 no record was changed since, and the gaps are listed."
            }
            Self::Evaluation => {
                "The events that call for a person: tampering, use of emergency roles, operators' acts, unknown \
                 outcomes, messages that took several attempts."
            }
        }
    }

    /// What it does not show.
    pub const fn limits(self) -> &'static str {
        match self {
            Self::AccessSecurity => {
                "It says nothing of access that goes around gatepost; the databases' own rules and network must \
                 close that way, and their logs are the evidence for it."
            }
            Self::Credentials => {
                "How people and programs are registered with the identity provider, and removed there, is the \
                 provider's evidence."
            }
            Self::RoleBasedAccess => {
                "The policy declares what roles may do; \"gatepost roles drift\" shows whether the databases agree. \
                 Who approved a change of the policy is in the repository that it is kept in."
            }
            Self::OutsideThreats => {
                "It shows refusals at gatepost's own ports; firewalls and the network in front of it have their \
                 own evidence."
            }
            Self::Monitoring => {
                "Correlation ids and application names are asserted by clients. Proven reads need no record of \
                 their own. A cut-off end shows only against a head that was kept elsewhere."
            }
            Self::Evaluation => {
                "It lists what is to be evaluated; that somebody did, and what they concluded, has to be recorded \
                 elsewhere."
            }
        }
    }

    /// Reads `CC6.1` or `cc6.1`.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|control| control.label().eq_ignore_ascii_case(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_read_as_they_are_written() {
        for control in Control::ALL {
            assert_eq!(Control::read(control.label()), Some(control));
            assert_eq!(serde_json::to_value(control).unwrap(), control.label());
        }
        assert_eq!(Control::read("cc7.3"), Some(Control::Evaluation));
        assert_eq!(Control::read("CC9.9"), None);
    }
}
