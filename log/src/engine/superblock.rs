//! The four copies of the superblock.
//!
//! Invariants
//! 1. A change is written to one copy after the other, each synced before the next: at any moment at most one copy
//!    is in doubt, and all others hold the old content or the new.
//! 2. The newest content that at least two sound copies hold is the one that counts.
//! 3. Copies that hold anything else are mended before the content changes.
//! 4. Copies are created only in a folder that provably never held a log.

use super::error::{StartError, io_error};
use super::format::{BLOCK, BlockFlaw, Superblock, VERSION};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use thalweg_actor::disk::{Disk, File, Open};
use thalweg_actor::{planted, probe};

const COPIES: u32 = 4;

/// The file name of copy number `copy`.
pub(super) fn name(copy: u32) -> String {
    format!("superblock.{copy}")
}

fn unborn_name(copy: u32) -> String {
    format!("superblock.{copy}.new")
}

/// True for the names of copies that were never completed.
pub(super) fn is_unborn(name: &str) -> bool {
    (0..COPIES).any(|copy| unborn_name(copy) == name)
}

/// True for the names of copies.
pub(super) fn is_copy(found: &str) -> bool {
    (0..COPIES).any(|copy| name(copy) == found)
}

/// The superblock on its disk.
pub(super) struct Copies {
    disk: Arc<dyn Disk>,
    files: Vec<Arc<dyn File>>,
    content: Superblock,
    /// Copies that hold anything else.
    stale: Vec<u32>,
}

impl Copies {
    /// Writes the first content. A crash in the middle leaves names that [`is_unborn`], or copies that say that no
    /// file was ever begun; both are overwritten by the next attempt.
    pub(super) async fn create(disk: &Arc<dyn Disk>, content: Superblock) -> io::Result<()> {
        for copy in 0..COPIES {
            let file = disk.open(&unborn_name(copy), Open::Either).await?;
            file.set_len(0).await?;
            file.write_and_sync(0, vec![content.encode(copy)]).await?;
        }
        disk.sync_dir().await?;
        for copy in 0..COPIES {
            disk.rename(&unborn_name(copy), &name(copy)).await?;
        }
        disk.sync_dir().await
    }

    /// Reads all copies, chooses, and makes durable what was read. Changes nothing, but that a missing copy becomes
    /// an empty file.
    pub(super) async fn open(disk: &Arc<dyn Disk>) -> Result<Self, StartError> {
        let folder = disk.describe();
        let mut found: Vec<Result<Superblock, String>> = Vec::new();
        for copy in 0..COPIES {
            match read(disk, copy).await {
                Ok(Ok(content)) => found.push(Ok(content)),
                Ok(Err(BlockFlaw::Version(version))) => {
                    let (file, known) = (name(copy), VERSION);
                    return Err(StartError::Version { folder, file, found: version, known });
                }
                Ok(Err(flaw)) => found.push(Err(flaw.to_string())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    found.push(Err("missing".to_owned()));
                }
                Err(error) => found.push(Err(format!("cannot be read: {error}"))),
            }
        }
        let Some(content) = choose(&found) else {
            let say = |(copy, content): (u32, &Result<Superblock, String>)| match content {
                Ok(content) => format!("{}: sound, change {}", name(copy), content.sequence),
                Err(flaw) => format!("{}: {flaw}", name(copy)),
            };
            let copies = (0..COPIES).zip(&found).map(say).collect::<Vec<_>>().join("; ");
            return Err(StartError::Superblock { folder, copies });
        };
        if found.iter().any(Result::is_err) {
            probe!("engine: superblock copy repaired");
        }
        let mut files = Vec::new();
        for copy in 0..COPIES {
            let open = disk.open(&name(copy), Open::Either).await;
            let file = open.map_err(io_error(&folder, &name(copy), "open it"))?;
            // A copy that an earlier process wrote and did not sync must not be torn while the next one is.
            file.sync().await.map_err(io_error(&folder, &name(copy), "sync it"))?;
            files.push(file);
        }
        let differs = |found: &Result<Superblock, String>| found.as_ref() != Ok(&content);
        let stale = (0..COPIES).zip(&found).filter(|(_, found)| differs(found));
        let stale = stale.map(|(copy, _)| copy).collect();
        Ok(Self { disk: disk.clone(), files, content, stale })
    }

    pub(super) fn content(&self) -> &Superblock {
        &self.content
    }

    /// Makes `change` durable in all copies. An error is fatal: which copies have it is unknown.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> io::Result<()> {
        for copy in std::mem::take(&mut self.stale) {
            let file = &self.files[copy as usize];
            file.write_and_sync(0, vec![self.content.encode(copy)]).await?;
        }
        change(&mut self.content);
        self.content.sequence += 1;
        for (copy, file) in (0..COPIES).zip(&self.files) {
            file.write_and_sync(0, vec![self.content.encode(copy)]).await?;
        }
        Ok(())
    }

    /// Makes copies that were missing durable under their names.
    pub(super) async fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_dir().await
    }
}

async fn read(disk: &Arc<dyn Disk>, copy: u32) -> io::Result<Result<Superblock, BlockFlaw>> {
    let file = disk.open(&name(copy), Open::Existing).await?;
    let bytes = file.read_at(0, BLOCK).await?;
    Ok(Superblock::decode(&bytes, copy))
}

/// The newest content that two sound copies hold.
fn choose(found: &[Result<Superblock, String>]) -> Option<Superblock> {
    let mut votes: BTreeMap<Vec<u8>, (u64, u32, Superblock)> = BTreeMap::new();
    for content in found.iter().flatten() {
        let key = content.encode(0).to_vec();
        votes.entry(key).or_insert((content.sequence, 0, *content)).1 += 1;
    }
    let least = if planted!("PB-B16") { 1 } else { 2 };
    let agreed = votes.into_values().filter(|(_, copies, _)| *copies >= least);
    agreed.max_by_key(|(sequence, ..)| *sequence).map(|(.., content)| content)
}
