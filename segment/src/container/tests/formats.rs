use crate::container::extents::{Extent, Extents};
use crate::container::format::{
    Change, Headers, Kind, Operation, Policy, SegmentKey, Source, decode_headers,
};
use crate::container::snapshot;
use crate::container::state::{At, State};
use bytes::Bytes;
use proptest::prelude::*;
use std::fmt::Write as _;
use thalweg_types::id::{Address, EntryId, Epoch, WriterId};

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        text
    })
}

/// One operation of every kind, with every optional part.
fn operations() -> Vec<Operation> {
    let key = SegmentKey;
    let change = Change::of_writer(WriterId(0xABCD), i64::MIN, 7);
    let policy = Policy { scale_type: 2, target_rate: 100 };
    let stream = Kind::Stream { policy, rollover_bytes: 4096 };
    vec![
        Operation::OwnerStart { epoch: Epoch(3) },
        Operation::NoOp,
        Operation::Create { segment: key(0), name: "s/t/0.#epoch.0".into(), kind: stream },
        Operation::Create {
            segment: key(1),
            name: "s/g_kvtable/0.#epoch.0".into(),
            kind: Kind::Table { key_length: 16 },
        },
        Operation::Append { segment: key(0), offset: 0, len: 5, events: 1, writer: None },
        Operation::Append { segment: key(0), offset: 5, len: 9, events: 3, writer: Some(change) },
        Operation::Attribute { segment: key(0), change },
        Operation::SetPolicy { segment: key(0), policy },
        Operation::Seal { segment: key(0) },
        Operation::Truncate { segment: key(0), start: 4 },
        Operation::Delete { segment: key(0) },
        Operation::Merge {
            target: key(0),
            offset: 14,
            sources: vec![Source { segment: key(2), length: 11 }],
            changes: vec![change],
        },
        Operation::Rows { segment: key(1), offset: 0, len: 2, header: Bytes::from_static(b"rows") },
        Operation::Snapshot { len: 100 },
    ]
}

fn encode(operations: &[Operation]) -> Bytes {
    let mut headers = Headers::new(1_700_000_000_000);
    for operation in operations {
        headers.push(operation);
    }
    headers.finish()
}

#[test]
fn operations_in_the_log_are_laid_out_as_ever() {
    let golden = include_str!("../../../testdata/entry-headers.hex");
    assert_eq!(hex(&encode(&operations())), golden);
}

#[test]
fn every_operation_is_read_back() {
    let (wall, read) = decode_headers(encode(&operations())).unwrap();
    assert_eq!((wall, read), (1_700_000_000_000, operations()));
}

#[test]
fn headers_cut_anywhere_are_refused() {
    let bytes = encode(&operations());
    for cut in 0..bytes.len() {
        assert!(decode_headers(bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_it_is_allocated() {
    let mut bytes = encode(&[]).to_vec();
    bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode_headers(bytes.into()).is_err());
}

fn state() -> State {
    let mut state = State::default();
    let mut position = 0;
    let address = Address::new(Epoch(3), EntryId(9));
    let all = operations();
    let second = Operation::Create {
        segment: SegmentKey(2),
        name: "s/t/0.#epoch.0#transaction.00".into(),
        kind: Kind::Stream { policy: Policy::default(), rollover_bytes: 0 },
    };
    let into =
        Operation::Append { segment: SegmentKey(2), offset: 0, len: 11, events: 1, writer: None };
    let merge = Operation::Merge {
        target: SegmentKey(0),
        offset: 14,
        sources: vec![Source { segment: SegmentKey(2), length: 11 }],
        changes: Vec::new(),
    };
    let seal = Operation::Seal { segment: SegmentKey(0) };
    for operation in all[..6].iter().chain([&second, &into, &merge, &all[9], &seal]) {
        state.apply(operation, At { address, position, wall: 1000 }).unwrap();
        position += operation.payload_len();
    }
    state.verify().unwrap();
    state
}

#[test]
fn a_snapshot_is_laid_out_as_ever() {
    let golden = include_str!("../../../testdata/snapshot.hex");
    let parts = snapshot::encode(&state(), Some(Address::new(Epoch(3), EntryId(9))));
    assert_eq!(parts.len(), 1);
    assert_eq!(hex(&parts[0]), golden);
}

#[test]
fn a_snapshot_gives_the_state_back() {
    let state = state();
    let bytes = snapshot::encode_state(&state).freeze();
    let read = snapshot::decode_state(bytes.clone()).unwrap();
    read.verify().unwrap();
    assert_eq!(snapshot::encode_state(&read), bytes);
    assert_eq!(read.names, state.names);
    assert_eq!(read.merged, state.merged);
}

#[test]
fn a_snapshot_with_one_flipped_bit_is_refused() {
    let part = snapshot::encode(&state(), None).remove(0);
    for bit in 0..part.len() * 8 {
        let mut bytes = part.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(snapshot::decode_part(&bytes.into()).is_err(), "bit {bit}");
    }
}

fn an_operation() -> impl Strategy<Value = Operation> {
    let key = || any::<u64>().prop_map(SegmentKey);
    let change = || {
        (any::<u128>(), any::<i64>(), any::<i64>()).prop_map(|(attribute, from, to)| Change {
            attribute,
            from,
            to,
        })
    };
    let policy = || {
        (any::<i8>(), any::<i32>())
            .prop_map(|(scale_type, target_rate)| Policy { scale_type, target_rate })
    };
    let source = (key(), any::<i64>()).prop_map(|(segment, length)| Source { segment, length });
    let kind = prop_oneof![
        (policy(), any::<i64>())
            .prop_map(|(policy, rollover_bytes)| Kind::Stream { policy, rollover_bytes }),
        any::<i32>().prop_map(|key_length| Kind::Table { key_length }),
    ];
    prop_oneof![
        any::<u64>().prop_map(|epoch| Operation::OwnerStart { epoch: Epoch(epoch) }),
        (key(), ".{0,40}", kind).prop_map(|(segment, name, kind)| Operation::Create {
            segment,
            name: name.into(),
            kind
        }),
        (key(), any::<i64>(), any::<u32>(), any::<u32>(), proptest::option::of(change())).prop_map(
            |(segment, offset, len, events, writer)| Operation::Append {
                segment,
                offset,
                len,
                events,
                writer
            }
        ),
        (key(), change()).prop_map(|(segment, change)| Operation::Attribute { segment, change }),
        (key(), policy()).prop_map(|(segment, policy)| Operation::SetPolicy { segment, policy }),
        (key(), any::<i64>()).prop_map(|(segment, start)| Operation::Truncate { segment, start }),
        (
            key(),
            any::<i64>(),
            proptest::collection::vec(source, 0..4),
            proptest::collection::vec(change(), 0..4)
        )
            .prop_map(|(target, offset, sources, changes)| Operation::Merge {
                target,
                offset,
                sources,
                changes
            }),
        (key(), any::<i64>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(segment, offset, len, header)| Operation::Rows {
                segment,
                offset,
                len,
                header: header.into()
            }),
    ]
}

proptest! {
    #[test]
    fn what_was_logged_is_read_back(
        operations in proptest::collection::vec(an_operation(), 0..20),
    ) {
        let (_, read) = decode_headers(encode(&operations)).unwrap();
        prop_assert_eq!(read, operations);
    }

    #[test]
    fn bytes_that_nobody_wrote_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut headers = encode(&[]).to_vec();
        headers[10] = 3;
        headers.extend_from_slice(&bytes);
        let _ = decode_headers(headers.into());
        let _ = snapshot::decode_state(bytes.clone().into());
        let _ = snapshot::decode_part(&bytes.into());
    }

    #[test]
    fn extents_are_read_back(lens in proptest::collection::vec((1_u32..9, 0_u64..3, any::<bool>()), 0..20)) {
        let (mut extents, mut offset) = (Extents::default(), 0);
        for (at, (len, entry, whole)) in (0_u32..).zip(lens) {
            let address = Address::new(Epoch(1), EntryId(entry));
            let place = crate::place::Place { address, position: at * 8, len };
            extents.push(Extent { offset, place, whole });
            offset += i64::from(len);
        }
        prop_assert_eq!(extents.verify(0, offset), Ok(()));
        let mut out = bytes::BytesMut::new();
        extents.encode(&mut out);
        let mut reader = crate::container::codec::Reader::new(out.freeze());
        prop_assert_eq!(Extents::decode(&mut reader), Ok(extents));
    }
}
