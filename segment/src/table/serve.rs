//! The protocol's table requests, answered.

use super::{Row, Scan, Table, TableError, TableOp};
use crate::place::{Answer, Place, Rows, Unfilled};
use bytes::Bytes;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::frame::FRAME_BYTES_MAX;
use thalweg_wire::segment::{
    Command, NOT_EXISTS, OperationUnsupported, ReadTable, ReadTableEntries, ReadTableEntriesDelta,
    ReadTableKeys, RemoveTableKeys, TableEntriesDeltaRead, TableEntriesRead, TableEntriesUpdated,
    TableEntry, TableKey, TableKeysRead, TableKeysRemoved, TableRead, TableSegmentInfo,
    UpdateTableEntries,
};

/// What an entry takes in a reply besides key and value, in bytes.
const ENTRY_BYTES: usize = 24;
/// Entries of one reply in bytes: leaves room in its frame for the other fields.
const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 128 * 1024;

impl Table {
    /// Judges `UpdateTableEntries` or `RemoveTableKeys`. Nothing has changed until the rows are given to
    /// [`Table::apply_rows`], which must happen before the next request is judged. `Err` is the refusal to send.
    pub fn change(&self, request: &Command) -> Result<Rows, Box<Command>> {
        match request {
            Command::UpdateTableEntries(UpdateTableEntries {
                request_id,
                segment,
                entries,
                table_segment_offset,
                ..
            }) => {
                let op = self
                    .put(entries, *table_segment_offset)
                    .map_err(|error| Box::new(error.reply(*request_id, segment)))?;
                let payload = entries.iter().map(|entry| entry.value.clone()).collect();
                let reply =
                    TableEntriesUpdated { request_id: *request_id, versions: op.versions() };
                Ok(rows(&op, payload, reply))
            }
            Command::RemoveTableKeys(RemoveTableKeys {
                request_id,
                segment,
                keys,
                table_segment_offset,
                ..
            }) => {
                let op = self
                    .remove(keys, *table_segment_offset)
                    .map_err(|error| Box::new(error.reply(*request_id, segment)))?;
                let reply = TableKeysRemoved { request_id: *request_id, segment: segment.clone() };
                Ok(rows(&op, Vec::new(), reply))
            }
            other => Err(Box::new(unsupported(other))),
        }
    }

    /// Applies rows that this table judged, or that a replay found; `payload` is where their values lie.
    /// See [`Table::apply`].
    pub fn apply_rows(&mut self, header: &[u8], payload: Place) -> Result<(), super::ApplyError> {
        let mut rest = header;
        let op = TableOp::decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(super::op::malformed("bytes behind the operation").into());
        }
        self.apply(&op, payload)
    }

    /// Answers `GetTableSegmentInfo`, `ReadTable`, `ReadTableKeys`, `ReadTableEntries` or `ReadTableEntriesDelta`,
    /// with a refusal if need be.
    pub fn answer(&self, request: &Command) -> Answer {
        let (answer, request_id, segment) = match request {
            Command::GetTableSegmentInfo(asked) => {
                return Answer::Now(self.answer_info(asked.request_id, &asked.segment));
            }
            Command::ReadTable(asked) => (self.answer_get(asked), asked.request_id, &asked.segment),
            Command::ReadTableKeys(asked) => {
                (self.answer_keys(asked), asked.request_id, &asked.segment)
            }
            Command::ReadTableEntries(asked) => {
                (self.answer_entries(asked), asked.request_id, &asked.segment)
            }
            Command::ReadTableEntriesDelta(asked) => {
                (self.answer_delta(asked), asked.request_id, &asked.segment)
            }
            other => return Answer::Now(unsupported(other)),
        };
        answer.unwrap_or_else(|error| Answer::Now(error.reply(request_id, segment)))
    }

    fn answer_info(&self, request_id: i64, segment: &SegmentName) -> Command {
        let info = self.info();
        TableSegmentInfo {
            request_id,
            segment: segment.clone(),
            start_offset: info.start,
            length: info.length,
            entry_count: info.entry_count,
            key_length: info.key_length,
        }
        .into()
    }

    fn answer_get(&self, asked: &ReadTable) -> Result<Answer, TableError> {
        let found = self.get(&asked.keys)?;
        let bytes = |(key, row): (&TableKey, &Option<Row>)| {
            ENTRY_BYTES + key.key.len() + row.as_ref().map_or(0, |row| row.value.len as usize)
        };
        let bytes: usize = asked.keys.iter().zip(&found).map(bytes).sum();
        if bytes > ANSWER_BYTES_MAX {
            return Err(TableError::AnswerTooLong { bytes, limit: ANSWER_BYTES_MAX });
        }
        let mut values = Values::default();
        let entries = asked.keys.iter().zip(found).enumerate().map(|(i, (key, row))| {
            let version = row.map_or(NOT_EXISTS, |row| {
                values.add(i, row.value);
                row.version
            });
            TableEntry { key: TableKey { key: key.key.clone(), version }, value: Bytes::new() }
        });
        let entries = entries.collect();
        let (request_id, segment) = (asked.request_id, asked.segment.clone());
        Ok(values.fill(TableRead { request_id, segment, entries }))
    }

    fn answer_keys(&self, asked: &ReadTableKeys) -> Result<Answer, TableError> {
        let page = self.scan(&Scan {
            continuation_token: asked.continuation_token.clone(),
            from_key: asked.from_key.clone(),
            to_key: asked.to_key.clone(),
            suggested_count: asked.suggested_count,
        })?;
        let reply = TableKeysRead {
            request_id: asked.request_id,
            segment: asked.segment.clone(),
            keys: page.rows.iter().map(key_of).collect(),
            continuation_token: page.continuation_token,
        };
        Ok(Answer::Now(reply.into()))
    }

    fn answer_entries(&self, asked: &ReadTableEntries) -> Result<Answer, TableError> {
        let page = self.scan(&Scan {
            continuation_token: asked.continuation_token.clone(),
            from_key: asked.from_key.clone(),
            to_key: asked.to_key.clone(),
            suggested_count: asked.suggested_count,
        })?;
        let mut values = Values::default();
        let entries = values.entries(&page.rows);
        Ok(values.fill(TableEntriesRead {
            request_id: asked.request_id,
            segment: asked.segment.clone(),
            entries,
            continuation_token: page.continuation_token,
        }))
    }

    fn answer_delta(&self, asked: &ReadTableEntriesDelta) -> Result<Answer, TableError> {
        let delta = self.delta(asked.from_position, asked.suggested_count)?;
        let mut values = Values::default();
        let entries = values.entries(&delta.rows);
        Ok(values.fill(TableEntriesDeltaRead {
            request_id: asked.request_id,
            segment: asked.segment.clone(),
            entries,
            should_clear: delta.should_clear,
            reached_end: delta.reached_end,
            last_position: delta.last_position,
        }))
    }
}

fn rows(op: &TableOp, payload: Vec<Bytes>, reply: impl Into<Command>) -> Rows {
    Rows { header: op.to_bytes(), payload, reply: reply.into() }
}

/// The container asked a table for what no table does.
fn unsupported(request: &Command) -> Command {
    let operation_name = request.name().to_owned();
    OperationUnsupported { request_id: -1, operation_name, trace: String::new() }.into()
}

fn key_of(row: &Row) -> TableKey {
    TableKey { key: Bytes::copy_from_slice(&row.key), version: row.version }
}

/// The values that an answer still lacks.
#[derive(Default)]
struct Values(Vec<(usize, Place)>);

impl Values {
    fn add(&mut self, entry: usize, place: Place) {
        if place.len > 0 {
            self.0.push((entry, place));
        }
    }

    fn entries(&mut self, rows: &[Row]) -> Vec<TableEntry> {
        let entries = rows.iter().enumerate().map(|(i, row)| {
            self.add(i, row.value);
            TableEntry { key: key_of(row), value: Bytes::new() }
        });
        entries.collect()
    }

    fn fill(self, reply: impl Into<Command>) -> Answer {
        let reply = reply.into();
        if self.0.is_empty() {
            return Answer::Now(reply);
        }
        Answer::Values(Unfilled { reply, places: self.0 })
    }
}
