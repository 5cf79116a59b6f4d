//! A client's requests, whole and cut. The first byte says of which kind.

#![no_main]

use gatepost::wire::Decoded;
use gatepost::wire::tds::request::{self, Request, Seen, kind};

const KINDS: [u8; 4] = [kind::BATCH, kind::RPC, kind::BULK, kind::TRANSACTION];

/// Everything that is looked at afterwards.
fn look(request: &Request<'_>) {
    match request {
        Request::Batch(batch) => drop(batch.text.decoded()),
        Request::Rpc(calls) => {
            for call in &calls.calls {
                let _ = (call.handle(), call.parameter("@key", 0).is_some());
                let _ = call.statement().and_then(|it| it.value.text());
            }
        }
        Request::Transaction(..) | Request::Bulk => {}
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, payload)) = input.split_first() else {
        return;
    };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    for seen in [Seen::Whole(payload), Seen::Head(payload)] {
        match request::read(kind, seen) {
            Ok(Decoded::Message(request)) => look(&request),
            Ok(Decoded::NeedMore { at_least }) => assert!(at_least > payload.len()),
            Err(_) => {}
        }
    }
});
