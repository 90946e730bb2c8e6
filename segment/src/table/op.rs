//! What a table writes to its container's log.
//!
//! ```text
//! kind:u8 at:i64 count:u32
//! put     (key_bytes:u16 value_bytes:u32 key)*count
//! remove  (key_bytes:u16 key)*count
//! compact start:i64 (key_bytes:u16 value_bytes:u32 position:i64 version:i64 key)*count
//! ```
//! Little-endian. The values are the operation's payload, one behind the other.

use super::{Key, ROW_BYTES};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thalweg_types::codec::DecodeError;

/// What a row of [`TableOp::Put`] takes in the log besides key and value, in bytes.
pub(super) const ROW_HEADER_BYTES: usize = 6;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
const COMPACT: u8 = 3;

/// One change of a table, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOp {
    /// Rows are written.
    Put {
        /// The table's length before.
        at: i64,
        /// The rows.
        rows: Vec<PutRow>,
    },
    /// Keys are removed.
    Remove {
        /// The table's length before.
        at: i64,
        /// The keys.
        keys: Vec<Key>,
    },
    /// Live rows are copied from the head to the end, then the head is dropped.
    Compact {
        /// The table's length before.
        at: i64,
        /// The rows, as they were when the compaction was judged.
        rows: Vec<CompactRow>,
        /// Everything below this position is dropped.
        start: i64,
    },
}

/// A row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutRow {
    /// The key.
    pub key: Key,
    /// The value's length in bytes.
    pub value_bytes: u32,
}

/// A row to copy, if it is still its key's newest when the operation is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactRow {
    /// The key.
    pub key: Key,
    /// The position of the row that is copied.
    pub position: i64,
    /// Its version, which it keeps.
    pub version: i64,
    /// The value's length in bytes.
    pub value_bytes: u32,
}

impl TableOp {
    /// The table's length before the operation.
    pub fn at(&self) -> i64 {
        match self {
            Self::Put { at, .. } | Self::Remove { at, .. } | Self::Compact { at, .. } => *at,
        }
    }

    /// The versions of the rows of a [`TableOp::Put`], in order; none for other operations.
    pub fn versions(&self) -> Vec<i64> {
        let Self::Put { at, rows } = self else { return Vec::new() };
        let versions = rows.iter().scan(*at, |next, row| {
            let version = *next;
            *next += super::row_bytes(&row.key, row.value_bytes);
            Some(version)
        });
        versions.collect()
    }

    /// Length of the payload in bytes.
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Self::Put { rows, .. } => rows.iter().map(|row| u64::from(row.value_bytes)).sum(),
            Self::Remove { .. } => 0,
            Self::Compact { rows, .. } => rows.iter().map(|row| u64::from(row.value_bytes)).sum(),
        }
    }

    /// Appends the operation's header to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let (kind, count) = match self {
            Self::Put { rows, .. } => (PUT, rows.len()),
            Self::Remove { keys, .. } => (REMOVE, keys.len()),
            Self::Compact { rows, .. } => (COMPACT, rows.len()),
        };
        out.put_u8(kind);
        out.put_i64_le(self.at());
        out.put_u32_le(u32::try_from(count).expect("a batch is bounded in bytes"));
        match self {
            Self::Put { rows, .. } => {
                for row in rows {
                    out.put_u16_le(key_bytes(&row.key));
                    out.put_u32_le(row.value_bytes);
                    out.put_slice(&row.key);
                }
            }
            Self::Remove { keys, .. } => {
                for key in keys {
                    out.put_u16_le(key_bytes(key));
                    out.put_slice(key);
                }
            }
            Self::Compact { rows, start, .. } => {
                out.put_i64_le(*start);
                for row in rows {
                    out.put_u16_le(key_bytes(&row.key));
                    out.put_u32_le(row.value_bytes);
                    out.put_i64_le(row.position);
                    out.put_i64_le(row.version);
                    out.put_slice(&row.key);
                }
            }
        }
    }

    /// The operation's header.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Takes an operation from the front of `input`. Never panics, never allocates more than `input` holds.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let kind = take(input, 1, "kind")?.get_u8();
        let at = take(input, 8, "at")?.get_i64_le();
        if !(0..=i64::MAX / 2).contains(&at) {
            return Err(malformed("at"));
        }
        let count = take(input, 4, "count")?.get_u32_le();
        match kind {
            PUT => {
                let rows = (0..count).map(|_| {
                    let key = take(input, 2, "key length")?.get_u16_le();
                    let value_bytes = take(input, 4, "value length")?.get_u32_le();
                    Ok(PutRow { key: take(input, key.into(), "key")?.into(), value_bytes })
                });
                Ok(Self::Put { at, rows: rows.collect::<Result<_, _>>()? })
            }
            REMOVE => {
                let keys = (0..count).map(|_| {
                    let key = take(input, 2, "key length")?.get_u16_le();
                    Ok(take(input, key.into(), "key")?.into())
                });
                Ok(Self::Remove { at, keys: keys.collect::<Result<_, _>>()? })
            }
            COMPACT => {
                let start = take(input, 8, "start")?.get_i64_le();
                let rows = (0..count).map(|_| decode_compact_row(input));
                Ok(Self::Compact { at, rows: rows.collect::<Result<_, _>>()?, start })
            }
            _ => Err(malformed("kind")),
        }
    }
}

fn decode_compact_row(input: &mut &[u8]) -> Result<CompactRow, DecodeError> {
    let key = take(input, 2, "key length")?.get_u16_le();
    let value_bytes = take(input, 4, "value length")?.get_u32_le();
    let position = take(input, 8, "position")?.get_i64_le();
    let version = take(input, 8, "version")?.get_i64_le();
    Ok(CompactRow { key: take(input, key.into(), "key")?.into(), position, version, value_bytes })
}

pub(super) fn take<'a>(
    input: &mut &'a [u8],
    bytes: usize,
    what: &str,
) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(bytes).ok_or_else(|| malformed(what))?;
    *input = rest;
    Ok(taken)
}

pub(super) fn malformed(what: &str) -> DecodeError {
    DecodeError { reason: format!("table: {what}") }
}

pub(super) fn key_bytes(key: &Key) -> u16 {
    u16::try_from(key.len()).expect("a key is bounded")
}

const _: () = assert!(ROW_BYTES > 0, "two rows never share a position");
