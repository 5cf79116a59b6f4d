//! What a client asks for, once its identity is known.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::domain::identity::Identity;
use crate::domain::target::{DatabaseName, TargetName};

/// One question to the policy.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    pub identity: &'a Identity,
    pub target: &'a TargetName,
    pub database: &'a DatabaseName,
    /// The start-up `user`: a role's name, `auto`, or one of the identity's own names.
    pub wanted: &'a str,
    pub client: IpAddr,
    pub at: SystemTime,
}
