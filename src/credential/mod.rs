//! Database logins that gatepost mints, renews, disables and drops.
//!
//! `broker` is the door for everyone else: a handle to one task per target that owns the broker's
//! connection and the books (`actor`, `books`). `lease` is what a session holds while it uses a
//! login, `ending` how a login ends, `sweep` who ends what a dead replica left. `server` is what they
//! ask of a database server, `postgres` and `sqlserver` how that is said to one. `naming` is pure.
//! `roles` compares declared roles with a database at deploy time; `live` says what a broker lacks.
//! `unminted` is for targets at which nothing is minted. `reconcile` asks what became of transactions
//! whose end nobody has heard of. `catalogue` keeps, for each database that needs it, what statements are
//! proven harmless by.

pub mod broker;
pub mod catalogue;
pub mod doctor;
pub mod error;
pub mod lease;
pub mod live;
pub mod naming;
pub mod roles;
pub mod view;

mod actor;
mod books;
mod ending;
mod postgres;
mod reconcile;
mod server;
mod sqlserver;
mod sweep;
mod unminted;

pub use actor::Rotated;
pub use broker::{Broker, BrokerSettings, EngineSettings, Logins, Retire, check_live};
pub use catalogue::{CatalogueWatch, Pin, Unrest, View};
pub use error::{BrokerError, LeaseError, ServerError};
pub use lease::{Lease, LeaseHold};
pub use live::{Finding, FindingKind};
pub use naming::{Epoch, LoginName, Mark};
pub use postgres::inspection::TAMPER_CHECK_SQL;
pub use postgres::principal::SETTINGS_CHECK_SQL;
pub use sqlserver::error::Failure;
pub use sqlserver::inspection::TAMPER_CHECK_TSQL;
pub use sqlserver::principal::SETTINGS_CHECK_TSQL;
pub use sqlserver::settings::{SqlServerSettings, SqlServerTls, SqlServerTlsMode};
pub use view::{LoginState, LoginView};
