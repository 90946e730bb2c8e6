use super::bench::{Bench, S, append, append_at, create, delete, seal, setup, transient};
use crate::container::Tuning;
use crate::container::appends::APPEND_BYTES_MAX;
use crate::request::{Append, What};
use thalweg_types::id::EntryId;
use thalweg_wire::segment::{
    Command, ConditionalCheckFailed, CreateTableSegment, DataAppended, InvalidEventNumber, NULL,
};

fn appended(answer: Option<Command>) -> (i64, i64, i64) {
    match answer {
        Some(Command::DataAppended(DataAppended {
            event_number,
            previous_event_number,
            current_segment_write_offset,
            ..
        })) => (event_number, previous_event_number, current_segment_write_offset),
        other => panic!("{other:?}"),
    }
}

fn many(appends: impl IntoIterator<Item = Append>) -> Vec<What> {
    appends.into_iter().map(What::Append).collect()
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.create(S);
    bench
}

#[test]
fn what_is_committed_together_is_acknowledged_once() {
    let mut bench = bench();
    assert_eq!(bench.setup(1, 7, S), NULL);
    let before = bench.log.len();
    bench.send_all(1, many((1..=100).map(|number| append(7, S, number, b"0123456789"))));
    assert_eq!(bench.log.len(), before + 1, "one entry");
    assert_eq!(appended(bench.answer(1)), (100, NULL, 1000));
    assert_eq!(bench.answer(1), None);
    assert_eq!(appended(bench.append(1, append(7, S, 101, b"x"))), (101, 100, 1001));
    assert_eq!(bench.settled, 1001, "every byte is settled once");
}

#[test]
fn an_acknowledgement_waits_for_its_entry_and_no_other() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.holds = true;
    for number in 1..=3 {
        bench.send(1, What::Append(append(7, S, number, b"abc")));
    }
    assert_eq!((bench.uncommitted(), bench.answer(1)), (3, None));
    for number in 1..=3 {
        bench.commit_one();
        let previous = if number == 1 { NULL } else { number - 1 };
        assert_eq!(appended(bench.answer(1)), (number, previous, 3 * number));
    }
}

#[test]
fn frames_grow_while_the_log_is_busy() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.holds = true;
    for number in 1..=50 {
        bench.send(1, What::Append(append(7, S, number, b"abc")));
    }
    let frames = Tuning::default().frames_in_flight as u64;
    assert_eq!(bench.uncommitted(), frames);
    bench.commit_one();
    assert_eq!(bench.uncommitted(), frames, "the rest follows in one");
    bench.holds = false;
    bench.commit_all();
    let last = std::iter::from_fn(|| bench.answer(1)).last();
    assert_eq!(appended(last).0, 50);
}

#[test]
fn a_full_frame_leaves_at_once_and_a_large_append_travels_alone() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.holds = true;
    let large = vec![1; 8 << 20];
    let whats =
        many([append(7, S, 1, b"small"), append(7, S, 2, &large), append(7, S, 3, b"small")]);
    bench.send_all(1, whats);
    assert_eq!(bench.uncommitted(), 3);
    bench.commit_all();
    assert_eq!(appended(bench.answer(1)), (3, NULL, (8 << 20) + 10));
}

#[test]
fn an_append_beyond_an_entry_is_refused() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    let huge = vec![0; APPEND_BYTES_MAX + 1];
    bench.send(1, What::Append(append(7, S, 1, &huge)));
    assert!(bench.is_closed(1));
    assert_eq!(bench.info(S).1, 0);
}

#[test]
fn the_position_survives_with_the_bytes() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.append(1, append(7, S, 5, b"kept"));
    bench.holds = true;
    bench.send(1, What::Append(append(7, S, 9, b"lost")));
    let mut bench = bench.crash();
    assert_eq!(bench.content(S, 0), b"kept");
    assert_eq!(bench.setup(1, 7, S), 5);
    assert_eq!(appended(bench.append(1, append(7, S, 9, b"sent again"))), (9, 5, 14));
}

#[test]
fn a_late_append_of_an_old_connection_never_doubles_an_event() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    // The client gives connection 1 up with 1..=3 under way, and sends them as one block.
    assert_eq!(bench.setup(2, 7, S), NULL);
    assert_eq!(appended(bench.append(1, append(7, S, 1, b"1"))).0, 1);
    let refused = bench.append(2, append(7, S, 3, b"123"));
    assert!(matches!(
        refused,
        Some(Command::InvalidEventNumber(InvalidEventNumber { event_number: 3, .. }))
    ));
    assert!(bench.is_closed(2));
    assert_eq!(bench.setup(3, 7, S), 1);
    assert_eq!(appended(bench.append(3, append(7, S, 3, b"23"))), (3, 1, 3));
    bench.send(1, What::Append(append(7, S, 2, b"2")));
    assert!(matches!(bench.answer(1), Some(Command::InvalidEventNumber(_))));
    assert!(bench.is_closed(1));
    assert_eq!(bench.content(S, 0), b"123");
}

#[test]
fn setup_answers_what_is_committed_and_resolves_earlier_appends() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.holds = true;
    bench.send(1, What::Append(append(7, S, 4, b"abcd")));
    bench.send(2, What::Command(setup(7, S).into()));
    assert_eq!((bench.answer(1), bench.answer(2)), (None, None));
    bench.commit_one();
    assert_eq!(appended(bench.answer(1)).0, 4);
    assert!(matches!(
        bench.answer(2),
        Some(Command::AppendSetup(setup)) if setup.last_event_number == 4
    ));
}

#[test]
fn numbers_that_do_not_rise_close_the_connection() {
    for number in [5, 4, -1] {
        let mut bench = bench();
        bench.setup(1, 7, S);
        bench.append(1, append(7, S, 5, b"abc"));
        bench.send(1, What::Append(append(7, S, number, b"x")));
        assert!(bench.is_closed(1), "{number}");
        assert_eq!(bench.info(S).1, 3);
        bench.send(1, What::Append(append(7, S, 6, b"x")));
        assert_eq!(bench.info(S).1, 3, "nothing more is done for it");
    }
}

#[test]
fn an_append_without_setup_closes_the_connection() {
    let mut bench = bench();
    bench.create("s/t/1.#epoch.0");
    bench.setup(1, 7, "s/t/1.#epoch.0");
    bench.send(1, What::Append(append(7, S, 1, b"x")));
    assert!(bench.is_closed(1));
    assert_eq!(bench.settled, 1);
}

#[test]
fn everything_behind_a_seal_fails_until_the_writer_is_set_up_again() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.append(1, append(7, S, 1, b"abc"));
    bench.call(0, seal(S));
    bench.send_all(1, many([append(7, S, 2, b"x"), append(7, S, 3, b"y")]));
    for number in [2, 3] {
        assert!(matches!(
            bench.answer(1),
            Some(Command::SegmentIsSealed(sealed)) if sealed.offset == number
        ));
    }
    assert_eq!(bench.setup(1, 7, S), 1, "a sealed segment can be set up");
    bench.send(1, What::Append(append(7, S, 2, b"x")));
    assert!(matches!(bench.answer(1), Some(Command::SegmentIsSealed(_))));
    bench.send(1, What::Append(append(7, S, 3, b"x")));
    assert!(bench.is_closed(1));
    assert_eq!((bench.info(S).1, bench.settled), (3, 7));
}

#[test]
fn appends_before_a_seal_are_acknowledged_before_those_behind_are_refused() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    let whats = vec![
        What::Append(append(7, S, 1, b"abc")),
        What::Command(seal(S).into()),
        What::Append(append(7, S, 2, b"x")),
    ];
    bench.send_all(1, whats);
    assert_eq!(appended(bench.answer(1)), (1, NULL, 3));
    assert!(matches!(bench.answer(1), Some(Command::SegmentSealed(_))));
    assert!(matches!(bench.answer(1), Some(Command::SegmentIsSealed(_))));
    assert_eq!(bench.info(S), (0, 3, true));
}

#[test]
fn a_deleted_and_recreated_segment_knows_no_old_writer() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.append(1, append(7, S, 1, b"abc"));
    bench.call(0, delete(S));
    bench.create(S);
    assert!(matches!(
        bench.append(1, append(7, S, 2, b"x")),
        Some(Command::NoSuchSegment(gone)) if gone.offset == -1
    ));
    assert_eq!(bench.setup(1, 7, S), NULL);
}

#[test]
fn a_failed_condition_leaves_number_and_connection() {
    let mut bench = bench();
    bench.fill(S, b"abc");
    bench.setup(1, 7, S);
    let failed = |number| {
        move |answer: Option<Command>| match answer {
            Some(Command::ConditionalCheckFailed(ConditionalCheckFailed {
                event_number, ..
            })) => assert_eq!(event_number, number),
            other => panic!("{other:?}"),
        }
    };
    failed(1)(bench.append(1, append_at(9, append(7, S, 1, b"x"))));
    assert_eq!(appended(bench.append(1, append_at(3, append(7, S, 1, b"x")))), (1, NULL, 4));
    // A block of the numbers 2..=6: the client learns that all of them failed.
    failed(2)(bench.append(1, append_at(0, append(7, S, 6, b"x"))));
    assert_eq!(appended(bench.append(1, append_at(4, append(7, S, 6, b"y")))), (6, 1, 5));
}

#[test]
fn what_was_sent_behind_a_failed_condition_fails_too() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    let whats =
        many([append_at(5, append(7, S, 1, b"first")), append_at(0, append(7, S, 2, b"second"))]);
    bench.send_all(1, whats);
    for _ in 0..2 {
        assert!(matches!(bench.answer(1), Some(Command::ConditionalCheckFailed(_))));
    }
    assert_eq!(bench.info(S).1, 0, "the second matched only by accident");
    assert_eq!(appended(bench.append(1, append_at(0, append(7, S, 1, b"again")))), (1, NULL, 5));
}

#[test]
fn a_plain_append_behind_a_failed_condition_is_an_invalid_number() {
    let mut bench = bench();
    bench.setup(1, 7, S);
    bench.send_all(1, many([append_at(5, append(7, S, 1, b"a")), append(7, S, 2, b"b")]));
    assert!(matches!(bench.answer(1), Some(Command::ConditionalCheckFailed(_))));
    assert!(matches!(bench.answer(1), Some(Command::InvalidEventNumber(_))));
    assert!(bench.is_closed(1));
    assert_eq!(bench.info(S).1, 0);
}

#[test]
fn a_large_event_into_a_sealed_segment_is_refused_by_the_parents_name() {
    let mut bench = bench();
    let Command::SegmentCreated(created) = bench.call(1, transient(7, S)) else { panic!() };
    let name = created.segment.to_string();
    bench.setup(1, 7, &name);
    assert_eq!(appended(bench.append(1, append_at(0, append(7, &name, 0, b"x")))), (0, NULL, 1));
    bench.call(0, seal(S));
    assert!(matches!(
        bench.append(1, append_at(1, append(7, &name, 1, b"y"))),
        Some(Command::SegmentIsSealed(sealed))
            if sealed.segment.as_str() == S && sealed.offset == 1
    ));
}

#[test]
fn a_writer_on_a_table_is_refused_and_the_table_works_on() {
    let mut bench = Bench::new();
    let table = "s/g_kvtable/0.#epoch.0";
    let asked = CreateTableSegment {
        request_id: 1,
        segment: table.into(),
        token: String::new(),
        sorted_deprecated: false,
        key_length: 0,
        rollover_size_bytes: 0,
    };
    assert!(matches!(bench.call(0, asked), Command::SegmentCreated(_)));
    assert!(matches!(bench.call(1, setup(7, table)), Command::OperationUnsupported(_)));
    bench.send(1, What::Append(append(7, table, 1, b"raw")));
    assert!(bench.is_closed(1));
    assert!(matches!(bench.call(2, seal(table)), Command::OperationUnsupported(_)));
    assert!(matches!(bench.call(2, delete(table)), Command::OperationUnsupported(_)));
    assert_eq!(bench.info(table).1, 0);
}

#[test]
fn a_remote_log_gets_a_barrier_for_answers_that_change_nothing() {
    let mut bench = Bench::with(Tuning::default(), false);
    bench.create(S);
    bench.holds = true;
    let before = bench.log.len();
    bench.send(1, What::Command(setup(7, S).into()));
    assert_eq!((bench.log.len(), bench.answer(1)), (before + 1, None));
    bench.commit_one();
    assert!(matches!(bench.answer(1), Some(Command::AppendSetup(_))));
}

#[test]
fn a_local_log_gets_none_but_answers_wait_for_what_came_before() {
    let mut bench = bench();
    bench.holds = true;
    let before = bench.committed;
    bench.send(1, What::Command(create("s/u/0.#epoch.0").into()));
    bench.send(2, What::Command(setup(7, "s/v/0.#epoch.0").into()));
    assert_eq!((bench.uncommitted(), bench.answer(1), bench.answer(2)), (1, None, None));
    bench.commit_one();
    assert_eq!(bench.committed, before.map(EntryId::next));
    assert!(matches!(bench.answer(1), Some(Command::SegmentCreated(_))));
    assert!(matches!(bench.answer(2), Some(Command::NoSuchSegment(_))));
}
