use super::*;
use crate::record::{ConfigRecord, EpochRecord, SegmentRecord, StreamStatus};

fn segment(epoch: i32, number: i32, low: f64, high: f64) -> SegmentRecord {
    SegmentRecord { id: SegmentId::new(epoch, number), low, high }
}

/// Two segments, the upper of which was split.
fn stream() -> StreamRecord {
    let epoch = |reference, segments| EpochRecord { reference, segments, created_at_ms: 0 };
    let first = vec![segment(0, 0, 0.0, 0.5), segment(0, 1, 0.5, 1.0)];
    let second = vec![segment(0, 0, 0.0, 0.5), segment(1, 2, 0.5, 0.75), segment(1, 3, 0.75, 1.0)];
    StreamRecord {
        id: 7,
        config: ConfigRecord::fixed(2),
        epochs: vec![epoch(0, first), epoch(1, second)],
        active: 1,
        status: StreamStatus::Active,
        next_number: 4,
        sealed_lengths: BTreeMap::new(),
        truncation: None,
        workflow: None,
        created_at_ms: 0,
    }
}

fn mark(time: i64, position: &[(i32, i32, i64)], left: bool) -> MarkRecord {
    let position = position.iter().map(|(e, n, at)| (SegmentId::new(*e, *n), *at)).collect();
    MarkRecord { time, position, left }
}

fn marks(marks: &[(&str, MarkRecord)]) -> BTreeMap<String, MarkRecord> {
    marks.iter().map(|(writer, mark)| ((*writer).to_owned(), mark.clone())).collect()
}

fn points(watermark: &Watermark) -> Vec<(i32, i32, i64)> {
    let point = |p: &CutPoint| (p.segment.epoch(), p.segment.number(), p.offset);
    watermark.cut.iter().map(point).collect()
}

fn nobody(_: &str) -> bool {
    false
}

#[test]
fn the_slowest_writer_gives_the_lower_bound_and_the_furthest_positions_the_cut() {
    let noted = marks(&[
        ("a", mark(30, &[(0, 0, 5), (0, 1, 90)], false)),
        ("b", mark(20, &[(0, 0, 50), (0, 1, 9)], false)),
    ]);
    let next = round(&stream(), &noted, None, nobody).next.unwrap();
    assert_eq!((next.lower, next.upper), (20, 30));
    assert_eq!(points(&next), [(0, 0, 50), (0, 1, 90)]);
}

#[test]
fn a_cut_is_whole_in_the_newest_epoch_that_somebody_has_noted() {
    let noted = marks(&[
        ("a", mark(3, &[(1, 3, 4), (9, 9, 1)], false)),
        ("b", mark(2, &[(0, 0, 5), (0, 1, 6)], false)),
    ]);
    let next = round(&stream(), &noted, None, nobody).next.unwrap();
    assert_eq!(points(&next), [(0, 0, 5), (1, 2, 0), (1, 3, 4)]);
    let no_position = marks(&[("a", mark(1, &[], false))]);
    let next = round(&stream(), &no_position, None, nobody).next.unwrap();
    assert_eq!(points(&next), [(0, 0, 0), (0, 1, 0)]);
}

#[test]
fn a_writer_that_is_not_ahead_holds_the_next_one_until_it_is_given_up() {
    let stream = stream();
    let first = marks(&[("a", mark(10, &[(0, 0, 7)], false)), ("b", mark(20, &[], false))]);
    let last = round(&stream, &first, None, nobody).next.unwrap();
    let held = marks(&[("a", mark(10, &[(0, 0, 7)], false)), ("b", mark(40, &[], false))]);
    let waits = round(&stream, &held, Some(&last), nobody);
    assert_eq!((waits.next, waits.silent), (None, vec!["a".to_owned()]));
    let next = round(&stream, &held, Some(&last), |writer| writer == "a").next.unwrap();
    assert_eq!((next.lower, next.upper), (40, 40));
    assert_eq!(points(&next), [(0, 0, 7), (0, 1, 0)], "not before the last one");
    // One that has left holds nothing, and still counts while it is ahead.
    let left = marks(&[("a", mark(10, &[], true)), ("b", mark(40, &[], false))]);
    assert_eq!(round(&stream, &left, Some(&last), nobody).next.unwrap().lower, 40);
    let ahead = marks(&[("a", mark(15, &[], true)), ("b", mark(40, &[], false))]);
    assert_eq!(round(&stream, &ahead, Some(&last), nobody).next.unwrap().lower, 15);
}

#[test]
fn without_news_there_is_none() {
    let stream = stream();
    let noted = marks(&[("a", mark(10, &[], false))]);
    let last = round(&stream, &noted, None, nobody).next.unwrap();
    assert_eq!(round(&stream, &noted, Some(&last), |_| true).next, None);
    assert_eq!(round(&stream, &BTreeMap::new(), None, nobody), Round::default());
}
