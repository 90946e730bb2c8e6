//! Reading segments, and waiting at their ends.
//!
//! Readers see what is committed. A read of bytes that are there is answered at once; one at or beyond the end is held
//! until its offset exists, the segment is sealed, truncated beyond it, or gone.

use crate::container::format::SegmentKey;
use crate::container::lifecycle::{illegal, is_truncated, no_such_segment, unsupported};
use crate::container::state::Segment;
use crate::container::{Container, Effect, Effects, Load};
use crate::request::{ConnectionId, Replies};
use thalweg_actor::{planted, probe};
use thalweg_types::limits::{HELD_READS_MAX, READ_BYTES_MAX};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{ErrorMessage, Payload, ReadSegment, SegmentRead};

/// What event readers ask for. Only they take an empty answer for "ask again".
const EVENT_READER_BYTES: i32 = 8 * 1024 * 1024;
/// A read asks for at least this much.
const READ_BYTES_MIN: usize = 8;
/// A read is cut short rather than put together from more places.
const PLACES_MAX: usize = 512;

/// What of a segment is committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visible {
    /// Bytes below are gone.
    pub(super) start: i64,
    /// Length in bytes.
    pub(super) length: i64,
    /// It takes no more.
    pub(super) is_sealed: bool,
    /// When it changed, in milliseconds since 1970.
    pub(super) modified: i64,
}

impl Visible {
    /// All of `segment`.
    pub(super) fn of(segment: &Segment) -> Self {
        Self {
            start: segment.start,
            length: segment.length,
            is_sealed: segment.sealed,
            modified: segment.modified,
        }
    }
}

/// What may be seen of a segment, and who waits for more.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// `None` until its creation is committed.
    pub(super) visible: Option<Visible>,
    waiters: Vec<Waiter>,
}

impl Tail {
    pub(super) fn new(visible: Visible) -> Self {
        Self { visible: Some(visible), waiters: Vec::new() }
    }

    /// Committed length in bytes.
    pub(super) fn length(&self) -> i64 {
        self.visible.map_or(0, |visible| visible.length)
    }

    /// The seal is committed.
    pub(super) fn is_sealed(&self) -> bool {
        self.visible.is_some_and(|visible| visible.is_sealed)
    }
}

/// A read, perhaps held.
#[derive(Clone, Debug)]
struct Waiter {
    id: u64,
    connection: ConnectionId,
    replies: Replies,
    name: SegmentName,
    offset: i64,
    bytes_max: usize,
    request_id: i64,
}

impl Waiter {
    fn reply(&self, at_tail: bool, end_of_segment: bool) -> SegmentRead {
        SegmentRead {
            segment: self.name.clone(),
            offset: self.offset,
            at_tail,
            end_of_segment,
            data: Payload::default(),
            request_id: self.request_id,
        }
    }

    fn is_beyond_end(&self) -> ErrorMessage {
        illegal(self.request_id, &self.name, "the offset lies beyond the end of a sealed segment")
    }
}

impl Container {
    pub(super) fn read_segment(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: ReadSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name, offset) = (asked.request_id, asked.segment, asked.offset);
        let Some((key, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, offset));
        };
        if segment.is_table() {
            return self.answer(replies, unsupported(request_id, "readSegment"));
        }
        if offset < 0 {
            return self.answer(replies, illegal(request_id, &name, "the offset is below 0"));
        }
        if offset < segment.start {
            return self.answer(replies, is_truncated(request_id, &name, segment.start, offset));
        }
        let wanted = usize::try_from(asked.suggested_length).unwrap_or(0);
        let read = Waiter {
            id: self.reads_held,
            connection,
            replies: replies.clone(),
            name,
            offset,
            bytes_max: wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX),
            request_id,
        };
        if self.serve(key, &read, effects) {
            return;
        }
        self.reads_held += 1;
        let client = self.writers.client(connection);
        if client.held.values().sum::<usize>() >= HELD_READS_MAX {
            probe!("container: too many held reads");
            return self.close(connection, replies, "too many held reads");
        }
        *client.held.entry(key).or_default() += 1;
        if asked.suggested_length == EVENT_READER_BYTES {
            let end = self.now.after(self.tuning.event_read_held);
            self.deadlines.push_back((end, key, read.id));
        }
        self.tails.entry(key).or_default().waiters.push(read);
    }

    /// Answers a read if its offset exists or never will. False: it must be held.
    fn serve(&self, key: SegmentKey, read: &Waiter, effects: &mut Effects) -> bool {
        let (Some(tail), Some(segment)) = (self.tails.get(&key), self.state.segments.get(&key))
        else {
            return false;
        };
        let length = if planted!("PB-S5") { segment.length } else { tail.length() };
        let replies = read.replies.clone();
        if read.offset >= length {
            if !tail.is_sealed() {
                return false;
            }
            let command = if read.offset == length {
                read.reply(false, true).into()
            } else {
                read.is_beyond_end().into()
            };
            effects.push(Effect::Reply { replies, command });
            return true;
        }
        let available = usize::try_from(length - read.offset).unwrap_or(usize::MAX);
        let bytes = u32::try_from(read.bytes_max.min(available)).expect("bounded");
        let mut places = segment.places(read.offset, bytes);
        let is_limited = read.bytes_max <= available || places.len() > PLACES_MAX;
        places.truncate(PLACES_MAX);
        let reply = read.reply(!is_limited && !tail.is_sealed(), !is_limited && tail.is_sealed());
        let places = places.into_iter().map(|place| (0, place)).collect();
        effects.push(Effect::Load(Load { replies, reply: reply.into(), places }));
        true
    }

    /// A segment's committed length or seal has moved.
    pub(super) fn wake(&mut self, key: SegmentKey, effects: &mut Effects) {
        let waiters = self.take_waiters(key);
        for waiter in waiters {
            if self.serve(key, &waiter, effects) {
                self.release_held(&waiter, key);
            } else {
                self.tails.entry(key).or_default().waiters.push(waiter);
            }
        }
    }

    fn take_waiters(&mut self, key: SegmentKey) -> Vec<Waiter> {
        self.tails.get_mut(&key).map(|tail| std::mem::take(&mut tail.waiters)).unwrap_or_default()
    }

    fn release_held(&mut self, waiter: &Waiter, key: SegmentKey) {
        let Some(client) = self.writers.known(waiter.connection) else { return };
        if let Some(count) = client.held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                client.held.remove(&key);
            }
        }
    }

    /// A segment was truncated: held reads below its new start will never be served.
    pub(super) fn answer_truncated_reads(&mut self, key: SegmentKey, start: i64) {
        for waiter in self.take_waiters(key) {
            if waiter.offset >= start {
                self.tails.entry(key).or_default().waiters.push(waiter);
                continue;
            }
            probe!("container: truncated under a held read");
            self.release_held(&waiter, key);
            let reply = is_truncated(waiter.request_id, &waiter.name, start, waiter.offset);
            self.answer(&waiter.replies, reply);
        }
    }

    /// A segment has ended: so have its held reads.
    pub(super) fn end_segment(&mut self, key: SegmentKey) {
        for waiter in self.take_waiters(key) {
            self.release_held(&waiter, key);
            let reply = no_such_segment(waiter.request_id, &waiter.name, waiter.offset);
            self.answer(&waiter.replies, reply);
        }
        self.tails.remove(&key);
    }

    /// Forgets the held reads of a connection that has ended.
    pub(super) fn forget_reads(&mut self, connection: ConnectionId, keys: Vec<SegmentKey>) {
        for key in keys {
            if let Some(tail) = self.tails.get_mut(&key) {
                tail.waiters.retain(|waiter| waiter.connection != connection);
            }
        }
    }

    /// Answers the held reads whose time is over with nothing: their clients ask again.
    pub(super) fn end_held_reads(&mut self, effects: &mut Effects) {
        while let Some(&(end, key, id)) = self.deadlines.front()
            && end <= self.now
        {
            self.deadlines.pop_front();
            let Some(tail) = self.tails.get_mut(&key) else { continue };
            let Some(index) = tail.waiters.iter().position(|waiter| waiter.id == id) else {
                continue;
            };
            let waiter = tail.waiters.remove(index);
            self.release_held(&waiter, key);
            let command = waiter.reply(true, false).into();
            effects.push(Effect::Reply { replies: waiter.replies, command });
        }
    }

    /// Answers all held reads with nothing.
    pub(super) fn end_all_reads(&mut self, effects: &mut Effects) {
        let keys: Vec<_> = self.tails.keys().copied().collect();
        for key in keys {
            for waiter in self.take_waiters(key) {
                self.release_held(&waiter, key);
                let command = waiter.reply(true, false).into();
                effects.push(Effect::Reply { replies: waiter.replies, command });
            }
        }
    }
}
