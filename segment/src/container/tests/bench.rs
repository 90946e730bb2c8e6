//! A container on a bench: its log, clients, a clock, and power that may be cut.

use crate::cache::Payloads;
use crate::container::{Container, Effect, Input, Load, Parts, Recovery, Start, Tuning};
use crate::place::Place;
use crate::request::{Append, ConnectionId, Outbox, Outgoing, Replies, Request, What, replies};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::time::Duration;
use thalweg_actor::machine::Machine as _;
use thalweg_log::ledger::{ReplayedEntry, SnapshotPointers};
use thalweg_types::id::{Address, EntryId, Epoch, WriterId};
use thalweg_types::name::SegmentName;
use thalweg_types::time::{Instant, WallTime};
use thalweg_wire::segment::{
    AttributeUpdate, Command, CreateSegment, CreateTransientSegment, DeleteSegment,
    GetStreamSegmentInfo, MergeSegments, MergeSegmentsBatch, ReadSegment, SealSegment,
    SegmentIsTruncated, SetupAppend, TruncateSegment, UpdateSegmentAttribute,
};

/// The segment that most tests are about.
pub(super) const S: &str = "s/t/0.#epoch.0";
/// The request id of every request.
pub(super) const ID: i64 = 77;

/// What lies in the log.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) headers: Bytes,
    pub(super) payload: Bytes,
    pub(super) exempt: bool,
}

pub(super) struct Bench {
    pub(super) container: Container,
    /// Every entry that ever was, whatever the register says may go.
    pub(super) log: BTreeMap<Address, Stored>,
    pub(super) keep_from: Address,
    pub(super) snapshots: SnapshotPointers,
    pub(super) holds: bool,
    pub(super) stopped: Option<String>,
    pub(super) settled: usize,
    tuning: Tuning,
    is_local: bool,
    epoch: Epoch,
    appended: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
    clients: BTreeMap<u64, (Replies, Outbox)>,
    now: Instant,
}

fn replayed(address: Address, stored: &Stored) -> ReplayedEntry {
    let payload_len = stored.payload.len();
    ReplayedEntry { address, headers: stored.headers.clone(), payload_len }
}

/// The state that the whole log tells, without any snapshot.
pub(super) fn fold(log: &BTreeMap<Address, Stored>) -> Recovery {
    let mut recovery = Recovery::blank();
    for (address, stored) in log {
        recovery.replay(replayed(*address, stored)).unwrap();
    }
    recovery.verify().unwrap();
    recovery
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Tuning::default(), true)
    }

    pub(super) fn with(tuning: Tuning, is_local: bool) -> Self {
        let snapshots = SnapshotPointers::default();
        Self::start(BTreeMap::new(), Address::default(), snapshots, tuning, is_local, Epoch(1))
    }

    fn start(
        log: BTreeMap<Address, Stored>,
        keep_from: Address,
        snapshots: SnapshotPointers,
        tuning: Tuning,
        is_local: bool,
        epoch: Epoch,
    ) -> Self {
        let recovery = Self::recover(&log, keep_from, &snapshots);
        let start = Start {
            tuning,
            epoch,
            is_local,
            keep_from,
            snapshots: snapshots.clone(),
            now: Instant(0),
            wall: WallTime(1000),
        };
        let mut effects = Vec::new();
        let container = Container::start(recovery, start, &mut effects);
        let mut bench = Self {
            container,
            log,
            keep_from,
            snapshots,
            holds: false,
            stopped: None,
            settled: 0,
            tuning,
            is_local,
            epoch,
            appended: None,
            committed: None,
            clients: BTreeMap::new(),
            now: Instant(0),
        };
        bench.perform(effects);
        bench.commit_all();
        bench
    }

    /// A recovery as the store does it.
    pub(super) fn recover(
        log: &BTreeMap<Address, Stored>,
        keep_from: Address,
        snapshots: &SnapshotPointers,
    ) -> Recovery {
        let mut recovery = match snapshots.newest {
            None => Recovery::blank(),
            Some(pointer) => {
                let mut parts = Parts::new(pointer);
                while let Some(address) = parts.next() {
                    parts.push(&log[&address].payload).unwrap();
                }
                Recovery::from_parts(&parts, keep_from).unwrap()
            }
        };
        let from = recovery.from().unwrap_or_default();
        for (address, stored) in log.range(from..) {
            recovery.replay(replayed(*address, stored)).unwrap();
        }
        recovery.verify().unwrap();
        recovery
    }

    /// Power is cut: what is not committed is lost, and all connections.
    pub(super) fn crash(self) -> Self {
        let Self { mut log, epoch, committed, .. } = self;
        log.retain(|address, _| address.epoch < epoch || Some(address.entry) <= committed);
        let next = Epoch(epoch.0 + 1);
        Self::start(log, self.keep_from, self.snapshots, self.tuning, self.is_local, next)
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.container.step(self.now, input, &mut effects);
        self.container.check();
        self.perform(effects);
        if !self.holds {
            self.commit_all();
        }
    }

    /// Commits one more entry, or none if there is none.
    pub(super) fn commit_one(&mut self) {
        let next = self.committed.map_or(EntryId(0), EntryId::next);
        if Some(next) <= self.appended {
            self.committed = Some(next);
            let mut effects = Vec::new();
            self.container.step(self.now, Input::Committed { upto: next }, &mut effects);
            self.container.check();
            self.perform(effects);
        }
    }

    pub(super) fn commit_all(&mut self) {
        while self.committed < self.appended {
            self.committed = self.appended;
            let upto = self.committed.unwrap();
            let mut effects = Vec::new();
            self.container.step(self.now, Input::Committed { upto }, &mut effects);
            self.container.check();
            self.perform(effects);
        }
    }

    pub(super) fn uncommitted(&self) -> u64 {
        let count = |entry: Option<EntryId>| entry.map_or(0, |entry| entry.0 + 1);
        count(self.appended) - count(self.committed)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        if self.container.deadline().is_some_and(|at| at <= self.now) {
            self.step(Input::Tick);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut was_stored = false;
        let mut loaded = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append { entry, content } => {
                    let mut payload = BytesMut::new();
                    for chunk in &content.payload {
                        payload.extend_from_slice(chunk);
                    }
                    assert_eq!(entry, self.appended.map_or(EntryId(0), EntryId::next));
                    self.appended = Some(entry);
                    let (headers, exempt) = (content.headers, content.exempt);
                    let stored = Stored { headers, payload: payload.freeze(), exempt };
                    self.log.insert(Address::new(self.epoch, entry), stored);
                }
                Effect::Reply { replies, command } => replies.send(command),
                Effect::Close { replies, reason } => replies.close(reason),
                Effect::Load(load) => self.load(load),
                Effect::LoadRows { segment, plan } => {
                    let values = plan.values.iter().map(|place| self.value(*place)).collect();
                    loaded.push(Input::RowsLoaded { segment, plan, values });
                }
                Effect::Settle { bytes, .. } => self.settled += bytes,
                Effect::SetKeepFrom { keep_from, snapshots } => {
                    assert!(keep_from >= self.keep_from, "it never goes back");
                    self.keep_from = keep_from;
                    self.snapshots = snapshots;
                    was_stored = true;
                }
                Effect::Stop { reason } => self.stopped = Some(reason.to_string()),
            }
        }
        if was_stored {
            loaded.push(Input::KeepFromSet);
        }
        for input in loaded {
            let mut effects = Vec::new();
            self.container.step(self.now, input, &mut effects);
            self.perform(effects);
        }
    }

    fn value(&self, place: Place) -> Bytes {
        let payload = Payloads::new(std::slice::from_ref(&self.log[&place.address].payload));
        let mut value = BytesMut::new();
        let (position, len) = (place.position as usize, place.len as usize);
        assert!(payload.pieces(position, len, |piece| value.extend_from_slice(&piece)));
        value.freeze()
    }

    fn load(&self, load: Load) {
        let Load { replies, mut reply, places } = load;
        for (index, place) in places {
            assert!(place.address >= self.keep_from, "{place:?} may be gone");
            let is_committed =
                place.address.epoch < self.epoch || Some(place.address.entry) <= self.committed;
            assert!(is_committed, "{place:?} is not committed");
            let payload = Payloads::new(std::slice::from_ref(&self.log[&place.address].payload));
            let found =
                payload.pieces(
                    place.position as usize,
                    place.len as usize,
                    |piece| match &mut reply {
                        Command::SegmentRead(read) => read.data.push(piece),
                        Command::TableRead(read) => read.entries[index].value = piece,
                        other => panic!("{other:?}"),
                    },
                );
            assert!(found);
        }
        replies.send(reply);
    }

    pub(super) fn send(&mut self, connection: u64, what: What) {
        self.send_all(connection, vec![what]);
    }

    /// Several requests that arrive together.
    pub(super) fn send_all(&mut self, connection: u64, whats: Vec<What>) {
        let (way, _) = self.clients.entry(connection).or_insert_with(replies);
        let requests = whats
            .into_iter()
            .map(|what| Request {
                connection: ConnectionId(connection),
                replies: way.clone(),
                what,
            })
            .collect();
        self.step(Input::Requests { wall: WallTime(2000), requests });
    }

    /// The next answer to a connection; `None` if there is none, or its end.
    pub(super) fn answer(&mut self, connection: u64) -> Option<Command> {
        match self.clients.get_mut(&connection)?.1.try_next()? {
            Outgoing::Reply(command) => Some(command),
            Outgoing::Close(reason) => panic!("connection {connection} is closed: {reason}"),
        }
    }

    /// The connection has been closed, and nothing was sent before.
    pub(super) fn is_closed(&mut self, connection: u64) -> bool {
        let outbox = &mut self.clients.get_mut(&connection).unwrap().1;
        matches!(outbox.try_next(), Some(Outgoing::Close(_)))
    }

    pub(super) fn call(&mut self, connection: u64, command: impl Into<Command>) -> Command {
        self.send(connection, What::Command(command.into()));
        self.answer(connection).expect("an answer at once")
    }

    pub(super) fn create(&mut self, name: &str) {
        let answer = self.call(0, create(name));
        assert!(matches!(answer, Command::SegmentCreated(_)), "{answer:?}");
    }

    pub(super) fn setup(&mut self, connection: u64, writer: u128, name: &str) -> i64 {
        match self.call(connection, setup(writer, name)) {
            Command::AppendSetup(setup) => setup.last_event_number,
            other => panic!("{other:?}"),
        }
    }

    /// An append and its answer.
    pub(super) fn append(&mut self, connection: u64, append: Append) -> Option<Command> {
        self.send(connection, What::Append(append));
        self.answer(connection)
    }

    /// Puts bytes into a segment by a writer of its own.
    pub(super) fn fill(&mut self, name: &str, data: &[u8]) {
        let writer = 1_000_000 + self.log.len() as u128;
        self.setup(999, writer, name);
        let answer = self.append(999, append(writer, name, 1, data));
        assert!(matches!(answer, Some(Command::DataAppended(_))), "{answer:?}");
    }

    /// Everything that is readable from `from` on.
    pub(super) fn content(&mut self, name: &str, from: i64) -> Vec<u8> {
        let mut content = Vec::new();
        let length = self.info(name).1;
        while from + i64::try_from(content.len()).unwrap() < length {
            let offset = from + i64::try_from(content.len()).unwrap();
            match self.call(998, read(name, offset, 1 << 20)) {
                Command::SegmentRead(read) => content.extend(read.data.into_bytes()),
                other => panic!("{other:?}"),
            }
        }
        content
    }

    /// Start, length and seal.
    pub(super) fn info(&mut self, name: &str) -> (i64, i64, bool) {
        match self.call(998, info(name)) {
            Command::StreamSegmentInfo(info) => {
                (info.start_offset, info.write_offset, info.is_sealed)
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn info(name: &str) -> GetStreamSegmentInfo {
    GetStreamSegmentInfo { request_id: ID, segment: name.into(), token: token() }
}

fn token() -> String {
    String::new()
}

pub(super) fn create(name: &str) -> CreateSegment {
    CreateSegment {
        request_id: ID,
        segment: name.into(),
        target_rate: 0,
        scale_type: 0,
        token: token(),
        rollover_size_bytes: 0,
    }
}

pub(super) fn transient(writer: u128, parent: &str) -> CreateTransientSegment {
    CreateTransientSegment {
        request_id: ID,
        writer_id: WriterId(writer),
        parent_segment: parent.into(),
        token: token(),
    }
}

pub(super) fn setup(writer: u128, name: &str) -> SetupAppend {
    SetupAppend {
        request_id: ID,
        writer_id: WriterId(writer),
        segment: name.into(),
        token: token(),
    }
}

pub(super) fn append(writer: u128, name: &str, number: i64, data: &[u8]) -> Append {
    Append {
        segment: name.into(),
        writer: WriterId(writer),
        event_number: number,
        event_count: 1,
        expected_offset: None,
        request_id: ID,
        data: Bytes::copy_from_slice(data).into(),
    }
}

/// An append at an expected offset.
pub(super) fn append_at(offset: i64, append: Append) -> Append {
    Append { expected_offset: Some(offset), ..append }
}

pub(super) fn read(name: &str, offset: i64, suggested_length: i32) -> ReadSegment {
    ReadSegment { segment: name.into(), offset, suggested_length, token: token(), request_id: ID }
}

pub(super) fn seal(name: &str) -> SealSegment {
    SealSegment { request_id: ID, segment: name.into(), token: token() }
}

pub(super) fn delete(name: &str) -> DeleteSegment {
    DeleteSegment { request_id: ID, segment: name.into(), token: token() }
}

pub(super) fn truncate(name: &str, truncation_offset: i64) -> TruncateSegment {
    TruncateSegment { request_id: ID, segment: name.into(), truncation_offset, token: token() }
}

pub(super) fn merge(target: &str, source: &str, updates: Vec<AttributeUpdate>) -> MergeSegments {
    let (target, source) = (target.into(), source.into());
    MergeSegments { request_id: ID, target, source, token: token(), updates }
}

pub(super) fn batch(target: &str, sources: &[&str]) -> MergeSegmentsBatch {
    let sources = sources.iter().map(|name| SegmentName::from(*name)).collect();
    MergeSegmentsBatch { request_id: ID, target: target.into(), sources, token: token() }
}

pub(super) fn attribute(name: &str, id: u128, new: i64, old: i64) -> UpdateSegmentAttribute {
    UpdateSegmentAttribute {
        request_id: ID,
        segment: name.into(),
        attribute_id: id,
        new_value: new,
        expected_value: old,
        token: token(),
    }
}

pub(super) fn truncated_at(command: &Command) -> Option<(i64, i64)> {
    match command {
        Command::SegmentIsTruncated(SegmentIsTruncated { start_offset, offset, .. }) => {
            Some((*start_offset, *offset))
        }
        _ => None,
    }
}
