//! The codec against bytes that others made: worked examples, and what real clients and a real server said.

use super::field::Source;
use super::frame::{self, Frame};
use super::*;
use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const EXAMPLES: &str = include_str!("../../testdata/examples.txt");
const CONVERSATIONS: [&str; 10] = [
    include_str!("../../testdata/conversations/byte_stream.jsonl"),
    include_str!("../../testdata/conversations/config_tags.jsonl"),
    include_str!("../../testdata/conversations/event_sizes.jsonl"),
    include_str!("../../testdata/conversations/large_event.jsonl"),
    include_str!("../../testdata/conversations/reader_handoff.jsonl"),
    include_str!("../../testdata/conversations/seal_and_read.jsonl"),
    include_str!("../../testdata/conversations/stream_cut.jsonl"),
    include_str!("../../testdata/conversations/tail_read.jsonl"),
    include_str!("../../testdata/conversations/transactions.jsonl"),
    include_str!("../../testdata/conversations/write_read.jsonl"),
];
/// Commands that older peers may leave the end out of.
const WITH_TAILS: [&str; 10] = [
    "AppendBlockEnd",
    "ConditionalAppend",
    "CreateSegment",
    "CreateTableSegment",
    "MergeSegments",
    "ReadSegment",
    "ReadTableEntries",
    "ReadTableKeys",
    "RemoveTableKeys",
    "UpdateTableEntries",
];
/// Commands whose last field is whatever is left.
const OPEN_ENDED: [&str; 4] = ["AppendBlock", "Event", "Padding", "PartialEvent"];

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn examples() -> Vec<(&'static str, Bytes)> {
    let lines = EXAMPLES.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, hex)| (name, unhex(hex))).collect()
}

fn decode(frame: &[u8]) -> Result<Command, DecodeError> {
    let mut stream = BytesMut::from(frame);
    let frame = frame::next(&mut stream).unwrap().expect("a whole frame");
    assert!(stream.is_empty());
    Command::decode(frame)
}

fn framed(code: i32, body: &[u8]) -> Bytes {
    let length = i32::try_from(body.len()).unwrap();
    [&code.to_be_bytes(), &length.to_be_bytes(), body].concat().into()
}

/// Encodes what `frame` decodes to: byte-identical, or, where an old peer left the tail out, the same with a tail.
fn assert_round_trip(name: &str, frame: &Bytes) -> bool {
    let command = decode(frame).unwrap_or_else(|error| panic!("{name}: {error}"));
    let again = Bytes::from(&command);
    assert_eq!(again.len(), command.frame_bytes(), "{name}");
    if again == frame {
        return true;
    }
    assert!(WITH_TAILS.contains(&command.name()), "{name}: {command:?}");
    assert!(again[8..].starts_with(&frame[8..]), "{name}");
    assert_eq!(decode(&again).as_ref(), Ok(&command), "{name}");
    false
}

#[test]
fn the_worked_examples_are_decoded_and_encoded_again_byte_by_byte() {
    let examples = examples();
    assert_eq!(examples.len(), 33);
    let mut short = Vec::new();
    for (name, frame) in &examples {
        let command = decode(frame).unwrap();
        assert_eq!(name.split('_').next(), Some(command.name()));
        if !assert_round_trip(name, frame) {
            short.push(*name);
        }
    }
    let of_the_rust_client = [
        "CreateSegment_Rust_form_no_rollover",
        "CreateTableSegment_Rust_form",
        "MergeSegments_Rust_form",
    ];
    assert_eq!(short, of_the_rust_client);
}

#[test]
fn the_examples_say_what_they_are_said_to_say() {
    let examples: BTreeMap<_, _> = examples().into_iter().collect();
    let at = |name: &str| decode(&examples[name]).unwrap();
    let segment = SegmentName::from("s/t/0.#epoch.0");
    let writer_id = WriterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let events = b"\0\0\0\0\0\0\0\x05hello\0\0\0\0\0\0\0\x03hi!";
    let block = AppendBlockEnd {
        writer_id,
        size_of_whole_events: 24,
        data: Bytes::from_static(events),
        num_events: 2,
        last_event_number: 2,
        request_id: 2,
    };
    assert_eq!(at("AppendBlockEnd_2_events"), block.into());
    let append = ConditionalAppend {
        writer_id,
        event_number: 1,
        expected_offset: 0,
        event: Bytes::from_static(&events[..13]),
        request_id: 3,
    };
    assert_eq!(at("ConditionalAppend"), append.into());
    let setup =
        AppendSetup { request_id: 1, segment: segment.clone(), writer_id, last_event_number: NULL };
    assert_eq!(at("AppendSetup_new_writer"), setup.into());
    let create = CreateSegment {
        request_id: 7,
        segment,
        target_rate: 0,
        scale_type: 0,
        token: String::new(),
        rollover_size_bytes: 0,
    };
    assert_eq!(at("CreateSegment_Rust_form_no_rollover"), create.clone().into());
    assert_eq!(at("CreateSegment_Java_form_rollover_0"), create.into());
    let Command::TableRead(read) = at("TableRead_k1_found_v0_zz_missing") else { panic!() };
    let entry = |key: &'static str, version, value: &'static str| TableEntry {
        key: TableKey { key: key.into(), version },
        value: value.into(),
    };
    assert_eq!(read.entries, [entry("k1", 0, "v1"), entry("zz", NOT_EXISTS, "")]);
}

#[test]
fn every_truncated_example_is_incomplete_or_an_error() {
    for (name, frame) in examples() {
        for cut in 0..frame.len() {
            let mut stream = BytesMut::from(&frame[..cut]);
            assert_eq!(frame::next(&mut stream), Ok(None), "{name} cut at {cut}");
        }
        let command = decode(&frame).unwrap();
        for cut in 0..frame.len() - 8 {
            let shorter = framed(command.code(), &frame[8..8 + cut]);
            if let Ok(shorter) = decode(&shorter) {
                let name = shorter.name();
                let may_be_short = WITH_TAILS.contains(&name) || OPEN_ENDED.contains(&name);
                assert!(may_be_short, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn recorded_conversations_are_decoded_and_encoded_again_byte_by_byte() {
    let (mut whole, mut short, mut cut) = (0, BTreeSet::new(), 0);
    for line in CONVERSATIONS.iter().flat_map(|text| text.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["type"].as_str().unwrap();
        let Some(body) = line["body"].as_str() else {
            assert_eq!(name, "closed");
            continue;
        };
        if line.get("cut").is_some() {
            cut += 1;
            continue;
        }
        let mut source = Source(Vec::new());
        let code = samples(&mut source).iter().find(|c| c.name() == name).unwrap().code();
        let frame = framed(code, &unhex(body));
        let command = decode(&frame).unwrap();
        let direction = if line["dir"] == ">" { Direction::Request } else { Direction::Reply };
        assert!([direction, Direction::Both].contains(&command.direction()), "{name}");
        whole += 1;
        if !assert_round_trip(name, &frame) {
            assert_eq!(line["client"], "rust", "{name}");
            short.insert(command.name());
        }
    }
    assert_eq!((whole, cut), (3496, 9));
    let of_the_rust_client = [
        "CreateSegment",
        "CreateTableSegment",
        "MergeSegments",
        "ReadTableEntries",
        "ReadTableKeys",
    ];
    assert!(short.iter().all(|name| of_the_rust_client.contains(name)), "{short:?}");
}

#[test]
fn what_is_behind_the_last_field_is_ignored() {
    for (name, frame) in examples() {
        let command = decode(&frame).unwrap();
        let is_short = Bytes::from(&command) != frame;
        if is_short || OPEN_ENDED.contains(&command.name()) {
            continue;
        }
        let longer = framed(command.code(), &[&frame[8..], &[0xFF; 5]].concat());
        assert_eq!(decode(&longer), Ok(command), "{name}");
    }
}

#[test]
fn lengths_and_counts_beyond_the_body_are_errors_that_name_the_field() {
    let field = |frame: Bytes| match decode(&frame) {
        Err(DecodeError::Field { command, field, fault }) => (command, field, fault),
        other => panic!("{other:?}"),
    };
    let name = [&[0; 8][..], &[0xFF, 0xFF], b"short"].concat();
    let fault = Fault::Truncated { needed: 0xFFFF, left: 5 };
    assert_eq!(field(framed(11, &name)), ("GetStreamSegmentInfo", "segment", fault));
    let list = |count: i32| [&[0; 8][..], &[0, 1, b't', 0, 0], &count.to_be_bytes()].concat();
    let fault = Fault::Truncated { needed: 8000, left: 0 };
    assert_eq!(field(framed(78, &list(1000))), ("ReadTable", "keys", fault));
    assert_eq!(field(framed(78, &list(-1))), ("ReadTable", "keys", Fault::Negative(-1)));
    let block = [&[0; 20][..], &(-5_i32).to_be_bytes()].concat();
    assert_eq!(field(framed(4, &block)), ("AppendBlockEnd", "data", Fault::Negative(-5)));
    let utf8 = [&[0; 8][..], &[0, 2, 0xFF, 0xFE, 0, 0]].concat();
    assert_eq!(field(framed(11, &utf8)), ("GetStreamSegmentInfo", "segment", Fault::Utf8));
    let boolean = [&[0; 8][..], &[0, 1, b't', 7, 0, 0]].concat();
    assert_eq!(field(framed(71, &boolean)).2, Fault::Boolean(7));
    let event = [&[0; 32][..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    assert_eq!(field(framed(5, &event)).2, Fault::NoEvent(1));
    let names = [&[0; 10][..], &70_000_i32.to_be_bytes(), &vec![0; 140_002]].concat();
    assert_eq!(field(framed(90, &names)).2, Fault::TooMany { count: 70_000, limit: 65_536 });
}

#[test]
fn a_blob_is_a_slice_of_what_was_received() {
    let body = Bytes::from([&[0; 16][..], b"data"].concat());
    let (from, to) = (body.as_ptr() as usize, body.as_ptr() as usize + body.len());
    let Ok(Command::AppendBlock(block)) = Command::decode(Frame { code: 3, body: body.clone() })
    else {
        panic!("an AppendBlock")
    };
    assert_eq!(block.data, "data");
    assert!((from..to).contains(&(block.data.as_ptr() as usize)));
}

#[test]
fn long_text_is_cut_at_a_character() {
    let trace = "ä".repeat(40_000);
    let sealed = SegmentIsSealed { request_id: 1, segment: "s".into(), trace, offset: 2 };
    let Ok(Command::SegmentIsSealed(read)) = decode(&Bytes::from(&Command::from(sealed))) else {
        panic!()
    };
    assert_eq!((read.trace.len(), read.offset), (65_534, 2));
}

proptest! {
    #[test]
    fn every_command_survives_the_wire_in_any_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        piece in 1_usize..3000,
    ) {
        let commands = samples(&mut Source(bytes));
        let mut encoder = Encoder::new();
        for command in &commands {
            encoder.push(command);
        }
        let sent = encoder.take().concat();
        let (mut stream, mut received) = (BytesMut::new(), Vec::new());
        for piece in sent.chunks(piece) {
            stream.extend_from_slice(piece);
            while let Some(frame) = frame::next(&mut stream).unwrap() {
                received.push(Command::decode(frame).unwrap());
            }
        }
        prop_assert!(stream.is_empty());
        prop_assert_eq!(received, commands);
    }

    #[test]
    fn any_body_is_a_command_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        flip in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        for command in samples(&mut Source(bytes)) {
            let _ = Command::decode(Frame { code: command.code(), body: body.clone().into() });
            let mut frame = Bytes::from(&command).to_vec();
            if frame.len() > 8 {
                let at = 8 + at.index(frame.len() - 8);
                frame[at] ^= flip;
                let _ = decode(&frame);
            }
        }
    }
}
