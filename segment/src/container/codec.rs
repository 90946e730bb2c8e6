//! Reading and writing the hand-laid formats of a container: little-endian integers, lengths in front.

use bytes::{BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{Address, EntryId, Epoch};
use thalweg_types::name::SegmentName;
use thiserror::Error;

/// Why bytes are not what a container wrote.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end within a field.
    #[error("the bytes end {missing} bytes too early at {field}")]
    Short {
        /// Which field.
        field: &'static str,
        /// How many are missing.
        missing: usize,
    },
    /// A field has a value that no version wrote.
    #[error("{field} cannot be {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What stands there.
        value: u64,
    },
    /// A name is not UTF-8.
    #[error("{field} is not UTF-8")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// Bytes are left behind the last field.
    #[error("{left} bytes are left over")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A checksum does not fit.
    #[error("checksum of {what}: {stored:#010x} is stored, {computed:#010x} computed")]
    Checksum {
        /// Of what.
        what: &'static str,
        /// What stands there.
        stored: u32,
        /// What it should be.
        computed: u32,
    },
    /// The index of a table cannot be read.
    #[error("table index: {reason}")]
    Table {
        /// Why, in the table's words.
        reason: String,
    },
}

/// Takes fields off the front of a slice.
pub(crate) struct Reader {
    left: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { left: bytes }
    }

    /// The next `len` bytes, shared.
    pub(crate) fn bytes(&mut self, field: &'static str, len: usize) -> Result<Bytes, FormatError> {
        if len > self.left.len() {
            return Err(FormatError::Short { field, missing: len - self.left.len() });
        }
        Ok(self.left.split_to(len))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let Some(array) = self.left.first_chunk::<N>().copied() else {
            return Err(FormatError::Short { field, missing: N - self.left.len() });
        };
        bytes::Buf::advance(&mut self.left, N);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(FormatError::Value { field, value: value.into() }),
        }
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, FormatError> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, FormatError> {
        self.array(field).map(i64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self, field: &'static str) -> Result<u128, FormatError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// A count of items of at least `item_bytes` each: never more than the bytes that are left can hold.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        item_bytes: usize,
    ) -> Result<usize, FormatError> {
        let count = self.u32(field)? as usize;
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= self.left.len() => Ok(count),
            _ => Err(FormatError::Value { field, value: count as u64 }),
        }
    }

    pub(crate) fn name(&mut self, field: &'static str) -> Result<SegmentName, FormatError> {
        let len = self.u16(field)?;
        let bytes = self.bytes(field, len.into())?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FormatError::Text { field })?;
        Ok(SegmentName::from(text))
    }

    pub(crate) fn address(&mut self, field: &'static str) -> Result<Address, FormatError> {
        Ok(Address::new(Epoch(self.u64(field)?), EntryId(self.u64(field)?)))
    }

    /// Everything has been read.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(FormatError::Trailing { left }),
        }
    }
}

/// A name with its length in front. Names came over the wire, where they have 16-bit lengths too.
pub(crate) fn put_name(out: &mut BytesMut, name: &SegmentName) {
    let text = name.as_str();
    out.put_u16_le(u16::try_from(text.len()).expect("names on the wire have 16-bit lengths"));
    out.put_slice(text.as_bytes());
}

pub(crate) fn put_address(out: &mut BytesMut, address: Address) {
    out.put_u64_le(address.epoch.0);
    out.put_u64_le(address.entry.0);
}

/// A count or length; what is counted lies in memory and far below the limit.
pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("counts fit 32 bits"));
}
