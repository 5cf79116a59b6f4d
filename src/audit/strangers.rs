//! Denials of strangers: a few per address are recorded, the rest are only counted. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

/// After this the counts are recorded and start anew.
const WINDOW: Duration = Duration::from_secs(60);
/// Denials of one address that are recorded one by one in a window: enough to see what is tried.
const PER_ADDRESS: u64 = 10;
/// Denials that are recorded one by one in a window, all addresses together: below 1 GB a day.
const TOGETHER: u64 = 600;
/// Addresses that are told apart in a window; each costs a line at its end.
const ADDRESSES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Option<SystemTime>,
    recorded: u64,
    addresses: HashMap<IpAddr, u64>,
    elsewhere: u64,
}

impl Strangers {
    /// May this denial be recorded by itself? Otherwise it has been counted.
    pub(super) fn admit(&mut self, address: Option<IpAddr>, at: SystemTime) -> bool {
        self.since.get_or_insert(at);
        let known = self.addresses.len() < ADDRESSES_MAX;
        let count = match address.map(network) {
            Some(network) if known || self.addresses.contains_key(&network) => {
                self.addresses.entry(network).or_default()
            }
            Some(_) | None => {
                self.elsewhere += 1;
                return false;
            }
        };
        *count += 1;
        if *count <= PER_ADDRESS && self.recorded < TOGETHER {
            self.recorded += 1;
            // Only what was not recorded stays counted; see `drain`.
            return true;
        }
        self.elsewhere += u64::from(*count <= PER_ADDRESS);
        false
    }

    /// Denials that were dropped before anyone looked at them.
    pub(super) fn count(&mut self, denials: u64, at: SystemTime) {
        if denials > 0 {
            self.since.get_or_insert(at);
            self.elsewhere += denials;
        }
    }

    pub(super) fn is_due(&self, at: SystemTime) -> bool {
        // A clock that was set back must not hold the counts for ever.
        self.since
            .is_some_and(|since| at.duration_since(since).is_ok_and(|past| past >= WINDOW) || at < since)
    }

    /// Ends the window: the addresses (IPv6: their /64) with the denials that were only counted.
    pub(super) fn drain(&mut self) -> Vec<(Option<IpAddr>, u64)> {
        let over = |(address, count): (IpAddr, u64)| (Some(address), count.saturating_sub(PER_ADDRESS));
        let mut sums: Vec<_> = self.addresses.drain().map(over).collect();
        sums.sort();
        sums.push((None, self.elsewhere));
        sums.retain(|(_, count)| *count > 0);
        *self = Self::default();
        sums
    }
}

/// One subscriber holds a whole /64 of IPv6 and could use a new address for every attempt.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_rate_denials_are_only_counted() {
        let mut strangers = Strangers::default();
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let start = SystemTime::UNIX_EPOCH;
        let recorded = (0..25).filter(|_| strangers.admit(address, start)).count();
        assert_eq!(recorded, 10);
        assert!(!strangers.is_due(start + Duration::from_secs(59)));
        assert!(strangers.is_due(start + Duration::from_secs(60)));
        assert_eq!(strangers.drain(), vec![(address, 15)]);
        assert!(!strangers.is_due(start + Duration::from_secs(600)));
    }

    #[test]
    fn many_addresses_cost_no_more_than_a_few_lines() {
        let mut strangers = Strangers::default();
        let addresses = (0..100_000_u32).map(|bits| IpAddr::from(bits.to_be_bytes()));
        let recorded = addresses
            .filter(|address| strangers.admit(Some(*address), SystemTime::UNIX_EPOCH))
            .count();
        let sums = strangers.drain();
        assert!(recorded <= 600 && sums.len() <= 257);
        let summed: u64 = sums.iter().map(|(_, count)| count).sum();
        assert_eq!(u64::try_from(recorded).unwrap() + summed, 100_000);
    }
}
