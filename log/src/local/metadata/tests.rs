use super::*;
use crate::testing::{Executor, MemoryStorage};

fn open(storage: &Arc<MemoryStorage>) -> Result<Arc<LocalMetadataLog>, OpenError> {
    let incarnation = Incarnation(storage.mount_seq());
    Executor::new(1).run(LocalMetadataLog::open(storage.clone(), incarnation))
}

fn append(log: &LocalMetadataLog, text: &str) -> u64 {
    let command = Bytes::copy_from_slice(text.as_bytes());
    Executor::new(1).run(log.append(command)).unwrap()
}

fn snapshot(log: &LocalMetadataLog, upto: u64, state: impl Into<Bytes>) {
    Executor::new(1).run(log.snapshot(upto, state.into())).unwrap();
}

fn commands(found: &RecoveredCommands) -> Vec<(u64, &[u8])> {
    found.commands.iter().map(|(index, bytes)| (*index, &bytes[..])).collect()
}

#[test]
fn commands_of_every_mount_are_found_in_order() {
    let mut storage = MemoryStorage::auto();
    for mount in 0..3_u64 {
        let log = open(&storage).unwrap();
        let found = log.recovered();
        assert_eq!(found.commands.len() as u64, mount * 2);
        assert_eq!(append(&log, "a"), mount * 2 + 1);
        assert_eq!(append(&log, "b"), mount * 2 + 2);
        assert!(log.recovered().commands.is_empty(), "answers once");
        storage = storage.restart();
    }
    let found = open(&storage).unwrap().recovered();
    let expected: Vec<(u64, &[u8])> =
        (1..=6).map(|i| (i, if i % 2 == 1 { &b"a"[..] } else { b"b" })).collect();
    assert_eq!(commands(&found), expected);
}

#[test]
fn an_index_is_announced_only_when_it_is_durable() {
    let storage = MemoryStorage::manual();
    let log = open(&storage).unwrap();
    let waiting = log.append(Bytes::from_static(b"a"));
    assert_eq!(Executor::new(1).try_run(waiting), None);
    let found = open(&storage.restart()).unwrap().recovered();
    assert!(found.commands.is_empty(), "nothing was durable: {found:?}");
    let waiting = log.append(Bytes::from_static(b"b"));
    storage.make_durable(storage.staged());
    assert_eq!(Executor::new(1).run(waiting), Ok(2));
    assert_eq!(open(&storage.restart()).unwrap().recovered().commands.len(), 2);
}

#[test]
fn a_snapshot_stands_for_what_it_covers() {
    let storage = MemoryStorage::auto();
    let log = open(&storage).unwrap();
    append(&log, "a");
    append(&log, "b");
    append(&log, "c");
    snapshot(&log, 2, "ab");
    append(&log, "d");
    let storage = storage.restart();
    let found = open(&storage).unwrap().recovered();
    assert_eq!(found.snapshot, Some((2, Bytes::from_static(b"ab"))));
    assert_eq!(commands(&found), [(3, &b"c"[..]), (4, b"d")]);
    let trims = storage.frames().into_iter().filter_map(|frame| match frame {
        Frame::Trim { keep_from, .. } => Some(keep_from.entry),
        _ => None,
    });
    assert_eq!(trims.last(), Some(EntryId(2)), "command 3 is not covered and must stay");
}

#[test]
fn a_large_snapshot_is_cut_into_parts_and_half_of_one_counts_for_nothing() {
    let storage = MemoryStorage::manual();
    let log = open(&storage).unwrap();
    let ready = log.append(Bytes::from_static(b"a"));
    storage.make_durable(storage.staged());
    assert_eq!(Executor::new(1).run(ready), Ok(1));
    let state = Bytes::from(vec![7; SNAPSHOT_PART_BYTES * 2 + 5]);
    let staged = storage.staged();
    let waiting = log.snapshot(1, state.clone());
    let half = Ticket(staged.0 + 2);
    let found = open(&storage.restart_with(half)).unwrap().recovered();
    assert_eq!((found.snapshot, found.commands.len()), (None, 1));
    storage.make_durable(storage.staged());
    assert_eq!(Executor::new(1).run(waiting), Ok(()));
    let found = open(&storage.restart_with(storage.staged())).unwrap().recovered();
    assert_eq!((found.snapshot, found.commands.len()), (Some((1, state)), 0));
}

#[test]
fn a_command_that_cannot_be_read_refuses_the_start() {
    let storage = MemoryStorage::auto();
    let log = open(&storage).unwrap();
    append(&log, "a");
    append(&log, "b");
    storage.damage(log.ledger, EntryId(0));
    let refused = open(&storage.restart()).err();
    assert!(matches!(refused, Some(OpenError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_failed_storage_ends_the_log() {
    let storage = MemoryStorage::manual();
    let log = open(&storage).unwrap();
    let waiting = log.append(Bytes::from_static(b"a"));
    storage.fail("sync failed");
    let ended = Executor::new(1).run(waiting).unwrap_err();
    assert_eq!(&*ended.reason, "sync failed");
}

/// The persisted form. A change here is a new format version.
#[test]
fn headers_look_like_this_on_disk() {
    let command = codec::encode(&Header::Command { index: 5, command: vec![0xaa, 0xbb] });
    assert_eq!(command, [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb]);
    let part = codec::encode(&Header::SnapshotPart { upto: 9, part: 1, parts: 2 });
    assert_eq!(part, [1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
}
