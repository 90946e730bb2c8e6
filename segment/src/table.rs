//! Table segments: keys and values as a log of rows, with an index of whole keys in memory.
//!
//! A table is a pure data structure. The container that owns it asks it to *judge* a request ([`Table::change`],
//! [`Table::compact`]), which changes nothing and yields an operation for the log, and *applies* that operation
//! ([`Table::apply`]) when it is sequenced, and again in every replay. Both steps must see the same state: no other
//! operation of the table may be applied in between. Reads ([`Table::answer`]) change nothing. Values stay in the
//! log; the table knows their places.
//!
//! Every row has a position, the table's length when it was written, and takes 17 bytes besides key and value. A
//! row's version is its position, unless compaction copied it: then the version is that of the row it copies.
//! Positions and versions are the same after a restart.
//!
//! Keys of both layouts lie in one sorted index. A removed key is remembered, with the value it had, until compaction
//! passes it: changes since a position then still show what was written last, and a condition on the removed version
//! fails as a wrong version. Both are what the Rust client's synchroniser needs to get over a removal by others.
//!
//! Invariants
//! 1. `start <= length`; every position lies in `start..length`, and every version at or below its position.
//! 2. `rows` and `keys` hold the same rows: each key exactly once.
//! 3. `live_count` keys are not removed, and their rows take `live_bytes`.
//! 4. Places rise with positions, as rows enter the log in order.
//!
//! Not here: the values' bytes, waiting for commitment, and the decision when to compact. Source: design notes on
//! tables (protocol.md §2.6) and on Pravega's protocol.

mod error;
mod op;
mod scan;
mod serve;
mod snapshot;
#[cfg(test)]
mod tests;

pub use error::{ApplyError, TableError};
pub use op::{CompactRow, PutRow, TableOp};
pub use scan::{Delta, Page, Scan};

use crate::place::Place;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use thalweg_types::id::Address;
use thalweg_types::limits::{TABLE_BATCH_BYTES_MAX, TABLE_KEY_BYTES_MAX, TABLE_VALUE_BYTES_MAX};
use thalweg_wire::segment::{NOT_EXISTS, NULL, TableEntry, TableKey};

/// What a row takes in a table besides key and value, in bytes.
pub const ROW_BYTES: i64 = 17;
/// Keys of a fixed-key table, in bytes.
pub const FIXED_KEY_BYTES_MAX: i32 = 256;

/// A table with less than this many dead bytes is not compacted.
const COMPACTION_DEAD_BYTES_MIN: i64 = 256 * 1024;

/// A key, shared by everything that names it.
pub type Key = Arc<[u8]>;

/// A row that a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// Where its value lies.
    pub value: Place,
}

/// What [`Table::info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The compaction point in bytes.
    pub start: i64,
    /// Where the next row goes, in bytes.
    pub length: i64,
    /// Keys that are there.
    pub entry_count: i64,
    /// Length of every key in bytes, 0 for a hash table.
    pub key_length: i32,
}

/// A compaction that could be done. Its values must be read from the log before it can be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Where the values of the rows to copy lie, in the order in which they must be logged again.
    pub values: Vec<Place>,
    rows: Vec<CompactRow>,
    start: i64,
}

/// What is known about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    version: i64,
    /// Of the row that holds the value.
    position: i64,
    value: Place,
    removed: bool,
}

/// One table segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    key_length: i32,
    start: i64,
    length: i64,
    keys: BTreeMap<Key, Slot>,
    /// Position of each key's row.
    rows: BTreeMap<i64, Key>,
    live_count: i64,
    live_bytes: i64,
}

impl Table {
    /// An empty table. `key_length` 0 or less: a hash table, with keys of any length. Fails above
    /// [`FIXED_KEY_BYTES_MAX`].
    pub fn new(key_length: i32) -> Result<Self, TableError> {
        if key_length > FIXED_KEY_BYTES_MAX {
            return Err(TableError::KeyLengthTooLong { bytes: key_length });
        }
        Ok(Self {
            key_length: key_length.max(0),
            start: 0,
            length: 0,
            keys: BTreeMap::new(),
            rows: BTreeMap::new(),
            live_count: 0,
            live_bytes: 0,
        })
    }

    /// Sizes, exact at every moment.
    pub fn info(&self) -> TableInfo {
        TableInfo {
            start: self.start,
            length: self.length,
            entry_count: self.live_count,
            key_length: self.key_length,
        }
    }

    /// Judges an update: all entries or none. Conditions are checked against the table as it is, never against
    /// earlier entries of the batch. `expected_length` is the length the table must have, -1 for any. An update
    /// without entries is fine. The values go into the log's payload, one behind the other, in the entries' order.
    pub fn put(&self, entries: &[TableEntry], expected_length: i64) -> Result<TableOp, TableError> {
        let mut bytes = 0;
        for entry in entries {
            self.judge_key(&entry.key.key)?;
            if entry.value.len() > TABLE_VALUE_BYTES_MAX {
                return Err(TableError::ValueTooLong { bytes: entry.value.len() });
            }
            bytes += entry.key.key.len() + entry.value.len() + 2 * op::ROW_HEADER_BYTES;
        }
        judge_batch(bytes)?;
        self.judge_versions(entries.iter().map(|entry| &entry.key))?;
        self.judge_length(expected_length)?;
        let rows = entries.iter().map(|entry| PutRow {
            key: Key::from(&entry.key.key[..]),
            value_bytes: u32::try_from(entry.value.len()).expect("bounded above"),
        });
        Ok(TableOp::Put { at: self.length, rows: rows.collect() })
    }

    /// Judges a removal: all keys or none, like [`Table::put`]. Removing what is not there succeeds unless a
    /// condition says otherwise.
    pub fn remove(&self, keys: &[TableKey], expected_length: i64) -> Result<TableOp, TableError> {
        let mut bytes = 0;
        for key in keys {
            self.judge_key(&key.key)?;
            bytes += key.key.len() + 2 * op::ROW_HEADER_BYTES;
        }
        judge_batch(bytes)?;
        self.judge_versions(keys.iter())?;
        self.judge_length(expected_length)?;
        let keys = keys.iter().map(|key| Key::from(&key.key[..])).collect();
        Ok(TableOp::Remove { at: self.length, keys })
    }

    /// Judges a deletion of the whole table.
    pub fn delete(&self, must_be_empty: bool) -> Result<(), TableError> {
        if must_be_empty && self.key_length > 0 {
            return Err(TableError::Unsupported { operation: "deleteTableSegment" });
        }
        if must_be_empty && self.live_count > 0 {
            return Err(TableError::NotEmpty { entries: self.live_count });
        }
        Ok(())
    }

    /// The rows of `keys` in their order, `None` for keys that are not there. Versions asked for do not matter.
    pub fn get(&self, keys: &[TableKey]) -> Result<Vec<Option<Row>>, TableError> {
        let get = |key: &TableKey| {
            self.judge_key(&key.key)?;
            let found = self.keys.get_key_value(&key.key[..]).filter(|(_, slot)| !slot.removed);
            Ok(found.map(|(key, slot)| slot.row(key)))
        };
        keys.iter().map(get).collect()
    }

    /// How much of the table is not needed any more, in bytes: what compaction could free.
    pub fn dead_bytes(&self) -> i64 {
        self.length - self.start - self.live_bytes
    }

    /// True when more of the table is dead than alive, and enough to be worth a rewrite: what is copied is then less
    /// than what is freed.
    pub fn is_compaction_due(&self) -> bool {
        self.dead_bytes() > self.live_bytes.max(COMPACTION_DEAD_BYTES_MIN)
    }

    /// The oldest log entry that still holds a value of this table; it MUST stay. `None`: no value at all.
    pub fn oldest(&self) -> Option<Address> {
        let slot = |key| self.keys.get(key).expect("invariant 2");
        self.rows.values().map(slot).find(|slot| slot.value.len > 0).map(|s| s.value.address)
    }

    /// What a compaction would do now: copy live rows from the table's head to its end, with their versions, and
    /// then drop everything before the first row not looked at. Stops when the copies would exceed `bytes_max`, but
    /// looks at one row at least. `None`: nothing to compact.
    pub fn plan_compaction(&self, bytes_max: i64) -> Option<Compaction> {
        let mut plan = Compaction { rows: Vec::new(), start: self.length, values: Vec::new() };
        let (mut bytes, mut looked) = (0, 0);
        for (position, key) in &self.rows {
            let slot = &self.keys[key];
            if looked > 0 && bytes + slot.row_bytes(key) > bytes_max {
                plan.start = *position;
                break;
            }
            looked += 1;
            if slot.removed {
                continue;
            }
            bytes += slot.row_bytes(key);
            plan.values.push(slot.value);
            plan.rows.push(CompactRow {
                key: key.clone(),
                position: slot.position,
                version: slot.version,
                value_bytes: slot.value.len,
            });
        }
        (plan.start > self.start).then_some(plan)
    }

    /// The operation that carries a compaction out, to be applied to the table as it is now. The plan may be older
    /// than the table's last change: a row that has been written or removed since is not copied. The payload are the
    /// plan's values in their order.
    pub fn compact(&self, plan: &Compaction) -> TableOp {
        TableOp::Compact { at: self.length, rows: plan.rows.clone(), start: plan.start }
    }

    /// Applies an operation that this table judged, or that a replay found in the log; `payload` is where the
    /// operation's payload lies. Deterministic. Fails, without having changed anything, if the operation was not
    /// made for this state: the log is then damaged or the caller wrong.
    pub fn apply(&mut self, op: &TableOp, payload: Place) -> Result<(), ApplyError> {
        if op.at() != self.length {
            return Err(ApplyError::Length { at: op.at(), length: self.length });
        }
        if op.payload_bytes() != u64::from(payload.len) {
            return Err(ApplyError::Payload { needed: op.payload_bytes(), found: payload.len });
        }
        match op {
            TableOp::Put { rows, .. } => self.apply_put(rows, payload),
            TableOp::Remove { keys, .. } => keys.iter().for_each(|key| self.apply_remove(key)),
            TableOp::Compact { rows, start, .. } => self.apply_compact(rows, *start, payload),
        }
        Ok(())
    }

    fn apply_put(&mut self, rows: &[PutRow], payload: Place) {
        let mut at = 0;
        for row in rows {
            let value = payload.part(at, row.value_bytes);
            at += row.value_bytes;
            let position = self.length;
            self.set(&row.key, Slot { version: position, position, value, removed: false });
        }
    }

    /// A removal is a row without a value. The key keeps the row of its last value.
    fn apply_remove(&mut self, key: &Key) {
        self.length += row_bytes(key, 0);
        if let Some(slot) = self.keys.get_mut(key)
            && !slot.removed
        {
            slot.removed = true;
            self.live_count -= 1;
            self.live_bytes -= slot.row_bytes(key);
        }
    }

    /// A row is copied if it is still the key's newest: what came in between is never undone.
    fn apply_compact(&mut self, rows: &[CompactRow], start: i64, payload: Place) {
        let mut at = 0;
        for row in rows {
            let value = payload.part(at, row.value_bytes);
            at += row.value_bytes;
            let is_newest = |slot: &&Slot| !slot.removed && slot.position == row.position;
            if self.keys.get(&row.key).as_ref().is_some_and(is_newest) {
                let position = self.length;
                let slot = Slot { version: row.version, position, value, removed: false };
                self.set(&row.key, slot);
            }
        }
        let kept = self.rows.split_off(&start);
        for key in std::mem::replace(&mut self.rows, kept).values() {
            let slot = self.keys.remove(key).expect("invariant 2");
            debug_assert!(slot.removed, "a live row lies below the new start");
        }
        self.start = self.start.max(start);
    }

    /// Writes a row at the table's end.
    fn set(&mut self, key: &Key, slot: Slot) {
        self.length += slot.row_bytes(key);
        self.live_count += 1;
        self.live_bytes += slot.row_bytes(key);
        let key = match self.keys.get_key_value(key) {
            Some((known, old)) => {
                if !old.removed {
                    self.live_count -= 1;
                    self.live_bytes -= old.row_bytes(key);
                }
                self.rows.remove(&old.position);
                known.clone()
            }
            None => key.clone(),
        };
        self.rows.insert(slot.position, key.clone());
        self.keys.insert(key, slot);
    }

    fn judge_key(&self, key: &Bytes) -> Result<(), TableError> {
        let fixed = usize::try_from(self.key_length).expect("not negative");
        match key.len() {
            0 => Err(TableError::KeyEmpty),
            bytes if fixed > 0 && bytes != fixed => Err(TableError::KeyLength { bytes, fixed }),
            bytes if bytes > TABLE_KEY_BYTES_MAX => Err(TableError::KeyTooLong { bytes }),
            _ => Ok(()),
        }
    }

    /// The worst of all conditions' failures: a missing key is told before a wrong version.
    fn judge_versions<'a>(
        &self,
        keys: impl Iterator<Item = &'a TableKey>,
    ) -> Result<(), TableError> {
        let mut bad_version = None;
        for TableKey { key, version: wanted } in keys.filter(|key| key.version != NULL) {
            let (found, known) = match self.keys.get(&key[..]) {
                Some(slot) if slot.removed => (NOT_EXISTS, true),
                Some(slot) => (slot.version, true),
                None => (NOT_EXISTS, self.key_length > 0),
            };
            if found == *wanted {
                continue;
            }
            if !known {
                return Err(TableError::KeyDoesNotExist { wanted: *wanted });
            }
            bad_version = Some(TableError::BadVersion { wanted: *wanted, found });
        }
        bad_version.map_or(Ok(()), Err)
    }

    fn judge_length(&self, expected: i64) -> Result<(), TableError> {
        if expected != -1 && expected != self.length {
            return Err(TableError::Length { expected, length: self.length });
        }
        Ok(())
    }

    /// Asserts the invariants in the module's header.
    pub fn check(&self) {
        assert!(0 <= self.start && self.start <= self.length, "invariant 1: {:?}", self.info());
        assert_eq!(self.keys.len(), self.rows.len(), "invariant 2");
        let (mut count, mut bytes, mut place) = (0, 0, None);
        for (position, key) in &self.rows {
            let slot = self.keys.get(key).expect("invariant 2");
            assert_eq!(slot.position, *position, "invariant 2");
            assert!(self.start <= *position && *position < self.length, "invariant 1");
            assert!(slot.version <= *position, "invariant 1");
            let next = Some((slot.value.address, slot.value.position));
            assert!(place <= next, "invariant 4");
            place = next;
            if !slot.removed {
                count += 1;
                bytes += slot.row_bytes(key);
            }
        }
        assert_eq!((self.live_count, self.live_bytes), (count, bytes), "invariant 3");
    }
}

impl Compaction {
    /// The lowest entry that holds a value to copy.
    pub fn lowest(&self) -> Option<Address> {
        self.values.iter().filter(|place| place.len > 0).map(|place| place.address).min()
    }
}

impl Slot {
    fn row(&self, key: &Key) -> Row {
        Row { key: key.clone(), version: self.version, value: self.value }
    }

    fn row_bytes(&self, key: &Key) -> i64 {
        row_bytes(key, self.value.len)
    }
}

fn row_bytes(key: &Key, value_bytes: u32) -> i64 {
    ROW_BYTES + i64::try_from(key.len()).expect("a bounded key") + i64::from(value_bytes)
}

fn judge_batch(bytes: usize) -> Result<(), TableError> {
    if bytes > TABLE_BATCH_BYTES_MAX {
        return Err(TableError::BatchTooLong { bytes });
    }
    Ok(())
}
