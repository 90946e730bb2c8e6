//! Key-value tables: made with all their segments, and never scaled.

use super::change::number_segments;
use super::{Outcome, Refusal, Started, State};
use crate::record::{
    Name, RetiredRecord, TableCommand, TableConfigRecord, TableRecord, TableWorkflow,
};
use std::ops::Bound;

/// What a table's segments carry behind the table's name, where a stream's carry the stream's name.
const TABLE_SUFFIX: &str = "_kvtable";

/// The name under which a table's segments lie at the segment store. No stream can have it.
pub fn table_segments_name(table: &Name) -> Name {
    Name::new(&table.scope, format!("{}{TABLE_SUFFIX}", table.stream))
}

impl State {
    pub(super) fn table(&mut self, command: &TableCommand) -> Result<Outcome, Refusal> {
        match command {
            TableCommand::Create { name, config } => self.create_table(name, *config),
            TableCommand::Delete { name } => self.delete_table(name),
            TableCommand::Advance { name, workflow } => self.advance_table(name, *workflow),
        }
    }

    /// The table, if clients may know of it.
    pub fn key_value_table(&self, name: &Name) -> Option<&TableRecord> {
        self.visible_scope(&name.scope)?;
        self.record.tables.get(name).filter(|table| table.workflow.is_none())
    }

    /// At most `count` tables of `scope` behind `after`, in order of name.
    pub fn list_tables(&self, scope: &str, after: Option<&str>, count: usize) -> Vec<Name> {
        let first = Name::new(scope, after.unwrap_or_default());
        let start = if after.is_some() { Bound::Excluded(first) } else { Bound::Included(first) };
        let behind = self.record.tables.range((start, Bound::Unbounded));
        let here = behind.take_while(|(name, _)| name.scope == scope);
        let seen = here.filter(|(_, table)| table.workflow.is_none());
        seen.take(count).map(|(name, _)| name.clone()).collect()
    }

    /// The tables of a scope, visible or not.
    pub fn tables_in<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Name> {
        let behind = self.record.tables.range(Name::new(scope, "")..);
        behind.map(|(name, _)| name).take_while(move |name| name.scope == scope)
    }

    fn create_table(&mut self, name: &Name, config: TableConfigRecord) -> Result<Outcome, Refusal> {
        self.visible_scope(&name.scope).ok_or(Refusal::ScopeNotFound)?;
        match self.record.tables.get(name) {
            Some(found) if found.workflow.is_some() => return Err(Refusal::Busy),
            Some(_) => return Err(Refusal::TableExists),
            None => {}
        }
        let retired = self.record.retired_tables.get(name).copied().unwrap_or_default();
        let mut next_number = retired.next_number;
        let segments = number_segments(0, &mut next_number, &partition_ranges(config.partitions))?;
        self.record.retired_tables.remove(name);
        let (id, workflow) = (self.take_id(), self.take_id());
        let created = segments.clone();
        let under_way = Some(TableWorkflow { id: workflow, deletes: false });
        let table = TableRecord { id, config, segments, next_number, workflow: under_way };
        self.record.tables.insert(name.clone(), table);
        Ok(Outcome::Started(Started { stream: id, workflow, epoch: 0, created }))
    }

    fn delete_table(&mut self, name: &Name) -> Result<Outcome, Refusal> {
        let found = self.record.tables.get(name).ok_or(Refusal::TableNotFound)?;
        match found.workflow {
            Some(TableWorkflow { deletes: true, .. }) => return Err(Refusal::Deleting),
            Some(_) => return Err(Refusal::Busy),
            None => {}
        }
        let workflow = self.take_id();
        let table = self.record.tables.get_mut(name).expect("found above");
        table.workflow = Some(TableWorkflow { id: workflow, deletes: true });
        let (stream, created) = (table.id, Vec::new());
        Ok(Outcome::Started(Started { stream, workflow, epoch: 0, created }))
    }

    fn advance_table(&mut self, name: &Name, workflow: u64) -> Result<Outcome, Refusal> {
        let table = self.record.tables.get_mut(name).ok_or(Refusal::Stale)?;
        let done = table.workflow.filter(|found| found.id == workflow).ok_or(Refusal::Stale)?;
        table.workflow = None;
        if done.deletes {
            let retired = RetiredRecord { next_number: table.next_number };
            self.record.retired_tables.insert(name.clone(), retired);
            self.record.tables.remove(name);
        }
        Ok(Outcome::Done)
    }
}

/// `count` equal key ranges, with the very bounds that Pravega gives them: multiples of one part, which differ from
/// the quotients that streams have by a bit here and there.
fn partition_ranges(count: u32) -> Vec<(f64, f64)> {
    let part = 1.0 / f64::from(count);
    let bound = |i: u32| if i == count { 1.0 } else { f64::from(i) * part };
    (0..count).map(|i| (bound(i), bound(i + 1))).collect()
}

impl TableRecord {
    /// Length of every key in bytes.
    pub fn key_bytes(&self) -> u32 {
        self.config.primary_key_bytes + self.config.secondary_key_bytes
    }
}
