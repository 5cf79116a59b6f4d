//! Values of SQL Server's types (2.2.5.5), told as text.

use crate::wire::cursor::Cursor;
use crate::wire::pg::calendar::day;
use crate::wire::pg::value::{hex, shortest, shortest_single};
use crate::wire::tds::data_type::{self, id};
use crate::wire::tds::utf16::Utf16;

/// Days from 1 January of the year 1, and of 1900, to that of 2000.
const YEAR_1_TO_2000: i64 = 730_119;
const YEAR_1900_TO_2000: i64 = 36_524;
/// Ticks of `datetime` in a second.
const DATETIME_TICKS: u64 = 300;
/// Digits behind the point in `money`.
const MONEY_SCALE: usize = 4;
/// The most digits of a second that a type can have.
const SECOND_SCALE_MAX: u8 = 7;
const SECONDS_IN_DAY: i64 = 86_400;

/// `described` is what stands between the type's id and its value's length. None where the value is not told.
pub(super) fn text(id: u8, described: &[u8], value: &[u8]) -> Option<String> {
    let scale = described.last().copied().unwrap_or_default();
    match id {
        id::INT1 | id::INT2 | id::INT4 | id::INT8 | id::INT_N => {
            data_type::integer(value).map(|it| it.to_string())
        }
        id::BIT | id::BIT_N => data_type::integer(value).map(|it| i64::from(it != 0).to_string()),
        id::NVARCHAR | id::NCHAR | id::NTEXT | id::XML => Utf16::new(value).decoded(),
        // In a code page that is not known here.
        id::VARCHAR | id::CHAR | id::TEXT | id::VARCHAR_OLD | id::CHAR_OLD if !value.is_ascii() => None,
        id::VARCHAR | id::CHAR | id::TEXT | id::VARCHAR_OLD | id::CHAR_OLD | id::JSON => {
            std::str::from_utf8(value).ok().map(str::to_owned)
        }
        id::GUID => guid(value),
        id::FLOAT4 | id::FLOAT8 | id::FLOAT_N => match value.len() {
            4 => Some(shortest_single(f32::from_le_bytes(value.try_into().ok()?))),
            _ => Some(shortest(f64::from_le_bytes(value.try_into().ok()?))),
        },
        id::MONEY | id::MONEY4 | id::MONEY_N => money(value),
        id::DECIMAL_OLD | id::NUMERIC_OLD | id::DECIMAL_N | id::NUMERIC_N => decimal(value, scale),
        id::DATE => Some(day(days(value)? - YEAR_1_TO_2000)),
        id::TIME => {
            let (seconds, fraction) = time(value, scale)?;
            Some(clock(seconds, &fraction))
        }
        id::DATETIME2 => moment(value, scale, 0),
        id::DATETIMEOFFSET => {
            let (moment_of, offset) = value.split_at_checked(value.len().checked_sub(2)?)?;
            let minutes = i16::from_le_bytes(offset.try_into().ok()?);
            let sign = if minutes < 0 { '-' } else { '+' };
            let (hours, left) = (minutes.unsigned_abs() / 60, minutes.unsigned_abs() % 60);
            let local = moment(moment_of, scale, i64::from(minutes) * 60)?;
            Some(format!("{local} {sign}{hours:02}:{left:02}"))
        }
        id::DATETIME | id::DATETIME4 | id::DATETIME_N => old_moment(value),
        id::VARBINARY | id::BINARY | id::IMAGE | id::VARBINARY_OLD | id::BINARY_OLD => {
            Some(format!("0x{}", hex(value).to_ascii_uppercase()))
        }
        // It brings its own type, and what describes it.
        id::VARIANT => match value {
            [id, count, rest @ ..] if *id != id::VARIANT => {
                let (described, value) = rest.split_at_checked(usize::from(*count))?;
                text(*id, described, value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The first three groups are numbers, little endian.
fn guid(value: &[u8]) -> Option<String> {
    let [a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16] = value.try_into().ok()?;
    let first = hex(&[d, c, b, a, f, e, h, g]);
    let mut text = format!("{first}{}", hex(&rest)).to_ascii_uppercase();
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Some(text)
}

/// Eight bytes are two numbers, the higher one first.
fn money(value: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new("money", value);
    let amount = match value.len() {
        4 => i64::from(cursor.i32_le().ok()?),
        8 => i64::from(cursor.i32_le().ok()?) << 32 | i64::from(cursor.u32_le().ok()?),
        _ => return None,
    };
    Some(pointed(
        u128::from(amount.unsigned_abs()),
        amount < 0,
        MONEY_SCALE,
    ))
}

/// A sign (1 is plus), and a number, little endian.
fn decimal(value: &[u8], scale: u8) -> Option<String> {
    let (sign, digits) = value.split_first()?;
    if digits.len() > 16 {
        return None;
    }
    let number = digits
        .iter()
        .rev()
        .fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    Some(pointed(number, *sign == 0, usize::from(scale)))
}

fn pointed(number: u128, is_negative: bool, scale: usize) -> String {
    let mut text = format!("{number:0width$}", width = scale + 1);
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    if is_negative && number > 0 {
        text.insert(0, '-');
    }
    text
}

fn little(value: &[u8]) -> u64 {
    value
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn days(value: &[u8]) -> Option<i64> {
    (value.len() == 3).then(|| i64::try_from(little(value)).ok())?
}

/// Seconds of the day, and the digits behind the point.
fn time(value: &[u8], scale: u8) -> Option<(i64, String)> {
    if scale > SECOND_SCALE_MAX || value.len() > 5 {
        return None;
    }
    let ticks = 10_u64.pow(u32::from(scale));
    let count = little(value);
    let fraction = match scale {
        0 => String::new(),
        scale => format!(".{:0width$}", count % ticks, width = usize::from(scale)),
    };
    Some((i64::try_from(count / ticks).ok()?, fraction))
}

fn clock(seconds: i64, fraction: &str) -> String {
    let (hours, minutes, left) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{left:02}{fraction}")
}

/// A time of day and a day, `ahead` by so many seconds.
fn moment(value: &[u8], scale: u8, ahead: i64) -> Option<String> {
    let (time_of, day_of) = value.split_at_checked(value.len().checked_sub(3)?)?;
    let (seconds, fraction) = time(time_of, scale)?;
    let seconds = (days(day_of)? - YEAR_1_TO_2000) * SECONDS_IN_DAY + seconds + ahead;
    let date = day(seconds.div_euclid(SECONDS_IN_DAY));
    Some(format!(
        "{date} {}",
        clock(seconds.rem_euclid(SECONDS_IN_DAY), &fraction)
    ))
}

/// Days since 1900, and minutes or ticks.
fn old_moment(value: &[u8]) -> Option<String> {
    let (days, seconds, fraction) = match value.len() {
        4 => {
            let (days, minutes) = value.split_at_checked(2)?;
            (little(days).cast_signed(), little(minutes) * 60, String::new())
        }
        8 => {
            let (days, ticks) = value.split_at_checked(4)?;
            let ticks = little(ticks);
            let milliseconds = (ticks % DATETIME_TICKS * 1_000 + DATETIME_TICKS / 2) / DATETIME_TICKS;
            let days = i64::from(i32::from_le_bytes(days.try_into().ok()?));
            (days, ticks / DATETIME_TICKS, format!(".{milliseconds:03}"))
        }
        _ => return None,
    };
    let date = day(days - YEAR_1900_TO_2000);
    Some(format!("{date} {}", clock(seconds.cast_signed(), &fraction)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_read_as_the_server_writes_them() {
        let guid: Vec<u8> = (0..16).collect();
        let table: [(u8, &[u8], &[u8], &str); 17] = [
            (id::INT_N, &[4], &[0xfe, 0xff, 0xff, 0xff], "-2"),
            (id::BIT_N, &[1], &[1], "1"),
            (id::NVARCHAR, &[], &[0xe9, 0, b'a', 0], "éa"),
            (id::VARCHAR, &[], b"abc", "abc"),
            (id::VARCHAR, &[], &[0xe9], "none"),
            (id::GUID, &[16], &guid, "03020100-0504-0706-0809-0A0B0C0D0E0F"),
            (id::FLOAT_N, &[8], &1.5_f64.to_le_bytes(), "1.5"),
            (
                id::MONEY_N,
                &[8],
                &[0xff, 0xff, 0xff, 0xff, 0xc8, 0xcf, 0xff, 0xff],
                "-1.2344",
            ),
            (id::DECIMAL_N, &[17, 38, 2], &[1, 0xd2, 4], "12.34"),
            (id::DECIMAL_N, &[17, 38, 3], &[0, 5], "-0.005"),
            (id::DATE, &[], &[0x07, 0x24, 0x0b], "2000-01-01"),
            (id::TIME, &[3], &[0x0d, 0x04, 0x00, 0x00], "00:00:01.037"),
            (
                id::DATETIME2,
                &[0],
                &[0x3c, 0, 0, 0x07, 0x24, 0x0b],
                "2000-01-01 00:01:00",
            ),
            (
                id::DATETIMEOFFSET,
                &[0],
                &[0x3c, 0, 0, 0x07, 0x24, 0x0b, 0xc4, 0xff],
                "1999-12-31 23:01:00 -01:00",
            ),
            (
                id::DATETIME_N,
                &[8],
                &[0, 0, 0, 0, 0x2d, 1, 0, 0],
                "1900-01-01 00:00:01.003",
            ),
            (id::VARBINARY, &[], &[0, 0xab], "0x00AB"),
            (id::VARIANT, &[], &[id::INT4, 0, 7, 0, 0, 0], "7"),
        ];
        for (id, described, value, expected) in table {
            let told = text(id, described, value).unwrap_or_else(|| "none".to_owned());
            assert_eq!(told, expected, "type {id:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_or_not(
            id: u8,
            described in proptest::collection::vec(any::<u8>(), 0..4),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = text(id, &described, &value);
        }
    }
}
