//! Setting writers up, and appends: exactly once.

use crate::container::format::{Change, Operation, SegmentKey};
use crate::container::frame::Pending;
use crate::container::lifecycle::{no_such_segment, unsupported};
use crate::container::reads::Tail;
use crate::container::writers::{Refusal, SessionId};
use crate::container::{Container, Effect, Effects};
use crate::request::{Append, ConnectionId, Replies};
use thalweg_actor::{planted, probe};
use thalweg_types::limits::ENTRY_BYTES_MAX;
use thalweg_wire::segment::{AppendSetup, SetupAppend};

/// One append, in bytes: an entry holds it with its header.
pub(super) const APPEND_BYTES_MAX: usize = ENTRY_BYTES_MAX - 1024;

/// What becomes of an append.
enum Verdict {
    Store {
        segment: SegmentKey,
        offset: i64,
        change: Change,
    },
    Refuse(Refusal),
    /// Not stored, and the connection ends without an answer.
    Close(&'static str),
}

impl Container {
    pub(super) fn setup_append(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: &SetupAppend,
    ) {
        let request_id = asked.request_id;
        let Some((key, segment)) = self.state.find(&asked.segment) else {
            self.writers.forget(connection, asked.writer_id);
            return self.answer(replies, no_such_segment(request_id, &asked.segment, -1));
        };
        if segment.is_table() {
            probe!("container: writer on a table");
            self.writers.forget(connection, asked.writer_id);
            return self.answer(replies, unsupported(request_id, "setupAppend"));
        }
        let position = segment.attribute(asked.writer_id.0);
        let name = segment.name.clone();
        self.writers.set_up(connection, replies, asked.writer_id, (key, &name), position);
        self.answer(
            replies,
            AppendSetup {
                request_id,
                segment: asked.segment.clone(),
                writer_id: asked.writer_id,
                last_event_number: position,
            },
        );
    }

    pub(super) fn append(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        append: &Append,
        effects: &mut Effects,
    ) {
        let bytes = append.data.len();
        if self.writers.is_closing(connection) {
            effects.push(Effect::Settle { replies: replies.clone(), bytes });
            return;
        }
        let Some((session, verdict)) = self.judge(connection, append) else {
            effects.push(Effect::Settle { replies: replies.clone(), bytes });
            return self.close(connection, replies, "an append without SetupAppend");
        };
        let (number, request_id) = (append.event_number, append.request_id);
        match verdict {
            Verdict::Store { segment, offset, change } => {
                self.store(segment, offset, change, append, effects);
                let length = offset + i64::try_from(bytes).expect("bounded by an entry");
                let events = append.event_count;
                self.pend(Pending::Ack { session, number, request_id, length, bytes, events });
            }
            Verdict::Refuse(refusal) => {
                if planted!("PB-S10") && refusal == Refusal::Position {
                    self.store_part(append, effects);
                }
                self.pend(Pending::Refuse { session, refusal, number, request_id, bytes });
                if refusal == Refusal::Position {
                    probe!("container: writer position refused");
                    self.close(connection, replies, "the writer went on elsewhere");
                }
            }
            Verdict::Close(reason) => {
                effects.push(Effect::Settle { replies: replies.clone(), bytes });
                self.close(connection, replies, reason);
            }
        }
    }

    /// Decides on an append and moves its session accordingly. `None`: no such session.
    fn judge(&mut self, connection: ConnectionId, append: &Append) -> Option<(SessionId, Verdict)> {
        let number = append.event_number;
        let (id, session) = self.writers.find(connection, append.writer, &append.segment)?;
        if let Some(refusal) = session.broken {
            probe!("container: append behind one to a sealed or deleted segment");
            session.begin();
            return Some((id, Verdict::Refuse(refusal)));
        }
        let segment = self.state.segments.get(&session.segment);
        // Sealed from where the seal is sequenced, not from where it is committed.
        let is_told = || self.tails.get(&session.segment).is_some_and(Tail::is_sealed);
        let is_sealed = segment.is_some_and(|segment| segment.sealed)
            && (!planted!("PB-S11") || is_told())
            || session.parent.as_ref().is_some_and(|parent| {
                self.state.find(parent).is_some_and(|(_, parent)| parent.sealed)
            });
        let Some(segment) = segment.filter(|_| !is_sealed) else {
            let refusal = if is_sealed { Refusal::Sealed } else { Refusal::Gone };
            session.broken = Some(refusal);
            session.begin();
            return Some((id, Verdict::Refuse(refusal)));
        };
        if number < 0 || number <= session.highest {
            return Some((id, Verdict::Close("an event number that is not above the last")));
        }
        if append.data.len() > APPEND_BYTES_MAX {
            return Some((id, Verdict::Close("an append beyond the limit of one entry")));
        }
        session.begin();
        let has_other_length =
            append.expected_offset.is_some_and(|at| at != segment.length) && !planted!("PB-S1");
        let is_conditional = append.expected_offset.is_some();
        if session.failed > 0 && !is_conditional
            || session.failed == 0 && segment.attribute(append.writer.0) != session.prev
        {
            return Some((id, Verdict::Refuse(Refusal::Position)));
        }
        session.highest = number;
        if session.failed > 0 || has_other_length {
            session.failed += 1;
            return Some((id, Verdict::Refuse(Refusal::Condition)));
        }
        let change = Change::of_writer(append.writer, session.prev, number);
        session.prev = number;
        let verdict = Verdict::Store { segment: session.segment, offset: segment.length, change };
        Some((id, verdict))
    }

    fn store(
        &mut self,
        segment: SegmentKey,
        offset: i64,
        change: Change,
        append: &Append,
        effects: &mut Effects,
    ) {
        let len = u32::try_from(append.data.len()).expect("bounded by an entry");
        let in_one = !planted!("PB-S2");
        let operation = Operation::Append {
            segment,
            offset,
            len,
            events: append.event_count,
            writer: in_one.then_some(change),
        };
        self.log(&operation, append.data.pieces().iter().cloned(), effects);
        self.advance(segment);
        if !in_one {
            self.submit(true, effects);
            self.log(&Operation::Attribute { segment, change }, [], effects);
        }
    }

    /// The planted bug PB-S10: half of what is refused stays.
    fn store_part(&mut self, append: &Append, effects: &mut Effects) {
        let Some((segment, target)) = self.state.find(&append.segment) else { return };
        let operation = Operation::Append {
            segment,
            offset: target.length,
            len: u32::try_from(append.data.len()).expect("bounded by an entry"),
            events: append.event_count,
            writer: None,
        };
        self.log(&operation, append.data.pieces().iter().cloned(), effects);
        self.advance(segment);
    }
}
