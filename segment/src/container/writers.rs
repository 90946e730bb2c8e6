//! Who writes: connections, and the writers set up on them.
//!
//! A session is a writer set up for a segment on one connection. Its `prev` is the number of its last append that was
//! stored (sequenced, that is); the next is stored only if the writer's durable position still is `prev`.

use crate::container::format::SegmentKey;
use crate::container::{Effect, Effects};
use crate::request::{ConnectionId, Replies};
use std::collections::BTreeMap;
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    ConditionalCheckFailed, DataAppended, InvalidEventNumber, NULL, NoSuchSegment, SegmentIsSealed,
};

/// Index of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(usize);

/// Why an append was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The segment takes no appends.
    Sealed,
    /// The segment is gone.
    Gone,
    /// The segment has another length.
    Condition,
    /// The writer's position is another.
    Position,
}

/// Appends that are stored and not yet acknowledged.
#[derive(Clone, Copy, Debug)]
struct Ack {
    number: i64,
    request_id: i64,
    length: i64,
}

/// A writer set up on a connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: ConnectionId,
    pub(super) replies: Replies,
    pub(super) writer: WriterId,
    pub(super) segment: SegmentKey,
    pub(super) name: SegmentName,
    /// For the segment of a large event: the segment that it will go into.
    pub(super) parent: Option<SegmentName>,
    /// The writer's position as this connection knows it.
    pub(super) prev: i64,
    /// The highest number that has arrived since failed conditions were last told.
    pub(super) highest: i64,
    /// Failed conditions that were not told yet: what was sent behind them fails too.
    pub(super) failed: u32,
    /// The segment is sealed or gone: everything fails until the writer is set up anew.
    pub(super) broken: Option<Refusal>,
    /// What the client knows to be stored.
    acked: i64,
    /// Appends sequenced and not yet answered.
    pending: u32,
    /// Not replaced by a later set-up.
    is_current: bool,
    ack: Option<Ack>,
    /// Bytes of answered appends.
    settled: usize,
}

/// A connection with something to remember.
#[derive(Debug, Default)]
pub(super) struct Client {
    writers: BTreeMap<WriterId, SessionId>,
    /// The segments of its large events.
    pub(super) transients: Vec<SegmentName>,
    /// How many of its reads are held, by segment.
    pub(super) held: BTreeMap<SegmentKey, usize>,
    /// It is to be closed: nothing more is done for it.
    pub(super) is_closing: bool,
}

/// All sessions and the connections they belong to.
#[derive(Debug, Default)]
pub(super) struct Writers {
    sessions: Vec<Option<Session>>,
    free: Vec<SessionId>,
    clients: BTreeMap<ConnectionId, Client>,
    /// Sessions with something to acknowledge, in order.
    unsent: Vec<SessionId>,
}

impl Writers {
    pub(super) fn client(&mut self, connection: ConnectionId) -> &mut Client {
        self.clients.entry(connection).or_default()
    }

    pub(super) fn known(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        self.clients.get_mut(&connection)
    }

    pub(super) fn is_closing(&self, connection: ConnectionId) -> bool {
        self.clients.get(&connection).is_some_and(|client| client.is_closing)
    }

    /// Sets a writer up at `position`; an older set-up on the same connection ends.
    pub(super) fn set_up(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        writer: WriterId,
        segment: (SegmentKey, &SegmentName),
        position: i64,
    ) {
        let (segment, name) = segment;
        let session = Session {
            connection,
            replies: replies.clone(),
            writer,
            segment,
            name: name.clone(),
            parent: name.is_transient().then(|| SegmentName::from(name.parent())),
            prev: position,
            highest: position,
            failed: 0,
            broken: None,
            acked: position,
            pending: 0,
            is_current: true,
            ack: None,
            settled: 0,
        };
        self.forget(connection, writer);
        let id = self.free.pop().unwrap_or(SessionId(self.sessions.len()));
        if id.0 == self.sessions.len() {
            self.sessions.push(None);
        }
        self.sessions[id.0] = Some(session);
        self.client(connection).writers.insert(writer, id);
    }

    /// The writer is no longer set up on that connection.
    pub(super) fn forget(&mut self, connection: ConnectionId, writer: WriterId) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if let Some(id) = client.writers.remove(&writer) {
            self.get(id).is_current = false;
            self.drop_if_done(id);
        }
    }

    /// Ends a connection; says what it held.
    pub(super) fn close(&mut self, connection: ConnectionId) -> Option<Client> {
        let client = self.clients.remove(&connection)?;
        for id in client.writers.values() {
            self.get(*id).is_current = false;
            self.drop_if_done(*id);
        }
        Some(client)
    }

    /// The session that an append of `writer` belongs to.
    pub(super) fn find(
        &mut self,
        connection: ConnectionId,
        writer: WriterId,
        segment: &SegmentName,
    ) -> Option<(SessionId, &mut Session)> {
        let id = *self.clients.get(&connection)?.writers.get(&writer)?;
        let session = self.get(id);
        (session.name == *segment).then_some((id, session))
    }

    fn get(&mut self, id: SessionId) -> &mut Session {
        self.sessions[id.0].as_mut().expect("a session lives while it is current or has appends")
    }

    fn drop_if_done(&mut self, id: SessionId) {
        let session = self.get(id);
        if !session.is_current && session.pending == 0 && session.ack.is_none() {
            self.sessions[id.0] = None;
            self.free.push(id);
        }
    }

    /// An append of the session is stored.
    pub(super) fn acknowledge(
        &mut self,
        id: SessionId,
        number: i64,
        request_id: i64,
        length: i64,
        bytes: usize,
    ) {
        let session = self.get(id);
        session.pending -= 1;
        session.settled += bytes;
        if session.ack.is_none() {
            self.unsent.push(id);
        }
        self.get(id).ack = Some(Ack { number, request_id, length });
    }

    /// An append of the session is not stored: says so behind the acknowledgement of earlier ones.
    pub(super) fn refuse(
        &mut self,
        id: SessionId,
        refusal: Refusal,
        number: i64,
        request_id: i64,
        effects: &mut Effects,
    ) -> Replies {
        self.send_ack(id, effects);
        let session = self.get(id);
        session.pending -= 1;
        let segment = session.parent.as_ref().unwrap_or(&session.name).clone();
        let (writer_id, trace) = (session.writer, String::new());
        let command = match refusal {
            Refusal::Sealed => {
                SegmentIsSealed { request_id, segment, trace, offset: number }.into()
            }
            Refusal::Gone => NoSuchSegment { request_id, segment, trace, offset: -1 }.into(),
            Refusal::Condition => {
                session.failed -= 1;
                if session.failed == 0 {
                    session.highest = session.prev;
                }
                // The lowest number that may be lost: clients that sent several events in one block look for it.
                let next = if session.acked == NULL { 1 } else { session.acked.saturating_add(1) };
                let event_number = number.min(next);
                ConditionalCheckFailed { writer_id, event_number, request_id }.into()
            }
            Refusal::Position => {
                InvalidEventNumber { writer_id, request_id, trace, event_number: number }.into()
            }
        };
        let replies = session.replies.clone();
        effects.push(Effect::Reply { replies: replies.clone(), command });
        let (connection, is_current) = (session.connection, session.is_current);
        if matches!(refusal, Refusal::Sealed | Refusal::Gone) && is_current {
            self.forget(connection, writer_id);
        } else {
            self.drop_if_done(id);
        }
        replies
    }

    fn send_ack(&mut self, id: SessionId, effects: &mut Effects) {
        let session = self.get(id);
        if session.settled > 0 {
            let bytes = std::mem::take(&mut session.settled);
            effects.push(Effect::Settle { replies: session.replies.clone(), bytes });
        }
        let Some(ack) = session.ack.take() else { return };
        debug_assert!(ack.number > session.acked, "no number is acknowledged twice");
        let command = DataAppended {
            writer_id: session.writer,
            event_number: ack.number,
            previous_event_number: std::mem::replace(&mut session.acked, ack.number),
            request_id: ack.request_id,
            current_segment_write_offset: ack.length,
        };
        effects.push(Effect::Reply { replies: session.replies.clone(), command: command.into() });
    }

    /// Sends what is to be acknowledged: once for each session.
    pub(super) fn send_acks(&mut self, effects: &mut Effects) {
        for id in std::mem::take(&mut self.unsent) {
            if self.sessions[id.0].is_some() {
                self.send_ack(id, effects);
                self.drop_if_done(id);
            }
        }
    }

    /// Asserts what holds between steps; walks nothing large.
    pub(super) fn check(&self) {
        assert!(self.unsent.is_empty(), "acknowledgements leave with the step that made them");
    }
}

impl Session {
    /// One more append is under way.
    pub(super) fn begin(&mut self) {
        self.pending += 1;
    }
}
