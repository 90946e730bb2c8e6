//! The files of the log: spare, prepared, in use.
//!
//! A *spare* (`spare-<k>.log`) is written full and means nothing. A *prepared* file (`next-<n>.log`) has the synced
//! header of place `n`, and the superblock says that it exists. A file *in use* (`seg-<n>.log`) got that name by a
//! synced renaming, so its header is never torn.

use super::format::{BLOCK, FileHeader};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thalweg_actor::clock::Clock;
use thalweg_actor::disk::{Disk, File, Open};
use thalweg_actor::planted;

/// Where the first batch of a file lies.
pub(super) const FIRST_BATCH: u64 = BLOCK as u64;

/// The name of the file in use at place `number`.
pub(super) fn in_use_name(number: u64) -> String {
    format!("seg-{number}.log")
}

/// The name of the file prepared for place `number`.
pub(super) fn prepared_name(number: u64) -> String {
    format!("next-{number}.log")
}

fn spare_name(number: u64) -> String {
    format!("spare-{number}.log")
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?.strip_suffix(".log")?;
    number.parse().ok().filter(|parsed: &u64| parsed.to_string() == number)
}

/// The names in a data folder, sorted out.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub in_use: Vec<u64>,
    pub prepared: Vec<u64>,
    pub spares: Vec<u64>,
    /// Copies of the superblock, finished ones.
    pub superblocks: usize,
    /// The first name that is none of the engine's and none of its bystanders'.
    pub foreign: Option<String>,
}

impl Names {
    pub(super) fn sort(names: &[String], bystanders: &[String]) -> Self {
        let mut sorted = Self::default();
        for name in names {
            if let Some(number) = number_of(name, "seg-") {
                sorted.in_use.push(number);
            } else if let Some(number) = number_of(name, "next-") {
                sorted.prepared.push(number);
            } else if let Some(number) = number_of(name, "spare-") {
                sorted.spares.push(number);
            } else if super::superblock::is_copy(name) {
                sorted.superblocks += 1;
            } else if !super::superblock::is_unborn(name)
                && !bystanders.contains(name)
                && !name.starts_with('.')
                && name != "lost+found"
            {
                sorted.foreign.get_or_insert_with(|| name.clone());
            }
        }
        sorted.in_use.sort_unstable();
        sorted.prepared.sort_unstable();
        sorted.spares.sort_unstable();
        sorted
    }

    /// True for the names of the engine's own files.
    pub(super) fn is_engine(name: &str) -> bool {
        let log =
            ["seg-", "next-", "spare-"].iter().any(|prefix| number_of(name, prefix).is_some());
        log || super::superblock::is_copy(name) || super::superblock::is_unborn(name)
    }

    /// True if no log was ever begun here.
    pub(super) fn is_blank(&self) -> bool {
        self.superblocks == 0
            && self.in_use.is_empty()
            && self.prepared.is_empty()
            && self.spares.is_empty()
    }
}

/// A file with a place in the log.
pub(super) struct LogFile {
    pub header: FileHeader,
    pub file: Arc<dyn File>,
}

impl LogFile {
    pub(super) fn number(&self) -> u64 {
        self.header.number
    }
}

/// A file without one, written full.
pub(super) struct Spare {
    number: u64,
    pub size: u64,
    file: Arc<dyn File>,
}

/// How fast a file may be written full.
#[derive(Clone, Copy)]
pub(super) struct Pace<'a> {
    pub step: u64,
    pub pause: Duration,
    /// Somebody waits for the file: no more pauses.
    pub urgent: &'a AtomicBool,
}

impl Spare {
    /// Opens spare `number` as it was left.
    pub(super) async fn open(disk: &dyn Disk, number: u64) -> io::Result<Self> {
        let file = disk.open(&spare_name(number), Open::Existing).await?;
        let size = file.size().await?;
        Ok(Self { number, size, file })
    }

    /// Makes a new spare of at least `size` bytes. What an error leaves is removed.
    pub(super) async fn create(
        disk: &dyn Disk,
        clock: &dyn Clock,
        number: u64,
        size: u64,
        pace: Pace<'_>,
    ) -> io::Result<Self> {
        let name = spare_name(number);
        let file = disk.open(&name, Open::New).await?;
        let mut spare = Self { number, size: 0, file };
        match spare.grow(clock, size, pace).await {
            Ok(()) => {
                disk.sync_dir().await?;
                Ok(spare)
            }
            Err(error) => {
                disk.remove(&name).await?;
                Err(error)
            }
        }
    }

    /// Writes the file full up to `size` bytes, in steps, and syncs it.
    pub(super) async fn grow(
        &mut self,
        clock: &dyn Clock,
        size: u64,
        pace: Pace<'_>,
    ) -> io::Result<()> {
        let size = size.next_multiple_of(BLOCK as u64);
        while self.size < size {
            let upto = size.min(self.size + pace.step.max(BLOCK as u64));
            match self.file.allocate(upto).await {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && planted!("PB-D8") => {}
                outcome => outcome?,
            }
            self.file.sync().await?;
            self.size = upto;
            let pauses = !pace.pause.is_zero() && !pace.urgent.load(Ordering::Relaxed);
            if pauses && self.size < size {
                clock.sleep_until(clock.now().after(pace.pause)).await;
            }
        }
        Ok(())
    }

    /// Gives the space behind the first `size` bytes back.
    pub(super) async fn cut(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size).await?;
        self.file.sync().await?;
        self.size = size;
        Ok(())
    }

    /// Gives the file the header of a place in the log, durable, and the name of a prepared one.
    pub(super) async fn prepare(
        self,
        disk: &dyn Disk,
        mut header: FileHeader,
    ) -> io::Result<LogFile> {
        header.size = renewed(&*self.file, self.size).await?;
        if planted!("PB-D7") {
            // The file keeps the incarnation of its last use.
            let old = FileHeader::decode(&self.file.read_at(0, BLOCK).await?);
            header.incarnation = old.map_or(header.incarnation, |old| old.incarnation);
        }
        self.file.write_and_sync(0, vec![header.encode()]).await?;
        disk.rename(&spare_name(self.number), &prepared_name(header.number)).await?;
        disk.sync_dir().await?;
        Ok(LogFile { header, file: self.file })
    }

    /// Gives the space back.
    pub(super) async fn remove(self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&spare_name(self.number)).await
    }
}

/// Brings the length of `file` to `size` rounded down to whole blocks, or to one block less on a full disk, such that
/// its next sync makes it durable. Says which it is.
///
/// Because: the sync of an earlier process may have failed. The operating system then shows a length that the device
/// does not have, believes it durable, and no later sync writes it; only a change is written.
pub(super) async fn renewed(file: &dyn File, size: u64) -> io::Result<u64> {
    let block = BLOCK as u64;
    let size = size / block * block;
    if planted!("PB-D8") {
        return Ok(size);
    }
    let shorter = size.saturating_sub(block);
    file.set_len(shorter).await?;
    match file.allocate(size).await {
        Ok(()) => Ok(size),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(shorter),
        Err(error) => Err(error),
    }
}

/// Puts a prepared file to use: durable when this returns. A crash leaves it prepared or in use.
pub(super) async fn activate(disk: &dyn Disk, number: u64) -> io::Result<()> {
    disk.rename(&prepared_name(number), &in_use_name(number)).await?;
    if planted!("PB-D5") {
        return Ok(());
    }
    disk.sync_dir().await
}

/// Makes a spare of a file that is no part of the log any more. MUST be called only when the superblock says so.
pub(super) async fn retire(disk: &dyn Disk, name: &str, spare: u64) -> io::Result<Spare> {
    disk.rename(name, &spare_name(spare)).await?;
    disk.sync_dir().await?;
    Spare::open(disk, spare).await
}
