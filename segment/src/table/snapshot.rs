//! A whole table as bytes.
//!
//! ```text
//! version:u8 key_length:i32 start:i64 length:i64 count:u32
//! (key_bytes:u16 flags:u8 value_bytes:u32 position:i64 row_version:i64 epoch:u64 entry:u64 at:u32 key)*count
//! ```
//! Little-endian, rows in the order of their positions. `flags` 1: removed.

use super::op::{key_bytes, malformed, take};
use super::{FIXED_KEY_BYTES_MAX, Key, Slot, Table};
use crate::place::Place;
use bytes::{Buf as _, BufMut as _, BytesMut};
use thalweg_types::codec::DecodeError;
use thalweg_types::id::{Address, EntryId, Epoch};

const FORMAT: u8 = 1;
const REMOVED: u8 = 1;

impl Table {
    /// Appends the whole table to `out`. Equal tables give equal bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        out.put_i32_le(self.key_length);
        out.put_i64_le(self.start);
        out.put_i64_le(self.length);
        out.put_u32_le(u32::try_from(self.rows.len()).expect("keys are in memory"));
        for key in self.rows.values() {
            let slot = &self.keys[key];
            let place = slot.value;
            out.put_u16_le(key_bytes(key));
            out.put_u8(if slot.removed { REMOVED } else { 0 });
            out.put_u32_le(place.len);
            out.put_i64_le(slot.position);
            out.put_i64_le(slot.version);
            out.put_u64_le(place.address.epoch.0);
            out.put_u64_le(place.address.entry.0);
            out.put_u32_le(place.position);
            out.put_slice(key);
        }
    }

    /// Takes a table from the front of `input`. Fails on anything that no table encodes to; never panics, never
    /// allocates more than a small multiple of `input`.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        if take(input, 1, "format")?.get_u8() != FORMAT {
            return Err(malformed("format"));
        }
        let key_length = take(input, 4, "key length")?.get_i32_le();
        if !(0..=FIXED_KEY_BYTES_MAX).contains(&key_length) {
            return Err(malformed("key length"));
        }
        let mut table = Self::new(key_length).map_err(|_| malformed("key length"))?;
        table.start = take(input, 8, "start")?.get_i64_le();
        table.length = take(input, 8, "length")?.get_i64_le();
        if !(0 <= table.start && table.start <= table.length) {
            return Err(malformed("length"));
        }
        let count = take(input, 4, "count")?.get_u32_le();
        let mut least = table.start;
        for _ in 0..count {
            let (key, slot) = decode_row(input)?;
            if slot.position < least || slot.position >= table.length {
                return Err(malformed("position"));
            }
            if !(0..=slot.position).contains(&slot.version) {
                return Err(malformed("version"));
            }
            least = slot.position + 1;
            if !slot.removed {
                table.live_count += 1;
                table.live_bytes += slot.row_bytes(&key);
            }
            table.rows.insert(slot.position, key.clone());
            if table.keys.insert(key, slot).is_some() {
                return Err(malformed("a key twice"));
            }
        }
        Ok(table)
    }
}

fn decode_row(input: &mut &[u8]) -> Result<(Key, Slot), DecodeError> {
    let key = take(input, 2, "key length")?.get_u16_le();
    let flags = take(input, 1, "flags")?.get_u8();
    if flags > REMOVED {
        return Err(malformed("flags"));
    }
    let len = take(input, 4, "value length")?.get_u32_le();
    let position = take(input, 8, "position")?.get_i64_le();
    let version = take(input, 8, "version")?.get_i64_le();
    let epoch = Epoch(take(input, 8, "epoch")?.get_u64_le());
    let entry = EntryId(take(input, 8, "entry")?.get_u64_le());
    let place = take(input, 4, "place")?.get_u32_le();
    let value = Place { address: Address::new(epoch, entry), position: place, len };
    let slot = Slot { version, position, value, removed: flags == REMOVED };
    Ok((take(input, key.into(), "key")?.into(), slot))
}
