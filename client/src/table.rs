//! A table of keys and values: one hash-table segment at the store.
//!
//! A conditional change that was applied and whose answer was lost is refused when it is repeated, as the key's version
//! has moved: nothing here repeats a change on its own, the error says that the outcome is unknown.
//!
//! Not here: key-value tables with several partitions, sorted keys.

use crate::store::{Place, StoreError, Stores};
use bytes::Bytes;
use thalweg_types::id::SegmentId;
use thalweg_types::name::{ScopedStream, SegmentName};
use thalweg_wire::segment::{
    Command, CreateTableSegment, NOT_EXISTS, NULL, ReadTable, ReadTableEntries, RemoveTableKeys,
    TableEntry, TableKey, UpdateTableEntries,
};
use thiserror::Error;

/// Entries that one page of a listing asks for.
const PAGE_ENTRIES: i32 = 1000;

/// Why a table operation did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// The store gave no answer; the error says whether it may have happened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table does not exist: nothing happened.
    #[error("there is no table {table}")]
    NoSuchTable {
        /// The table.
        table: ScopedStream,
    },
    /// A key that must have a version does not exist: nothing happened.
    #[error("a key of table {table} does not exist")]
    NoSuchKey {
        /// The table.
        table: ScopedStream,
    },
    /// A key has another version than it must have: nothing happened.
    #[error("a key of table {table} has another version")]
    BadVersion {
        /// The table.
        table: ScopedStream,
    },
    /// The server refuses for another reason: nothing happened.
    #[error("table {table}: the server says {answer}")]
    Refused {
        /// The table.
        table: ScopedStream,
        /// The server's words.
        answer: String,
    },
}

impl TableError {
    /// True if it certainly did not happen.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Store(error) => error.is_refused(),
            Self::NoSuchTable { .. }
            | Self::NoSuchKey { .. }
            | Self::BadVersion { .. }
            | Self::Refused { .. } => true,
        }
    }
}

/// What must be true of a key for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key has this version.
    Version(i64),
}

impl Condition {
    fn version(self) -> i64 {
        match self {
            Self::Any => NULL,
            Self::Absent => NOT_EXISTS,
            Self::Version(version) => version,
        }
    }
}

/// A value and the version to change it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Its version, never negative, higher with every change.
    pub version: i64,
}

/// One table.
pub struct Table {
    stores: Stores,
    name: ScopedStream,
    place: Place,
    segment: SegmentName,
}

impl Table {
    pub(crate) fn new(stores: Stores, table: ScopedStream) -> Self {
        let stream = ScopedStream::new(&table.scope, &format!("{}_kvtable", table.stream));
        let place = Place { stream, id: SegmentId(0) };
        let segment = place.name();
        Self { stores, name: table, place, segment }
    }

    /// Makes the table; false if it was there.
    pub async fn create(&self) -> Result<bool, TableError> {
        let segment = self.segment.clone();
        let request = move |request_id| {
            CreateTableSegment {
                request_id,
                segment,
                token: String::new(),
                sorted_deprecated: false,
                key_length: 0,
                rollover_size_bytes: 0,
            }
            .into()
        };
        match self.stores.ask(&self.place, false, request).await? {
            Command::SegmentCreated(_) => Ok(true),
            Command::SegmentAlreadyExists(_) => Ok(false),
            other => Err(self.refusal(&other)),
        }
    }

    /// The value of `key`, `None` if there is none.
    pub async fn get(&self, key: Bytes) -> Result<Option<Versioned>, TableError> {
        let segment = self.segment.clone();
        let keys = vec![TableKey { key, version: NULL }];
        let request =
            move |request_id| ReadTable { request_id, segment, token: String::new(), keys }.into();
        match self.stores.ask(&self.place, false, request).await? {
            Command::TableRead(mut read) => {
                let entry = read.entries.pop().filter(|entry| entry.key.version >= 0);
                Ok(entry.map(|e| Versioned { value: e.value, version: e.key.version }))
            }
            other => Err(self.refusal(&other)),
        }
    }

    /// Sets `key` to `value` if `condition` holds; the new version.
    pub async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
    ) -> Result<i64, TableError> {
        let versions = self.put_all(vec![(key, value, condition)]).await?;
        versions.first().copied().ok_or_else(|| TableError::Refused {
            table: self.name.clone(),
            answer: "no version for the entry".to_owned(),
        })
    }

    /// Sets all keys, or none if any condition does not hold; one new version each.
    pub async fn put_all(
        &self,
        entries: Vec<(Bytes, Bytes, Condition)>,
    ) -> Result<Vec<i64>, TableError> {
        let segment = self.segment.clone();
        let entries = entries
            .into_iter()
            .map(|(key, value, condition)| TableEntry {
                key: TableKey { key, version: condition.version() },
                value,
            })
            .collect();
        let request = move |request_id| {
            let token = String::new();
            UpdateTableEntries { request_id, segment, token, entries, table_segment_offset: -1 }
                .into()
        };
        match self.stores.ask(&self.place, false, request).await? {
            Command::TableEntriesUpdated(updated) => Ok(updated.versions),
            other => Err(self.refusal(&other)),
        }
    }

    /// Removes `key` if `condition` holds. Removing what is not there succeeds, unless a version is asked for.
    pub async fn remove(&self, key: Bytes, condition: Condition) -> Result<(), TableError> {
        let segment = self.segment.clone();
        let keys = vec![TableKey { key, version: condition.version() }];
        let request = move |request_id| {
            let token = String::new();
            RemoveTableKeys { request_id, segment, token, keys, table_segment_offset: -1 }.into()
        };
        match self.stores.ask(&self.place, false, request).await? {
            Command::TableKeysRemoved(_) => Ok(()),
            other => Err(self.refusal(&other)),
        }
    }

    /// One page of entries and where to go on; begin with an empty token, an empty page is the last.
    pub async fn page(&self, token: Bytes) -> Result<(Vec<(Bytes, Versioned)>, Bytes), TableError> {
        let segment = self.segment.clone();
        let request = move |request_id| {
            ReadTableEntries {
                request_id,
                segment,
                token: String::new(),
                suggested_count: PAGE_ENTRIES,
                continuation_token: token,
                prefix: Bytes::new(),
                from_key: Bytes::new(),
                to_key: Bytes::new(),
            }
            .into()
        };
        match self.stores.ask(&self.place, false, request).await? {
            Command::TableEntriesRead(read) => {
                let entry = |e: TableEntry| {
                    (e.key.key, Versioned { value: e.value, version: e.key.version })
                };
                Ok((read.entries.into_iter().map(entry).collect(), read.continuation_token))
            }
            other => Err(self.refusal(&other)),
        }
    }

    fn refusal(&self, reply: &Command) -> TableError {
        let table = self.name.clone();
        match reply {
            Command::NoSuchSegment(_) => TableError::NoSuchTable { table },
            Command::TableKeyDoesNotExist(_) => TableError::NoSuchKey { table },
            Command::TableKeyBadVersion(_) => TableError::BadVersion { table },
            other => {
                let answer = format!("{other:?}").chars().take(200).collect();
                TableError::Refused { table, answer }
            }
        }
    }
}
