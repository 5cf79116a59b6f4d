//! Values of every TDS data type, made by hand, and result sets of them.

#![expect(clippy::unwrap_used, reason = "a value that cannot be made fails the test")]

use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::reply;

/// A type that the writers lack: its description, values without NULL, NULL.
pub(crate) struct Handmade {
    described: Vec<u8>,
    pub(crate) values: Vec<Vec<u8>>,
    null: Option<Vec<u8>>,
    /// Does the other codec know it?
    pub(crate) is_common: bool,
}

const COLLATION: [u8; 5] = reply::COLLATION;

fn with_length(value: &[u8]) -> Vec<u8> {
    [&[u8::try_from(value.len()).unwrap()], value].concat()
}

fn with_short_length(value: &[u8]) -> Vec<u8> {
    [&u16::try_from(value.len()).unwrap().to_le_bytes(), value].concat()
}

pub(crate) fn with_long_length(value: &[u8]) -> Vec<u8> {
    [&u32::try_from(value.len()).unwrap().to_le_bytes(), value].concat()
}

/// Chunks of three bytes, behind the sum of their lengths or behind "unknown".
fn chunked(value: &[u8], is_known: bool) -> Vec<u8> {
    let mut out = vec![];
    reply::put_chunked(&mut out, value, 3);
    if !is_known {
        out.splice(..8, (u64::MAX - 1).to_le_bytes());
    }
    out
}

fn behind_text_pointer(value: &[u8]) -> Vec<u8> {
    [&[16; 17][..], &[0; 8], &with_long_length(value)].concat()
}

/// A type with these descriptions and values, and this NULL.
fn handmade(described: &[u8], values: Vec<Vec<u8>>, null: Option<&[u8]>) -> Handmade {
    // JSON and VECTOR are younger than the other codec.
    let is_common = !matches!(described.first(), Some(0xF4 | 0xF5));
    Handmade {
        described: described.to_vec(),
        values,
        null: null.map(<[u8]>::to_vec),
        is_common,
    }
}

pub(crate) fn all_types() -> Vec<Handmade> {
    [of_one_length(), of_short_length(), of_any_length(), with_names()]
        .into_iter()
        .flatten()
        .collect()
}

/// Without NULL.
fn of_one_length() -> Vec<Handmade> {
    const TYPES: [(u8, usize); 12] = [
        (0x30, 1),
        (0x32, 1),
        (0x34, 2),
        (0x38, 4),
        (0x3A, 4),
        (0x3B, 4),
        (0x3C, 8),
        (0x3D, 8),
        (0x3E, 8),
        (0x7A, 4),
        (0x7F, 8),
        (0x1F, 0),
    ];
    let of = |(id, bytes)| handmade(&[id], vec![vec![id; bytes]], None);
    TYPES.into_iter().map(of).collect()
}

/// With one byte of length.
fn of_short_length() -> Vec<Handmade> {
    const TYPES: [(u8, &[usize]); 13] = [
        (0x24, &[16]),
        (0x26, &[1, 2, 4, 8]),
        (0x68, &[1]),
        (0x6D, &[4, 8]),
        (0x6E, &[4, 8]),
        (0x6F, &[4, 8]),
        (0x29, &[3, 4, 5]),
        (0x2A, &[6, 7, 8]),
        (0x2B, &[8, 9, 10]),
        (0x25, &[1, 200]),
        (0x27, &[1, 200]),
        (0x2D, &[1, 200]),
        (0x2F, &[1, 200]),
    ];
    let of = |(id, lengths): (u8, &[usize])| {
        let values = lengths.iter().map(|length| with_length(&vec![id; *length]));
        handmade(&[id, 8], values.collect(), Some(&[0]))
    };
    let decimal = |id| {
        let values = [5, 9, 13, 17].map(|length| with_length(&vec![1; length]));
        handmade(&[id, 17, 38, 4], values.to_vec(), Some(&[0]))
    };
    let date = handmade(&[0x28], vec![with_length(&[1, 2, 3])], Some(&[0]));
    let decimals = [0x37, 0x3F, 0x6A, 0x6C].into_iter().map(decimal);
    TYPES.into_iter().map(of).chain(decimals).chain([date]).collect()
}

/// With two or four bytes of length, or in chunks.
fn of_any_length() -> Vec<Handmade> {
    let collated = |described: &[u8]| [described, &COLLATION].concat();
    let shorts = || {
        [0, 1, 7000]
            .map(|length| with_short_length(&vec![b'x'; length]))
            .to_vec()
    };
    let short_null = Some(&[0xFF; 2][..]);
    let mut types = vec![];
    for id in [0xA7, 0xAF, 0xE7, 0xEF] {
        types.push(handmade(&collated(&[id, 0x40, 0x1F]), shorts(), short_null));
    }
    for id in [0xA5, 0xAD] {
        types.push(handmade(&[id, 0x40, 0x1F], shorts(), short_null));
    }
    for id in [0xA7, 0xE7] {
        types.push(handmade(&collated(&[id, 0xFF, 0xFF]), chunks(), CHUNKS_NULL));
    }
    types.push(handmade(&[0xA5, 0xFF, 0xFF], chunks(), CHUNKS_NULL));
    types.push(handmade(&[0xF4], chunks(), CHUNKS_NULL));
    let vector = with_short_length(&[7; 20]);
    types.push(handmade(&[0xF5, 20, 0, 0], vec![vector], short_null));
    let variants = [
        &[0x38, 0, 1, 2, 3, 4][..],
        &[0xE7, 7, 9, 4, 0xD0, 0, 0x34, 20, 0, b'a', 0],
    ];
    let variants = variants.map(with_long_length).to_vec();
    types.push(handmade(&[0x62, 0x49, 0x1F, 0, 0], variants, Some(&[0; 4])));
    types
}

/// Whose descriptions name something: a collection of XML schemas, a CLR type and its assembly, the table of a
/// text, in two parts, none and one.
fn with_names() -> Vec<Handmade> {
    let longs = || [behind_text_pointer(b""), behind_text_pointer(&[b'l'; 3000])].to_vec();
    let xml = [0xF1, 1, 1, b'd', 0, 1, b's', 0, 2, 0, b'x', 0, b'y', 0];
    let clr = [0xF0, 9, 0, 1, b'd', 0, 1, b's', 0, 1, b't', 0, 1, 0, b'a', 0];
    let text = [
        &[0x23, 255, 255, 0, 0],
        &COLLATION[..],
        &[2, 1, 0, b'd', 0, 1, 0, b't', 0],
    ]
    .concat();
    let ntext = [&[0x63, 255, 255, 0, 0], &COLLATION[..], &[0]].concat();
    vec![
        handmade(&[0xF1, 0], chunks(), CHUNKS_NULL),
        handmade(&xml, chunks(), CHUNKS_NULL),
        handmade(&clr, chunks(), CHUNKS_NULL),
        handmade(&text, longs(), Some(&[0])),
        handmade(&ntext, longs(), Some(&[0])),
        handmade(&[0x22, 255, 255, 0, 0, 1, 1, 0, b't', 0], longs(), Some(&[0])),
    ]
}

const CHUNKS_NULL: Option<&[u8]> = Some(&[0xFF; 8]);

fn chunks() -> Vec<Vec<u8>> {
    vec![
        chunked(b"", true),
        chunked(b"abcdefg", true),
        chunked(b"abcdefg", false),
    ]
}

/// A result set of these types; every row picks values, `None` is NULL where the type has one.
pub(crate) fn put_result(
    out: &mut Vec<u8>,
    types: &[&Handmade],
    rows: &[Vec<Option<usize>>],
    is_compact: bool,
) {
    out.push(0x81);
    out.extend(u16::try_from(types.len()).unwrap().to_le_bytes());
    for handmade in types {
        out.extend([0, 0, 0, 0, 9, 0]);
        out.extend(&handmade.described);
        out.extend([1, b'c', 0]);
    }
    for row in rows {
        let picked: Vec<_> = types.iter().zip(row.iter().cycle()).collect();
        let is_null =
            |(handmade, pick): &(&&Handmade, &Option<usize>)| pick.is_none() && handmade.null.is_some();
        out.push(if is_compact { 0xD2 } else { 0xD1 });
        if is_compact {
            let mut nulls = vec![0_u8; types.len().div_ceil(8)];
            for (index, pick) in picked.iter().enumerate() {
                *nulls.get_mut(index / 8).unwrap() |= u8::from(is_null(pick)) << (index % 8);
            }
            out.extend(nulls);
        }
        for pick in picked {
            let (handmade, index) = pick;
            match &handmade.null {
                Some(_) if is_null(&pick) && is_compact => {}
                Some(null) if is_null(&pick) => out.extend(null),
                _ => out.extend(
                    handmade
                        .values
                        .iter()
                        .cycle()
                        .nth(index.unwrap_or_default())
                        .unwrap(),
                ),
            }
        }
    }
    let count = rows.len() as u64;
    reply::put_done(
        out,
        DoneKind::Batch,
        DoneStatus::COUNT.and(DoneStatus::MORE),
        0xC1,
        count,
    );
}
