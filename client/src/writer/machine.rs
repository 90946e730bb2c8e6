//! The event writer of one stream as a pure machine: routes events to segments, numbers them, and keeps every one
//! until it is known to be stored.
//!
//! Invariants, asserted by [`StreamWriter::check`]:
//! 1. A segment's blocks carry strictly increasing numbers, and the last one is the segment's last number.
//! 2. What is sent is a prefix of what is unacknowledged, and only an open segment has sent anything.
//! 3. Every hash has exactly one segment that takes it, unless the stream has ended or is not known yet.
//! 4. A segment that waits for its successors sends nothing.
//!
//! Rules that keep an event from being lost, doubled or overtaken:
//! * A block keeps its number and bounds for ever; after a reconnect everything up to the number that the server
//!   names is stored, the rest is sent again in order.
//! * An event is acknowledged only by the server's word for its own number, on the connection that is current.
//! * A sealed segment is set up once more before its events go to the successors, so that a lost acknowledgement is
//!   found. Where truncation has removed it before, nobody can tell any more: what was on its way is in doubt, and is
//!   not written once more. Until the successors are known, its key range takes events into its own queue, behind
//!   the older ones.
//!
//! Not here: connections, waiting, the window (the shell, `writer.rs`). Source: design notes on exactly-once writers.

mod segment;
#[cfg(test)]
mod tests;

use crate::config::Config;
use bytes::Bytes;
use segment::{Segment, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use thalweg_actor::machine::Machine;
use thalweg_actor::network::Endpoint;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{SegmentId, WriterId};
use thalweg_types::stream::KeyRange;
use thalweg_types::time::Instant;

/// A connection to a segment store, numbered by the machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What the application hands over in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One event without its header: gathered with its neighbours.
    Event(Bytes),
    /// Events with their headers, routed as one.
    Block {
        /// The framed events.
        data: Bytes,
        /// How many, at least 1.
        events: u32,
    },
}

/// A segment that may take events.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its id.
    pub id: SegmentId,
    /// Its part of the key space.
    pub range: KeyRange,
    /// The id to write to it with, should it be new to the machine.
    pub writer: WriterId,
}

/// What follows a segment that takes no more events.
#[derive(Clone, Debug, PartialEq)]
pub enum Succession {
    /// These segments.
    Successors(Vec<Target>),
    /// Nothing: the stream is sealed.
    Sealed,
    /// Nothing: the stream is gone.
    Deleted,
    /// The controller does not know yet, or did not answer.
    Later,
}

/// Which segments a stream has.
#[derive(Clone, Debug, PartialEq)]
pub enum Segments {
    /// These: the key space once.
    Current(Vec<Target>),
    /// None: the stream is sealed.
    Sealed,
    /// There is no such stream.
    NoSuchStream,
    /// The controller did not answer.
    Later,
}

/// What a segment store said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Everything up to `last` is stored; `NULL`: nothing.
    Setup {
        /// The segment.
        segment: SegmentId,
        /// The last event number.
        last: i64,
    },
    /// Everything up to `number` is stored.
    Appended {
        /// The segment.
        segment: SegmentId,
        /// The event number.
        number: i64,
    },
    /// The segment takes no more events.
    Sealed {
        /// The segment.
        segment: SegmentId,
    },
    /// The segment is gone.
    NoSuchSegment {
        /// The segment.
        segment: SegmentId,
    },
    /// Another node serves the segment.
    WrongHost {
        /// The segment.
        segment: SegmentId,
    },
    /// The connection lives.
    KeepAlive,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The application writes. Submissions are numbered by the shell.
    Append {
        /// The number of the submission.
        submission: u64,
        /// Where its routing key falls in `[0, 1)`.
        hash: f64,
        /// What to write.
        content: Content,
    },
    /// No more input is at hand: what was gathered may go.
    Pump,
    /// Answer to [`Effect::FetchSegments`].
    Segments(Segments),
    /// Answer to [`Effect::Resolve`]; `None`: no answer.
    Resolved {
        /// The segment.
        segment: SegmentId,
        /// Where it is served.
        endpoint: Option<Endpoint>,
    },
    /// Answer to [`Effect::Connect`].
    Connected(ConnectionId),
    /// The connection failed, or could not be made.
    Disconnected(ConnectionId),
    /// A segment store answers.
    Received {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        reply: Reply,
    },
    /// Answer to [`Effect::FetchSuccessors`].
    Succession {
        /// The segment that was asked about.
        segment: SegmentId,
        /// What follows.
        succession: Succession,
    },
    /// A deadline has come.
    Tick,
}

/// What a segment store is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Announce the writer to the segment.
    Setup {
        /// Its id there.
        writer: WriterId,
        /// The segment.
        segment: SegmentId,
    },
    /// Append a block.
    Append {
        /// Its id there.
        writer: WriterId,
        /// The segment.
        segment: SegmentId,
        /// Framed events.
        data: Bytes,
        /// How many.
        events: u32,
        /// The number of the last one.
        last: i64,
    },
    /// Ask whether the connection lives.
    KeepAlive,
}

/// Why submissions fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream is sealed: not stored.
    Sealed,
    /// There is no such stream: not stored.
    NoSuchStream,
    /// The stream or segment went away with an answer outstanding: stored or not.
    Unknown,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask for the stream's segments.
    FetchSegments,
    /// Ask where a segment is served.
    Resolve(SegmentId),
    /// Ask what follows a segment.
    FetchSuccessors(SegmentId),
    /// Connect.
    Connect {
        /// The new connection's number.
        connection: ConnectionId,
        /// Where to.
        endpoint: Endpoint,
    },
    /// Give a connection up.
    Disconnect(ConnectionId),
    /// Send.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        outgoing: Outgoing,
    },
    /// These submissions are stored.
    Acked(Vec<u64>),
    /// These submissions fail for good.
    Failed {
        /// Their numbers.
        submissions: Vec<u64>,
        /// Why.
        failure: Failure,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Fetch,
    Resolve(SegmentId),
    Succession(SegmentId),
    Connection(ConnectionId),
}

/// One connection as the machine sees it.
#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    up: bool,
    /// When it last showed life.
    heard: Instant,
    segments: BTreeSet<SegmentId>,
}

/// A submission whose segment is not known yet.
#[derive(Debug)]
struct Held {
    submission: u64,
    hash: f64,
    content: Content,
}

/// The machine.
pub struct StreamWriter {
    config: Config,
    segments: BTreeMap<SegmentId, Segment>,
    /// Upper bound and owner of each part of the key space, ascending.
    routes: Vec<(f64, SegmentId)>,
    links: BTreeMap<ConnectionId, Link>,
    connection_next: u64,
    /// Before the stream is known.
    held: VecDeque<Held>,
    known: bool,
    ended: Option<Failure>,
    timers: BTreeSet<(Instant, Timer)>,
    fetch_attempts: u32,
    /// Segments with gathered events that [`Input::Pump`] may send.
    dirty: BTreeSet<SegmentId>,
}

impl Machine for StreamWriter {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Append { submission, hash, content } => {
                self.append(Held { submission, hash, content }, effects);
            }
            Input::Pump => self.pump(effects),
            Input::Segments(segments) => self.segments(now, segments, effects),
            Input::Resolved { segment, endpoint } => {
                self.resolved(now, segment, endpoint, effects);
            }
            Input::Connected(connection) => self.connected(now, connection, effects),
            Input::Disconnected(connection) => self.disconnected(now, connection, effects),
            Input::Received { connection, reply } => self.received(now, connection, reply, effects),
            Input::Succession { segment, succession } => {
                self.succession(now, segment, succession, effects);
            }
            Input::Tick => self.tick(now, effects),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn check(&self) {
        for segment in self.segments.values() {
            segment.check();
        }
        assert!(
            self.ended.is_none() || self.segments.is_empty(),
            "an ended writer has no segments"
        );
        assert!(!self.known || self.ended.is_some() || !self.routes.is_empty(), "invariant 3");
    }
}

impl StreamWriter {
    /// A writer that knows nothing yet; its first effect is in `effects`.
    pub fn new(config: Config, effects: &mut Vec<Effect>) -> Self {
        effects.push(Effect::FetchSegments);
        Self {
            config,
            segments: BTreeMap::new(),
            routes: Vec::new(),
            links: BTreeMap::new(),
            connection_next: 0,
            held: VecDeque::new(),
            known: false,
            ended: None,
            timers: BTreeSet::new(),
            fetch_attempts: 0,
            dirty: BTreeSet::new(),
        }
    }

    fn append(&mut self, held: Held, effects: &mut Vec<Effect>) {
        if let Some(failure) = self.ended {
            return effects.push(Effect::Failed { submissions: vec![held.submission], failure });
        }
        if !self.known {
            return self.held.push_back(held);
        }
        let id = self.route(held.hash);
        let Some(segment) = self.segments.get_mut(&id) else { return };
        segment.push(held.submission, held.hash, held.content, self.config.block_bytes_max);
        self.dirty.insert(id);
        if segment.has_full_block() {
            Self::send_blocks(id, segment, effects);
        }
    }

    /// The segment that takes events with that hash.
    fn route(&self, hash: f64) -> SegmentId {
        let at = self.routes.partition_point(|(high, _)| *high <= hash);
        self.routes[at.min(self.routes.len() - 1)].1
    }

    /// Rebuilds the routes. Where two segments claim a hash, the older one does until it is resolved: its successor
    /// must not get a key's newer events while the older ones wait.
    fn rebuild_routes(&mut self) {
        let mut bounds: Vec<f64> =
            self.segments.values().flat_map(|s| [s.range.low, s.range.high]).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        let mut by_low: Vec<_> = self.segments.iter().map(|(id, s)| (s.range, *id)).collect();
        by_low.sort_by(|a, b| a.0.low.total_cmp(&b.0.low).then(a.1.cmp(&b.1)));
        let mut by_low = by_low.into_iter().peekable();
        let mut active: BTreeMap<SegmentId, f64> = BTreeMap::new();
        self.routes.clear();
        for pair in bounds.windows(2) {
            while let Some((range, id)) = by_low.next_if(|(range, _)| range.low <= pair[0]) {
                active.insert(id, range.high);
            }
            while active.first_key_value().is_some_and(|(_, high)| *high <= pair[0]) {
                active.pop_first();
            }
            let owner = active.iter().find(|(_, high)| **high > pair[0]).map(|(id, _)| *id);
            if let Some(owner) = owner {
                self.routes.push((pair[1], owner));
            }
        }
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(segment) = self.segments.get_mut(&id) else { continue };
            if segment.may_close() {
                segment.close();
                Self::send_blocks(id, segment, effects);
            } else if segment.is_open() {
                self.dirty.insert(id);
            }
        }
    }

    /// Sends whatever is closed and unsent, if the segment is open.
    fn send_blocks(id: SegmentId, segment: &mut Segment, effects: &mut Vec<Effect>) {
        let State::Open(connection) = segment.state else { return };
        let writer = segment.writer;
        effects.extend(segment.unsent().map(|block| Effect::Send {
            connection,
            outgoing: Outgoing::Append {
                writer,
                segment: id,
                data: block.data.clone(),
                events: block.events,
                last: block.last,
            },
        }));
        segment.all_sent();
    }

    fn segments(&mut self, now: Instant, segments: Segments, effects: &mut Vec<Effect>) {
        if self.known || self.ended.is_some() {
            return;
        }
        match segments {
            Segments::Current(targets) if !targets.is_empty() => {
                self.known = true;
                self.adopt(targets, effects);
                for held in std::mem::take(&mut self.held) {
                    self.append(held, effects);
                }
            }
            Segments::Current(_) | Segments::Sealed => self.end(Failure::Sealed, effects),
            Segments::NoSuchStream => self.end(Failure::NoSuchStream, effects),
            Segments::Later => {
                self.fetch_attempts = self.fetch_attempts.saturating_add(1);
                let at = now.after(self.config.retry_delay(self.fetch_attempts));
                self.timers.insert((at, Timer::Fetch));
            }
        }
    }

    /// Takes segments into the table, those that are new.
    fn adopt(&mut self, targets: Vec<Target>, effects: &mut Vec<Effect>) {
        for target in targets {
            self.segments.entry(target.id).or_insert_with(|| {
                effects.push(Effect::Resolve(target.id));
                Segment::new(target.range, target.writer)
            });
        }
        self.rebuild_routes();
    }

    fn resolved(
        &mut self,
        now: Instant,
        id: SegmentId,
        endpoint: Option<Endpoint>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id).filter(|s| s.state == State::Resolving)
        else {
            return;
        };
        let Some(endpoint) = endpoint else {
            let at = now.after(self.config.retry_delay(segment.next_attempt()));
            segment.state = State::Paused;
            self.timers.insert((at, Timer::Resolve(id)));
            return;
        };
        let known = self.links.iter().find(|(_, link)| link.endpoint == endpoint);
        if let Some((connection, up)) = known.map(|(connection, link)| (*connection, link.up)) {
            return self.attach(id, connection, up, effects);
        }
        let connection = ConnectionId(self.connection_next);
        self.connection_next += 1;
        let link =
            Link { endpoint: endpoint.clone(), up: false, heard: now, segments: BTreeSet::new() };
        self.links.insert(connection, link);
        let at = now.after(self.config.connect_timeout);
        self.timers.insert((at, Timer::Connection(connection)));
        effects.push(Effect::Connect { connection, endpoint });
        self.attach(id, connection, false, effects);
    }

    /// Puts a segment on a connection, and sets it up if the connection stands.
    fn attach(
        &mut self,
        id: SegmentId,
        connection: ConnectionId,
        up: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        if let Some(link) = self.links.get_mut(&connection) {
            link.segments.insert(id);
        }
        segment.state = State::SettingUp(connection);
        if up {
            let outgoing = Outgoing::Setup { writer: segment.writer, segment: id };
            effects.push(Effect::Send { connection, outgoing });
        }
    }

    fn connected(&mut self, now: Instant, connection: ConnectionId, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.get_mut(&connection).filter(|link| !link.up) else { return };
        link.up = true;
        link.heard = now;
        let ids: Vec<_> = link.segments.iter().copied().collect();
        for id in ids {
            self.attach(id, connection, true, effects);
        }
    }

    fn disconnected(&mut self, now: Instant, connection: ConnectionId, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.remove(&connection) else { return };
        probe!("writer: connection lost");
        effects.push(Effect::Disconnect(connection));
        for id in link.segments {
            self.detach(now, id);
        }
    }

    /// A segment lost its connection: it is resolved anew, after a pause.
    fn detach(&mut self, now: Instant, id: SegmentId) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        segment.lose_connection();
        let at = now.after(self.config.retry_delay(segment.next_attempt()));
        self.timers.insert((at, Timer::Resolve(id)));
    }

    fn received(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get_mut(&connection) else {
            probe!("writer: reply of an old connection ignored");
            return;
        };
        link.heard = now;
        let id = match reply {
            Reply::Setup { segment, .. }
            | Reply::Appended { segment, .. }
            | Reply::Sealed { segment }
            | Reply::NoSuchSegment { segment }
            | Reply::WrongHost { segment } => segment,
            Reply::KeepAlive => return,
        };
        let Some(segment) = self.segments.get_mut(&id) else { return };
        match (reply, segment.state) {
            (Reply::Setup { last, .. }, State::SettingUp(on)) if on == connection => {
                self.set_up(now, connection, (id, last), effects);
            }
            (Reply::Appended { number, .. }, State::Open(on)) if on == connection => {
                self.appended(now, connection, (id, number), effects);
            }
            (Reply::Sealed { .. }, State::Open(on)) if on == connection => {
                probe!("writer: segment sealed under it");
                segment.seal(connection);
                let outgoing = Outgoing::Setup { writer: segment.writer, segment: id };
                effects.push(Effect::Send { connection, outgoing });
            }
            (Reply::NoSuchSegment { .. }, State::Open(on) | State::SettingUp(on))
                if on == connection =>
            {
                probe!("writer: segment gone under it");
                failed(segment.take_doubtful(), Failure::Unknown, effects);
                segment.seal(connection);
                self.ask_successors(id, connection, effects);
            }
            (Reply::WrongHost { .. }, State::Open(on) | State::SettingUp(on))
                if on == connection =>
            {
                link.segments.remove(&id);
                self.detach(now, id);
            }
            _ => {}
        }
    }

    /// The server names the last number that it has stored.
    fn set_up(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        (id, last): (SegmentId, i64),
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        if !segment.could_have_stored(last) {
            // Because: the position is not one of ours; going on would store events twice or drop some.
            return self.disconnected(now, connection, effects);
        }
        if planted!("PB-K1") {
            segment.renumber_from(last);
        } else {
            acked(segment.acknowledge(last), effects);
        }
        segment.settled = true;
        if segment.sealed {
            return self.ask_successors(id, connection, effects);
        }
        segment.state = State::Open(connection);
        if !segment.has_full_block() {
            segment.attempts = 0;
        }
        self.dirty.insert(id);
        Self::send_blocks(id, segment, effects);
    }

    fn appended(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        (id, number): (SegmentId, i64),
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        if !segment.has_sent(number) {
            return self.disconnected(now, connection, effects);
        }
        let number = if planted!("PB-K2") { segment.last_sent() } else { number };
        acked(segment.acknowledge(number), effects);
        if segment.is_open() {
            self.dirty.insert(id);
        }
    }

    fn ask_successors(
        &mut self,
        id: SegmentId,
        connection: ConnectionId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        segment.state = State::Succeeding;
        if let Some(link) = self.links.get_mut(&connection) {
            link.segments.remove(&id);
        }
        effects.push(Effect::FetchSuccessors(id));
    }

    fn succession(
        &mut self,
        now: Instant,
        id: SegmentId,
        succession: Succession,
        effects: &mut Vec<Effect>,
    ) {
        let Some(segment) = self.segments.get_mut(&id).filter(|s| s.state == State::Succeeding)
        else {
            return;
        };
        match succession {
            Succession::Successors(targets) if !targets.is_empty() => {
                let Some(old) = self.segments.remove(&id) else { return };
                self.dirty.remove(&id);
                self.adopt(targets, effects);
                for (submission, hash, content) in old.into_submissions() {
                    self.append(Held { submission, hash, content }, effects);
                }
            }
            Succession::Successors(_) | Succession::Later => {
                let at = now.after(self.config.retry_delay(segment.next_attempt()));
                self.timers.insert((at, Timer::Succession(id)));
            }
            Succession::Sealed => self.end(Failure::Sealed, effects),
            Succession::Deleted => self.end(Failure::NoSuchStream, effects),
        }
    }

    /// Nothing can be written any more: everything outstanding fails, each with what is known about it.
    fn end(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        self.ended = Some(failure);
        for segment in std::mem::take(&mut self.segments).into_values() {
            let (unknown, refused) = segment.into_outcomes();
            failed(unknown, Failure::Unknown, effects);
            failed(refused, failure, effects);
        }
        failed(self.held.drain(..).map(|h| h.submission).collect(), failure, effects);
        effects.extend(std::mem::take(&mut self.links).into_keys().map(Effect::Disconnect));
        self.timers.clear();
        self.dirty.clear();
        self.routes.clear();
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Fetch => effects.push(Effect::FetchSegments),
                Timer::Resolve(id) => {
                    if let Some(segment) = self.segments.get_mut(&id)
                        && segment.state == State::Paused
                    {
                        segment.state = State::Resolving;
                        effects.push(Effect::Resolve(id));
                    }
                }
                Timer::Succession(id) => {
                    if self.segments.get(&id).is_some_and(|s| s.state == State::Succeeding) {
                        effects.push(Effect::FetchSuccessors(id));
                    }
                }
                Timer::Connection(connection) => self.look_after(now, connection, effects),
            }
        }
    }

    /// Keeps a connection alive, or gives it up.
    fn look_after(&mut self, now: Instant, connection: ConnectionId, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.get(&connection) else { return };
        let silent = now.since(link.heard);
        let pause: Duration = self.config.keep_alive;
        if !link.up || silent >= pause.saturating_mul(2) {
            probe!("writer: silent connection given up");
            return self.disconnected(now, connection, effects);
        }
        if silent >= pause {
            effects.push(Effect::Send { connection, outgoing: Outgoing::KeepAlive });
        }
        self.timers.insert((now.after(pause), Timer::Connection(connection)));
    }
}

fn acked(submissions: Vec<u64>, effects: &mut Vec<Effect>) {
    if !submissions.is_empty() {
        effects.push(Effect::Acked(submissions));
    }
}

fn failed(submissions: Vec<u64>, failure: Failure, effects: &mut Vec<Effect>) {
    if !submissions.is_empty() {
        effects.push(Effect::Failed { submissions, failure });
    }
}
