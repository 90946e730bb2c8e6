//! Storages, disks, networks and metadata logs that live in memory, and small worlds of machines: for tests of whatever
//! stands on them.
//!
//! Nothing here is used by the product. All of it is deterministic.

pub mod bookkeeper;
pub mod damage;
mod disk;
mod executor;
mod metadata;
mod network;
pub mod small;
mod storage;

pub use disk::MemoryDisk;
pub use executor::Executor;
pub use metadata::MemoryMetadataLog;
pub use network::MemoryNetwork;
pub use storage::MemoryStorage;
