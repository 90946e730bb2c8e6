//! One segment as its writer sees it: numbered blocks, oldest first, and the events being gathered for the next.

use super::{ConnectionId, Content};
use crate::event::{EVENT_HEADER_BYTES, put_event};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use thalweg_types::id::WriterId;
use thalweg_types::stream::KeyRange;

/// Events that one gathered block holds at most.
const BLOCK_EVENTS_MAX: usize = 4096;
/// Blocks in flight beyond which events are gathered rather than sent at once.
const BLOCKS_IN_FLIGHT_MAX: usize = 32;

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits before it is resolved again.
    Paused,
    /// Its node is being asked for.
    Resolving,
    /// It is announced on that connection, or will be when the connection stands.
    SettingUp(ConnectionId),
    /// It takes appends there.
    Open(ConnectionId),
    /// It takes none any more; its successors are being asked for.
    Succeeding,
}

/// A submission inside a block.
#[derive(Clone, Debug)]
struct Entry {
    submission: u64,
    hash: f64,
    bytes: usize,
    events: u32,
}

/// Events that are appended together.
#[derive(Debug)]
pub(super) struct Block {
    /// The number of its last event.
    pub(super) last: i64,
    /// How many events.
    pub(super) events: u32,
    /// The events, framed.
    pub(super) data: Bytes,
    entries: Vec<Entry>,
    /// It was on a connection, now or earlier.
    was_sent: bool,
}

/// The segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) range: KeyRange,
    pub(super) writer: WriterId,
    pub(super) state: State,
    /// It takes no more appends.
    pub(super) sealed: bool,
    /// Since the last connection the server has said what is stored.
    pub(super) settled: bool,
    pub(super) attempts: u32,
    blocks: VecDeque<Block>,
    /// How many of `blocks`, from the front, are on the current connection.
    sent: usize,
    /// The last number that a block has.
    last: i64,
    gathered: BytesMut,
    entries: Vec<Entry>,
}

impl Segment {
    pub(super) fn new(range: KeyRange, writer: WriterId) -> Self {
        Self {
            range,
            writer,
            state: State::Resolving,
            sealed: false,
            settled: true,
            attempts: 0,
            blocks: VecDeque::new(),
            sent: 0,
            last: 0,
            gathered: BytesMut::new(),
            entries: Vec::new(),
        }
    }

    /// Queues a submission behind all others.
    pub(super) fn push(
        &mut self,
        submission: u64,
        hash: f64,
        content: Content,
        block_bytes_max: usize,
    ) {
        match content {
            Content::Event(event) => {
                let bytes = EVENT_HEADER_BYTES + event.len();
                let full = self.gathered.len() + bytes > block_bytes_max
                    || self.entries.len() >= BLOCK_EVENTS_MAX;
                if full {
                    self.close();
                }
                put_event(&mut self.gathered, &event);
                self.entries.push(Entry { submission, hash, bytes, events: 1 });
            }
            Content::Block { data, events } => {
                self.close();
                let entry = Entry { submission, hash, bytes: data.len(), events };
                self.push_block(data, vec![entry], events);
            }
        }
    }

    /// Makes a block of what was gathered.
    pub(super) fn close(&mut self) {
        if !self.entries.is_empty() {
            let data = self.gathered.split().freeze();
            let entries = std::mem::take(&mut self.entries);
            let events = u32::try_from(entries.len()).expect("BLOCK_EVENTS_MAX fits");
            self.push_block(data, entries, events);
        }
    }

    fn push_block(&mut self, data: Bytes, entries: Vec<Entry>, events: u32) {
        self.last += i64::from(events);
        self.blocks.push_back(Block { last: self.last, events, data, entries, was_sent: false });
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub(super) fn has_full_block(&self) -> bool {
        self.blocks.len() > self.sent
    }

    /// True if gathered events may go: few blocks are in flight.
    pub(super) fn may_close(&self) -> bool {
        self.is_open() && (self.blocks.len() < BLOCKS_IN_FLIGHT_MAX || self.has_full_block())
    }

    pub(super) fn unsent(&self) -> impl Iterator<Item = &Block> {
        self.blocks.range(self.sent..)
    }

    pub(super) fn all_sent(&mut self) {
        for block in self.blocks.range_mut(self.sent..) {
            block.was_sent = true;
        }
        self.sent = self.blocks.len();
    }

    /// True if `number` is the last number of a block on the current connection, or older.
    pub(super) fn has_sent(&self, number: i64) -> bool {
        self.sent > 0 && number <= self.last_sent()
    }

    pub(super) fn last_sent(&self) -> i64 {
        self.sent.checked_sub(1).map_or(0, |at| self.blocks[at].last)
    }

    /// True if a server that follows the protocol can have `number` as its last one.
    pub(super) fn could_have_stored(&self, number: i64) -> bool {
        number
            <= self.blocks.iter().rfind(|b| b.was_sent).map_or_else(
                || self.blocks.front().map_or(self.last, |b| b.last - i64::from(b.events)),
                |b| b.last,
            )
    }

    /// Everything up to `number` is stored: the submissions that are thereby done.
    pub(super) fn acknowledge(&mut self, number: i64) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(block) = self.blocks.pop_front_if(|block| block.last <= number) {
            self.sent = self.sent.saturating_sub(1);
            self.attempts = 0;
            done.extend(block.entries.iter().map(|entry| entry.submission));
        }
        done
    }

    /// What the planted bug PB-K1 does: the same events under new numbers.
    pub(super) fn renumber_from(&mut self, stored: i64) {
        let mut last = self.last.max(stored);
        for block in &mut self.blocks {
            last += i64::from(block.events);
            block.last = last;
        }
        self.last = last;
    }

    pub(super) fn lose_connection(&mut self) {
        self.state = State::Paused;
        self.settled = self.settled && self.sent == 0;
        self.sent = 0;
    }

    /// The server refuses appends from here on.
    pub(super) fn seal(&mut self, connection: ConnectionId) {
        self.state = State::SettingUp(connection);
        self.settled = self.settled && self.sent == 0;
        self.sealed = true;
        self.sent = 0;
    }

    pub(super) fn next_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// All submissions that are not stored, oldest first, to be written elsewhere.
    pub(super) fn into_submissions(mut self) -> Vec<(u64, f64, Content)> {
        self.close();
        let mut all = Vec::new();
        for block in self.blocks {
            let mut data = block.data;
            let raw = block.entries.len() == 1;
            for entry in block.entries {
                let mut bytes = data.split_to(entry.bytes);
                let content = if raw {
                    Content::Block { data: bytes, events: entry.events }
                } else {
                    Content::Event(bytes.split_off(EVENT_HEADER_BYTES))
                };
                all.push((entry.submission, entry.hash, content));
            }
        }
        all
    }

    /// Takes out what earlier connections have sent and the server has said nothing about since.
    pub(super) fn take_doubtful(&mut self) -> Vec<u64> {
        if self.settled {
            return Vec::new();
        }
        let is_doubtful = |block: &Block| block.was_sent;
        let blocks = std::mem::take(&mut self.blocks);
        let (doubtful, rest): (VecDeque<_>, VecDeque<_>) =
            blocks.into_iter().partition(is_doubtful);
        (self.blocks, self.sent, self.settled) = (rest, 0, true);
        let entries = doubtful.into_iter().flat_map(|block| block.entries);
        entries.map(|entry| entry.submission).collect()
    }

    /// The submissions that may be stored, and those that certainly are not.
    pub(super) fn into_outcomes(mut self) -> (Vec<u64>, Vec<u64>) {
        self.close();
        let (sent, settled) = (self.sent, self.settled);
        let (mut unknown, mut refused) = (Vec::new(), Vec::new());
        for (at, block) in self.blocks.into_iter().enumerate() {
            let maybe = at < sent || (block.was_sent && !settled);
            let into = if maybe { &mut unknown } else { &mut refused };
            into.extend(block.entries.into_iter().map(|entry| entry.submission));
        }
        (unknown, refused)
    }

    pub(super) fn check(&self) {
        let mut last = None;
        for block in &self.blocks {
            assert!(last.is_none_or(|last| last < block.last), "invariant 1: numbers go up");
            assert_eq!(
                block.entries.iter().map(|e| e.bytes).sum::<usize>(),
                block.data.len(),
                "a block is its submissions"
            );
            last = Some(block.last);
        }
        assert!(last.is_none_or(|last| last == self.last), "invariant 1: the last number");
        assert!(self.sent <= self.blocks.len(), "invariant 2");
        assert!(self.sent == 0 || self.is_open(), "invariants 2 and 4");
    }
}
