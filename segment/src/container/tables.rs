//! Table requests: the table judges and answers, the container logs and waits.

use crate::container::format::{Kind, Operation, SegmentKey};
use crate::container::frame::Pending;
use crate::container::lifecycle::{already_exists, no_such_segment, unsupported};
use crate::container::state::Content;
use crate::container::{Container, Effects};
use crate::place::Answer;
use crate::request::{ConnectionId, Replies};
use crate::table::{Compaction, FIXED_KEY_BYTES_MAX, Table};
use bytes::Bytes;
use thalweg_actor::probe;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    Command, CreateTableSegment, DeleteTableSegment, SegmentCreated, SegmentDeleted,
};

/// What one step of a compaction copies, in bytes.
const COMPACTION_BYTES: i64 = 256 * 1024;

/// Request id, table, and the request's name as Pravega calls it.
fn addressed(command: &Command) -> Option<(i64, &SegmentName, &'static str)> {
    match command {
        Command::UpdateTableEntries(asked) => {
            Some((asked.request_id, &asked.segment, "updateTableEntries"))
        }
        Command::RemoveTableKeys(asked) => {
            Some((asked.request_id, &asked.segment, "removeTableKeys"))
        }
        Command::GetTableSegmentInfo(asked) => {
            Some((asked.request_id, &asked.segment, "getTableSegmentInfo"))
        }
        Command::ReadTable(asked) => Some((asked.request_id, &asked.segment, "readTable")),
        Command::ReadTableKeys(asked) => Some((asked.request_id, &asked.segment, "readTableKeys")),
        Command::ReadTableEntries(asked) => {
            Some((asked.request_id, &asked.segment, "readTableEntries"))
        }
        Command::ReadTableEntriesDelta(asked) => {
            Some((asked.request_id, &asked.segment, "readTableEntriesDelta"))
        }
        _ => None,
    }
}

impl Container {
    fn table(&self, command: &Command) -> Result<(SegmentKey, &Table), Box<Command>> {
        let (request_id, name, operation) =
            addressed(command).expect("only table requests come here");
        let Some((key, segment)) = self.state.find(name) else {
            return Err(Box::new(no_such_segment(request_id, name, -1).into()));
        };
        match &segment.content {
            Content::Table(table) => Ok((key, table)),
            Content::Stream { .. } => Err(Box::new(unsupported(request_id, operation).into())),
        }
    }

    pub(super) fn create_table(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: CreateTableSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        if name.as_str().is_empty() || asked.key_length > FIXED_KEY_BYTES_MAX {
            return self.close(connection, replies, "a table without a name or of too long keys");
        }
        if self.is_taken(&name) {
            return self.answer(replies, already_exists(request_id, name));
        }
        let key_length = asked.key_length.max(0);
        self.create(name.clone(), Kind::Table { key_length }, effects);
        self.answer(replies, SegmentCreated { request_id, segment: name });
    }

    pub(super) fn delete_table(
        &mut self,
        replies: &Replies,
        asked: DeleteTableSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((key, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        let Content::Table(table) = &segment.content else {
            return self.answer(replies, unsupported(request_id, "deleteTableSegment"));
        };
        if let Err(error) = table.delete(asked.must_be_empty) {
            let refusal = error.reply(request_id, &name);
            return self.answer(replies, refusal);
        }
        self.delete(key, effects);
        self.answer(replies, SegmentDeleted { request_id, segment: name });
    }

    pub(super) fn change_table(
        &mut self,
        replies: &Replies,
        command: &Command,
        effects: &mut Effects,
    ) {
        let judged = self.table(command).and_then(|(key, table)| Ok((key, table.change(command)?)));
        let (segment, rows) = match judged {
            Ok(judged) => judged,
            Err(refusal) => return self.answer(replies, *refusal),
        };
        let len = rows.payload.iter().map(Bytes::len).sum::<usize>();
        let operation = Operation::Rows {
            segment,
            offset: self.state.segments[&segment].length,
            len: u32::try_from(len).expect("tables bound their batches"),
            header: rows.header,
        };
        self.log(&operation, rows.payload, effects);
        self.answer(replies, rows.reply);
        self.compact_if_due(segment);
    }

    /// Plans the next step of a table's compaction once it is worth it. The values are read when everything that the
    /// plan knows is committed.
    fn compact_if_due(&mut self, key: SegmentKey) {
        let Some(segment) = self.state.segments.get(&key) else { return };
        let Content::Table(table) = &segment.content else { return };
        if !table.is_compaction_due() || self.compacting.contains(&key) {
            return;
        }
        let Some(plan) = table.plan_compaction(COMPACTION_BYTES) else { return };
        probe!("container: table compaction planned");
        self.compacting.insert(key);
        self.pend(Pending::Compact { segment: key, plan });
    }

    /// Carries out a step of a table's compaction.
    pub(super) fn compact_table(
        &mut self,
        key: SegmentKey,
        plan: &Compaction,
        values: Vec<Bytes>,
        effects: &mut Effects,
    ) {
        self.compacting.remove(&key);
        // The table may have been deleted in between.
        let Some(segment) = self.state.segments.get(&key) else { return };
        let Content::Table(table) = &segment.content else { return };
        let rows = table.compact(plan);
        let operation = Operation::Rows {
            segment: key,
            offset: segment.length,
            len: u32::try_from(rows.payload_bytes()).expect("a step is bounded"),
            header: rows.to_bytes(),
        };
        self.log(&operation, values, effects);
        self.compact_if_due(key);
    }

    pub(super) fn read_table(&mut self, replies: &Replies, command: &Command) {
        let answer = match self.table(command) {
            Ok((_, table)) => table.answer(command),
            Err(refusal) => Answer::Now(*refusal),
        };
        match answer {
            Answer::Now(reply) => self.answer(replies, reply),
            Answer::Values(unfilled) => self.pend(Pending::Load {
                replies: replies.clone(),
                reply: unfilled.reply,
                places: unfilled.places,
            }),
        }
    }
}
