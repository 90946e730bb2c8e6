//! Requests about key-value tables.

use super::convert::range_messages;
use super::scope::{page_end, page_start};
use super::{exhausted, invalid, scope_name, unexpected};
use crate::controller::Controller;
use crate::limits::{PAGE_NAMES_MAX, SEGMENTS_MAX, TABLE_KEY_BYTES_MAX, TABLE_NAME_CHARS_MAX};
use crate::record::{Command, Name, TableCommand, TableConfigRecord, TableRecord};
use crate::state::{Outcome, Refusal, Started, State};
use thalweg_types::name::is_entity_name;
use thalweg_wire::controller::{
    Code, CreateTableStatus, DeleteTableStatus, KeyValueTableConfig, ListStatus, Response,
    RpcError, TableName,
};

impl Controller {
    /// Judged in this order: numbers, the name, the scope, whether it exists.
    pub(super) async fn create_table(
        &self,
        config: KeyValueTableConfig,
    ) -> Result<Response, RpcError> {
        scope_name(&config.table.scope)?;
        let record = config_record(&config)?;
        let name = Name::new(config.table.scope, config.table.table);
        let answer = |status| Ok(Response::CreateKeyValueTable(status));
        if !is_table_name(&name.stream) {
            return answer(CreateTableStatus::InvalidName);
        }
        let command = TableCommand::Create { name: name.clone(), config: record };
        match self.propose_when_idle(Command::Table(command)).await? {
            Ok(Outcome::Started(started)) => {
                self.table_finished(&name, &started).await?;
                answer(CreateTableStatus::Success)
            }
            Err(Refusal::TableExists) => answer(CreateTableStatus::TableExists),
            Err(Refusal::ScopeNotFound) => answer(CreateTableStatus::ScopeNotFound),
            Err(refusal @ Refusal::TooMany { .. }) => Err(exhausted(&refusal)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn delete_table(&self, name: TableName) -> Result<Response, RpcError> {
        let name = table_name(name)?;
        let command = Command::Table(TableCommand::Delete { name: name.clone() });
        let status = match self.propose_when_idle(command).await? {
            Ok(Outcome::Started(started)) => {
                self.table_finished(&name, &started).await?;
                DeleteTableStatus::Success
            }
            Err(Refusal::Deleting) => {
                let deleted = |state: &State| {
                    let found = state.record().tables.get(&name).and_then(|table| table.workflow);
                    found.is_none_or(|workflow| !workflow.deletes).then_some(())
                };
                self.inner.wait_for(deleted).await?;
                DeleteTableStatus::Success
            }
            Err(Refusal::TableNotFound) => DeleteTableStatus::TableNotFound,
            other => return Err(unexpected(&other)),
        };
        Ok(Response::DeleteKeyValueTable(status))
    }

    /// Waits until the workflow is over, whatever came after it.
    async fn table_finished(&self, name: &Name, started: &Started) -> Result<(), RpcError> {
        let over = |state: &State| {
            let found = state.record().tables.get(name).and_then(|table| table.workflow);
            found.is_none_or(|workflow| workflow.id != started.workflow).then_some(())
        };
        Ok(self.inner.wait_for(over).await?)
    }

    pub(super) fn table_segments(&self, name: TableName) -> Result<Response, RpcError> {
        let name = table_name(name)?;
        let found = self.read(|state| {
            state.key_value_table(&name).map(|table| range_messages(&name, &table.segments))
        });
        let message = || format!("there is no key-value table {}/{}", name.scope, name.stream);
        let segments = found.ok_or_else(|| RpcError::new(Code::NotFound, message()))?;
        Ok(Response::Segments { segments, token: String::new() })
    }

    pub(super) fn table_config(&self, name: TableName) -> Result<Response, RpcError> {
        let name = table_name(name)?;
        let found = self
            .read(|state| state.key_value_table(&name).map(|table| config_message(&name, table)));
        Ok(Response::KeyValueTableConfig(found))
    }

    pub(super) fn list_tables(&self, scope: &str, token: &str) -> Result<Response, RpcError> {
        scope_name(scope)?;
        let after = page_start(token)?;
        let found = self.read(|state| {
            state.visible_scope(scope)?;
            Some(state.list_tables(scope, after, PAGE_NAMES_MAX))
        });
        let Some(names) = found else {
            let (status, tables, token) = (ListStatus::ScopeNotFound, Vec::new(), String::new());
            return Ok(Response::ListKeyValueTables { status, tables, token });
        };
        let token = page_end(token, names.last().map(|name| name.stream.as_str()));
        let tables = names.into_iter().map(table_message).collect();
        Ok(Response::ListKeyValueTables { status: ListStatus::Success, tables, token })
    }
}

/// The name, if neither part is empty. Whether such a table can exist is no matter here.
fn table_name(name: TableName) -> Result<Name, RpcError> {
    scope_name(&name.scope)?;
    if name.table.is_empty() {
        return Err(invalid("the table's name is empty"));
    }
    Ok(Name::new(name.scope, name.table))
}

fn table_message(name: Name) -> TableName {
    TableName { scope: name.scope, table: name.stream }
}

/// No underscore in front: those are the names of internal streams.
fn is_table_name(name: &str) -> bool {
    is_entity_name(name) && !name.starts_with('_') && name.len() <= TABLE_NAME_CHARS_MAX
}

fn config_record(config: &KeyValueTableConfig) -> Result<TableConfigRecord, RpcError> {
    let count = |what: &str, number: i32, least: u32, most: u32| {
        let found = u32::try_from(number).ok().filter(|found| (least..=most).contains(found));
        found.ok_or_else(|| invalid(format!("{number} {what}, from {least} to {most} are allowed")))
    };
    let partitions = count("partitions", config.partitions, 1, SEGMENTS_MAX)?;
    let most = TABLE_KEY_BYTES_MAX;
    let primary_key_bytes = count("bytes of a primary key", config.primary_key_bytes, 1, most)?;
    let left = most - primary_key_bytes;
    let secondary_key_bytes =
        count("bytes of a secondary key", config.secondary_key_bytes, 0, left)?;
    if config.rollover_size_bytes < 0 {
        return Err(invalid(format!("rollover size {} is negative", config.rollover_size_bytes)));
    }
    Ok(TableConfigRecord { partitions, primary_key_bytes, secondary_key_bytes })
}

fn config_message(name: &Name, table: &TableRecord) -> KeyValueTableConfig {
    let number = |stored: u32| i32::try_from(stored).expect("limited when it was stored");
    KeyValueTableConfig {
        table: table_message(name.clone()),
        partitions: number(table.config.partitions),
        primary_key_bytes: number(table.config.primary_key_bytes),
        secondary_key_bytes: number(table.config.secondary_key_bytes),
        rollover_size_bytes: 0,
    }
}
