//! Entries whose bytes follow from a number: whoever reads one can tell which it is, and whether it is whole.

use crate::world::rng::Rng;
use bytes::{BufMut as _, Bytes, BytesMut};
use thalweg_log::ledger::Entry;

/// Magic, number, length of the payload, length of the rest of the headers.
const HEADER: usize = 4 + 8 + 4 + 2;
const MAGIC: u32 = 0x1ed6_e201;

/// What was handed to a ledger as one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its number: no two entries of a run share one.
    pub(super) serial: u64,
    /// Bytes of headers behind the fixed part.
    pub(super) extra: u16,
    /// Bytes of payload.
    pub(super) payload_len: u32,
}

fn filler(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut bytes = BytesMut::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        bytes.put_u64(state);
    }
    bytes.truncate(len);
    bytes.freeze()
}

impl Content {
    /// The next entry, of a drawn size: most are small, a few fill a batch.
    pub(super) fn draw(serial: u64, rng: &mut Rng) -> Self {
        let payload_len = match rng.below(100) {
            0..5 => 0,
            5..75 => rng.below(300),
            75..95 => rng.range(300, 4_000),
            95..99 => rng.range(4_000, 20_000),
            _ => rng.range(20_000, 90_000),
        };
        let extra = if rng.percent(20) { rng.below(200) } else { 0 };
        Self {
            serial,
            extra: u16::try_from(extra).expect("small"),
            payload_len: u32::try_from(payload_len).expect("small"),
        }
    }

    /// The headers.
    pub(super) fn headers(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER + usize::from(self.extra));
        bytes.put_u32(MAGIC);
        bytes.put_u64(self.serial);
        bytes.put_u32(self.payload_len);
        bytes.put_u16(self.extra);
        bytes.extend_from_slice(&filler(!self.serial, usize::from(self.extra)));
        bytes.freeze()
    }

    /// The payload.
    pub(super) fn payload(self) -> Bytes {
        filler(self.serial, self.payload_len as usize)
    }

    /// The entry, its payload in some pieces.
    pub(super) fn entry(self, rng: &mut Rng) -> Entry {
        let mut rest = self.payload();
        let mut payload = Vec::new();
        while rng.percent(30) && rest.len() > 1 {
            payload.push(rest.split_to(1 + rng.index(rest.len() - 1)));
        }
        if !rest.is_empty() {
            payload.push(rest);
        }
        Entry { headers: self.headers(), payload, exempt: rng.percent(2) }
    }
}

/// The number of the entry that `headers` claim to be.
pub(super) fn claim(headers: &[u8]) -> Option<u64> {
    let header = headers.first_chunk::<HEADER>()?;
    let magic = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let serial = header[4..12].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (magic == MAGIC).then_some(serial)
}
