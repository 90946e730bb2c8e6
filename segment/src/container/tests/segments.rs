use super::bench::{Bench, ID, S, attribute, create, delete, read, seal, truncate, truncated_at};
use thalweg_wire::segment::{
    Command, CreateTableSegment, GetSegmentAttribute, NULL, UpdateSegmentPolicy,
};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.create(S);
    bench
}

fn value(bench: &mut Bench, attribute_id: u128) -> i64 {
    let token = String::new();
    let asked = GetSegmentAttribute { request_id: ID, segment: S.into(), attribute_id, token };
    match bench.call(1, asked) {
        Command::SegmentAttribute(got) => got.value,
        other => panic!("{other:?}"),
    }
}

fn updated(bench: &mut Bench, id: u128, new: i64, old: i64) -> bool {
    match bench.call(1, attribute(S, id, new, old)) {
        Command::SegmentAttributeUpdated(updated) => updated.success,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_is_created_once() {
    let mut bench = bench();
    bench.fill(S, b"abc");
    assert!(matches!(bench.call(1, create(S)), Command::SegmentAlreadyExists(_)));
    assert_eq!(bench.content(S, 0), b"abc");
}

#[test]
fn attributes_change_from_the_expected_value_only() {
    let mut bench = bench();
    assert!(!updated(&mut bench, 1, 5, 0));
    assert!(updated(&mut bench, 1, 5, NULL));
    assert!(!updated(&mut bench, 1, 6, NULL));
    assert!(updated(&mut bench, 1, 6, 5));
    let mut bench = bench.crash();
    assert_eq!(value(&mut bench, 1), 6);
    assert!(updated(&mut bench, 1, NULL, 6));
    assert_eq!(value(&mut bench, 1), NULL);
    assert!(updated(&mut bench, 1, NULL, NULL));
    bench.call(1, seal(S));
    assert!(matches!(bench.call(1, attribute(S, 1, 5, NULL)), Command::SegmentIsSealed(_)));
}

#[test]
fn a_seal_and_a_truncation_survive() {
    let mut bench = bench();
    bench.fill(S, b"0123456789");
    assert!(matches!(bench.call(1, truncate(S, 4)), Command::SegmentTruncated(_)));
    for offset in [3, 11] {
        let answer = bench.call(1, truncate(S, offset));
        assert_eq!(truncated_at(&answer), Some((4, offset)));
    }
    for _ in 0..2 {
        assert!(matches!(bench.call(1, seal(S)), Command::SegmentSealed(_)));
    }
    let mut bench = bench.crash();
    assert_eq!(bench.info(S), (4, 10, true));
    assert_eq!(bench.content(S, 4), b"456789");
    assert!(matches!(bench.call(1, truncate(S, 10)), Command::SegmentTruncated(_)));
}

#[test]
fn a_deleted_segment_is_gone() {
    let mut bench = bench();
    assert!(matches!(bench.call(1, delete(S)), Command::SegmentDeleted(_)));
    assert!(matches!(bench.call(1, delete(S)), Command::NoSuchSegment(_)));
    let mut bench = bench.crash();
    assert!(matches!(bench.call(1, read(S, 0, 10)), Command::NoSuchSegment(_)));
}

#[test]
fn policies_of_open_segments_can_be_changed() {
    let mut bench = bench();
    let policy = || UpdateSegmentPolicy {
        request_id: ID,
        segment: S.into(),
        target_rate: 100,
        scale_type: 2,
        token: String::new(),
    };
    assert!(matches!(bench.call(1, policy()), Command::SegmentPolicyUpdated(_)));
    bench.call(1, seal(S));
    assert!(matches!(bench.call(1, policy()), Command::SegmentIsSealed(_)));
}

#[test]
fn keys_of_a_table_have_a_bounded_length() {
    let mut bench = Bench::new();
    let asked = CreateTableSegment {
        request_id: 1,
        segment: "s/t_kvtable/0.#epoch.0".into(),
        token: String::new(),
        sorted_deprecated: false,
        key_length: 257,
        rollover_size_bytes: 0,
    };
    bench.send(1, crate::request::What::Command(asked.into()));
    assert!(bench.is_closed(1));
    assert_eq!(bench.container.segments(), 0);
}

#[test]
fn entries_of_operations_that_relieve_a_disk_may_use_its_reserve() {
    let mut bench = bench();
    bench.fill(S, b"abc");
    let exempt = |bench: &Bench| bench.log.last_key_value().unwrap().1.exempt;
    assert!(!exempt(&bench));
    bench.call(1, truncate(S, 3));
    assert!(exempt(&bench));
    bench.call(1, delete(S));
    assert!(exempt(&bench));
}
