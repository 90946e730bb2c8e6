use super::bench::{
    Bench, S, append, append_at, attribute, batch, create, delete, merge, seal, setup, transient,
    truncate,
};
use crate::request::What;
use thalweg_wire::segment::{AttributeUpdate, Command, LocateOffset, NULL, SegmentsMerged};

fn txn(number: u128) -> String {
    format!("{S}#transaction.{number:032x}")
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.create(S);
    bench.fill(S, b"abc");
    bench.create(&txn(1));
    bench.fill(&txn(1), b"defg");
    bench
}

fn merged(answer: Command) -> i64 {
    match answer {
        Command::SegmentsMerged(SegmentsMerged { new_target_write_offset, .. }) => {
            new_target_write_offset
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_moves_the_bytes_and_ends_the_source() {
    let mut bench = bench();
    assert_eq!(merged(bench.call(1, merge(S, &txn(1), Vec::new()))), 7);
    bench.fill(S, b"hi");
    assert_eq!(bench.content(S, 0), b"abcdefghi");
    let mut bench = bench.crash();
    assert_eq!(bench.content(S, 0), b"abcdefghi");
    assert_eq!(merged(bench.call(1, merge(S, &txn(1), Vec::new()))), 9, "done before");
    assert_eq!(bench.content(S, 0), b"abcdefghi");
}

#[test]
fn what_was_merged_away_is_gone_and_refusing_it_harms_nothing() {
    let mut bench = bench();
    merged(bench.call(1, merge(S, &txn(1), Vec::new())));
    assert!(matches!(bench.call(1, seal(&txn(1))), Command::NoSuchSegment(_)));
    assert!(matches!(bench.call(1, delete(&txn(1))), Command::NoSuchSegment(_)));
    assert!(matches!(bench.call(1, create(&txn(1))), Command::SegmentAlreadyExists(_)));
    assert!(matches!(bench.call(1, setup(7, &txn(1))), Command::NoSuchSegment(_)));
    bench.fill(S, b"on");
    assert_eq!(bench.crash().content(S, 0), b"abcdefgon");
}

#[test]
fn the_writers_of_the_source_end_with_it() {
    let mut bench = bench();
    bench.setup(1, 7, &txn(1));
    bench.append(1, append(7, &txn(1), 9, b"!"));
    merged(bench.call(2, merge(S, &txn(1), Vec::new())));
    assert!(matches!(
        bench.append(1, append(7, &txn(1), 10, b"x")),
        Some(Command::NoSuchSegment(_))
    ));
    assert_eq!(bench.setup(1, 7, S), NULL, "the target knows nothing of them");
}

#[test]
fn a_failed_condition_changes_nothing_at_all() {
    let mut bench = bench();
    bench.call(1, attribute(S, 5, 50, NULL));
    let update = |attribute_id, kind, new_value, old_value| AttributeUpdate {
        attribute_id,
        kind,
        new_value,
        old_value,
    };
    let updates = vec![update(6, 1, 60, 0), update(5, 4, 51, 49)];
    assert!(matches!(
        bench.call(1, merge(S, &txn(1), updates)),
        Command::SegmentAttributeUpdated(done) if !done.success
    ));
    assert_eq!(bench.content(S, 0), b"abc");
    assert_eq!(bench.content(&txn(1), 0), b"defg");
    let updates = vec![update(6, 1, 60, 0), update(5, 4, 51, 50), update(5, 4, 52, 51)];
    assert_eq!(merged(bench.call(1, merge(S, &txn(1), updates))), 7);
    // What a compare-and-set to the same value answers tells the value.
    for (id, value) in [(5, 52), (6, 60)] {
        assert!(matches!(
            bench.call(1, attribute(S, id, value, value)),
            Command::SegmentAttributeUpdated(done) if done.success
        ));
    }
}

#[test]
fn merges_that_cannot_be_are_refused_by_name() {
    let mut bench = bench();
    let missing = txn(9);
    assert!(matches!(
        bench.call(1, merge(S, &missing, Vec::new())),
        Command::NoSuchSegment(gone) if gone.segment.as_str() == missing
    ));
    assert!(matches!(
        bench.call(1, merge("s/no/0.#epoch.0", &txn(1), Vec::new())),
        Command::NoSuchSegment(_)
    ));
    assert!(matches!(bench.call(1, merge(S, S, Vec::new())), Command::ErrorMessage(_)));
    bench.call(1, truncate(&txn(1), 2));
    assert!(matches!(bench.call(1, merge(S, &txn(1), Vec::new())), Command::ErrorMessage(_)));
    bench.call(1, seal(S));
    assert!(matches!(bench.call(1, merge(S, &txn(1), Vec::new())), Command::SegmentIsSealed(_)));
    assert_eq!(bench.content(S, 0), b"abc");
}

#[test]
fn a_batch_is_merged_in_its_order_and_again_changes_nothing() {
    let mut bench = bench();
    bench.create(&txn(2));
    bench.fill(&txn(2), b"HI");
    let (first, second, missing) = (txn(2), txn(1), txn(3));
    let ends = |bench: &mut Bench| {
        let sources = [&first[..], &missing, &second, &first];
        match bench.call(1, batch(S, &sources)) {
            Command::SegmentsBatchMerged(done) => {
                done.merged.iter().map(|one| one.new_target_write_offset).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends(&mut bench), [5, 5, 9, 9]);
    assert_eq!(bench.content(S, 0), b"abcHIdefg");
    assert_eq!(ends(&mut bench), [9, 9, 9, 9]);
    assert!(matches!(
        bench.call(1, batch(S, &[])),
        Command::SegmentsBatchMerged(done) if done.merged.is_empty()
    ));
}

#[test]
fn a_large_event_is_one_event_for_those_who_look_for_its_end() {
    let mut bench = bench();
    let Command::SegmentCreated(created) = bench.call(1, transient(7, S)) else { panic!() };
    let name = created.segment.to_string();
    assert_eq!(bench.setup(1, 7, &name), NULL);
    bench.append(1, append_at(0, append(7, &name, 0, b"large ")));
    bench.append(1, append_at(6, append(7, &name, 1, b"event")));
    assert_eq!(merged(bench.call(1, merge(S, &name, Vec::new()))), 14);
    let mut locate = |target_offset| {
        let asked =
            LocateOffset { request_id: 1, segment: S.into(), target_offset, token: String::new() };
        match bench.call(1, asked) {
            Command::OffsetLocated(found) => found.offset,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([0, 1, 3, 4, 10, 14, 99].map(&mut locate), [0, 3, 3, 14, 14, 14, 14]);
}

#[test]
fn large_events_end_with_their_connection_or_with_the_process() {
    let mut bench = bench();
    for connection in [1, 2] {
        bench.call(connection, transient(7, S));
    }
    assert_eq!(bench.container.segments(), 4);
    bench.send(1, What::ConnectionClosed);
    assert_eq!(bench.container.segments(), 3);
    let bench = bench.crash();
    assert_eq!(bench.container.segments(), 2);
}
