//! PRELOGIN and LOGIN7 as a stranger may send them.

#![no_main]

use gatepost::wire::tds::login7::{self, Login7};
use gatepost::wire::tds::prelogin::Prelogin;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    let _ = login7::version(payload);
    if let Ok(prelogin) = Prelogin::decode(payload) {
        prelogin.put(&mut Vec::new());
    }
    let Ok(login) = Login7::decode(payload) else {
        return;
    };
    let _ = login.objection();
    let mut written = Vec::new();
    if login.put(&mut written).is_ok() {
        assert!(Login7::decode(&written).is_ok(), "what we write can be read");
    }
});
