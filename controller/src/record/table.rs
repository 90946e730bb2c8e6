//! Key-value tables: what they were made with, and their segments.

use super::{Name, SegmentRecord};
use serde::{Deserialize, Serialize};

/// What a key-value table is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableConfigRecord {
    /// How many segments, from 1 to [`crate::limits::SEGMENTS_MAX`].
    pub partitions: u32,
    /// Length of a primary key in bytes.
    pub primary_key_bytes: u32,
    /// Length of a secondary key in bytes. Both together are at most [`crate::limits::TABLE_KEY_BYTES_MAX`].
    pub secondary_key_bytes: u32,
}

/// What is under way on a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableWorkflow {
    /// Never reused.
    pub id: u64,
    /// Its segments are being removed; otherwise they are being made. Nobody sees the table.
    pub deletes: bool,
}

/// A key-value table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Tells incarnations of one name apart; never reused.
    pub id: u64,
    /// What it was made with.
    pub config: TableConfigRecord,
    /// Its segments by lower bound: they cover the key space once.
    pub segments: Vec<SegmentRecord>,
    /// The number of the next segment.
    pub next_number: i32,
    /// What is under way.
    pub workflow: Option<TableWorkflow>,
}

/// What changes key-value tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableCommand {
    /// Records a table; its segments are made next.
    Create {
        /// Its name.
        name: Name,
        /// What it is made with.
        config: TableConfigRecord,
    },
    /// Begins to remove a table.
    Delete {
        /// Its name.
        name: Name,
    },
    /// What was under way is done: all its effects have been verified.
    Advance {
        /// The table's name.
        name: Name,
        /// The workflow.
        workflow: u64,
    },
}
