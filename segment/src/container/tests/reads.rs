use super::bench::{
    Bench, S, append, create, delete, info, merge, read, seal, truncate, truncated_at,
};
use crate::request::What;
use std::time::Duration;
use thalweg_types::limits::{HELD_READS_MAX, READ_BYTES_MAX};
use thalweg_wire::segment::{Command, SegmentRead};

const EVENT_READER: i32 = 8 << 20;

fn bench(data: &[u8]) -> Bench {
    let mut bench = Bench::new();
    bench.create(S);
    bench.fill(S, data);
    bench
}

/// Data, at tail, end of segment.
fn got(answer: Command) -> (Vec<u8>, bool, bool) {
    match answer {
        Command::SegmentRead(SegmentRead { data, at_tail, end_of_segment, .. }) => {
            (data.into_bytes().to_vec(), at_tail, end_of_segment)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_gives_what_is_there_up_to_its_limit() {
    let mut bench = bench(b"0123456789");
    assert_eq!(got(bench.call(1, read(S, 0, 100))), (b"0123456789".to_vec(), true, false));
    assert_eq!(got(bench.call(1, read(S, 2, 8))), (b"23456789".to_vec(), false, false));
    assert_eq!(got(bench.call(1, read(S, 0, -1))).0, b"01234567", "8 bytes at least");
}

#[test]
fn no_read_gives_more_than_the_cap() {
    let mut bench = bench(&vec![1; READ_BYTES_MAX + 1]);
    assert_eq!(got(bench.call(1, read(S, 0, i32::MAX))).0.len(), READ_BYTES_MAX);
}

#[test]
fn readers_see_only_what_is_committed() {
    let mut bench = bench(b"old");
    bench.setup(1, 7, S);
    bench.holds = true;
    bench.send(1, What::Append(append(7, S, 1, b"new")));
    bench.send(2, What::Command(read(S, 0, 100).into()));
    assert_eq!(got(bench.answer(2).unwrap()).0, b"old");
    bench.send(2, What::Command(read(S, 3, 100).into()));
    assert_eq!(bench.answer(2), None);
    bench.commit_one();
    assert_eq!(got(bench.answer(2).unwrap()), (b"new".to_vec(), true, false));
}

#[test]
fn a_segment_is_described_as_committed_while_appends_wait() {
    let mut bench = bench(b"old");
    bench.setup(1, 7, S);
    bench.holds = true;
    bench.send(1, What::Append(append(7, S, 1, b"new")));
    bench.send(2, What::Command(truncate(S, 2).into()));
    assert_eq!(bench.info(S), (0, 3, false), "answered at once, and nothing that may yet be lost");
    bench.commit_all();
    bench.holds = false;
    assert_eq!(bench.info(S), (2, 6, false));
    bench.holds = true;
    bench.send(3, What::Command(create("scope/another").into()));
    bench.send(4, What::Command(info("scope/another").into()));
    assert_eq!(bench.answer(4), None, "its creation may yet be lost");
    bench.commit_all();
    assert!(matches!(bench.answer(4), Some(Command::StreamSegmentInfo(_))));
}

#[test]
fn a_held_read_waits_for_its_offset() {
    let mut bench = bench(b"0123456789");
    bench.send(1, What::Command(read(S, 12, 100).into()));
    bench.fill(S, b"ab");
    assert_eq!(bench.answer(1), None);
    bench.fill(S, b"cd");
    assert_eq!(got(bench.answer(1).unwrap()).0, b"cd");
}

#[test]
fn a_seal_ends_held_reads_once_it_is_committed() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, 100).into()));
    bench.send(1, What::Command(read(S, 4, 100).into()));
    bench.holds = true;
    bench.send(2, What::Command(seal(S).into()));
    assert_eq!(bench.answer(1), None);
    bench.commit_one();
    assert_eq!(got(bench.answer(1).unwrap()), (Vec::new(), false, true));
    assert!(matches!(bench.answer(1), Some(Command::ErrorMessage(_))));
    assert_eq!(got(bench.call(1, read(S, 0, 100))), (b"abc".to_vec(), false, true));
    assert!(matches!(bench.call(1, read(S, 4, 100)), Command::ErrorMessage(_)));
}

#[test]
fn a_truncation_beyond_a_held_read_answers_it() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, 100).into()));
    bench.setup(2, 7, S);
    let whats = vec![What::Append(append(7, S, 1, b"defg")), What::Command(truncate(S, 5).into())];
    bench.send_all(2, whats);
    assert_eq!(truncated_at(&bench.answer(1).unwrap()), Some((5, 3)));
    assert_eq!(truncated_at(&bench.call(1, read(S, 4, 100))), Some((5, 4)));
    assert_eq!(got(bench.call(1, read(S, 5, 100))).0, b"fg");
}

#[test]
fn a_truncation_at_a_held_read_leaves_it_held() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, 100).into()));
    bench.call(2, truncate(S, 3));
    assert_eq!(bench.answer(1), None);
    bench.fill(S, b"def");
    assert_eq!(got(bench.answer(1).unwrap()).0, b"def");
}

#[test]
fn deleting_or_merging_a_segment_away_answers_its_held_reads() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, 100).into()));
    bench.call(2, delete(S));
    assert!(matches!(
        bench.answer(1),
        Some(Command::NoSuchSegment(gone)) if gone.offset == 3
    ));
    let txn = format!("{S}#transaction.{:032x}", 1);
    bench.create(S);
    bench.create(&txn);
    bench.send(1, What::Command(read(&txn, 0, 100).into()));
    bench.send(3, What::Command(read(S, 0, 100).into()));
    bench.call(2, merge(S, &txn, Vec::new()));
    assert!(matches!(bench.answer(1), Some(Command::NoSuchSegment(_))));
    assert_eq!(bench.answer(3), None, "nothing was merged");
}

#[test]
fn an_event_reader_is_answered_in_time_to_ask_again_and_no_other_is() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, EVENT_READER).into()));
    bench.send(2, What::Command(read(S, 3, 524_288).into()));
    bench.pass(Duration::from_secs(24));
    assert_eq!(bench.answer(1), None);
    bench.pass(Duration::from_secs(2));
    assert_eq!(got(bench.answer(1).unwrap()), (Vec::new(), true, false));
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.answer(2), None);
    bench.fill(S, b"d");
    assert_eq!(bench.answer(1), None, "it was answered");
    assert_eq!(got(bench.answer(2).unwrap()).0, b"d");
}

#[test]
fn reads_of_a_closed_connection_are_forgotten() {
    let mut bench = bench(b"abc");
    bench.send(1, What::Command(read(S, 3, EVENT_READER).into()));
    bench.send(1, What::ConnectionClosed);
    bench.fill(S, b"def");
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.answer(1), None);
}

#[test]
fn held_reads_of_one_connection_are_bounded() {
    let mut bench = bench(b"abc");
    for _ in 0..HELD_READS_MAX {
        bench.send(1, What::Command(read(S, 3, 100).into()));
    }
    assert_eq!(bench.answer(1), None);
    bench.send(1, What::Command(read(S, 3, 100).into()));
    assert!(bench.is_closed(1));
    bench.fill(S, b"d");
}

#[test]
fn what_does_not_exist_or_lies_below_zero_is_refused() {
    let mut bench = bench(b"abc");
    assert!(matches!(
        bench.call(1, read("s/no/0.#epoch.0", 17, 100)),
        Command::NoSuchSegment(gone) if gone.offset == 17
    ));
    assert!(matches!(bench.call(1, read(S, -1, 100)), Command::ErrorMessage(_)));
}
