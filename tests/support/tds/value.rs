//! Values of T-SQL, how they turn into one another, and how they compare.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use gatepost::wire::tds::reply::{Cell, ColumnKind};

use super::fault::Fault;

/// From 0001-01-01 to 1970-01-01.
const UNIX_DAYS: u64 = 719_162;
const DAY_SECONDS: u64 = 86_400;
/// Of 100 nanoseconds.
const TICKS_A_SECOND: u64 = 10_000_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bit(bool),
    Int(i32),
    BigInt(i64),
    Float(f64),
    Decimal {
        digits: i128,
        scale: u8,
    },
    /// Since 0001-01-01, and 100 nanoseconds since midnight.
    DateTime {
        days: u32,
        ticks: u64,
    },
    Guid([u8; 16]),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A number as `int` if it fits, else as `bigint`.
    pub(crate) fn integer(number: i64) -> Self {
        i32::try_from(number).map_or(Self::BigInt(number), Self::Int)
    }

    pub(crate) fn at(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let days = UNIX_DAYS + since.as_secs() / DAY_SECONDS;
        let in_day = Duration::new(since.as_secs() % DAY_SECONDS, since.subsec_nanos());
        Self::DateTime {
            days: u32::try_from(days).unwrap_or_default(),
            ticks: u64::try_from(in_day.as_nanos() / 100).unwrap_or_default(),
        }
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The kind of a column that can hold it; `None` for NULL, which fits all.
    pub(crate) fn kind(&self) -> Option<ColumnKind> {
        Some(match self {
            Self::Null => return None,
            Self::Bit(_) => ColumnKind::Bit,
            Self::Int(_) => ColumnKind::Int,
            Self::BigInt(_) => ColumnKind::BigInt,
            Self::Float(_) => ColumnKind::Float,
            Self::Decimal { scale, .. } => ColumnKind::Decimal {
                precision: 38,
                scale: *scale,
            },
            Self::DateTime { .. } => ColumnKind::DateTime2 { scale: 7 },
            Self::Guid(_) => ColumnKind::UniqueIdentifier,
            Self::Text(text) if text.encode_utf16().count() <= 4000 => ColumnKind::NVarChar(4000),
            Self::Text(_) => ColumnKind::NVarCharMax,
            Self::Bytes(bytes) if bytes.len() <= 8000 => ColumnKind::VarBinary(8000),
            Self::Bytes(_) => ColumnKind::VarBinaryMax,
        })
    }

    /// As it stands in a row.
    pub(crate) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bit(value) => Cell::Bit(*value),
            Self::Int(value) => Cell::Int(*value),
            Self::BigInt(value) => Cell::BigInt(*value),
            Self::Float(value) => Cell::Float(*value),
            Self::Decimal { digits, .. } => Cell::Decimal(*digits),
            Self::DateTime { days, ticks } => Cell::DateTime2 {
                ticks: *ticks,
                days: *days,
            },
            Self::Guid(value) => Cell::UniqueIdentifier(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Bytes(bytes) => Cell::Bytes(bytes),
        }
    }

    /// As `CONVERT(nvarchar(max), …)` prints it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bit(value) => u8::from(*value).to_string(),
            Self::Int(value) => value.to_string(),
            Self::BigInt(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Decimal { digits, scale } => decimal_shown(*digits, *scale),
            Self::DateTime { days, ticks } => date_shown(*days, *ticks),
            Self::Guid(bytes) => gatepost::wire::tds::prelogin::Guid(*bytes)
                .to_string()
                .to_uppercase(),
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => {
                let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
                format!("0x{}", hex.concat())
            }
        }
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Bit(value) => Some(i64::from(*value)),
            Self::Int(value) => Some(i64::from(*value)),
            Self::BigInt(value) => Some(*value),
            Self::Float(value) => format!("{value:.0}").parse().ok(),
            Self::Decimal { digits, scale } => i64::try_from(digits / 10_i128.pow(u32::from(*scale))).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Null | Self::DateTime { .. } | Self::Guid(_) | Self::Bytes(_) => None,
        }
    }

    fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Null | Self::DateTime { .. } | Self::Guid(_) | Self::Bytes(_) => None,
            other => other.shown().trim().parse().ok(),
        }
    }

    /// What a unique key keeps of it: texts without case and without spaces at their end.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Text(text) => format!("t{}", text.trim_end().to_lowercase()),
            Self::Bit(_) | Self::Int(_) | Self::BigInt(_) => {
                format!("n{}", self.as_int().unwrap_or_default())
            }
            other => format!("o{}", other.shown()),
        }
    }

    /// Turns into what a column or a variable of this kind holds.
    pub(crate) fn cast(&self, kind: ColumnKind) -> Result<Self, Fault> {
        if self.is_null() {
            return Ok(Self::Null);
        }
        let wrong = |to: &str| {
            let text = format!(
                "Conversion failed when converting the nvarchar value '{}' to data type {to}.",
                self.shown()
            );
            Fault::new(245, 16, text).aborting()
        };
        Ok(match kind {
            ColumnKind::Bit => match self {
                Self::Text(text) if text.eq_ignore_ascii_case("true") => Self::Bit(true),
                Self::Text(text) if text.eq_ignore_ascii_case("false") => Self::Bit(false),
                _ => Self::Bit(self.as_int().ok_or_else(|| wrong("bit"))? != 0),
            },
            ColumnKind::Int => {
                let number = self.as_int().ok_or_else(|| wrong("int"))?;
                let too_large =
                    || Fault::new(8115, 16, "Arithmetic overflow error converting to data type int.");
                Self::Int(i32::try_from(number).map_err(|_| too_large())?)
            }
            ColumnKind::BigInt => Self::BigInt(self.as_int().ok_or_else(|| wrong("bigint"))?),
            ColumnKind::Float => Self::Float(self.as_float().ok_or_else(|| wrong("float"))?),
            ColumnKind::Decimal { scale, .. } => Self::Decimal {
                digits: decimal_of(&self.shown(), scale).ok_or_else(|| wrong("decimal"))?,
                scale,
            },
            ColumnKind::DateTime2 { .. } => match self {
                Self::DateTime { .. } => self.clone(),
                other => date_of(&other.shown()).ok_or_else(|| {
                    Fault::new(
                        241,
                        16,
                        "Conversion failed when converting date and/or time from character string.",
                    )
                })?,
            },
            ColumnKind::UniqueIdentifier => match self {
                Self::Guid(_) => self.clone(),
                other => guid_of(&other.shown()).map(Self::Guid).ok_or_else(|| {
                    Fault::new(
                        8169,
                        16,
                        "Conversion failed when converting from a character string to uniqueidentifier.",
                    )
                })?,
            },
            ColumnKind::NVarChar(units) => {
                let text = self.as_text();
                Self::Text(cut(&text, usize::from(units)).to_owned())
            }
            ColumnKind::NVarCharMax => Self::Text(self.as_text()),
            ColumnKind::VarBinary(_) | ColumnKind::VarBinaryMax => match self {
                Self::Bytes(_) => self.clone(),
                Self::Int(value) => Self::Bytes(value.to_be_bytes().to_vec()),
                other => Self::Bytes(utf16(&other.shown())),
            },
        })
    }

    /// Bytes are read as UTF-16 here, unlike in [`Self::shown`].
    fn as_text(&self) -> String {
        match self {
            Self::Bytes(bytes) => gatepost::wire::tds::utf16::Utf16::new(bytes).lossy(),
            other => other.shown(),
        }
    }

    /// `None` where one of the two is NULL.
    pub(crate) fn compare(&self, other: &Self) -> Result<Option<Ordering>, Fault> {
        let order = match (self, other) {
            (Self::Null, _) | (_, Self::Null) => return Ok(None),
            (Self::Text(one), Self::Text(two)) => {
                let fold = |text: &str| text.trim_end_matches(' ').to_lowercase();
                fold(one).cmp(&fold(two))
            }
            (Self::Bytes(one), Self::Bytes(two)) => one.cmp(two),
            (Self::Guid(one), Self::Guid(two)) => one.cmp(two),
            (Self::Guid(_), text) | (text, Self::Guid(_)) => {
                text.cast(ColumnKind::UniqueIdentifier)?;
                self.shown().to_lowercase().cmp(&other.shown().to_lowercase())
            }
            (Self::DateTime { .. }, _) | (_, Self::DateTime { .. }) => {
                let kind = ColumnKind::DateTime2 { scale: 7 };
                match (self.cast(kind)?, other.cast(kind)?) {
                    (
                        Self::DateTime { days, ticks },
                        Self::DateTime {
                            days: other_days,
                            ticks: other_ticks,
                        },
                    ) => (days, ticks).cmp(&(other_days, other_ticks)),
                    _ => return Ok(None),
                }
            }
            _ => {
                let number = |value: &Self| {
                    let text = || format!("Conversion failed when converting the value '{}'.", value.shown());
                    value
                        .as_float()
                        .ok_or_else(|| Fault::new(245, 16, text()).aborting())
                };
                if let (Some(one), Some(two)) = (exact(self), exact(other)) {
                    one.cmp(&two)
                } else {
                    number(self)?.total_cmp(&number(other)?)
                }
            }
        };
        Ok(Some(order))
    }
}

/// Whole numbers compare without loss.
const fn exact(value: &Value) -> Option<i64> {
    match value {
        Value::Bit(value) => Some(*value as i64),
        Value::Int(value) => Some(*value as i64),
        Value::BigInt(value) => Some(*value),
        _ => None,
    }
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn cut(text: &str, units_max: usize) -> &str {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        units += character.len_utf16();
        if units > units_max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

fn decimal_shown(digits: i128, scale: u8) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let places = usize::from(scale);
    let text = format!("{:0>1$}", digits.unsigned_abs(), places + 1);
    let (whole, part) = text.split_at(text.len().saturating_sub(places));
    if places == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{part}")
    }
}

pub(crate) fn decimal_of(text: &str, scale: u8) -> Option<i128> {
    let text = text.trim();
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: String = part
        .chars()
        .chain(std::iter::repeat('0'))
        .take(usize::from(scale))
        .collect();
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    Some(sign * digits)
}

/// Days since 0001-01-01 of a day of the Gregorian calendar, by counting in eras of 400 years.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let of_era = shifted % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 306
}

fn date_shown(days: u32, ticks: u64) -> String {
    let shifted = u64::from(days) + 306;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + years + u64::from(month <= 2);
    let seconds = ticks / TICKS_A_SECOND;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:07}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        ticks % TICKS_A_SECOND
    )
}

/// `20200101`, `2020-01-01`, with a time behind a space or a T.
fn date_of(text: &str) -> Option<Value> {
    let text = text.trim().trim_end_matches('Z');
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, ""));
    let plain: String = date.chars().filter(char::is_ascii_digit).collect();
    let (year, month, day) = (plain.get(..4)?, plain.get(4..6)?, plain.get(6..8)?);
    let days = days_of(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let mut ticks = 0;
    if !time.is_empty() {
        let (clock, part) = time.split_once('.').unwrap_or((time, ""));
        let mut seconds = 0;
        for field in clock.split(':') {
            seconds = seconds * 60 + field.parse::<u64>().ok()?;
        }
        if clock.split(':').count() == 2 {
            seconds *= 60;
        }
        let part: String = part.chars().chain(std::iter::repeat('0')).take(7).collect();
        ticks = seconds * TICKS_A_SECOND + part.parse::<u64>().ok()?;
    }
    Some(Value::DateTime {
        days: u32::try_from(days).ok()?,
        ticks,
    })
}

/// Seconds since 0001-01-01.
pub(crate) fn seconds(days: u32, ticks: u64) -> i64 {
    i64::from(days) * 86_400 + i64::try_from(ticks / TICKS_A_SECOND).unwrap_or_default()
}

fn guid_of(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32)?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = number.to_be_bytes();
    let mut bytes = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    let (_, tail) = bytes.split_at_mut(8);
    tail.copy_from_slice(&rest);
    Some(bytes)
}
