//! The disk log engine: one interleaved log per disk, written once, with group commit and an index in memory.
//!
//! * `format`: every byte on disk. `superblock`: the storage's identity. `files`: spare, prepared, in use.
//! * `identity`: who a storage with peers is, and what it may vouch for.
//! * `scan`: what of the log counts after a start; torn and damaged are told apart once and for all.
//! * `writer`: batches. `keeper`: new files, and the space of old ones. `read`: verified reads.
//! * `facts` and `index`: what the frames say, and where entries lie.
//!
//! Invariants
//! 1. A frame is announced as durable only after the sync of its batch has returned, in order of staging but for
//!    frames that pass held ones on a full disk.
//! 2. Nothing is reported at start before everything it rests on has been synced by this process.
//! 3. Nothing is deleted, cut or overwritten because of damage; what cannot be read is UNKNOWN, or the start is
//!    refused with file and offset.
//! 4. A file is freed only when the frames in it that still matter are durable in a later one.
//!
//! Deliberately not here: what frames mean to a ledger (`replica`), locking the folder (the server).
//! Source: the design notes on the storage engine of a log node.

mod config;
mod core;
mod error;
pub(crate) mod facts;
mod files;
mod format;
mod identity;
mod index;
mod keeper;
mod open;
mod read;
mod scan;
mod superblock;
mod writer;

pub use config::Config;
pub use error::StartError;

use self::core::Core;
use crate::frame::Frame;
use crate::ledger::{ReadError, Stopped};
use crate::mounts::Mounts;
use crate::storage::{Recovered, Storage, StorageProgress, StoredEntry, Ticket};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use thalweg_actor::BoxFuture;
use thalweg_actor::env::Env;
use thalweg_types::id::{EntryId, LedgerId, StorageUuid};
use tokio::sync::watch;

/// A mounted storage.
pub struct Engine {
    core: Arc<Core>,
    recovered: Arc<Recovered>,
}

impl Engine {
    /// Mounts the storage in the folder of `env`, or creates one if the folder provably never held any. The caller
    /// has locked the folder. A crash in the middle leaves it to the next mount.
    pub async fn open(env: Env, config: Config) -> Result<Arc<Self>, StartError> {
        Ok(Self::run(open::open(env, config, None).await?))
    }

    /// The same for a storage whose ledgers have replicas elsewhere. The mount is noted with `mounts`, for which it
    /// waits. Damage that cannot be put down to single ledgers is no refusal: the storage answers with what it can
    /// read and vouches for nothing ([`Recovered::limbo`]). One that is not what it claims to be is set aside, and a
    /// new one, with a new identity, takes its place.
    pub async fn open_with_peers(
        env: Env,
        config: Config,
        mounts: &dyn Mounts,
    ) -> Result<Arc<Self>, StartError> {
        Ok(Self::run(open::open(env, config, Some(mounts)).await?))
    }

    fn run(mounted: open::Mounted) -> Arc<Self> {
        let core = mounted.core;
        let writer = Box::pin(mounted.writer.run());
        drop(core.env.spawn.spawn("log writer", writer));
        let keeper = Box::pin(keeper::Keeper::new(core.clone()).run());
        drop(core.env.spawn.spawn("log keeper", keeper));
        Arc::new(Self { core, recovered: Arc::new(mounted.recovered) })
    }

    /// Asserts the invariants of what is in memory.
    pub fn check(&self) {
        self.core.lock().check();
    }
}

impl Storage for Engine {
    fn uuid(&self) -> StorageUuid {
        self.core.storage
    }

    fn mount_seq(&self) -> u64 {
        self.core.mount_seq
    }

    fn recovered(&self) -> Arc<Recovered> {
        self.recovered.clone()
    }

    fn stage(&self, frame: Frame) -> Result<Ticket, Stopped> {
        self.core.stage(frame)
    }

    fn progress(&self) -> watch::Receiver<StorageProgress> {
        self.core.progress.subscribe()
    }

    fn headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        Box::pin(self.core.headers(ledger, from, max))
    }

    fn payload(&self, ledger: LedgerId, entry: EntryId) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(self.core.payload(ledger, entry))
    }

    fn held(&self) -> (Vec<(LedgerId, Range<u64>)>, u64) {
        self.core.lock().index.held()
    }

    fn in_limbo(&self) -> bool {
        self.core.limbo.load(Ordering::Acquire)
    }

    fn end_limbo(&self) -> BoxFuture<'_, Result<bool, Stopped>> {
        Box::pin(self.core.end_limbo())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.core.lock().closing = true;
            self.core.work.notify_one();
            let mut ended = self.core.ended.subscribe();
            // The sender lives as long as the engine does.
            let _ = ended.wait_for(|ended| *ended).await;
        })
    }
}

#[cfg(test)]
mod tests;
