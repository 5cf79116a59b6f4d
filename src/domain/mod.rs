//! The words of the house: identities, targets, refusals, secrets and time. Pure data and pure
//! functions; imports nothing of ours.

pub mod access;
pub mod admin;
pub mod autocommit;
pub mod clock;
pub mod correlation;
pub mod identity;
pub mod ids;
pub mod incarnation;
pub mod marker_table;
pub mod measure;
pub mod mistake;
pub mod network;
pub mod outline;
pub mod parameters;
pub mod password;
pub mod ration;
pub mod rations;
pub mod refusal;
pub mod revocation;
pub mod secret;
pub mod subscriber;
pub mod target;

pub use access::AccessRequest;
pub use admin::{AdminAction, LocalOperator};
pub use autocommit::Autocommit;
pub use clock::{Clock, Random};
pub use correlation::{Correlation, CorrelationSource};
pub use identity::{Claimed, Identity, IdentityKey};
pub use ids::{Installation, ProviderName, ReplicaName, RoleName, RuleName, SessionId, TicketId};
pub use incarnation::{Incarnation, Incarnations};
pub use marker_table::MarkerTable;
pub use measure::{Counter, Histogram};
pub use mistake::{Mistake, Place};
pub use network::Network;
pub use outline::PolicyOutline;
pub use parameters::ParameterRule;
pub use password::{AwaitedToken, NoToken, Password, TokenSource};
pub use rations::Rations;
pub use refusal::{Reason, Refusal, RefusalCode, Refuse};
pub use revocation::{Revocation, Revocations};
pub use secret::Secret;
pub use subscriber::subscriber;
pub use target::{DatabaseName, Engine, TargetName};
