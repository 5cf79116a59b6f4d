//! Database logins that gatepost mints, renews, disables and drops.
//!
//! `broker` is the door for everyone else: a handle to one task per target that owns the broker's
//! connection and the books (`actor`, `books`). `lease` is what a session holds while it uses a
//! login. `postgres` has every statement that is sent, `connection` how the server is reached and
//! what its errors mean, `ending` how a login ends, `sweep` who ends what a dead replica left.
//! `naming` and `verifier` are pure. `roles` compares declared roles with a database at deploy
//! time; `live` says what a broker lacks. `unminted` is for targets at which nothing is minted.

pub mod broker;
pub mod doctor;
pub mod error;
pub mod lease;
pub mod live;
pub mod naming;
pub mod roles;
pub mod view;

mod actor;
mod books;
mod connection;
mod ending;
mod fence;
mod guard;
mod inspection;
mod postgres;
mod sweep;
mod unminted;
mod verifier;

pub use actor::Rotated;
pub use broker::{Broker, BrokerSettings, Logins, Retire, check_live};
pub use error::{BrokerError, LeaseError};
pub use inspection::TAMPER_CHECK_SQL;
pub use lease::{Lease, LeaseHold};
pub use live::{Finding, FindingKind};
pub use naming::{Epoch, LoginName, Mark};
pub use unminted::SETTINGS_CHECK_SQL;
pub use view::{LoginState, LoginView};
