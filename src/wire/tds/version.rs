//! Versions of the protocol (MS-TDS 1.7 and 2.2.7.14) and of programs.

use std::fmt;

/// As LOGIN7 holds it: its number says 7.4 as `0x74000004`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TdsVersion(pub u32);

impl TdsVersion {
    pub const V7_2: Self = Self(0x7209_0002);
    pub const V7_3A: Self = Self(0x730a_0003);
    pub const V7_3B: Self = Self(0x730b_0003);
    pub const V7_4: Self = Self(0x7400_0004);
    /// 7.4 inside TLS. Several drivers say 7.4 there too.
    pub const V8_0: Self = Self(0x0800_0000);

    /// Whether gatepost speaks it. Before 7.3 dates and large values looked otherwise; SQL Server 2005
    /// was the last to know no better.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::V8_0) || self.0 >= Self::V7_3A.0
    }

    /// What is answered to one who asked for this version: itself, or the newest that there is.
    pub const fn answered(self) -> Self {
        match self {
            Self::V8_0 => self,
            Self(number) if number > Self::V7_4.0 => Self::V7_4,
            _ => self,
        }
    }
}

impl fmt::Display for TdsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V7_2 => f.write_str("7.2"),
            Self::V7_3A => f.write_str("7.3A"),
            Self::V7_3B => f.write_str("7.3B"),
            Self::V7_4 => f.write_str("7.4"),
            Self::V8_0 => f.write_str("8.0"),
            Self(number) => write!(f, "0x{number:08x}"),
        }
    }
}

impl fmt::Debug for TdsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TdsVersion({self})")
    }
}

/// The version of a driver or of a server, as PRELOGIN holds it (MS-TDS 2.2.6.5, VERSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramVersion {
    pub major: u8,
    pub minor: u8,
    pub build: u16,
    pub sub_build: u16,
}

impl ProgramVersion {
    /// The four bytes that LOGINACK holds.
    pub const fn short(self) -> [u8; 4] {
        let [high, low] = self.build.to_be_bytes();
        [self.major, self.minor, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_and_what_is_answered() {
        let rows = [
            (0x7000_0000, false, 0x7000_0000),
            (0x7100_0001, false, 0x7100_0001),
            (TdsVersion::V7_2.0, false, TdsVersion::V7_2.0),
            (TdsVersion::V7_3A.0, true, TdsVersion::V7_3A.0),
            (TdsVersion::V7_3B.0, true, TdsVersion::V7_3B.0),
            (TdsVersion::V7_4.0, true, TdsVersion::V7_4.0),
            (0x7500_0000, true, TdsVersion::V7_4.0),
            (TdsVersion::V8_0.0, true, TdsVersion::V8_0.0),
            (0x0900_0000, false, 0x0900_0000),
        ];
        for (number, served, answered) in rows {
            let version = TdsVersion(number);
            assert_eq!(version.is_served(), served, "{version}");
            assert_eq!(version.answered(), TdsVersion(answered), "{version}");
        }
    }
}
