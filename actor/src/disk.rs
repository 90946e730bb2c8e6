//! The disk seam: one flat folder of files.
//!
//! A name is a plain file name without separators. **Nothing is durable until `sync` returns**: after a crash any
//! subset of the unsynced writes may be present, each whole, torn at a 512-byte sector, or absent, in any order.
//! Creation, renaming and removal of a name are durable only after `sync_dir`.

use crate::BoxFuture;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// What `open` does with a name that exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must exist: `NotFound` otherwise.
    Existing,
    /// The file must not exist: `AlreadyExists` otherwise.
    New,
    /// Opens it, empty if it did not exist.
    Either,
}

/// The space of the file system that holds the folder, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// What may still be written to it.
    pub free: u64,
}

/// A folder of files. Errors: `NotFound`, `AlreadyExists`, `StorageFull`, `PermissionDenied`, anything else is the
/// device's (EIO).
pub trait Disk: Send + Sync {
    /// Opens `name`. A new file is durable only after its own `sync` and `sync_dir`.
    fn open<'a>(&'a self, name: &'a str, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>>;

    /// Gives `from` the name `to`, replacing what had it, in one step: a crash leaves the old or the new, never
    /// neither. MUST be durable after `sync_dir`.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>>;

    /// Removes `name`. Open handles stay usable.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>>;

    /// All names, sorted.
    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>>;

    /// Makes every earlier creation, renaming and removal durable.
    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>>;

    /// The space left.
    fn space(&self) -> BoxFuture<'_, io::Result<Space>>;

    /// Where the folder is, for messages to people.
    fn describe(&self) -> String;
}

/// A file. Two writes in flight at once MUST NOT overlap, and may land in either order.
pub trait File: Send + Sync {
    /// The length in bytes.
    fn size(&self) -> BoxFuture<'_, io::Result<u64>>;

    /// The bytes at `offset`; fewer than `len` only at the end of the file. Sees every write that has returned,
    /// durable or not.
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Writes `chunks` one behind the other from `offset`, growing the file where needed. An error leaves any
    /// part of them written. `StorageFull` MUST be reported, never swallowed.
    fn write_at(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;

    /// Makes every `write_at` and `allocate` that had returned before this call durable, the length too. An
    /// error is fatal to whoever relied on those writes: a failed sync MUST NOT be retried, since the operating
    /// system may have dropped the pages and would report success.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;

    /// `write_at`, then `sync`, in one visit to the device's thread.
    fn write_and_sync(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;

    /// Grows the file to `len` bytes of written zeros, so that a later `write_at` below `len` MUST NOT fail for
    /// want of space and its sync carries no change of length. Does nothing to a file that is longer.
    fn allocate(&self, len: u64) -> BoxFuture<'_, io::Result<()>>;

    /// Cuts the file to `len` bytes or grows it with zeros.
    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>>;
}
