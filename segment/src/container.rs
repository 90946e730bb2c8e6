//! A segment container: the machine that orders everything that happens to its segments, and logs it.
//!
//! Requests are *sequenced*: validated against the state, turned into operations, applied at once, and packed into the
//! open frame, which becomes one log entry. What a client may know of it waits for the entry to be *committed*. There
//! is one state, and it runs ahead of the log; if the log stops, the container ends, and nobody has heard of what was
//! not committed.
//!
//! Invariants
//! 1. (C2, C7) A reply is released when every operation sequenced before it is committed; only bytes below a
//!    segment's committed length, and a committed seal, are told at once. A log that is not in this process gets a
//!    barrier of its own for replies that change nothing.
//! 2. (C3) Operations stand in the log in the order of validation. An operation's address is known when it is
//!    sequenced: entries are numbered from 0 in one ledger, and only this container appends to it.
//! 3. (C4) Replies for one writer are released in the order of its appends; no number is acknowledged twice.
//! 4. (C9) A writer's position moves in the same operation as its bytes, and only from the value at which its
//!    connection stands: appends of a connection form a chain. So an event is stored at most once whatever
//!    connection carried it.
//! 5. Never more than [`Tuning::frames_in_flight`] frames that are not full are under way.
//! 6. (C8) Extents partition every segment.
//!
//! The check of writers is on positions alone: an older connection of a writer that stands at the stored position may
//! go on, as Pravega allows; the younger one then fails its own check and sets up again.
//!
//! Not here: waiting, the log and the cache (the store's shell), tables' rows (`table`), bytes on the wire.
//! Source: design notes, protocol.md §2 and §5, and the notes on Pravega's protocol.

mod appends;
mod codec;
mod extents;
mod format;
mod frame;
mod lifecycle;
mod merges;
mod reads;
mod recovery;
mod release;
mod snapshot;
mod snapshots;
mod state;
mod tables;
mod writers;

#[cfg(test)]
mod tests;

pub use codec::FormatError;
pub use recovery::{RecoveryError, Replayed};
pub use state::Mismatch;

pub(crate) use format::SegmentKey;
pub(crate) use recovery::{Parts, Recovery, Start};

use crate::place::Place;
use crate::request::{ConnectionId, Replies, Request, What};
use crate::table::Compaction;
use bytes::Bytes;
use format::Operation;
use frame::{Frame, OpenFrame, Pending};
use reads::{Tail, Visible};
use snapshots::Retention;
use state::{At, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::machine::Machine;
use thalweg_actor::probe;
use thalweg_log::ledger::{Entry, SnapshotPointers};
use thalweg_types::id::{Address, EntryId, Epoch};
use thalweg_types::limits::ENTRY_BYTES_TARGET;
use thalweg_types::time::{Instant, WallTime};
use thalweg_wire::segment::Command;
use writers::Writers;

/// What may be set about a container.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Frames under way at most, unless they are full.
    pub frames_in_flight: usize,
    /// Bytes of a full frame.
    pub frame_bytes: usize,
    /// Log bytes since the last snapshot that make a new one due, if the state is not larger.
    pub snapshot_log_bytes: u64,
    /// Entries since the last snapshot that make a new one due, if the state is not much larger than they are: a
    /// restart replays them one by one, however small they are.
    pub snapshot_entries: u64,
    /// How long nothing must happen until a snapshot is taken anyway.
    pub snapshot_idle: Duration,
    /// How long the read of an event reader is held at most.
    pub event_read_held: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            frames_in_flight: 6,
            frame_bytes: ENTRY_BYTES_TARGET,
            snapshot_log_bytes: 64 * 1024 * 1024,
            snapshot_entries: 4096,
            snapshot_idle: Duration::from_secs(10),
            event_read_held: Duration::from_secs(25),
        }
    }
}

/// What can happen to a container.
#[derive(Debug)]
pub(crate) enum Input {
    /// Requests have arrived, in this order.
    Requests {
        /// The time of day.
        wall: WallTime,
        /// What was asked.
        requests: Vec<Request>,
    },
    /// Entries of this container's ledger are committed up to this one.
    Committed {
        /// The last committed entry.
        upto: EntryId,
    },
    /// What [`Effect::LoadRows`] asked for.
    RowsLoaded {
        /// Which table.
        segment: SegmentKey,
        /// What is to be copied.
        plan: Compaction,
        /// The values, in the order of the plan.
        values: Vec<Bytes>,
    },
    /// What [`Effect::SetKeepFrom`] asked for is stored.
    KeepFromSet,
    /// The disk is full, or no more.
    Space {
        /// It is full.
        is_short: bool,
    },
    /// A deadline may have passed.
    Tick,
    /// The container is about to end: held reads are answered with nothing.
    EndReads,
}

/// What a container wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Append to the ledger; its number will be `entry`.
    Append {
        /// The number it must get.
        entry: EntryId,
        /// What to append.
        content: Entry,
    },
    /// Send an answer.
    Reply {
        /// Where to.
        replies: Replies,
        /// The answer.
        command: Command,
    },
    /// End a connection behind what was sent.
    Close {
        /// Which one.
        replies: Replies,
        /// Why.
        reason: &'static str,
    },
    /// Fetch bytes from committed entries, put them into an answer, and send it.
    Load(Load),
    /// Fetch the values that a compaction copies, from committed entries: [`Input::RowsLoaded`]. If they cannot be
    /// read the table is not compacted any more.
    LoadRows {
        /// Which table.
        segment: SegmentKey,
        /// Where they lie.
        plan: Compaction,
    },
    /// Bytes of appends are no longer under way.
    Settle {
        /// Whose they were.
        replies: Replies,
        /// How many.
        bytes: usize,
    },
    /// Declare the log below `keep_from` disposable and store where the snapshots are.
    SetKeepFrom {
        /// The first entry to keep.
        keep_from: Address,
        /// The snapshots to begin a recovery with.
        snapshots: SnapshotPointers,
    },
    /// The container's state and log disagree: it must end at once.
    Stop {
        /// What disagrees.
        reason: Arc<str>,
    },
}

/// An answer that lacks bytes.
#[derive(Debug)]
pub(crate) struct Load {
    /// Where the answer goes.
    pub(crate) replies: Replies,
    /// The answer, without the bytes.
    pub(crate) reply: Command,
    /// Which part of the answer has its bytes where.
    pub(crate) places: Vec<(usize, Place)>,
}

/// The machine.
pub(crate) struct Container {
    tuning: Tuning,
    epoch: Epoch,
    /// The only replica of the log is in this process.
    is_local: bool,
    state: State,
    writers: Writers,
    /// What readers may see of each segment.
    tails: BTreeMap<SegmentKey, Tail>,
    /// Held reads that end by themselves, in the order of their ends.
    deadlines: VecDeque<(Instant, SegmentKey, u64)>,
    open: OpenFrame,
    in_flight: VecDeque<Frame>,
    next_entry: EntryId,
    /// The last entry of the log as far as it was recovered or submitted.
    last_address: Option<Address>,
    now: Instant,
    /// Milliseconds since 1970, never going back.
    wall: i64,
    retention: Retention,
    reads_held: u64,
    transients_made: u64,
    /// Tables whose compaction is under way, or impossible.
    compacting: BTreeSet<SegmentKey>,
    acknowledged: Acknowledged,
    has_stopped: bool,
}

/// Appends that have been acknowledged since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Blocks that were appended as one.
    pub blocks: u64,
    /// Events in them, as their writers counted them.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Acknowledged {
    fn add(&mut self, bytes: usize, events: u32) {
        self.blocks += 1;
        self.events += u64::from(events);
        self.bytes += bytes as u64;
    }
}

/// Everything a step writes to.
type Effects = Vec<Effect>;

impl Container {
    /// The address that the open frame will have.
    fn next_address(&self) -> Address {
        Address::new(self.epoch, self.next_entry)
    }

    /// Logs an operation: applies it and adds it to the open frame. False if it does not fit the state: the container
    /// then ends.
    fn log(
        &mut self,
        operation: &Operation,
        payload: impl IntoIterator<Item = Bytes>,
        effects: &mut Effects,
    ) -> bool {
        let bytes = operation.bytes();
        if !self.open.is_empty() && self.open.bytes() + bytes > self.tuning.frame_bytes {
            self.submit(true, effects);
        }
        let at = At {
            address: self.next_address(),
            position: self.open.payload_len(),
            wall: self.open.wall(self.wall),
        };
        if let Err(mismatch) = self.state.apply(operation, at) {
            probe!("container: an operation does not fit");
            self.stop(mismatch.to_string(), effects);
            return false;
        }
        self.open.push(operation, payload, at.wall);
        true
    }

    /// Notes how far a segment is sequenced: that may be seen when the open frame is committed.
    fn advance(&mut self, key: SegmentKey) {
        if let Some(segment) = self.state.segments.get(&key) {
            self.open.advance(key, Visible::of(segment));
        }
    }

    fn pend(&mut self, pending: Pending) {
        self.open.pend(pending);
    }

    /// An answer that is true at this point of the sequence.
    fn answer(&mut self, replies: &Replies, command: impl Into<Command>) {
        self.pend(Pending::Reply { replies: replies.clone(), command: command.into() });
    }

    /// Sends the open frame on its way, however many are.
    fn submit(&mut self, is_full: bool, effects: &mut Effects) {
        let entry = self.next_entry;
        self.last_address = Some(self.next_address());
        self.next_entry = entry.next();
        let (content, frame) = std::mem::take(&mut self.open).close(entry, is_full);
        self.retention.logged(content.headers.len() + frame.payload_len as usize, self.now);
        self.in_flight.push_back(frame);
        effects.push(Effect::Append { entry, content });
    }

    /// Sends what there is as far as frames in flight allow, and finds replies that change nothing a frame to wait
    /// for.
    fn flush(&mut self, effects: &mut Effects) {
        if self.has_stopped || self.open.has_nothing() {
            return;
        }
        if self.open.is_empty() && self.is_local {
            let pending = self.open.take_pending();
            match self.in_flight.back_mut() {
                Some(frame) => frame.pending.extend(pending),
                None => self.release(pending, effects),
            }
            return;
        }
        if self.open.is_empty() {
            self.log(&Operation::NoOp, [], effects);
        }
        if self.in_flight.len() < self.tuning.frames_in_flight {
            self.submit(false, effects);
        }
    }

    fn stop(&mut self, reason: String, effects: &mut Effects) {
        self.has_stopped = true;
        effects.push(Effect::Stop { reason: reason.into() });
    }

    fn sequence(&mut self, request: Request, effects: &mut Effects) {
        let Request { connection, replies, what } = request;
        let bytes = what.bytes();
        match what {
            What::ConnectionClosed => self.connection_closed(connection, effects),
            What::Append(append) => self.append(connection, &replies, &append, effects),
            What::Command(command) => {
                if !self.writers.is_closing(connection) {
                    self.command(connection, &replies, command, effects);
                }
                if bytes > 0 {
                    self.pend(Pending::Settle { replies, bytes });
                }
            }
        }
    }

    fn command(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        command: Command,
        effects: &mut Effects,
    ) {
        match command {
            Command::SetupAppend(asked) => self.setup_append(connection, replies, &asked),
            Command::ReadSegment(asked) => self.read_segment(connection, replies, asked, effects),
            Command::GetStreamSegmentInfo(asked) => {
                self.segment_info(replies, asked, effects);
            }
            Command::GetSegmentAttribute(asked) => self.get_attribute(replies, asked),
            Command::UpdateSegmentAttribute(asked) => {
                self.update_attribute(replies, asked, effects);
            }
            Command::LocateOffset(asked) => self.locate_offset(replies, asked),
            Command::CreateSegment(asked) => {
                self.create_segment(connection, replies, asked, effects);
            }
            Command::CreateTransientSegment(asked) => {
                self.create_transient(connection, replies, &asked, effects);
            }
            Command::SealSegment(asked) => self.seal_segment(replies, asked, effects),
            Command::DeleteSegment(asked) => self.delete_segment(replies, asked, effects),
            Command::UpdateSegmentPolicy(asked) => self.update_policy(replies, asked, effects),
            Command::TruncateSegment(asked) => {
                self.truncate_segment(connection, replies, asked, effects);
            }
            Command::MergeSegments(asked) => self.merge_segments(replies, asked, effects),
            Command::MergeSegmentsBatch(asked) => self.merge_batch(replies, asked, effects),
            Command::CreateTableSegment(asked) => {
                self.create_table(connection, replies, asked, effects);
            }
            Command::DeleteTableSegment(asked) => self.delete_table(replies, asked, effects),
            Command::UpdateTableEntries(_) | Command::RemoveTableKeys(_) => {
                self.change_table(replies, &command, effects);
            }
            Command::GetTableSegmentInfo(_)
            | Command::ReadTable(_)
            | Command::ReadTableKeys(_)
            | Command::ReadTableEntries(_)
            | Command::ReadTableEntriesDelta(_) => self.read_table(replies, &command),
            _ => self.close(connection, replies, "not a request to a container"),
        }
    }

    /// Ends a connection behind the answers that are due to it. What it asks from now on is not done.
    fn close(&mut self, connection: ConnectionId, replies: &Replies, reason: &'static str) {
        self.writers.client(connection).is_closing = true;
        self.pend(Pending::Close { replies: replies.clone(), reason });
    }
}

impl Machine for Container {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        if self.has_stopped {
            return;
        }
        match input {
            Input::Requests { wall, requests } => {
                self.wall = self.wall.max(wall.0);
                for request in requests {
                    self.sequence(request, effects);
                    if self.has_stopped {
                        return;
                    }
                }
            }
            Input::Committed { upto } => self.committed(upto, effects),
            Input::RowsLoaded { segment, plan, values } => {
                self.compact_table(segment, &plan, values, effects);
            }
            Input::KeepFromSet => self.retention.stored(),
            Input::Space { is_short } => self.retention.space(is_short),
            Input::Tick => self.end_held_reads(effects),
            Input::EndReads => self.end_all_reads(effects),
        }
        self.flush(effects);
        self.snapshot_if_due(effects);
    }

    fn deadline(&self) -> Option<Instant> {
        let held = self.deadlines.front().map(|(at, ..)| *at);
        let snapshot = self.retention.idle_deadline(&self.tuning);
        held.into_iter().chain(snapshot).min()
    }

    fn check(&self) {
        let partial = self.in_flight.iter().filter(|frame| !frame.is_full).count();
        assert!(partial <= self.tuning.frames_in_flight, "invariant 5: {partial} frames");
        let entries = self.in_flight.iter().map(|frame| frame.entry.0);
        let first = self.next_entry.0 - self.in_flight.len() as u64;
        assert!(entries.eq(first..self.next_entry.0), "invariant 2: entries in flight have a gap");
        self.writers.check();
    }
}
