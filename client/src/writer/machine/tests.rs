use super::*;
use proptest::prelude::*;
use thalweg_wire::segment::NULL;

const SEG0: SegmentId = SegmentId(0);

fn target(id: i64, low: f64, high: f64) -> Target {
    let writer = WriterId(u128::from(id.unsigned_abs()) + 100);
    Target { id: SegmentId(id), range: KeyRange { low, high }, writer }
}

struct World {
    machine: StreamWriter,
    effects: Vec<Effect>,
    now: Instant,
    submission: u64,
}

impl World {
    fn new() -> Self {
        let mut effects = Vec::new();
        let machine =
            StreamWriter::new(Config::production(vec!["controller:1".into()]), &mut effects);
        Self { machine, effects, now: Instant(1), submission: 0 }
    }

    /// A writer whose stream has one open segment, on connection 0.
    fn open() -> Self {
        let mut world = Self::new();
        world.step(Input::Segments(Segments::Current(vec![target(0, 0.0, 1.0)])));
        world.resolve(0);
        world.step(Input::Connected(ConnectionId(0)));
        world.reply(0, Reply::Setup { segment: SEG0, last: NULL });
        world.effects.clear();
        world
    }

    fn step(&mut self, input: Input) {
        self.machine.step(self.now, input, &mut self.effects);
        self.machine.check();
    }

    fn resolve(&mut self, segment: i64) {
        let endpoint = Some("store:1".into());
        self.step(Input::Resolved { segment: SegmentId(segment), endpoint });
    }

    fn reply(&mut self, connection: u64, reply: Reply) {
        self.step(Input::Received { connection: ConnectionId(connection), reply });
    }

    fn write(&mut self, hash: f64, event: &'static str) {
        let submission = self.submission;
        self.submission += 1;
        let content = Content::Event(Bytes::from_static(event.as_bytes()));
        self.step(Input::Append { submission, hash, content });
    }

    fn write_alone(&mut self, hash: f64, event: &'static str) {
        self.write(hash, event);
        self.step(Input::Pump);
    }

    /// Number and segment of every append among the effects, which are taken.
    fn appends(&mut self) -> Vec<(i64, i64)> {
        let sent = |effect: &Effect| match effect {
            Effect::Send { outgoing: Outgoing::Append { segment, last, .. }, .. } => {
                Some((segment.0, *last))
            }
            _ => None,
        };
        let appends = self.effects.iter().filter_map(sent).collect();
        self.effects.clear();
        appends
    }

    /// The submissions acknowledged among the effects.
    fn acked(&self) -> Vec<u64> {
        let acked = |effect: &Effect| match effect {
            Effect::Acked(submissions) => submissions.clone(),
            _ => Vec::new(),
        };
        self.effects.iter().flat_map(acked).collect()
    }

    fn failed(&self) -> Vec<(Vec<u64>, Failure)> {
        let failed = |effect: &Effect| match effect {
            Effect::Failed { submissions, failure } => Some((submissions.clone(), *failure)),
            _ => None,
        };
        self.effects.iter().filter_map(failed).collect()
    }

    fn reconnect(&mut self, from: u64, last: i64) {
        self.step(Input::Disconnected(ConnectionId(from)));
        self.now = self.now.after(Duration::from_secs(1));
        self.step(Input::Tick);
        self.resolve(0);
        self.step(Input::Connected(ConnectionId(from + 1)));
        self.reply(from + 1, Reply::Setup { segment: SEG0, last });
    }
}

#[test]
fn events_at_hand_travel_in_one_block() {
    let mut world = World::open();
    world.write(0.1, "a");
    world.write(0.9, "b");
    world.step(Input::Pump);
    let Some(Effect::Send { outgoing: Outgoing::Append { data, events, last, .. }, .. }) =
        world.effects.first()
    else {
        panic!("{:?}", world.effects)
    };
    assert_eq!((*events, *last), (2, 2));
    assert_eq!(&data[..], b"\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\x01b");
}

#[test]
fn an_event_is_acknowledged_by_its_own_number_only() {
    let mut world = World::open();
    for event in ["a", "b", "c"] {
        world.write_alone(0.5, event);
    }
    assert_eq!(world.appends(), [(0, 1), (0, 2), (0, 3)]);
    world.reply(0, Reply::Appended { segment: SEG0, number: 2 });
    assert_eq!(world.acked(), [0, 1]);
}

#[test]
fn after_a_reconnect_only_what_is_not_stored_is_sent_again_with_its_old_number() {
    let mut world = World::open();
    for event in ["a", "b", "c"] {
        world.write_alone(0.5, event);
    }
    world.effects.clear();
    world.reconnect(0, 2);
    assert_eq!(world.acked(), [0, 1]);
    assert_eq!(world.appends(), [(0, 3)]);
    world.reply(0, Reply::Appended { segment: SEG0, number: 3 });
    assert_eq!(world.acked(), [], "an old connection has no say");
}

#[test]
fn a_sealed_segment_is_asked_what_it_stored_before_its_events_move_on() {
    let mut world = World::open();
    for event in ["a", "b"] {
        world.write_alone(0.7, event);
    }
    world.effects.clear();
    world.reply(0, Reply::Sealed { segment: SEG0 });
    world.write_alone(0.2, "newer");
    assert!(matches!(
        world.effects[..],
        [Effect::Send { outgoing: Outgoing::Setup { segment: SEG0, .. }, .. }]
    ));
    world.reply(0, Reply::Setup { segment: SEG0, last: 1 });
    assert_eq!(world.acked(), [0]);
    assert!(world.effects.contains(&Effect::FetchSuccessors(SEG0)));
    let successors = vec![target(11, 0.0, 0.5), target(12, 0.5, 1.0)];
    let succession = Succession::Successors(successors);
    world.step(Input::Succession { segment: SEG0, succession });
    for id in [11, 12] {
        world.resolve(id);
        world.reply(0, Reply::Setup { segment: SegmentId(id), last: NULL });
    }
    world.step(Input::Pump);
    assert_eq!(world.appends(), [(11, 1), (12, 1)]);
}

#[test]
fn a_merged_segment_gets_no_event_of_a_predecessor_that_is_not_resolved() {
    let mut world = World::new();
    let halves = vec![target(1, 0.0, 0.5), target(2, 0.5, 1.0)];
    world.step(Input::Segments(Segments::Current(halves)));
    for id in [1, 2] {
        world.resolve(id);
    }
    world.step(Input::Connected(ConnectionId(0)));
    for id in [1, 2] {
        world.reply(0, Reply::Setup { segment: SegmentId(id), last: NULL });
    }
    let segment = SegmentId(1);
    world.reply(0, Reply::Sealed { segment });
    world.reply(0, Reply::Setup { segment, last: NULL });
    let succession = Succession::Successors(vec![target(1 << 32, 0.0, 1.0)]);
    world.step(Input::Succession { segment, succession });
    world.effects.clear();
    world.write_alone(0.9, "still to the second");
    assert_eq!(world.appends(), [(2, 1)]);
    world.write_alone(0.1, "to the merged one, once it stands");
    assert_eq!(world.appends(), []);
}

#[test]
fn a_sealed_stream_refuses_what_is_not_stored_and_everything_after() {
    let mut world = World::open();
    for event in ["a", "b"] {
        world.write_alone(0.5, event);
    }
    world.reply(0, Reply::Sealed { segment: SEG0 });
    world.reply(0, Reply::Setup { segment: SEG0, last: 1 });
    world.step(Input::Succession { segment: SEG0, succession: Succession::Sealed });
    assert_eq!(world.acked(), [0]);
    assert_eq!(world.failed(), [(vec![1], Failure::Sealed)]);
    world.write(0.5, "c");
    assert_eq!(world.failed().last(), Some(&(vec![2], Failure::Sealed)));
}

#[test]
fn what_was_on_its_way_to_a_deleted_stream_is_unknown() {
    let mut world = World::open();
    world.write_alone(0.5, "sent");
    world.reply(0, Reply::NoSuchSegment { segment: SEG0 });
    world.write_alone(0.5, "not sent");
    world.step(Input::Succession { segment: SEG0, succession: Succession::Deleted });
    assert_eq!(world.failed(), [(vec![0], Failure::Unknown), (vec![1], Failure::NoSuchStream)]);
}

#[test]
fn what_was_on_its_way_to_a_segment_that_truncation_removed_is_in_doubt_and_not_written_twice() {
    let mut world = World::open();
    world.write_alone(0.5, "sent");
    world.step(Input::Disconnected(ConnectionId(0)));
    world.write_alone(0.5, "not sent");
    world.now = world.now.after(Duration::from_secs(1));
    world.step(Input::Tick);
    world.resolve(0);
    world.step(Input::Connected(ConnectionId(1)));
    world.reply(1, Reply::NoSuchSegment { segment: SEG0 });
    assert_eq!(world.failed(), [(vec![0], Failure::Unknown)]);
    let succession = Succession::Successors(vec![target(11, 0.0, 1.0)]);
    world.step(Input::Succession { segment: SEG0, succession });
    world.resolve(11);
    world.reply(1, Reply::Setup { segment: SegmentId(11), last: NULL });
    world.step(Input::Pump);
    assert_eq!(world.appends().last(), Some(&(11, 1)));
    world.reply(1, Reply::Appended { segment: SegmentId(11), number: 1 });
    assert_eq!(world.acked(), [1]);
}

#[test]
fn a_silent_connection_is_asked_and_then_given_up() {
    let mut world = World::open();
    world.now = world.now.after(Duration::from_secs(6));
    world.step(Input::Tick);
    assert!(matches!(world.effects[..], [Effect::Send { outgoing: Outgoing::KeepAlive, .. }]));
    world.now = world.now.after(Duration::from_secs(6));
    world.step(Input::Tick);
    assert_eq!(world.effects.last(), Some(&Effect::Disconnect(ConnectionId(0))));
}

#[test]
fn events_wait_until_the_stream_is_known() {
    let mut world = World::new();
    world.write_alone(0.5, "early");
    world.step(Input::Segments(Segments::Later));
    let deadline = world.machine.deadline().unwrap();
    world.now = deadline;
    world.effects.clear();
    world.step(Input::Tick);
    assert_eq!(world.effects, [Effect::FetchSegments]);
    world.step(Input::Segments(Segments::NoSuchStream));
    assert_eq!(world.failed(), [(vec![0], Failure::NoSuchStream)]);
}

/// A segment store in thirty lines: stores, seals, loses connections, and answers late.
#[derive(Default)]
struct Store {
    stored: BTreeMap<SegmentId, (i64, Vec<Bytes>)>,
    sealed: BTreeSet<SegmentId>,
}

impl Store {
    fn handle(&mut self, outgoing: &Outgoing) -> Reply {
        match outgoing {
            Outgoing::KeepAlive => Reply::KeepAlive,
            Outgoing::Setup { segment, .. } => {
                let last = self.stored.get(segment).map_or(NULL, |(last, _)| *last);
                Reply::Setup { segment: *segment, last }
            }
            Outgoing::Append { segment, .. } if self.sealed.contains(segment) => {
                Reply::Sealed { segment: *segment }
            }
            Outgoing::Append { segment, data, last, .. } => {
                let (stored, events) = self.stored.entry(*segment).or_insert((NULL, Vec::new()));
                assert!(*last > *stored, "numbers go up");
                *stored = *last;
                let mut buffer = crate::event::EventBuffer::default();
                buffer.push(data.clone());
                while let Some(event) = buffer.next_event().unwrap() {
                    events.push(event);
                }
                Reply::Appended { segment: *segment, number: *last }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(u8),
    Pump,
    /// The store handles what was sent, answers included.
    Serve,
    /// The store handles the oldest command alone.
    ServeOne,
    /// The store handles what was sent; the answers are lost with the connection.
    ServeAndCut,
    Cut,
    Seal,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..4).prop_map(Act::Write),
        3 => Just(Act::Pump),
        2 => Just(Act::Serve),
        2 => Just(Act::ServeOne),
        1 => Just(Act::ServeAndCut),
        1 => Just(Act::Cut),
        1 => Just(Act::Seal),
    ]
}

/// Drives a writer against the model; what is not answered at once is answered here.
struct Model {
    world: World,
    store: Store,
    sent: VecDeque<(ConnectionId, Outgoing)>,
    epoch: i64,
    acked: BTreeSet<u64>,
}

impl Model {
    fn new() -> Self {
        let world = World::new();
        Self {
            world,
            store: Store::default(),
            sent: VecDeque::new(),
            epoch: 0,
            acked: BTreeSet::new(),
        }
    }

    fn halves(&self) -> Vec<Target> {
        let id = self.epoch << 32;
        vec![target(id, 0.0, 0.5), target(id + 1, 0.5, 1.0)]
    }

    fn seal(&mut self) {
        self.store.sealed.extend(self.halves().iter().map(|half| half.id));
        self.epoch += 1;
    }

    fn cut(&mut self) {
        self.sent.clear();
        for connection in self.world.machine.links.keys().copied().collect::<Vec<_>>() {
            self.world.step(Input::Disconnected(connection));
        }
    }

    fn serve(&mut self, most: usize, answer: bool) {
        let most = most.min(self.sent.len());
        for (connection, outgoing) in self.sent.drain(..most).collect::<Vec<_>>() {
            let reply = self.store.handle(&outgoing);
            if answer {
                self.world.step(Input::Received { connection, reply });
            }
        }
    }

    /// Performs effects until there are none.
    fn perform(&mut self) {
        while !self.world.effects.is_empty() {
            for effect in std::mem::take(&mut self.world.effects) {
                match effect {
                    Effect::FetchSegments => {
                        let segments = Segments::Current(self.halves());
                        self.world.step(Input::Segments(segments));
                    }
                    Effect::Resolve(segment) => self.world.resolve(segment.0),
                    Effect::FetchSuccessors(segment) => {
                        let next = (segment.0 >> 32) + 1;
                        let id = (next << 32) | (segment.0 & 1);
                        let low = if id & 1 == 0 { 0.0 } else { 0.5 };
                        let targets = vec![target(id, low, low + 0.5)];
                        let succession = Succession::Successors(targets);
                        self.world.step(Input::Succession { segment, succession });
                    }
                    Effect::Connect { connection, .. } => {
                        self.world.step(Input::Connected(connection));
                    }
                    Effect::Send { connection, outgoing } => {
                        self.sent.push_back((connection, outgoing));
                    }
                    Effect::Acked(submissions) => {
                        for submission in submissions {
                            assert!(self.acked.insert(submission), "acknowledged twice");
                            assert!(self.has_stored(submission), "acknowledged, not stored");
                        }
                    }
                    Effect::Failed { .. } => panic!("nothing fails here"),
                    Effect::Disconnect(_) => {}
                }
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Write(key) => {
                let submission = self.world.submission;
                self.world.submission += 1;
                let mut event = vec![*key];
                event.extend_from_slice(&submission.to_be_bytes());
                let (hash, content) = (f64::from(*key) / 4.0, Content::Event(event.into()));
                self.world.step(Input::Append { submission, hash, content });
            }
            Act::Pump => self.world.step(Input::Pump),
            Act::Serve => self.serve(usize::MAX, true),
            Act::ServeOne => self.serve(1, true),
            Act::ServeAndCut => {
                self.serve(usize::MAX, false);
                self.cut();
            }
            Act::Cut => self.cut(),
            Act::Seal => self.seal(),
        }
        self.world.now = self.world.now.after(Duration::from_millis(300));
        self.world.step(Input::Tick);
        self.perform();
    }

    fn has_stored(&self, submission: u64) -> bool {
        let mut events = self.store.stored.values().flat_map(|(_, events)| events.iter());
        events.any(|event| event[1..] == submission.to_be_bytes())
    }

    /// The events of one key as a reader finds them: epoch after epoch.
    fn of_key(&self, key: u8) -> Vec<Bytes> {
        let events = self.store.stored.values().flat_map(|(_, events)| events.iter());
        events.filter(|event| event[0] == key).cloned().collect()
    }
}

proptest! {
    #[test]
    fn every_event_is_stored_once_and_in_order_of_its_key(
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut model = Model::new();
        model.perform();
        for act in &acts {
            model.act(act);
        }
        for _ in 0..40 {
            model.act(&Act::Pump);
            model.act(&Act::Serve);
        }
        let written = model.world.submission;
        prop_assert_eq!(model.acked.len() as u64, written, "everything is acknowledged");
        let mut found = 0;
        for key in 0..4 {
            let events = model.of_key(key);
            prop_assert!(events.windows(2).all(|pair| pair[0] < pair[1]), "order of key {}", key);
            found += events.len() as u64;
        }
        prop_assert_eq!(found, written, "each once");
    }
}
