//! Tickets as meant: which addresses they may be bound to besides the caller's own.

use crate::app::config::file::{self, Written};
use crate::app::config::resolve::Resolver;
use crate::app::config::settings::Tickets;
use crate::domain::Network;

/// A list that is longer describes no network plan that anybody could check.
const NETWORKS_MAX: usize = 64;

impl Resolver<'_, '_, '_> {
    pub(super) fn tickets(&mut self, written: &file::ConfigFile) -> Option<Tickets> {
        let Some(tickets) = &written.tickets else {
            return Some(Tickets::default());
        };
        if written.listen.get()?.api.is_none() {
            let message = "tickets are given by the API: add listen.api, or leave \"tickets\" out";
            self.reader.mistake(tickets.at, message);
        }
        let tickets = &tickets.value;
        let networks = tickets.networks.as_ref();
        Some(Tickets {
            networks: networks.map_or(Some(Vec::new()), |networks| self.networks(networks))?,
            any_address: tickets.any_address.as_ref().is_some_and(|any| any.value),
        })
    }

    fn networks(&mut self, written: &Written<Vec<Written<String>>>) -> Option<Vec<Network>> {
        if written.value.len() > NETWORKS_MAX {
            let message = format!("at most {NETWORKS_MAX} networks can be listed");
            self.reader.mistake(written.at, message);
            return None;
        }
        let networks = written.value.iter().filter_map(|text| match text.value.parse() {
            Ok(network) => Some(network),
            Err(error) => {
                self.reader
                    .mistake(text.at, format!("\"{}\" is {error}", text.value));
                None
            }
        });
        Some(networks.collect())
    }
}
