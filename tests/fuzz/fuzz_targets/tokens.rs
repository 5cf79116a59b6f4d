//! A server's reply, whole and in pieces: both must tell the same. The first byte is the size of the pieces.

#![no_main]

use gatepost::wire::tds::rows::first_row;
use gatepost::wire::tds::token::{End, Reader};

/// What was told, how it ended, and whether it could be read.
fn told(payload: &[u8], piece: usize) -> (Vec<String>, End, bool) {
    let (mut reader, mut told, mut is_read) = (Reader::default(), Vec::new(), true);
    for piece in payload.chunks(piece.max(1)) {
        is_read = reader
            .read(piece, &mut |event| told.push(format!("{event:?}")))
            .is_ok();
        if !is_read {
            break;
        }
    }
    let end = reader.end();
    (told, end, is_read)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((piece, payload)) = input.split_first() else {
        return;
    };
    let whole = told(payload, usize::MAX);
    let pieces = told(payload, usize::from(*piece));
    assert_eq!((&whole.0, whole.2), (&pieces.0, pieces.2));
    assert!(whole.1 == pieces.1 || !whole.2);
    let _ = first_row(payload);
});
