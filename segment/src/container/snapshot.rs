//! A container's whole state as bytes, in parts that fit log entries.
//!
//! ```text
//! part  = magic:u32 version:u16 0:u16 part:u32 parts:u32 covers(present:u8 epoch:u64 entry:u64) len:u32 crc:u32 body
//! ```
//! little-endian; `crc` is the CRC32C of the part's other bytes. The bodies, one behind the other, are the state.
//! A part knows its place among the parts and what the snapshot covers: parts of two snapshots never pass for one.

use crate::container::codec::{FormatError, Reader, put_address, put_count, put_name};
use crate::container::extents::Extents;
use crate::container::format::{SegmentKey, put_policy, take_policy};
use crate::container::state::{Content, Merged, Segment, State};
use crate::table::Table;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::collections::BTreeMap;
use thalweg_types::id::{Address, Epoch};

/// "THSN", little-endian.
const MAGIC: u32 = 0x4E53_4854;
const VERSION: u16 = 1;
const PART_HEADER_BYTES: usize = 41;
/// Where the checksum stands.
const CRC_AT: usize = 37;
/// Most bytes of state in one part.
pub(crate) const PART_BYTES_MAX: usize = 8 * 1024 * 1024;

const STREAM: u8 = 0;
const TABLE: u8 = 1;

/// One part of a snapshot as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) covers: Option<Address>,
    pub(crate) body: Bytes,
}

/// The parts of a snapshot of `state` after everything up to `covers`.
pub(crate) fn encode(state: &State, covers: Option<Address>) -> Vec<Bytes> {
    let body = encode_state(state);
    let parts = body.len().div_ceil(PART_BYTES_MAX).max(1);
    let parts = u32::try_from(parts).expect("a state is far below 32 PiB");
    (0..parts)
        .map(|part| {
            let from = part as usize * PART_BYTES_MAX;
            let slice = &body[from..body.len().min(from + PART_BYTES_MAX)];
            encode_part(part, parts, covers, slice)
        })
        .collect()
}

fn encode_part(part: u32, parts: u32, covers: Option<Address>, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PART_HEADER_BYTES + body.len());
    out.put_u32_le(MAGIC);
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u32_le(part);
    out.put_u32_le(parts);
    out.put_u8(covers.is_some().into());
    put_address(&mut out, covers.unwrap_or_default());
    put_count(&mut out, body.len());
    out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&out), body));
    out.put_slice(body);
    out.freeze()
}

/// Reads one part and checks it against its checksum.
pub(crate) fn decode_part(bytes: &Bytes) -> Result<Part, FormatError> {
    let mut reader = Reader::new(bytes.clone());
    let magic = reader.u32("snapshot magic")?;
    if magic != MAGIC {
        return Err(FormatError::Value { field: "snapshot magic", value: magic.into() });
    }
    let version = reader.u16("snapshot version")?;
    if version != VERSION {
        return Err(FormatError::Value { field: "snapshot version", value: version.into() });
    }
    reader.u16("snapshot flags")?;
    let index = reader.u32("snapshot part")?;
    let count = reader.u32("snapshot parts")?;
    let covers = reader.bool("snapshot covers")?;
    let address = reader.address("snapshot covers")?;
    let len = reader.u32("snapshot length")? as usize;
    let stored = reader.u32("snapshot checksum")?;
    let body = reader.bytes("snapshot body", len)?;
    reader.end()?;
    let computed = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &body);
    if stored != computed {
        return Err(FormatError::Checksum { what: "snapshot", stored, computed });
    }
    if index >= count {
        return Err(FormatError::Value { field: "snapshot part", value: index.into() });
    }
    Ok(Part { index, count, covers: covers.then_some(address), body })
}

/// The state as bytes: the same state gives the same bytes.
pub(crate) fn encode_state(state: &State) -> BytesMut {
    let mut out = BytesMut::with_capacity(4096);
    out.put_u64_le(state.epoch.0);
    out.put_u64_le(state.next_segment);
    put_count(&mut out, state.segments.len());
    for (key, segment) in &state.segments {
        out.put_u64_le(key.0);
        put_segment(&mut out, segment);
    }
    put_count(&mut out, state.merged_order.len());
    for name in &state.merged_order {
        put_name(&mut out, name);
        let merged = state.merged.get(name).expect("both hold the same names");
        out.put_u64_le(merged.target.0);
        out.put_i64_le(merged.end);
    }
    out
}

fn put_segment(out: &mut BytesMut, segment: &Segment) {
    put_name(out, &segment.name);
    out.put_i64_le(segment.start);
    out.put_i64_le(segment.length);
    out.put_u8(segment.sealed.into());
    out.put_i64_le(segment.modified);
    out.put_u64_le(segment.events);
    put_count(out, segment.attributes.len());
    for (id, value) in &segment.attributes {
        out.put_u128_le(*id);
        out.put_i64_le(*value);
    }
    match &segment.content {
        Content::Stream { extents, policy, rollover_bytes } => {
            out.put_u8(STREAM);
            put_policy(out, *policy);
            out.put_i64_le(*rollover_bytes);
            extents.encode(out);
        }
        Content::Table(table) => {
            out.put_u8(TABLE);
            let len_at = out.len();
            out.put_u32_le(0);
            table.encode(out);
            let len = u32::try_from(out.len() - len_at - 4).expect("an index is below 4 GiB");
            out[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// Reads what [`encode_state`] wrote.
pub(crate) fn decode_state(bytes: Bytes) -> Result<State, FormatError> {
    let mut reader = Reader::new(bytes);
    let mut state = State {
        epoch: Epoch(reader.u64("epoch")?),
        next_segment: reader.u64("next segment")?,
        ..State::default()
    };
    for _ in 0..reader.count("segments", 8)? {
        let key = SegmentKey(reader.u64("segment")?);
        let segment = take_segment(&mut reader)?;
        state.names.insert(segment.name.clone(), key);
        state.segments.insert(key, segment);
    }
    for _ in 0..reader.count("merged segments", 18)? {
        let name = reader.name("merged name")?;
        let target = SegmentKey(reader.u64("merged target")?);
        let end = reader.i64("merged end")?;
        state.merged.insert(name.clone(), Merged { target, end });
        state.merged_order.push_back(name);
    }
    reader.end()?;
    Ok(state)
}

fn take_segment(reader: &mut Reader) -> Result<Segment, FormatError> {
    let name = reader.name("segment name")?;
    let start = reader.i64("segment start")?;
    let length = reader.i64("segment length")?;
    let sealed = reader.bool("segment sealed")?;
    let modified = reader.i64("segment time")?;
    let events = reader.u64("segment events")?;
    let mut attributes = BTreeMap::new();
    for _ in 0..reader.count("attributes", 24)? {
        attributes.insert(reader.u128("attribute")?, reader.i64("attribute value")?);
    }
    let content = match reader.u8("segment kind")? {
        STREAM => Content::Stream {
            policy: take_policy(reader)?,
            rollover_bytes: reader.i64("rollover size")?,
            extents: Extents::decode(reader)?,
        },
        TABLE => {
            let len = reader.u32("table index length")? as usize;
            let bytes = reader.bytes("table index", len)?;
            let mut rest = &bytes[..];
            let table = Table::decode(&mut rest)
                .map_err(|error| FormatError::Table { reason: error.to_string() })?;
            if !rest.is_empty() {
                return Err(FormatError::Trailing { left: rest.len() });
            }
            Content::Table(Box::new(table))
        }
        value => return Err(FormatError::Value { field: "segment kind", value: value.into() }),
    };
    Ok(Segment { name, start, length, sealed, modified, events, attributes, content })
}

/// A number that two equal states share, and two different ones practically never.
#[cfg(test)]
pub(crate) fn state_hash(state: &State) -> u64 {
    thalweg_types::hash::murmur3(&encode_state(state), 0)
}
