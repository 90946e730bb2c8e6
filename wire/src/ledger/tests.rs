use super::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::fmt::Write as _;
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, ReplicaId, StorageUuid,
};

const GOLDEN: &str = include_str!("../../testdata/ledger.txt");

const LEDGER: LedgerId = LedgerId { container: ContainerId(3), epoch: Epoch(0x0102) };
const RUN: RunFacts =
    RunFacts { base: EntryId(4), end: EntryId(9), committed_end: EntryId(8), certain: true };

fn entry() -> EntryFrame {
    EntryFrame {
        ledger: LEDGER,
        base: EntryId(4),
        entry: EntryId(8),
        lac: Some(EntryId(7)),
        keep_from: Address::new(Epoch(0x0101), EntryId(2)),
        headers: Bytes::from_static(b"heads"),
        payload: vec![Bytes::from_static(b"payload")],
        exempt: true,
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let (ledger, number) = (LEDGER, EntryId(8));
    vec![
        (
            "Open",
            Request::Open {
                ledger,
                base: EntryId(4),
                incarnation: Incarnation(0x77),
                committed_end: EntryId(5),
            },
        ),
        ("Append", Request::Append(entry())),
        ("Fence", Request::Fence { ledger, by: Epoch(0x0103) }),
        ("Repair", Request::Repair { by: Epoch(0x0103), entry: entry() }),
        ("Read", Request::Read { ledger, entry: number }),
        (
            "ReadHeaders",
            Request::Headers { ledger, from: number, entries_max: 100, bytes_max: 0x0010_0000 },
        ),
        ("Trim", Request::Trim { keep_from: Address::new(Epoch(0x0101), EntryId(2)) }),
        ("Committed", Request::Committed { ledger, end: EntryId(8) }),
        ("Hello", Request::Hello { ledger }),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let (ledger, base, end, number) = (LEDGER, EntryId(4), EntryId(9), EntryId(8));
    let heads = |text: &'static str, payload_len| EntryHeaders {
        headers: Bytes::from_static(text.as_bytes()),
        payload_len,
    };
    vec![
        ("Opened", Reply::Opened { ledger, base, end }),
        ("Ack", Reply::Ack { ledger, base, end }),
        ("Fenced", Reply::Fenced { ledger, by: Epoch(0x0103) }),
        ("FenceDone", Reply::FenceDone { ledger, by: Epoch(0x0103), run: RUN }),
        ("Repaired", Reply::Repaired { ledger, entry: number }),
        ("OutOfOrder", Reply::OutOfOrder { ledger, base, end }),
        ("RefusedUnknownLedger", Reply::Refused { ledger, why: Refusal::UnknownLedger }),
        ("RefusedLimbo", Reply::Refused { ledger, why: Refusal::Limbo }),
        ("RefusedFull", Reply::Refused { ledger, why: Refusal::Full }),
        ("Have", Reply::Have(entry())),
        (
            "Headers",
            Reply::Headers { ledger, from: number, entries: vec![heads("one", 7), heads("", 0)] },
        ),
        ("NeverHad", Reply::NeverHad { ledger, entry: number, end: EntryId(8) }),
        ("Unknown", Reply::Unknown { ledger, entry: number }),
        ("Greeting", Reply::Greeting { ledger, run: Some(RUN), fenced_by: Some(Epoch(0x0103)) }),
        ("GreetingNobody", Reply::Greeting { ledger, run: None, fenced_by: None }),
    ]
}

/// One of each message, and of each variant of its fields that has a form of its own.
fn examples() -> Vec<(&'static str, Message)> {
    let replica = ReplicaId { node: NodeId(2), storage: StorageUuid(0xABCD) };
    let connect = |lane| {
        Message::Connect(Connect {
            level_min: 1,
            level_max: 1,
            cluster: 0xC1,
            from: NodeId(1),
            incarnation: Incarnation(0x77),
            to: NodeId(2),
            lane,
        })
    };
    let accept =
        Accept { level: 1, cluster: 0xC1, node: NodeId(2), incarnation: Incarnation(0x88) };
    let refuse = |why| Message::Refuse { level_min: 1, level_max: 1, why };
    let (channel, container) = (5, ContainerId(3));
    let mut all = vec![
        ("ConnectData", connect(Lane::Data)),
        ("ConnectUrgent", connect(Lane::Urgent)),
        ("ConnectRepair", connect(Lane::Repair)),
        ("Accept", Message::Accept(accept)),
        ("RefuseLevel", refuse(RefuseReason::Level)),
        ("RefuseCluster", refuse(RefuseReason::Cluster)),
        ("RefuseNode", refuse(RefuseReason::Node)),
        ("RefuseBusy", refuse(RefuseReason::Busy)),
        ("Attach", Message::Attach(Attach { channel, container, replica })),
        ("Attached", Message::Attached { channel, mount_seq: 6 }),
        ("Detach", Message::Detach { channel }),
        ("DetachedNotMounted", Message::Detached { channel, why: DetachReason::NotMounted }),
        ("DetachedStopped", Message::Detached { channel, why: DetachReason::Stopped }),
        ("DetachedTooMany", Message::Detached { channel, why: DetachReason::TooMany }),
        ("Ping", Message::Ping { number: 0x0A }),
        ("Pong", Message::Pong { number: 0x0A }),
    ];
    all.extend(
        requests().into_iter().map(|(name, request)| (name, Message::Request { channel, request })),
    );
    all.extend(
        replies().into_iter().map(|(name, reply)| (name, Message::Reply { channel, reply })),
    );
    all
}

fn encode(message: Message) -> Vec<u8> {
    let mut out = Outgoing::default();
    out.push(message).unwrap();
    let waiting = out.bytes();
    let bytes = out.take().concat();
    assert_eq!(bytes.len(), waiting);
    assert!(out.is_empty());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Message>, FrameError> {
    let mut stream = BytesMut::from(bytes);
    let message = next(&mut stream)?;
    assert!(stream.is_empty() || message.is_none());
    Ok(message)
}

#[test]
fn messages_look_like_this_on_the_wire() {
    let mut made = String::new();
    for (name, message) in examples() {
        let hex = encode(message).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        writeln!(made, "{name} {hex}").unwrap();
    }
    let golden: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
    let made: Vec<&str> = made.lines().collect();
    assert_eq!(
        made,
        golden,
        "the format of a released level never changes; now it is\n{}\n",
        made.join("\n")
    );
}

#[test]
fn what_is_written_is_read_back() {
    for (name, message) in examples() {
        assert_eq!(decode(&encode(message.clone())), Ok(Some(message)), "{name}");
    }
}

#[test]
fn a_message_is_taken_when_its_last_byte_arrives() {
    for (name, message) in examples() {
        let whole = encode(message.clone());
        let mut arrived = BytesMut::new();
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(next(&mut arrived), Ok(None), "{name}: {at} bytes");
            assert!((1..=whole.len() - at).contains(&missing(&arrived)), "{name}: {at} bytes");
            arrived.extend_from_slice(&[*byte]);
        }
        assert_eq!(missing(&arrived), 0);
        assert_eq!(next(&mut arrived), Ok(Some(message)));
        assert!(arrived.is_empty());
    }
}

#[test]
fn no_flipped_bit_passes_for_a_message() {
    for (name, message) in examples() {
        let whole = encode(message);
        for bit in 0..whole.len() * 8 {
            let mut bent = whole.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let mut stream = BytesMut::from(&bent[..]);
            let read = next(&mut stream);
            assert!(!matches!(read, Ok(Some(_))), "{name}: bit {bit} makes {read:?}");
        }
    }
}

#[test]
fn a_bad_header_is_told_before_the_rest_arrives() {
    assert_eq!(decode(b"G"), Err(FrameError::Magic));
    assert_eq!(decode(b"PRI * HTTP/2.0"), Err(FrameError::Magic));
    let mut ping = encode(Message::Ping { number: 1 });
    ping.truncate(HEADER_BYTES);
    let with = |at: usize, byte: u8| {
        let mut bent = ping.clone();
        bent[at] = byte;
        decode(&bent)
    };
    assert_eq!(with(2, 0x7F), Err(FrameError::Kind { kind: 0x7F }));
    assert_eq!(with(3, 1), Err(FrameError::Kind { kind: 0x08 }));
    assert!(matches!(with(10, 1), Err(FrameError::TooLong { kind: 0x08, .. })));
    // A ping has no content.
    assert!(matches!(with(12, 1), Err(FrameError::TooLong { kind: 0x08, .. })));
}

#[test]
fn what_is_too_long_is_not_sent() {
    let payload = vec![Bytes::from(vec![0; CONTENT_BYTES_MAX])];
    let request = Request::Append(EntryFrame { payload, ..entry() });
    let mut out = Outgoing::default();
    let length = CONTENT_BYTES_MAX + 5;
    assert_eq!(out.push(Message::Request { channel: 1, request }), Err(TooLong { length }));
    assert!(out.is_empty());
}

#[test]
fn large_contents_are_not_copied_on_the_way() {
    let payload = Bytes::from(vec![7; 100_000]);
    let request = Request::Append(EntryFrame { payload: vec![payload.clone()], ..entry() });
    let mut out = Outgoing::default();
    out.push(Message::Request { channel: 1, request }).unwrap();
    out.push(Message::Ping { number: 1 }).unwrap();
    let chunks = out.take();
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[1].as_ptr(), payload.as_ptr());
    let mut stream = BytesMut::from(&chunks.concat()[..]);
    let begin = stream.as_ptr() as usize;
    let Ok(Some(Message::Request { request: Request::Append(entry), .. })) = next(&mut stream)
    else {
        panic!("no append");
    };
    let within = entry.payload[0].as_ptr() as usize - begin;
    assert_eq!(within, chunks[0].len());
    assert_eq!(next(&mut stream), Ok(Some(Message::Ping { number: 1 })));
}

#[test]
fn a_connect_of_a_later_level_is_understood() {
    let Message::Connect(connect) = examples()[0].1.clone() else { panic!("no connect") };
    let mut frame = encode(Message::Connect(connect));
    frame.extend_from_slice(b"a field of level 2");
    let fields = u32::try_from(frame.len() - HEADER_BYTES).unwrap();
    frame[8..12].copy_from_slice(&fields.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&frame[..16]), &frame[HEADER_BYTES..]);
    frame[16..20].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(decode(&frame), Ok(Some(Message::Connect(connect))));
    // Everything else comes after a level was agreed on.
    frame[2] = 0x02;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&frame[..16]), &frame[HEADER_BYTES..]);
    frame[16..20].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(decode(&frame), Err(FrameError::Malformed));
}

fn any_ledger() -> impl Strategy<Value = LedgerId> {
    (any::<u32>(), any::<u64>())
        .prop_map(|(c, e)| LedgerId { container: ContainerId(c), epoch: Epoch(e) })
}

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_entry() -> impl Strategy<Value = EntryFrame> {
    let numbers = any::<[u64; 4]>();
    let lac = proptest::option::of(any::<u64>());
    (any_ledger(), numbers, lac, any_bytes(600), any_bytes(3000), any::<bool>()).prop_map(
        |(ledger, [base, entry, epoch, kept], lac, headers, payload, exempt)| EntryFrame {
            ledger,
            base: EntryId(base),
            entry: EntryId(entry),
            lac: lac.map(EntryId),
            keep_from: Address::new(Epoch(epoch), EntryId(kept)),
            headers,
            payload: if payload.is_empty() { vec![] } else { vec![payload] },
            exempt,
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let headers = (any_bytes(300), any::<u32>())
        .prop_map(|(headers, len)| EntryHeaders { headers, payload_len: len as usize });
    let headers = proptest::collection::vec(headers, 1..20);
    let run = (any::<[u64; 3]>(), any::<bool>()).prop_map(|([base, end, committed], certain)| {
        let (base, end, committed_end) = (EntryId(base), EntryId(end), EntryId(committed));
        RunFacts { base, end, committed_end, certain }
    });
    let entry = any::<u64>().prop_map(EntryId);
    let epoch = any::<u64>().prop_map(Epoch);
    let request = prop_oneof![
        any_entry().prop_map(Request::Append),
        (epoch.clone(), any_entry()).prop_map(|(by, entry)| Request::Repair { by, entry }),
        (any_ledger(), any::<[u64; 3]>()).prop_map(|(ledger, [base, incarnation, end])| {
            let incarnation = Incarnation(incarnation);
            let (base, committed_end) = (EntryId(base), EntryId(end));
            Request::Open { ledger, base, incarnation, committed_end }
        }),
        (any_ledger(), entry.clone(), any::<[u32; 2]>()).prop_map(
            |(ledger, from, [entries_max, bytes_max])| {
                Request::Headers { ledger, from, entries_max, bytes_max }
            }
        ),
    ];
    let reply =
        prop_oneof![
            any_entry().prop_map(Reply::Have),
            (any_ledger(), entry.clone(), headers)
                .prop_map(|(ledger, from, entries)| Reply::Headers { ledger, from, entries }),
            (any_ledger(), proptest::option::of(run.clone()), proptest::option::of(epoch.clone()))
                .prop_map(|(ledger, run, fenced_by)| Reply::Greeting { ledger, run, fenced_by }),
            (any_ledger(), epoch, run).prop_map(|(ledger, by, run)| Reply::FenceDone {
                ledger,
                by,
                run
            }),
            (any_ledger(), entry.clone(), entry).prop_map(|(ledger, base, end)| Reply::Ack {
                ledger,
                base,
                end
            }),
        ];
    prop_oneof![
        (any::<u32>(), request)
            .prop_map(|(channel, request)| Message::Request { channel, request }),
        (any::<u32>(), reply).prop_map(|(channel, reply)| Message::Reply { channel, reply }),
        (any::<u32>(), any::<u64>())
            .prop_map(|(channel, mount_seq)| Message::Attached { channel, mount_seq }),
    ]
}

proptest! {
    #[test]
    fn any_messages_survive_the_way(messages in proptest::collection::vec(any_message(), 1..8)) {
        let mut out = Outgoing::default();
        for message in &messages {
            out.push(message.clone()).unwrap();
        }
        let mut stream = BytesMut::from(&out.take().concat()[..]);
        for message in messages {
            prop_assert_eq!(next(&mut stream), Ok(Some(message)));
        }
        prop_assert!(stream.is_empty());
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = next(&mut stream) {}
        let _ = missing(&stream);
    }

    #[test]
    fn fields_of_any_bytes_are_a_message_or_an_error(
        kind in 0_u8..0x50,
        fields in proptest::collection::vec(any::<u8>(), 0..120),
        content in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let read = fields::read(kind, 0, &fields, Bytes::from(content));
        if let Ok(message) = read {
            prop_assert_eq!(decode(&encode(message.clone())), Ok(Some(message)));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_no_message(message in any_message(), cut in any::<prop::sample::Index>()) {
        let whole = encode(message);
        prop_assert_eq!(decode(&whole[..cut.index(whole.len())]), Ok(None));
    }
}
