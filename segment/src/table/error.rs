//! What a table refuses, and how Pravega's protocol says so.

use super::FIXED_KEY_BYTES_MAX;
use thalweg_types::codec::DecodeError;
use thalweg_types::limits::{TABLE_BATCH_BYTES_MAX, TABLE_KEY_BYTES_MAX, TABLE_VALUE_BYTES_MAX};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    CODE_ILLEGAL_ARGUMENT, Command, ErrorMessage, OperationUnsupported, SegmentIsTruncated,
    TableKeyBadVersion, TableKeyDoesNotExist, TableSegmentNotEmpty,
};
use thiserror::Error;

/// Why a table refuses a request. Nothing has changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// A table cannot be created for keys of that length.
    #[error("a key length of {bytes} bytes exceeds the limit of {FIXED_KEY_BYTES_MAX}")]
    KeyLengthTooLong {
        /// The length asked for.
        bytes: i32,
    },
    /// Keys have at least one byte.
    #[error("a key is empty")]
    KeyEmpty,
    /// A key exceeds the limit.
    #[error("a key of {bytes} bytes exceeds the limit of {TABLE_KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A key has not the length of all keys of this table.
    #[error("a key of {bytes} bytes in a table of keys of {fixed} bytes")]
    KeyLength {
        /// Its length.
        bytes: usize,
        /// The length it must have.
        fixed: usize,
    },
    /// A value exceeds the limit.
    #[error("a value of {bytes} bytes exceeds the limit of {TABLE_VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A batch exceeds the limit.
    #[error("a batch of {bytes} bytes exceeds the limit of {TABLE_BATCH_BYTES_MAX}")]
    BatchTooLong {
        /// Its length in the log.
        bytes: usize,
    },
    /// The values asked for do not fit into one answer.
    #[error("an answer of {bytes} bytes exceeds the limit of {limit}")]
    AnswerTooLong {
        /// What the entries would take.
        bytes: usize,
        /// What they may take.
        limit: usize,
    },
    /// A key that must have a version was never there, or is long gone.
    #[error("a key that must have version {wanted} does not exist")]
    KeyDoesNotExist {
        /// The version it must have.
        wanted: i64,
    },
    /// A key has another version than it must have.
    #[error("a key that must have version {wanted} has version {found}")]
    BadVersion {
        /// The version it must have.
        wanted: i64,
        /// The version it has, -1 for none.
        found: i64,
    },
    /// The table has another length than it must have.
    #[error("the table must be {expected} bytes long and is {length}")]
    Length {
        /// The length it must have.
        expected: i64,
        /// The length it has.
        length: i64,
    },
    /// The table must be empty and is not.
    #[error("the table has {entries} entries")]
    NotEmpty {
        /// Keys that are there.
        entries: i64,
    },
    /// Tables of this layout do not do that.
    #[error("{operation} is not supported by this table")]
    Unsupported {
        /// The operation's name in the protocol.
        operation: &'static str,
    },
    /// A continuation token that no scan of this table gave.
    #[error("a continuation token that is not from here")]
    Token,
    /// A range of keys that this table does not take.
    #[error("a range of keys that is inverted, or that this table does not take")]
    Range,
    /// A position that is none.
    #[error("position {position} is outside of 0 to {length}")]
    Position {
        /// The position.
        position: i64,
        /// The table's length.
        length: i64,
    },
}

impl TableError {
    /// The reply that tells a client, for request `request_id` on `segment`.
    pub fn reply(&self, request_id: i64, segment: &SegmentName) -> Command {
        let (segment, trace) = (segment.clone(), String::new());
        match *self {
            Self::KeyDoesNotExist { .. } => {
                TableKeyDoesNotExist { request_id, segment, trace }.into()
            }
            Self::BadVersion { .. } => TableKeyBadVersion { request_id, segment, trace }.into(),
            Self::Length { expected, length } => {
                let (start_offset, offset) = (length, expected);
                SegmentIsTruncated { request_id, segment, start_offset, trace, offset }.into()
            }
            Self::NotEmpty { .. } => TableSegmentNotEmpty { request_id, segment, trace }.into(),
            Self::Unsupported { operation } => {
                OperationUnsupported { request_id, operation_name: operation.into(), trace }.into()
            }
            _ => {
                let (message, error_code) = (self.to_string(), CODE_ILLEGAL_ARGUMENT);
                ErrorMessage { request_id, segment, message, error_code }.into()
            }
        }
    }
}

/// An operation does not fit the table's state: it was not judged by it, or the log is damaged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ApplyError {
    /// The header cannot be read.
    #[error(transparent)]
    Header(#[from] DecodeError),
    /// It was made for another state.
    #[error("a table operation for length {at} where the table has length {length}")]
    Length {
        /// The length that the operation was made for.
        at: i64,
        /// The length that the table has.
        length: i64,
    },
    /// It has not the payload that it needs.
    #[error("a table operation with {found} bytes of values where {needed} are needed")]
    Payload {
        /// Bytes that the rows need.
        needed: u64,
        /// Bytes that are there.
        found: u32,
    },
}
