//! Values in PostgreSQL's binary format, told as the server itself writes them as text: what a client that
//! sends text would have sent.
//!
//! Formats as in the `…_send` functions of the types; a value that is not of the form that its type has is
//! not told.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::calendar::{date, moment};

/// Numbers of types that came with the server (`pg_type.dat`).
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// Digits of a numeric that are written out: ten bytes can stand for 131,072.
const NUMERIC_DIGITS_MAX: usize = 1_024;
/// A numeric's digits come in fours.
const NUMERIC_GROUP: i32 = 4;

/// From this exponent on a float is written with one: as many digits as the type always keeps.
const FLOAT4_EXPONENT: i32 = 6;
const FLOAT8_EXPONENT: i32 = 15;
const FLOAT_EXPONENT_MIN: i32 = -4;

/// The text of a value of this type; none if the type is another one, or the value not of its form.
pub fn text(oid: u32, value: &[u8]) -> Option<Cow<'_, str>> {
    let whole = |number: Option<i64>| number.map(|number| number.to_string());
    let written = match oid {
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON | oid::XML | oid::UNKNOWN => {
            return std::str::from_utf8(value).ok().map(Cow::Borrowed);
        }
        // The version of the format stands before it.
        oid::JSONB => {
            let text = value.strip_prefix(&[1])?;
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        oid::BOOL => match value {
            [0] => return Some(Cow::Borrowed("f")),
            [1] => return Some(Cow::Borrowed("t")),
            _ => None,
        },
        oid::INT2 => whole(array(value).map(|it| i64::from(i16::from_be_bytes(it)))),
        oid::INT4 => whole(array(value).map(|it| i64::from(i32::from_be_bytes(it)))),
        oid::INT8 => whole(array(value).map(i64::from_be_bytes)),
        oid::OID => whole(array(value).map(|it| i64::from(u32::from_be_bytes(it)))),
        oid::FLOAT4 => array(value).map(f32::from_be_bytes).map(shortest_single),
        oid::FLOAT8 => array(value).map(f64::from_be_bytes).map(shortest),
        oid::UUID => array(value).map(uuid),
        oid::BYTEA => Some(format!("\\x{}", hex(value))),
        oid::DATE => array(value).map(i32::from_be_bytes).and_then(date),
        oid::TIMESTAMP => array(value).map(i64::from_be_bytes).and_then(|it| moment(it, "")),
        oid::TIMESTAMPTZ => array(value)
            .map(i64::from_be_bytes)
            .and_then(|it| moment(it, "+00")),
        oid::NUMERIC => numeric(value),
        _ => None,
    };
    written.map(Cow::Owned)
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// Lower case.
pub fn hex(value: &[u8]) -> String {
    value
        .iter()
        .fold(String::with_capacity(2 * value.len()), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = hex(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// The shortest text that reads back as the same number.
pub(in crate::wire) fn shortest(number: f64) -> String {
    float(&format!("{number:e}"), FLOAT8_EXPONENT)
}

pub(in crate::wire) fn shortest_single(number: f32) -> String {
    float(&format!("{number:e}"), FLOAT4_EXPONENT)
}

/// `shortest` is the fewest digits that tell the number from its neighbours, as `1.5e0`.
fn float(shortest: &str, exponent_from: i32) -> String {
    let Some((digits, exponent)) = shortest.split_once('e') else {
        return match shortest {
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            other => other.to_owned(),
        };
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(FLOAT_EXPONENT_MIN..exponent_from).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let digits = digits.replace('.', "");
    let Ok(before) = usize::try_from(exponent) else {
        let zeros = usize::try_from(-exponent - 1).unwrap_or_default();
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    };
    match digits.split_at_checked(before + 1) {
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{digits:0<width$}", width = before + 1),
    }
}

/// Groups of four digits, of which the first stands for this power of 10,000, and so many digits of fraction.
fn numeric(value: &[u8]) -> Option<String> {
    const NEGATIVE: u16 = 0x4000;
    const NAN: u16 = 0xC000;
    const INFINITY: u16 = 0xD000;
    const MINUS_INFINITY: u16 = 0xF000;
    let read = |value| -> Result<(Vec<u16>, i16, u16, u16), PeerMisbehaved> {
        let mut cursor = Cursor::new("numeric", value);
        let count = cursor.u16()?;
        let (weight, sign, scale) = (cursor.i16()?, cursor.u16()?, cursor.u16()?);
        let groups = (0..count).map(|_| cursor.u16()).collect::<Result<_, _>>()?;
        cursor.finish()?;
        Ok((groups, weight, sign, scale))
    };
    let (groups, weight, sign, scale) = read(value).ok()?;
    let sign = match sign {
        0 => "",
        NEGATIVE => "-",
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        MINUS_INFINITY => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    let (weight, scale) = (i32::from(weight), usize::from(scale));
    let whole = usize::try_from((weight + 1) * NUMERIC_GROUP).unwrap_or_default();
    if whole + scale > NUMERIC_DIGITS_MAX || groups.iter().any(|group| *group > 9_999) {
        return None;
    }
    let group = |power: i32| {
        let at = usize::try_from(weight - power).ok();
        let group = at.and_then(|at| groups.get(at)).copied().unwrap_or_default();
        format!("{group:04}")
    };
    let written: String = (0..=weight).rev().map(group).collect();
    let written = written.trim_start_matches('0');
    let written = if written.is_empty() { "0" } else { written };
    if scale == 0 {
        return Some(format!("{sign}{written}"));
    }
    let last = -i32::try_from(scale.div_ceil(4)).ok()?;
    let mut fraction: String = (last..0).rev().map(group).collect();
    fraction.truncate(scale);
    Some(format!("{sign}{written}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(oid: u32, value: &[u8]) -> String {
        text(oid, value).map_or_else(|| "none".to_owned(), Cow::into_owned)
    }

    #[test]
    fn values_read_as_the_server_writes_them() {
        // As `SELECT …::text` of PostgreSQL 15 answers, with DateStyle ISO and the time zone UTC.
        let table: [(u32, &[u8], &str); 20] = [
            (oid::BOOL, &[1], "t"),
            (oid::INT2, &[0xff, 0xfe], "-2"),
            (oid::INT4, &[0, 0, 0, 42], "42"),
            (oid::INT8, &[0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
            (oid::OID, &[0xff, 0xff, 0xff, 0xff], "4294967295"),
            (oid::TEXT, "é".as_bytes(), "é"),
            (oid::BYTEA, &[0, 0xab], "\\x00ab"),
            (oid::JSONB, b"\x01{\"a\": 1}", "{\"a\": 1}"),
            (
                oid::NUMERIC,
                &[0, 2, 0, 0, 0x40, 0, 0, 2, 0, 12, 0x0d, 0x48],
                "-12.34",
            ),
            (oid::NUMERIC, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 5], "50000"),
            (oid::NUMERIC, &[0, 0, 0, 0, 0, 0, 0, 3], "0.000"),
            (oid::NUMERIC, &[0, 1, 0xff, 0xfe, 0, 0, 0, 7, 0, 12], "0.0000001"),
            (oid::NUMERIC, &[0, 0, 0, 0, 0xc0, 0, 0, 0], "NaN"),
            (oid::DATE, &[0, 0, 0x25, 0x91], "2026-05-01"),
            (oid::DATE, &[0x7f, 0xff, 0xff, 0xff], "infinity"),
            (oid::TIMESTAMP, &[0; 8], "2000-01-01 00:00:00"),
            (oid::TIMESTAMPTZ, &[0xff; 8], "1999-12-31 23:59:59.999999+00"),
            // Not of the form of the type, or of a type that is not known.
            (oid::INT4, &[1], "none"),
            (oid::NUMERIC, &[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1], "none"),
            (600, &[0; 16], "none"),
        ];
        for (oid, value, expected) in table {
            assert_eq!(told(oid, value), expected, "type {oid}");
        }
        let uuid = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128;
        assert_eq!(
            told(oid::UUID, &uuid.to_be_bytes()),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
    }

    #[test]
    fn floats_read_as_the_server_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-12.25, "-12.25"),
            (100.0, "100"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.25e-100, "1.25e-100"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(told(oid::FLOAT8, &number.to_be_bytes()), expected);
        }
        for (number, expected) in [
            (0.1_f32, "0.1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
        ] {
            assert_eq!(told(oid::FLOAT4, &number.to_be_bytes()), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_told_in_bounds(oid in 0_u32..4000, value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let length = text(oid, &value).map_or(0, |text| text.len());
            prop_assert!(length <= 2 * NUMERIC_DIGITS_MAX);
        }

        #[test]
        fn floats_keep_their_value(number: f64) {
            prop_assume!(number.is_finite());
            prop_assert_eq!(told(oid::FLOAT8, &number.to_be_bytes()).parse(), Ok(number));
        }
    }
}
