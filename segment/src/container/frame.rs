//! Frames: what becomes one log entry, and the answers that wait for it.

use crate::container::format::{Headers, Operation, SegmentKey};
use crate::container::reads::Visible;
use crate::container::writers::{Refusal, SessionId};
use crate::request::Replies;
use crate::table::Compaction;
use bytes::Bytes;
use thalweg_log::ledger::Entry;
use thalweg_types::id::EntryId;
use thalweg_wire::segment::Command;

use crate::place::Place;

/// An answer that waits until it is a committed fact.
#[derive(Debug)]
pub(super) enum Pending {
    Reply {
        replies: Replies,
        command: Command,
    },
    Close {
        replies: Replies,
        reason: &'static str,
    },
    /// An append is stored: acknowledge it, alone or with later ones.
    Ack {
        session: SessionId,
        number: i64,
        request_id: i64,
        length: i64,
        bytes: usize,
        events: u32,
    },
    /// An append is not stored.
    Refuse {
        session: SessionId,
        refusal: Refusal,
        number: i64,
        request_id: i64,
        bytes: usize,
    },
    /// Bytes of a request that was no append are no longer under way.
    Settle {
        replies: Replies,
        bytes: usize,
    },
    /// A table's head is to be compacted: what it needs is committed then.
    Compact {
        segment: SegmentKey,
        plan: Compaction,
    },
    /// An answer that lacks bytes.
    Load {
        replies: Replies,
        reply: Command,
        places: Vec<(usize, Place)>,
    },
}

/// What may be seen of a segment once the frame is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advance {
    pub(super) segment: SegmentKey,
    pub(super) to: Visible,
}

/// A frame that was submitted.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) entry: EntryId,
    pub(super) pending: Vec<Pending>,
    pub(super) advances: Vec<Advance>,
    pub(super) payload_len: u32,
    /// It was sent because it was full, or on its own account.
    pub(super) is_full: bool,
}

/// The frame that operations are added to.
#[derive(Debug)]
pub(super) struct OpenFrame {
    headers: Option<(Headers, i64)>,
    payload: Vec<Bytes>,
    payload_len: u32,
    exempt: bool,
    pending: Vec<Pending>,
    advances: Vec<Advance>,
}

impl Default for OpenFrame {
    fn default() -> Self {
        Self {
            headers: None,
            payload: Vec::new(),
            payload_len: 0,
            exempt: true,
            pending: Vec::new(),
            advances: Vec::new(),
        }
    }
}

impl OpenFrame {
    /// True without an operation.
    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_none()
    }

    /// True without an operation and without an answer that waits.
    pub(super) fn has_nothing(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let headers = self.headers.as_ref().map_or(0, |(headers, _)| headers.len());
        headers + self.payload_len as usize
    }

    pub(super) fn payload_len(&self) -> u32 {
        self.payload_len
    }

    /// When the frame began; `now` if it has not.
    pub(super) fn wall(&self, now: i64) -> i64 {
        self.headers.as_ref().map_or(now, |(_, wall)| *wall)
    }

    pub(super) fn push(
        &mut self,
        operation: &Operation,
        payload: impl IntoIterator<Item = Bytes>,
        wall: i64,
    ) {
        let (headers, _) = self.headers.get_or_insert_with(|| (Headers::new(wall), wall));
        headers.push(operation);
        self.payload.extend(payload.into_iter().filter(|chunk| !chunk.is_empty()));
        self.payload_len += operation.payload_len();
        self.exempt &= operation.is_exempt();
    }

    pub(super) fn pend(&mut self, pending: Pending) {
        self.pending.push(pending);
    }

    pub(super) fn take_pending(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn advance(&mut self, segment: SegmentKey, to: Visible) {
        if let Some(last) = self.advances.last_mut()
            && last.segment == segment
        {
            last.to = to;
            return;
        }
        self.advances.push(Advance { segment, to });
    }

    /// The entry to append, and what waits for it.
    pub(super) fn close(self, entry: EntryId, is_full: bool) -> (Entry, Frame) {
        let headers = self.headers.map_or_else(|| Headers::new(0), |(headers, _)| headers);
        debug_assert_eq!(
            self.payload.iter().map(Bytes::len).sum::<usize>(),
            self.payload_len as usize,
            "operations say how long their payload is"
        );
        let content =
            Entry { headers: headers.finish(), payload: self.payload, exempt: self.exempt };
        let frame = Frame {
            entry,
            pending: self.pending,
            advances: self.advances,
            payload_len: self.payload_len,
            is_full,
        };
        (content, frame)
    }
}
