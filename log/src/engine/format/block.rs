//! The 4 KiB blocks: superblock copies and file headers.

use super::{BLOCK, Fields, VERSION};
use bytes::{BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{NodeId, StorageUuid};

const SUPERBLOCK: u64 = u64::from_le_bytes(*b"THALWEGS");
const FILE: u64 = u64::from_le_bytes(*b"THALWEGF");
const CRC_AT: usize = BLOCK - 4;

/// Why a block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockFlaw {
    /// Too short, no magic number, or a wrong checksum.
    Damaged(&'static str),
    /// Sound, but of another format version.
    Version(u32),
}

impl std::fmt::Display for BlockFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::Version(version) => write!(f, "of format version {version}"),
        }
    }
}

fn open(bytes: &[u8], magic: u64) -> Result<Fields<'_>, BlockFlaw> {
    if bytes.len() < BLOCK {
        return Err(BlockFlaw::Damaged("shorter than one block"));
    }
    let mut fields = Fields(&bytes[..CRC_AT]);
    if fields.u64() != Some(magic) {
        return Err(BlockFlaw::Damaged("wrong magic number"));
    }
    let crc = Fields(&bytes[CRC_AT..BLOCK]).u32();
    if crc != Some(crc32c::crc32c(&bytes[..CRC_AT])) {
        return Err(BlockFlaw::Damaged("wrong checksum"));
    }
    match fields.u32() {
        Some(VERSION) => Ok(fields),
        version => Err(BlockFlaw::Version(version.unwrap_or_default())),
    }
}

fn close(mut block: BytesMut) -> Bytes {
    block.resize(CRC_AT, 0);
    let crc = crc32c::crc32c(&block);
    block.put_u32_le(crc);
    block.freeze()
}

fn begin(magic: u64) -> BytesMut {
    let mut block = BytesMut::with_capacity(BLOCK);
    block.put_u64_le(magic);
    block.put_u32_le(VERSION);
    block
}

/// What identifies a storage and bounds its log. Four copies of it exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub cluster: u128,
    pub node: NodeId,
    pub storage: StorageUuid,
    /// Grows by one with each change of the content.
    pub sequence: u64,
    /// How often the storage has been mounted.
    pub mount_seq: u64,
    /// The first file that is still part of the log; 0 until the first mount has begun its first file.
    pub head: u64,
    /// The newest file that exists, in use or prepared.
    pub prepared: u64,
    /// The last batch, if the engine stopped cleanly behind it; 0 otherwise.
    pub clean: u64,
    /// What lies before this batch may be damaged, and the storage cannot vouch for what it does not know; 0 if there
    /// never was any damage.
    pub limbo_from: u64,
    /// The `limbo_from` of a doubt that is over: all that matters has been stated anew behind it.
    pub limbo_over: u64,
}

impl Superblock {
    /// True while the storage cannot vouch for ledgers that it does not know.
    pub(crate) fn in_limbo(&self) -> bool {
        self.limbo_from > self.limbo_over
    }

    /// The block of copy number `copy`.
    pub(crate) fn encode(&self, copy: u32) -> Bytes {
        let mut block = begin(SUPERBLOCK);
        block.put_u32_le(copy);
        block.put_u128_le(self.cluster);
        block.put_u64_le(self.node.0);
        block.put_u128_le(self.storage.0);
        block.put_u64_le(self.sequence);
        block.put_u64_le(self.mount_seq);
        block.put_u64_le(self.head);
        block.put_u64_le(self.prepared);
        block.put_u64_le(self.clean);
        block.put_u64_le(self.limbo_from);
        block.put_u64_le(self.limbo_over);
        close(block)
    }

    /// The content of copy number `copy`.
    pub(crate) fn decode(bytes: &[u8], copy: u32) -> Result<Self, BlockFlaw> {
        let mut fields = open(bytes, SUPERBLOCK)?;
        let found = fields.u32();
        if found != Some(copy) {
            return Err(BlockFlaw::Damaged("another copy lies in its place"));
        }
        Self::fields(&mut fields).ok_or(BlockFlaw::Damaged("shorter than one block"))
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            cluster: fields.u128()?,
            node: NodeId(fields.u64()?),
            storage: StorageUuid(fields.u128()?),
            sequence: fields.u64()?,
            mount_seq: fields.u64()?,
            head: fields.u64()?,
            prepared: fields.u64()?,
            clean: fields.u64()?,
            limbo_from: fields.u64()?,
            limbo_over: fields.u64()?,
        })
    }
}

/// The first block of a log file, synced before the file gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub storage: StorageUuid,
    /// Random for each use of the file.
    pub incarnation: u64,
    /// The file's place in the log.
    pub number: u64,
    /// The file's length in bytes.
    pub size: u64,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Bytes {
        let mut block = begin(FILE);
        block.put_u32_le(0);
        block.put_u128_le(self.storage.0);
        block.put_u64_le(self.incarnation);
        block.put_u64_le(self.number);
        block.put_u64_le(self.size);
        close(block)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BlockFlaw> {
        let mut fields = open(bytes, FILE)?;
        Self::fields(&mut fields).ok_or(BlockFlaw::Damaged("shorter than one block"))
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        fields.u32()?;
        Some(Self {
            storage: StorageUuid(fields.u128()?),
            incarnation: fields.u64()?,
            number: fields.u64()?,
            size: fields.u64()?,
        })
    }
}
