//! What a target says about its SQL Server, besides address, user and password.

use std::path::PathBuf;

use crate::domain::marker_table::MarkerTable;

/// How a SQL Server is reached, and how logins are made on it.
#[derive(Clone, Debug, Default)]
pub struct SqlServerSettings {
    /// Minted logins are users with a password of their own in the role's database, without a login of
    /// the server: for Azure SQL, and for databases with partial containment.
    pub contained: bool,
    /// Where transactions that write are marked, if they are.
    pub marker_table: Option<MarkerTable>,
    pub tls: SqlServerTls,
}

/// TLS of the broker's own connections. The driver reads the files at every connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlServerTls {
    pub mode: SqlServerTlsMode,
    /// PEM; trusted besides the machine's own authorities. Without meaning unless the mode is `Verify`.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must have. `None`: the host that is connected to.
    pub host_in_certificate: Option<String>,
    /// TLS from the first byte (TDS 8.0). Without meaning when the mode is `Disable`.
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqlServerTlsMode {
    /// Nothing is encrypted but, where the server can, the login.
    Disable,
    /// Encrypted, but anybody may answer.
    Require,
    /// Signed by an authority, and with the right name.
    #[default]
    Verify,
}
