//! Where gatepost listens: the addresses, what each listener allows, and that somebody can come in.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::config::file::{self, Must, Spot, Written};
use crate::app::config::resolve::Resolver;
use crate::app::config::settings::{Door, SqlServerDoor};
use crate::domain::ProviderName;

/// `sun_path` of Linux, less the byte that ends it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Resolver<'_, '_, '_> {
    fn socket_address(&mut self, address: Option<&Written<String>>) -> Option<SocketAddr> {
        let address = address?;
        match address.value.parse() {
            Ok(parsed) => Some(parsed),
            Err(_) => {
                let shown = &address.value;
                let message = format!("\"{shown}\" is not an IP address and port, like 127.0.0.1:6432");
                self.reader.mistake(address.at, message);
                None
            }
        }
    }

    pub(super) fn postgres_door(&mut self, written: &file::ConfigFile) -> Option<Option<Door>> {
        let Some(door) = written.listen.get()?.postgres.as_ref() else {
            return Some(None);
        };
        let door = door.get()?;
        self.door(written, door.address.get(), door.allow_plaintext.as_ref())
            .map(Some)
    }

    pub(super) fn sqlserver_door(&mut self, written: &file::ConfigFile) -> Option<Option<SqlServerDoor>> {
        let Some(written_door) = written.listen.get()?.sqlserver.as_ref() else {
            return Some(None);
        };
        let written_door = written_door.get()?;
        let allow = written_door.allow_plaintext.as_ref();
        let door = self.door(written, written_door.address.get(), allow);
        let provider = self.token_provider(written, written_door.token_provider.as_ref())?;
        Some(Some(SqlServerDoor {
            door: door?,
            token_provider: provider,
        }))
    }

    /// The provider that drivers are sent to when they ask where to fetch a token: the one that is named, or
    /// the only one.
    fn token_provider(
        &mut self,
        written: &file::ConfigFile,
        named: Option<&Written<String>>,
    ) -> Option<Option<ProviderName>> {
        let providers = written.identity_providers.get()?;
        let known: Vec<&str> = providers
            .value
            .0
            .iter()
            .map(|(name, _)| name.value.as_str())
            .collect();
        let Some(named) = named else {
            let only = <[&str; 1]>::try_from(known).ok();
            return Some(only.map(|[only]| ProviderName::new(only)));
        };
        if !known.contains(&named.value.as_str()) {
            let message = format!("there is no identity provider \"{}\"", named.value);
            self.reader.mistake(named.at, message);
            return None;
        }
        Some(Some(ProviderName::new(&named.value)))
    }

    /// Without a door for clients there is nothing to do.
    pub(super) fn some_door(&mut self, written: &file::ConfigFile) {
        if let Some(listen) = written.listen.get()
            && listen.postgres.is_none()
            && listen.sqlserver.is_none()
            && self.reader.is_clean()
        {
            let message = "\"listen\" needs \"postgres\" or \"sqlserver\": clients must come in somewhere";
            self.reader.mistake(Spot::NOWHERE, message);
        }
    }

    fn door(
        &mut self,
        written: &file::ConfigFile,
        at: Option<&Written<String>>,
        allow: Option<&Written<bool>>,
    ) -> Option<Door> {
        let address = self.socket_address(at)?;
        let allow_plaintext = allow.is_some_and(|allow| allow.value);
        if let Some(allow) = allow
            && allow.value
            && !address.ip().is_loopback()
        {
            let message =
                "allow_plaintext is only for a loopback address: tokens would cross the network in clear";
            self.reader.mistake(allow.at, message);
        }
        if written.tls.is_none() && !allow_plaintext {
            let at = at.map_or(Spot::NOWHERE, |address| address.at);
            let message = "this listener needs \"tls\" (or allow_plaintext: true on a loopback address)";
            self.reader.mistake(at, message);
        }
        Some(Door {
            address,
            allow_plaintext,
        })
    }

    pub(super) fn metrics_door(&mut self, listen: &Must<file::Listen>) -> Option<Option<SocketAddr>> {
        let Some(door) = listen.get()?.metrics.as_ref() else {
            return Some(None);
        };
        self.socket_address(door.address.get()).map(Some)
    }

    pub(super) fn api_door(&mut self, written: &file::ConfigFile) -> Option<Option<SocketAddr>> {
        let Some(door) = written.listen.get()?.api.as_ref() else {
            return Some(None);
        };
        let address = self.socket_address(door.address.get())?;
        if written.tls.is_none() {
            let at = door.address.get().map_or(Spot::NOWHERE, |address| address.at);
            let message = "the API needs \"tls\": operators send it access tokens";
            self.reader.mistake(at, message);
        }
        Some(Some(address))
    }

    pub(super) fn admin_socket(&mut self, listen: &Must<file::Listen>) -> Option<Option<PathBuf>> {
        let Some(door) = listen.get()?.admin_socket.as_ref() else {
            return Some(None);
        };
        let written = door.path.get()?;
        let path = self.path(&written.value);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let message = format!("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes");
            self.reader.mistake(written.at, message);
            return None;
        }
        Some(Some(path))
    }
}
