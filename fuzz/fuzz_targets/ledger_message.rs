//! Any bytes on a connection between owners and replicas: messages or an error; what was decoded survives the way out
//! and back.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use thalweg_wire::ledger::{Outgoing, missing, next};

fuzz_target!(|data: &[u8]| {
    let mut stream = BytesMut::from(data);
    while let Ok(Some(message)) = next(&mut stream) {
        let mut out = Outgoing::default();
        out.push(message.clone()).expect("what was received can be sent");
        let mut again = BytesMut::from(&out.take().concat()[..]);
        assert_eq!(next(&mut again), Ok(Some(message)));
        assert!(again.is_empty());
    }
    let _ = missing(&stream);
});
