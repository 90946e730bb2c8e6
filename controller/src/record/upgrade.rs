//! Reads what older versions stored.

use super::{Name, RecordError, RetiredRecord, ScopeRecord, StateRecord, StreamRecord};
use serde::Deserialize;
use std::collections::BTreeMap;
use thalweg_log::register::Registers;
use thalweg_types::codec;

/// The state as version 1 stored it: its fields have neither changed nor moved since.
#[derive(Deserialize)]
struct StateV1 {
    clock_ms: u64,
    next_id: u64,
    scopes: BTreeMap<String, ScopeRecord>,
    streams: BTreeMap<Name, StreamRecord>,
    retired: BTreeMap<Name, RetiredRecord>,
    registers: Registers,
}

/// The state that `body` of version 1 holds.
pub(super) fn state(body: &[u8]) -> Result<StateRecord, RecordError> {
    let StateV1 { clock_ms, next_id, scopes, streams, retired, registers } =
        codec::decode(body, body.len())?;
    let new = StateRecord::default();
    Ok(StateRecord { clock_ms, next_id, scopes, streams, retired, registers, ..new })
}
