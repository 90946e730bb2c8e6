//! Any bytes on a segment-store connection: frames and commands, or an error; what was decoded survives the way out
//! and back.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use thalweg_wire::segment::{Command, frame};

fuzz_target!(|data: &[u8]| {
    let mut stream = BytesMut::from(data);
    while let Ok(Some(frame)) = frame::next(&mut stream) {
        let Ok(command) = Command::decode(frame) else { continue };
        let mut again = BytesMut::from(&Bytes::from(&command)[..]);
        let frame = frame::next(&mut again).expect("a frame of ours").expect("a whole one");
        assert_eq!(Command::decode(frame), Ok(command));
    }
});
