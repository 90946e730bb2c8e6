//! Storages, disks and metadata logs that live in memory: for tests of whatever stands on them.
//!
//! Nothing here is used by the product. All of it is deterministic.

mod metadata;
mod storage;

pub use metadata::MemoryMetadataLog;
pub use storage::MemoryStorage;
