//! Reading a table page by page: its keys in order, and its changes in order.

use super::op::malformed;
use super::{Row, Slot, Table, TableError};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::ops::Bound;
use thalweg_types::codec::DecodeError;
use thalweg_types::limits::READ_BYTES_MAX;

/// Most items of one page, however many are asked for: bounds what a page of tiny rows costs.
const PAGE_ITEMS_MAX: usize = 50_000;

/// Which page of a table's keys or entries. The same for both: a page of keys merely leaves the values out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// From the page before, empty at the start.
    pub continuation_token: Bytes,
    /// First key; empty for none. Fixed-key tables only.
    pub from_key: Bytes,
    /// Last key; empty for none. Fixed-key tables only.
    pub to_key: Bytes,
    /// Most rows of the page; below 1 for an empty page.
    pub suggested_count: i32,
}

/// Rows in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The rows. Empty only at the end, or if none was asked for.
    pub rows: Vec<Row>,
    /// Where the next page starts; empty only if the page is.
    pub continuation_token: Bytes,
}

/// Rows in the order in which they were written: each key at most once, with the value written last. A key that has
/// been removed shows with its last value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The rows.
    pub rows: Vec<Row>,
    /// What came before was compacted away: forget what earlier pages said. Live rows from before follow from here.
    pub should_clear: bool,
    /// Nothing comes behind.
    pub reached_end: bool,
    /// The position from which to go on.
    pub last_position: i64,
}

impl Table {
    /// The next page of keys or entries. At most 2 MiB, but one row at least. Keys that neither come nor go in
    /// between are met exactly once.
    pub fn scan(&self, scan: &Scan) -> Result<Page, TableError> {
        let (from, to) = self.range(scan)?;
        let mut page = Page::default();
        let mut room = Room::new(scan.suggested_count);
        if is_empty(&from, &to) {
            return Ok(page);
        }
        for (key, slot) in self.keys.range::<[u8], _>((as_slice(&from), as_slice(&to))) {
            if slot.removed {
                continue;
            }
            if !room.takes(slot.row_bytes(key)) {
                break;
            }
            page.rows.push(slot.row(key));
        }
        page.continuation_token = page.rows.last().map(|row| token(&row.key)).unwrap_or_default();
        Ok(page)
    }

    /// What was written since `from_position`, which is 0 or came from an earlier page. At most about 2 MiB, but one
    /// row at least unless the end is reached. Never empty before the end, if at least one row is asked for.
    pub fn delta(&self, from_position: i64, suggested_count: i32) -> Result<Delta, TableError> {
        if self.key_length > 0 {
            return Err(TableError::Unsupported { operation: "readTableEntriesDelta" });
        }
        if !(0..=self.length).contains(&from_position) {
            return Err(TableError::Position { position: from_position, length: self.length });
        }
        let from = from_position.max(self.start);
        let mut room = Room::new(suggested_count);
        let mut delta = Delta {
            rows: Vec::new(),
            should_clear: from_position < self.start,
            reached_end: true,
            last_position: self.length,
        };
        if suggested_count < 1 {
            return Ok(Delta { reached_end: false, last_position: from_position, ..delta });
        }
        for (position, key) in self.rows.range(from..) {
            let slot: &Slot = &self.keys[key];
            if !room.takes(slot.row_bytes(key)) {
                (delta.reached_end, delta.last_position) = (false, *position);
                break;
            }
            delta.rows.push(slot.row(key));
        }
        Ok(delta)
    }

    fn range(&self, scan: &Scan) -> Result<(Bound<Bytes>, Bound<Bytes>), TableError> {
        let bound = |key: &Bytes| {
            if key.is_empty() { Bound::Unbounded } else { Bound::Included(key.clone()) }
        };
        if self.key_length == 0 {
            if !(scan.from_key.is_empty() && scan.to_key.is_empty()) {
                return Err(TableError::Range);
            }
            if scan.continuation_token.is_empty() {
                return Ok((Bound::Unbounded, Bound::Unbounded));
            }
            let last = untoken(&scan.continuation_token).map_err(|_| TableError::Token)?;
            return Ok((Bound::Excluded(last), Bound::Unbounded));
        }
        if !scan.continuation_token.is_empty() {
            return Err(TableError::Token);
        }
        for key in [&scan.from_key, &scan.to_key] {
            if !key.is_empty() {
                self.judge_key(key)?;
            }
        }
        if !scan.to_key.is_empty() && scan.from_key > scan.to_key {
            return Err(TableError::Range);
        }
        Ok((bound(&scan.from_key), bound(&scan.to_key)))
    }
}

/// What still fits into a page.
struct Room {
    items: usize,
    bytes: i64,
    first: bool,
}

impl Room {
    fn new(suggested_count: i32) -> Self {
        let items = usize::try_from(suggested_count).unwrap_or(0).min(PAGE_ITEMS_MAX);
        Self { items, bytes: i64::try_from(READ_BYTES_MAX).expect("a few MiB"), first: true }
    }

    fn takes(&mut self, row_bytes: i64) -> bool {
        if self.items == 0 || (row_bytes > self.bytes && !self.first) {
            return false;
        }
        self.items -= 1;
        self.bytes -= row_bytes;
        self.first = false;
        true
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// True for a range that holds nothing and that a map would not take.
fn is_empty(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        _ => false,
    }
}

/// `crc:u32 key`: a token stands for the last key of its page, and works after a restart as well.
fn token(key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + key.len());
    out.put_u32(crc32c::crc32c(key));
    out.put_slice(key);
    out.freeze()
}

fn untoken(token: &Bytes) -> Result<Bytes, DecodeError> {
    let (crc, key) = token.split_first_chunk::<4>().ok_or_else(|| malformed("token"))?;
    if u32::from_be_bytes(*crc) != crc32c::crc32c(key) {
        return Err(malformed("token"));
    }
    Ok(token.slice(4..))
}
