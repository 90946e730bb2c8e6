//! Checksummed framing for control messages and metadata records.
//!
//! ```text
//! magic:u32 version:u16 kind:u16 address:u64 length:u32 crc:u32 body[length]     little-endian
//! ```
//! `crc` is the CRC32C of the other header bytes and the body. `address` is the record's own place (log index,
//! request number): a record that was written or delivered in another's place fails its checksum or its address.
//! A torn write shows as [`RecordError::Incomplete`] or [`RecordError::Checksum`], never as a shorter record.

use crate::limits::RECORD_BYTES_MAX;
use bytes::{BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// Bytes in front of every body.
pub const RECORD_HEADER_BYTES: usize = 24;
/// "THLW", little-endian.
pub const RECORD_MAGIC: u32 = 0x574C_4854;

/// A record as it was framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version of the body's format.
    pub version: u16,
    /// What the body is; the meaning belongs to whoever framed it.
    pub kind: u16,
    /// The record's own place.
    pub address: u64,
    /// The content.
    pub body: Bytes,
}

/// Why bytes are not a record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// More bytes are needed: at least this many in all.
    #[error("record is incomplete: {needed} bytes are needed")]
    Incomplete {
        /// Bytes from the record's start.
        needed: usize,
    },
    /// The bytes do not start with the magic number.
    #[error("not a record: magic {found:#010x}")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// The length field exceeds [`RECORD_BYTES_MAX`].
    #[error("record of {length} bytes exceeds the limit of {RECORD_BYTES_MAX}")]
    TooLong {
        /// The length field.
        length: usize,
    },
    /// The checksum does not fit the content.
    #[error("record checksum mismatch at address {address}")]
    Checksum {
        /// The address field, itself doubtful.
        address: u64,
    },
}

impl Record {
    /// The record as bytes.
    ///
    /// Panics if the body exceeds [`RECORD_BYTES_MAX`]: callers bound their bodies.
    pub fn encode(&self) -> Bytes {
        assert!(self.body.len() <= RECORD_BYTES_MAX, "a record body is bounded by its maker");
        let mut out = BytesMut::with_capacity(RECORD_HEADER_BYTES + self.body.len());
        out.put_u32_le(RECORD_MAGIC);
        out.put_u16_le(self.version);
        out.put_u16_le(self.kind);
        out.put_u64_le(self.address);
        out.put_u32_le(u32::try_from(self.body.len()).expect("bounded above"));
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &self.body);
        out.put_u32_le(crc);
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    /// The record at the start of `bytes` and its whole length in bytes. What cannot become a record is refused at its
    /// first byte that differs, so that nobody waits for the rest of it.
    pub fn decode(bytes: &Bytes) -> Result<(Self, usize), RecordError> {
        let expected = RECORD_MAGIC.to_le_bytes();
        let first = &bytes[..bytes.len().min(expected.len())];
        if !expected.starts_with(first) {
            let mut found = [0; 4];
            found[..first.len()].copy_from_slice(first);
            return Err(RecordError::Magic { found: u32::from_le_bytes(found) });
        }
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(RecordError::Incomplete { needed: RECORD_HEADER_BYTES });
        };
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = u32_at(16) as usize;
        if length > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong { length });
        }
        let whole = RECORD_HEADER_BYTES + length;
        if bytes.len() < whole {
            return Err(RecordError::Incomplete { needed: whole });
        }
        let address = u64::from(u32_at(8)) | (u64::from(u32_at(12)) << 32);
        let body = bytes.slice(RECORD_HEADER_BYTES..whole);
        if crc32c::crc32c_append(crc32c::crc32c(&header[..20]), &body) != u32_at(20) {
            return Err(RecordError::Checksum { address });
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        let kind = u16::from_le_bytes([header[6], header[7]]);
        Ok((Self { version, kind, address, body }, whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(body: Vec<u8>) -> Record {
        Record { version: 1, kind: 2, address: 0x1_0000_0003, body: body.into() }
    }

    proptest! {
        #[test]
        fn what_was_framed_is_read_back(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = record(body.clone()).encode();
            prop_assert_eq!(Record::decode(&bytes), Ok((record(body), bytes.len())));
        }

        #[test]
        fn one_flipped_bit_is_never_a_record(
            body in proptest::collection::vec(any::<u8>(), 1..64), bit in 0_usize..(24 * 8 + 8),
        ) {
            let mut bytes = record(body).encode().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(&Bytes::from(bytes)).is_err());
        }
    }

    #[test]
    fn what_is_no_record_is_refused_at_its_first_byte() {
        assert_eq!(Record::decode(&Bytes::from("G")), Err(RecordError::Magic { found: 0x47 }));
        let found = u32::from_le_bytes(*b"THLX");
        assert_eq!(Record::decode(&Bytes::from("THLX")), Err(RecordError::Magic { found }));
    }

    #[test]
    fn a_cut_record_asks_for_more() {
        let bytes = record(vec![1, 2, 3]).encode();
        for cut in 0..bytes.len() {
            assert!(matches!(
                Record::decode(&bytes.slice(..cut)),
                Err(RecordError::Incomplete { .. })
            ));
        }
    }
}
