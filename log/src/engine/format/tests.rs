use super::*;
use crate::frame::{EntryFrame, Frame, LedgerState};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, StorageUuid,
};

const PLACE: Place = Place { storage: StorageUuid(0xABCD), incarnation: 77, file: 3, offset: 8192 };
const CHAIN: Chain = Chain { nonce: 5, seq: 9, prev_crc: 0x1234_5678, durable_upto: 8 };

fn ledger() -> impl Strategy<Value = LedgerId> {
    (any::<u32>(), any::<u64>())
        .prop_map(|(c, e)| LedgerId { container: ContainerId(c), epoch: Epoch(e) })
}

fn address() -> impl Strategy<Value = Address> {
    (any::<u64>(), any::<u64>()).prop_map(|(e, i)| Address::new(Epoch(e), EntryId(i)))
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn entry() -> impl Strategy<Value = EntryFrame> {
    let ids = (ledger(), any::<u64>(), any::<u64>(), any::<Option<u64>>(), address());
    let content = (bytes(40), proptest::collection::vec(bytes(60), 0..3), any::<bool>());
    (ids, content).prop_map(|((ledger, base, entry, lac, keep_from), content)| {
        let (headers, payload, exempt) = content;
        let (base, entry, lac) = (EntryId(base), EntryId(entry), lac.map(EntryId));
        EntryFrame { ledger, base, entry, lac, keep_from, headers, payload, exempt }
    })
}

fn state() -> impl Strategy<Value = LedgerState> {
    let options = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>());
    (ledger(), options, any::<Option<u64>>(), any::<u64>(), address(), any::<bool>()).prop_map(
        |(ledger, (incarnation, tail, lac), fenced_by, base, keep_from, certain)| LedgerState {
            ledger,
            incarnation: incarnation.map(Incarnation),
            base: EntryId(base),
            tail: tail.map(EntryId),
            lac: lac.map(EntryId),
            keep_from,
            fenced_by: fenced_by.map(Epoch),
            certain,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let start = proptest::array::uniform6(any::<u64>()).prop_map(|f| Start {
        mount_seq: f[0],
        nonce: f[1],
        prev_nonce: f[2],
        last_valid_seq: f[3],
        cut_file: f[4],
        cut_offset: f[5],
    });
    let frame = prop_oneof![
        entry().prop_map(Frame::Entry),
        (any::<u64>(), entry()).prop_map(|(by, entry)| Frame::Repair { by: Epoch(by), entry }),
        (ledger(), any::<u64>()).prop_map(|(ledger, by)| Frame::Fence { ledger, by: Epoch(by) }),
        state().prop_map(Frame::State),
        (any::<u32>(), any::<u64>())
            .prop_map(|(c, e)| Frame::Floor { container: ContainerId(c), epoch: Epoch(e) }),
        (any::<u32>(), address())
            .prop_map(|(c, keep_from)| Frame::Trim { container: ContainerId(c), keep_from }),
        (ledger(), any::<u64>())
            .prop_map(|(ledger, from)| Frame::Loss { ledger, from: EntryId(from) }),
    ];
    prop_oneof![8 => frame.prop_map(Record::Frame), 1 => start.prop_map(Record::Start)]
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    proptest::option::of(
        (any::<u64>(), any::<u32>()).prop_map(|(seq, index)| Origin { seq, index }),
    )
}

fn joined(chunks: &[Bytes]) -> Bytes {
    let mut all = BytesMut::new();
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    all.freeze()
}

/// The record as reading it back shows it: without its payload.
fn bare(record: &Record) -> String {
    let mut record = record.clone();
    if let Record::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) = &mut record {
        entry.payload.clear();
    }
    format!("{record:?}")
}

proptest! {
    #[test]
    fn what_was_laid_out_is_read_back(
        records in proptest::collection::vec((origin(), record()), 0..12),
    ) {
        let encoded = encode(&PLACE, &CHAIN, &records);
        let all = joined(&encoded.chunks);
        prop_assert_eq!(all.len() as u64, encoded.len);
        prop_assert_eq!(all.len() % BLOCK, 0);
        let header = Header::decode(&all, &PLACE).unwrap();
        prop_assert_eq!(header.chain, CHAIN);
        prop_assert_eq!((header.len, header.crc), (encoded.len, encoded.crc));
        prop_assert_eq!(header.slots.len(), records.len());
        for (at, (origin, record)) in records.iter().enumerate() {
            let (found_origin, found) = header.record(at, &all).unwrap();
            prop_assert_eq!(found_origin, *origin);
            prop_assert_eq!(format!("{found:?}"), bare(record));
            let slot = header.slots[at];
            let begin = usize::try_from(slot.payload_at).unwrap();
            let payload = all.slice(begin..begin + slot.payload_len);
            prop_assert!(payload_is_sound(&slot, &payload));
            if let Record::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) = record {
                prop_assert_eq!(payload, joined(&entry.payload));
            }
        }
    }

    #[test]
    fn a_batch_is_none_at_any_other_place(
        records in proptest::collection::vec((origin(), record()), 0..4),
    ) {
        let all = joined(&encode(&PLACE, &CHAIN, &records).chunks);
        for place in [
            Place { storage: StorageUuid(1), ..PLACE },
            Place { incarnation: 78, ..PLACE },
            Place { file: 4, ..PLACE },
            Place { offset: 4096, ..PLACE },
        ] {
            prop_assert!(Header::decode(&all, &place).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut all = b"THALWEGB".to_vec();
        all.extend_from_slice(&noise);
        let _ = Header::needs(&all);
        let _ = Header::decode(&all, &PLACE);
        for kind in 0..=255 {
            let _ = Record::take(kind, &Bytes::from(noise.clone()));
        }
    }
}

fn sample() -> Vec<(Option<Origin>, Record)> {
    let ledger = LedgerId { container: ContainerId(1), epoch: Epoch(2) };
    let entry = EntryFrame {
        ledger,
        base: EntryId(0),
        entry: EntryId(4),
        lac: Some(EntryId(3)),
        keep_from: Address::new(Epoch(1), EntryId(6)),
        headers: Bytes::from_static(b"operation headers"),
        payload: vec![Bytes::from_static(b"pay"), Bytes::from_static(b"load")],
        exempt: true,
    };
    let state = LedgerState {
        ledger,
        incarnation: Some(Incarnation(11)),
        base: EntryId(0),
        tail: None,
        lac: None,
        keep_from: Address::default(),
        fenced_by: Some(Epoch(3)),
        certain: true,
    };
    let start = Start {
        mount_seq: 2,
        nonce: 5,
        prev_nonce: 4,
        last_valid_seq: 7,
        cut_file: 2,
        cut_offset: 12288,
    };
    let keep_from = Address::new(Epoch(2), EntryId(0));
    vec![
        (None, Record::Start(start)),
        (None, Record::Frame(Frame::State(state))),
        (Some(Origin { seq: 6, index: 1 }), Record::Frame(Frame::Entry(entry.clone()))),
        (None, Record::Frame(Frame::Repair { by: Epoch(3), entry })),
        (None, Record::Frame(Frame::Fence { ledger, by: Epoch(3) })),
        (None, Record::Frame(Frame::Floor { container: ContainerId(1), epoch: Epoch(3) })),
        (None, Record::Frame(Frame::Trim { container: ContainerId(1), keep_from })),
        (None, Record::Frame(Frame::Loss { ledger, from: EntryId(9) })),
    ]
}

#[test]
fn the_layout_is_the_one_on_disk() {
    let batch = joined(&encode(&PLACE, &CHAIN, &sample()).chunks);
    let (superblock, file) = (SUPERBLOCK.encode(2), FILE.encode());
    assert!(batch == include_bytes!("../../../testdata/batch.v1.bin").as_slice());
    assert!(superblock == include_bytes!("../../../testdata/superblock.v1.bin").as_slice());
    assert!(file == include_bytes!("../../../testdata/file-header.v1.bin").as_slice());
}

const SUPERBLOCK: Superblock = Superblock {
    cluster: 1,
    node: NodeId(2),
    storage: StorageUuid(3),
    sequence: 4,
    mount_seq: 5,
    head: 6,
    prepared: 7,
    clean: 8,
    limbo_from: 9,
    limbo_over: 0,
};
const FILE: FileHeader =
    FileHeader { storage: StorageUuid(1), incarnation: 2, number: 3, size: 4096 };

#[test]
fn every_flipped_bit_and_every_cut_of_a_batch_is_noticed() {
    let batch = joined(&encode(&PLACE, &CHAIN, &sample()).chunks);
    let sound = |bytes: &Bytes| -> bool {
        let Ok(header) = Header::decode(bytes, &PLACE) else { return false };
        (0..header.slots.len()).all(|at| {
            let slot = header.slots[at];
            let begin = usize::try_from(slot.payload_at).unwrap();
            let payload = bytes.get(begin..begin + slot.payload_len);
            header.record(at, bytes).is_ok() && payload.is_some_and(|p| payload_is_sound(&slot, p))
        })
    };
    assert!(sound(&batch));
    let header = Header::decode(&batch, &PLACE).unwrap();
    let last = header.slots.last().unwrap();
    let used = usize::try_from(last.payload_at).unwrap() + last.payload_len;
    for at in 0..used {
        assert!(!sound(&batch.slice(..at)), "cut at {at}");
        for bit in 0..8 {
            let mut flipped = batch.to_vec();
            flipped[at] ^= 1 << bit;
            assert!(!sound(&Bytes::from(flipped)), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_block_is_noticed() {
    let (superblock, file) = (SUPERBLOCK.encode(2), FILE.encode());
    assert_eq!(Superblock::decode(&superblock, 2), Ok(SUPERBLOCK));
    assert_eq!(FileHeader::decode(&file), Ok(FILE));
    assert!(Superblock::decode(&superblock, 1).is_err());
    for at in 0..BLOCK {
        assert!(Superblock::decode(&superblock[..at], 2).is_err());
        assert!(FileHeader::decode(&file[..at]).is_err());
        for bit in 0..8 {
            let mut flipped = superblock.to_vec();
            flipped[at] ^= 1 << bit;
            assert!(Superblock::decode(&flipped, 2).is_err());
            let mut flipped = file.to_vec();
            flipped[at] ^= 1 << bit;
            assert!(FileHeader::decode(&flipped).is_err());
        }
    }
}
