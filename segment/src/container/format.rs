//! What a container writes into its log: operations, packed into the headers of entries.
//!
//! ```text
//! entry headers = version:u8 0:u8 wall:i64 count:u32 operation*      little-endian
//! operation     = kind:u8 fields
//! ```
//! Operations' payload (events, table values, parts of a snapshot) lies in the entry's payload in the same order. The
//! log checks headers and payload against their checksums and their address. Persisted: kinds and fields never change
//! their meaning; a new field makes a new kind.

use crate::container::codec::{FormatError, Reader, put_count, put_name};
use bytes::{BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{Epoch, WriterId};
use thalweg_types::name::SegmentName;

/// Version of the layout.
const VERSION: u8 = 1;
/// Bytes in front of the operations.
const ENTRY_HEADER_BYTES: usize = 14;
/// Where the count of operations stands.
const COUNT_AT: usize = 10;

/// A segment's number in its container: given out once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentKey(pub(crate) u64);

/// How a segment is to be scaled and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) scale_type: i8,
    pub(crate) target_rate: i32,
}

/// What a new segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes, one behind the other.
    Stream { policy: Policy, rollover_bytes: i64 },
    /// A table whose keys have `key_length` bytes each, or any length if it is 0.
    Table { key_length: i32 },
}

/// The step of an attribute from one value to another; `i64::MIN` is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) attribute: u128,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Change {
    /// A writer's position goes on.
    pub(crate) fn of_writer(writer: WriterId, from: i64, to: i64) -> Self {
        Self { attribute: writer.0, from, to }
    }
}

/// One segment that goes into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) segment: SegmentKey,
    pub(crate) length: i64,
}

/// One step of a container's state. Every condition was checked before; what was found is recorded, so that a replay
/// can verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A new owner begins.
    OwnerStart {
        epoch: Epoch,
    },
    /// Nothing: a barrier.
    NoOp,
    Create {
        segment: SegmentKey,
        name: SegmentName,
        kind: Kind,
    },
    /// `len` bytes of payload go behind `offset`, and `writer` moves in the same step.
    Append {
        segment: SegmentKey,
        offset: i64,
        len: u32,
        events: u32,
        writer: Option<Change>,
    },
    Attribute {
        segment: SegmentKey,
        change: Change,
    },
    SetPolicy {
        segment: SegmentKey,
        policy: Policy,
    },
    Seal {
        segment: SegmentKey,
    },
    Truncate {
        segment: SegmentKey,
        start: i64,
    },
    Delete {
        segment: SegmentKey,
    },
    /// All bytes of `sources`, in order, go behind `offset` of `target`; the sources end.
    Merge {
        target: SegmentKey,
        offset: i64,
        sources: Vec<Source>,
        changes: Vec<Change>,
    },
    /// Rows of a table in the table's own format, with `len` bytes of values as payload.
    Rows {
        segment: SegmentKey,
        offset: i64,
        len: u32,
        header: Bytes,
    },
    /// A part of a snapshot; the payload says the rest.
    Snapshot {
        len: u32,
    },
}

const OWNER_START: u8 = 1;
const NO_OP: u8 = 2;
const CREATE: u8 = 3;
const APPEND: u8 = 4;
const APPEND_BY_WRITER: u8 = 5;
const ATTRIBUTE: u8 = 6;
const SET_POLICY: u8 = 7;
const SEAL: u8 = 8;
const TRUNCATE: u8 = 9;
const DELETE: u8 = 10;
const MERGE: u8 = 11;
const ROWS: u8 = 12;
const SNAPSHOT: u8 = 13;

const STREAM: u8 = 0;
const TABLE: u8 = 1;

impl Operation {
    /// Bytes of payload that belong to it.
    pub(crate) fn payload_len(&self) -> u32 {
        match self {
            Self::Append { len, .. } | Self::Rows { len, .. } | Self::Snapshot { len } => *len,
            _ => 0,
        }
    }

    /// About how many bytes it takes in an entry, headers and payload.
    pub(crate) fn bytes(&self) -> usize {
        let headers = match self {
            Self::Create { name, .. } => 32 + name.as_str().len(),
            Self::Merge { sources, changes, .. } => 32 + 16 * sources.len() + 32 * changes.len(),
            Self::Rows { header, .. } => 32 + header.len(),
            _ => 64,
        };
        headers + self.payload_len() as usize
    }

    /// May use the reserve of a full disk: it relieves it, or owes nothing to a client.
    pub(crate) fn is_exempt(&self) -> bool {
        matches!(
            self,
            Self::OwnerStart { .. }
                | Self::NoOp
                | Self::Seal { .. }
                | Self::Truncate { .. }
                | Self::Delete { .. }
                | Self::Snapshot { .. }
        )
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::OwnerStart { epoch } => {
                out.put_u8(OWNER_START);
                out.put_u64_le(epoch.0);
            }
            Self::NoOp => out.put_u8(NO_OP),
            Self::Create { segment, name, kind } => put_create(out, *segment, name, *kind),
            Self::Append { segment, offset, len, events, writer } => {
                out.put_u8(if writer.is_some() { APPEND_BY_WRITER } else { APPEND });
                out.put_u64_le(segment.0);
                out.put_i64_le(*offset);
                out.put_u32_le(*len);
                out.put_u32_le(*events);
                if let Some(change) = writer {
                    put_change(out, *change);
                }
            }
            Self::Attribute { segment, change } => {
                put_key(out, ATTRIBUTE, *segment);
                put_change(out, *change);
            }
            Self::SetPolicy { segment, policy } => {
                put_key(out, SET_POLICY, *segment);
                put_policy(out, *policy);
            }
            Self::Seal { segment } => put_key(out, SEAL, *segment),
            Self::Truncate { segment, start } => {
                put_key(out, TRUNCATE, *segment);
                out.put_i64_le(*start);
            }
            Self::Delete { segment } => put_key(out, DELETE, *segment),
            Self::Merge { target, offset, sources, changes } => {
                put_key(out, MERGE, *target);
                out.put_i64_le(*offset);
                put_count(out, sources.len());
                for source in sources {
                    out.put_u64_le(source.segment.0);
                    out.put_i64_le(source.length);
                }
                put_count(out, changes.len());
                for change in changes {
                    put_change(out, *change);
                }
            }
            Self::Rows { segment, offset, len, header } => {
                put_key(out, ROWS, *segment);
                out.put_i64_le(*offset);
                out.put_u32_le(*len);
                put_count(out, header.len());
                out.put_slice(header);
            }
            Self::Snapshot { len } => {
                out.put_u8(SNAPSHOT);
                out.put_u32_le(*len);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, FormatError> {
        let kind = reader.u8("operation kind")?;
        if kind == OWNER_START {
            return Ok(Self::OwnerStart { epoch: Epoch(reader.u64("epoch")?) });
        }
        if kind == NO_OP {
            return Ok(Self::NoOp);
        }
        if kind == SNAPSHOT {
            return Ok(Self::Snapshot { len: reader.u32("snapshot length")? });
        }
        let segment = SegmentKey(reader.u64("segment")?);
        match kind {
            CREATE => take_create(reader, segment),
            APPEND | APPEND_BY_WRITER => Ok(Self::Append {
                segment,
                offset: reader.i64("append offset")?,
                len: reader.u32("append length")?,
                events: reader.u32("append events")?,
                writer: (kind == APPEND_BY_WRITER).then(|| take_change(reader)).transpose()?,
            }),
            ATTRIBUTE => Ok(Self::Attribute { segment, change: take_change(reader)? }),
            SET_POLICY => Ok(Self::SetPolicy { segment, policy: take_policy(reader)? }),
            SEAL => Ok(Self::Seal { segment }),
            TRUNCATE => Ok(Self::Truncate { segment, start: reader.i64("truncation")? }),
            DELETE => Ok(Self::Delete { segment }),
            MERGE => take_merge(reader, segment),
            ROWS => {
                let offset = reader.i64("rows offset")?;
                let len = reader.u32("rows payload length")?;
                let header_len = reader.u32("rows header length")? as usize;
                let header = reader.bytes("rows header", header_len)?;
                Ok(Self::Rows { segment, offset, len, header })
            }
            kind => Err(FormatError::Value { field: "operation kind", value: kind.into() }),
        }
    }
}

fn put_key(out: &mut BytesMut, kind: u8, segment: SegmentKey) {
    out.put_u8(kind);
    out.put_u64_le(segment.0);
}

fn put_change(out: &mut BytesMut, change: Change) {
    out.put_u128_le(change.attribute);
    out.put_i64_le(change.from);
    out.put_i64_le(change.to);
}

fn take_change(reader: &mut Reader) -> Result<Change, FormatError> {
    Ok(Change {
        attribute: reader.u128("attribute")?,
        from: reader.i64("attribute value")?,
        to: reader.i64("attribute value")?,
    })
}

pub(crate) fn put_policy(out: &mut BytesMut, policy: Policy) {
    out.put_i8(policy.scale_type);
    out.put_i32_le(policy.target_rate);
}

pub(crate) fn take_policy(reader: &mut Reader) -> Result<Policy, FormatError> {
    Ok(Policy {
        scale_type: reader.u8("scale type")?.cast_signed(),
        target_rate: reader.i32("target rate")?,
    })
}

fn put_create(out: &mut BytesMut, segment: SegmentKey, name: &SegmentName, kind: Kind) {
    put_key(out, CREATE, segment);
    put_name(out, name);
    match kind {
        Kind::Stream { policy, rollover_bytes } => {
            out.put_u8(STREAM);
            put_policy(out, policy);
            out.put_i64_le(rollover_bytes);
        }
        Kind::Table { key_length } => {
            out.put_u8(TABLE);
            out.put_i32_le(key_length);
        }
    }
}

fn take_create(reader: &mut Reader, segment: SegmentKey) -> Result<Operation, FormatError> {
    let name = reader.name("segment name")?;
    let kind = match reader.u8("segment kind")? {
        STREAM => Kind::Stream {
            policy: take_policy(reader)?,
            rollover_bytes: reader.i64("rollover size")?,
        },
        TABLE => Kind::Table { key_length: reader.i32("key length")? },
        value => return Err(FormatError::Value { field: "segment kind", value: value.into() }),
    };
    Ok(Operation::Create { segment, name, kind })
}

fn take_merge(reader: &mut Reader, target: SegmentKey) -> Result<Operation, FormatError> {
    let offset = reader.i64("merge offset")?;
    let sources = (0..reader.count("merge sources", 16)?)
        .map(|_| {
            Ok(Source {
                segment: SegmentKey(reader.u64("merge source")?),
                length: reader.i64("merge source length")?,
            })
        })
        .collect::<Result<_, FormatError>>()?;
    let changes = (0..reader.count("merge attributes", 32)?)
        .map(|_| take_change(reader))
        .collect::<Result<_, FormatError>>()?;
    Ok(Operation::Merge { target, offset, sources, changes })
}

/// The headers of one entry while it grows.
#[derive(Debug)]
pub(crate) struct Headers {
    bytes: BytesMut,
    count: u32,
}

impl Headers {
    /// No operation yet; `wall` is when the entry began, in milliseconds since 1970.
    pub(crate) fn new(wall: i64) -> Self {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_u8(VERSION);
        bytes.put_u8(0);
        bytes.put_i64_le(wall);
        bytes.put_u32_le(0);
        Self { bytes, count: 0 }
    }

    pub(crate) fn push(&mut self, operation: &Operation) {
        operation.encode(&mut self.bytes);
        self.count += 1;
    }

    /// Length in bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes[COUNT_AT..ENTRY_HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.bytes.freeze()
    }
}

/// When an entry began, in milliseconds since 1970, and its operations.
pub(crate) fn decode_headers(headers: Bytes) -> Result<(i64, Vec<Operation>), FormatError> {
    let mut reader = Reader::new(headers);
    let version = reader.u8("entry version")?;
    if version != VERSION {
        return Err(FormatError::Value { field: "entry version", value: version.into() });
    }
    reader.u8("entry flags")?;
    let wall = reader.i64("entry time")?;
    let count = reader.count("operations", 1)?;
    let operations =
        (0..count).map(|_| Operation::decode(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok((wall, operations))
}
