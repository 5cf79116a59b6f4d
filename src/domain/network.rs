//! A range of addresses in CIDR notation (RFC 4632): one address, or a whole network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// IPv4, or IPv6; an IPv4 address that is mapped into IPv6 counts as what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    base: IpAddr,
    /// Leading bits that count.
    prefix: u8,
}

/// Not an address, not a network, or one whose base has bits behind its prefix (`10.0.0.1/8`), of
/// which nobody could say what was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address or a network like 10.0.0.0/8")]
pub struct NotANetwork;

impl Network {
    /// This address alone.
    pub const fn of(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self {
            base,
            prefix: width(base),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && leading(address, self.prefix) == bits(self.base)
    }

    /// Is the other one, as a whole, in this one?
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let Some(prefix) = prefix else {
            return Ok(Self::of(base));
        };
        // `+8` and `08` are numbers for the parser, but nobody's prefix.
        let plain =
            prefix == "0" || (!prefix.starts_with('0') && prefix.bytes().all(|it| it.is_ascii_digit()));
        let prefix = prefix.parse().ok().filter(|it| plain && *it <= width(base));
        let prefix = prefix.ok_or(NotANetwork)?;
        if leading(base, prefix) != bits(base) {
            return Err(NotANetwork);
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.base) {
            write!(f, "{}", self.base)
        } else {
            write!(f, "{}/{}", self.base, self.prefix)
        }
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address from the left, so that a prefix means the same for both kinds.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_bits()) << 96,
        IpAddr::V6(six) => six.to_bits(),
    }
}

fn leading(address: IpAddr, prefix: u8) -> u128 {
    let behind = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
    bits(address) & !behind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (written, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "198.51.100.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
        ] {
            let found = network(written).contains(address.parse().unwrap());
            assert_eq!(found, inside, "{written} {address}");
        }
    }

    #[test]
    fn one_network_covers_another_only_as_a_whole() {
        for (outer, inner, covers) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "0.0.0.0/0", false),
            ("0.0.0.0/0", "::/0", false),
        ] {
            assert_eq!(network(outer).covers(&network(inner)), covers, "{outer} {inner}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_shown_or_a_mistake() {
        for text in [
            "10.0.0.0/8",
            "192.0.2.7",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "2001:db8::1",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
        for wrong in [
            "",
            "any",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0/8",
            "::/129",
            "::1/64",
            "localhost",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork), "{wrong}");
        }
    }
}
