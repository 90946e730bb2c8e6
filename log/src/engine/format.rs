//! Every byte that the engine writes: superblock, file header, batch, frame. Little-endian, hand-laid.
//!
//! Blocks of 4 KiB hold the superblock and the file header; their magic, version and checksum stay where they are in
//! every version. A batch is its header with the table of frames, then all frame headers, then all payloads, then
//! zeros up to the next multiple of 4 KiB. Each checksum of a batch depends on where the batch lies, so a stale or
//! misdirected one, and a payload that looks like one, is never taken for a batch.
//!
//! Deliberately not here: which batches belong together (`scan`).
//! Source: the design notes on the storage engine of a log node.

mod batch;
mod block;
mod frame;

pub(crate) use batch::{
    BATCH_OVERHEAD, BATCH_PROBE, Chain, Encoded, Header, Place, encode, payload_is_sound,
};
pub(crate) use block::{BlockFlaw, FileHeader, Superblock};
pub(crate) use frame::{Origin, Record, Start};

/// Batches and files are multiples of this many bytes.
pub(crate) const BLOCK: usize = 4096;
/// The only version that this build reads and writes.
pub(crate) const VERSION: u32 = 1;

/// What is wrong with bytes that should have been a batch or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// There is no batch header at all: zeros, or old or foreign bytes.
    Absent,
    /// There is one, or part of one, and a checksum or length in it is wrong.
    Broken(&'static str),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("no batch begins here"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// Reads little-endian fields one behind the other; `None` at the end of the bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
