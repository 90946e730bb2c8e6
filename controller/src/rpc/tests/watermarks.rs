use super::*;
use thalweg_wire::controller::NoteTimestampStatus;
use thalweg_wire::watermark::Watermark;

const MARKS: &str = "s/_MARKa/0.#epoch.0";

impl World {
    fn note(&self, controller: &Controller, writer: &str, time: i64, offset: i64) {
        let cut = BTreeMap::from([(id(0, 0), offset), (id(0, 1), offset)]);
        let position = CutOfStream { stream: a(), cut };
        let note = Request::NoteTimestamp { writer: writer.into(), position, timestamp: time };
        let noted = self.ask(controller, note);
        assert_eq!(noted, Ok(Response::NoteTimestamp(NoteTimestampStatus::Success)));
    }

    fn pass(&self, seconds: u64) {
        let clock = self.executor.env(&MemoryDisk::default()).clock;
        let until = clock.now().after(Duration::from_secs(seconds));
        self.executor.run(clock.sleep_until(until));
    }

    /// The lower bounds of all watermarks.
    fn lower_bounds(&self) -> Vec<i64> {
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            let marks = segment(MARKS);
            let read = self.segments.read(&marks, at, 1 << 20);
            let bytes = self.executor.run(read).unwrap();
            let Some((watermark, len)) = Watermark::decode(&bytes).unwrap() else { return found };
            found.push(watermark.lower);
            at += i64::try_from(len).unwrap();
        }
    }
}

#[test]
fn watermarks_follow_the_slowest_writer_round_by_round() {
    let world = World::new();
    let controller = world.with_stream(2);
    world.note(&controller, "a", 10, 0);
    world.note(&controller, "b", 20, 5);
    assert!(world.lower_bounds().is_empty());
    world.pass(11);
    assert_eq!(world.lower_bounds(), [10]);
    // Without news nothing is written; a silent writer is given up at once if the stream says nothing else.
    world.pass(30);
    assert_eq!(world.lower_bounds(), [10, 20]);
    world.note(&controller, "b", 90, 6);
    world.pass(11);
    assert_eq!(world.lower_bounds(), [10, 20, 90]);
    // One that was given up begins anew.
    world.note(&controller, "a", 5, 0);
    world.note(&controller, "a", 95, 9);
    world.note(&controller, "b", 99, 9);
    world.pass(11);
    assert_eq!(world.lower_bounds(), [10, 20, 90, 95]);
}

#[test]
fn a_silent_writer_is_waited_for_as_long_as_the_stream_says() {
    let world = World::new();
    let controller = world.with_scope();
    let config = StreamConfig {
        timestamp_aggregation_timeout_ms: 35_000,
        ..StreamConfig::fixed(StreamName::new("s", "a"), 2)
    };
    world.ask(&controller, Request::CreateStream(config)).unwrap();
    world.note(&controller, "a", 10, 0);
    world.note(&controller, "b", 20, 5);
    world.pass(11);
    world.note(&controller, "b", 30, 5);
    world.pass(40);
    assert_eq!(world.lower_bounds(), [10], "writer a may still be there");
    world.pass(20);
    assert_eq!(world.lower_bounds(), [10, 30]);
}

#[test]
fn whatever_is_cut_off_no_watermark_comes_twice_or_goes_back() {
    for spared in 0..4 {
        for lost in 0..2 {
            let world = World::new();
            let controller = world.with_stream(2);
            world.note(&controller, "a", 10, 0);
            world.pass(11);
            world.note(&controller, "a", 20, 0);
            world.segments.cut_off(spared, lost);
            world.pass(11);
            let controller = world.restart(&controller);
            world.segments.fail_next(0);
            world.note(&controller, "a", 30, 0);
            world.pass(21);
            let bounds = world.lower_bounds();
            assert!(bounds.is_sorted_by(|a, b| a < b), "{spared} {lost}: {bounds:?}");
            assert_eq!((bounds.first(), bounds.last()), (Some(&10), Some(&30)), "{bounds:?}");
        }
    }
}

#[test]
fn what_somebody_else_has_written_there_is_left_alone() {
    let no_event = vec![7; 20];
    let cut_short = [vec![0, 0, 0, 0, 0, 0, 0, 99], vec![0; 12]].concat();
    for nonsense in [no_event, cut_short] {
        let world = World::new();
        let controller = world.with_stream(2);
        let marks = segment(MARKS);
        let written = world.segments.append_at(&marks, 0, nonsense.into());
        assert_eq!(world.executor.run(written), Ok(true));
        world.note(&controller, "a", 10, 0);
        world.pass(30);
        assert_eq!(world.segments.length(&marks), Some(20));
    }
}
