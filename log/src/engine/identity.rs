//! Who a storage with peers is, and what it may vouch for.
//!
//! The mount is noted where the registers are kept before anything is answered. A storage that is not what it claims to
//! be (rolled back, superseded, unknown there, or without two copies of its superblock that agree) is set aside whole
//! and never served; a new one with a new identity takes its place. Files that cannot be used put the storage in limbo.
//!
//! Nothing is deleted here: what is set aside keeps its bytes under a name with a dot in front.

use super::config::Config;
use super::error::{StartError, io_error};
use super::files::{FIRST_BATCH, LogFile, Names, in_use_name};
use super::format::{BLOCK, FileHeader, Header, Place, Superblock};
use super::open::open_file;
use super::scan::{FileFlaw, Scanned};
use super::superblock;
use crate::frame::Frame;
use crate::mounts::{Mount, MountReply, Mounts, Standing};
use crate::register::RegisterUnavailable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::disk::{File, Open};
use thalweg_actor::env::Env;
use thalweg_actor::{BoxFuture, planted, probe};
use thalweg_types::id::{ContainerId, Epoch, StorageUuid};

/// How long a register that cannot be reached is left alone.
const RETRY: Duration = Duration::from_millis(200);
/// How much of a file is looked through at once, in bytes.
const LOOK: usize = 1024 * 1024;

/// What a storage in limbo states anew with its START.
#[derive(Default)]
pub(super) struct Vouched {
    /// Every ledger as it is known, and every floor that the registers allow to raise.
    pub frames: Vec<Frame>,
    /// The epochs up to which ledgers may have been lost, by container.
    pub epochs: Option<BTreeMap<ContainerId, Epoch>>,
}

/// Asks until there is an answer.
async fn insist<'a, T>(
    env: &Env,
    ask: impl Fn() -> BoxFuture<'a, Result<T, RegisterUnavailable>>,
) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                probe!("engine: the mount cannot be noted yet");
                tracing::warn!(%error, "a storage waits to be mounted");
                env.clock.sleep_until(env.clock.now().after(RETRY)).await;
            }
        }
    }
}

/// What is noted of the storage and its node; an error says why the storage is lost, if it was rolled back. Asked
/// before the superblock is touched: a start that has counted this mount and then died leaves an image that no longer
/// looks old.
pub(super) async fn standing(
    env: &Env,
    mounts: &dyn Mounts,
    before: &Superblock,
) -> Result<Standing, String> {
    let noted = insist(env, || mounts.standing(before.node, before.storage)).await;
    let (known, says) = (noted.mounts, before.mount_seq);
    if known > says {
        probe!("engine: an older image of a storage");
        return Err(format!("it had been mounted {known} times and says {says}"));
    }
    Ok(noted)
}

/// Notes the mount. Says why the storage is lost, if it is.
pub(super) async fn register(
    env: &Env,
    mounts: &dyn Mounts,
    before: &Superblock,
    noted: Standing,
) -> Option<String> {
    let mut mount = Mount {
        node: before.node,
        storage: before.storage,
        before: before.mount_seq,
        now: before.mount_seq + 1,
        attempt: (env.entropy.draw() >> 64) as u64,
        of_node: noted.of_node,
    };
    loop {
        match insist(env, || mounts.mount(mount)).await {
            MountReply::Accepted => return None,
            MountReply::Lost { reason } => return Some(reason),
            // By a request that came late, or by a process that should not be there beside this one.
            MountReply::Overtaken => {
                let now = insist(env, || mounts.standing(before.node, before.storage)).await;
                mount.of_node = now.of_node;
            }
        }
    }
}

/// What a storage in limbo states anew: all that `scanned` has found, and floors that keep out whatever a fence that
/// was lost had kept out.
pub(super) async fn vouch(env: &Env, mounts: &dyn Mounts, scanned: &Scanned) -> Vouched {
    probe!("engine: started in limbo");
    let epochs = insist(env, || mounts.epochs()).await;
    let mut facts = scanned.facts.clone();
    for (_, record) in &scanned.again {
        if let super::format::Record::Frame(frame) = record {
            facts.apply(frame, 0);
        }
    }
    if scanned.all_doubtful {
        facts.doubt_all();
    }
    let known = facts.recovered(true);
    let mut frames: Vec<Frame> = known.ledgers.into_values().map(Frame::State).collect();
    for (container, epoch) in &epochs {
        if known.floors.get(container) < Some(epoch) && !planted!("PB-L20") {
            frames.push(Frame::Floor { container: *container, epoch: *epoch });
        }
    }
    Vouched { frames, epochs: Some(epochs) }
}

/// Takes the storage in the folder out of the way, whole: superblocks first, so that what is left of a crash in the
/// middle is never taken for a storage.
pub(super) async fn set_aside(env: &Env, config: &Config, reason: &str) -> Result<(), StartError> {
    let folder = env.disk.describe();
    let fail = |action| io_error(&folder, "", action);
    probe!("engine: storage set aside");
    tracing::error!(folder, reason, "the storage is set aside, a new one takes its place");
    let mark = env.entropy.draw() >> 96;
    let listed = env.disk.list().await.map_err(fail("list it"))?;
    let names = Names::sort(&listed, &config.bystanders);
    let (blocks, files): (Vec<&String>, Vec<&String>) = listed
        .iter()
        .filter(|name| Names::is_engine(name))
        .partition(|name| superblock::is_copy(name) || superblock::is_unborn(name));
    for group in [blocks, files] {
        for name in group {
            let aside = format!(".lost-{mark:08x}.{name}");
            env.disk.rename(name, &aside).await.map_err(fail("set a file of it aside"))?;
        }
        env.disk.sync_dir().await.map_err(fail("sync it"))?;
    }
    match names.foreign {
        Some(name) => Err(StartError::Foreign { folder, name }),
        None => Ok(()),
    }
}

/// Opens the files in use that can be opened, in order, and says what is wrong with the others.
pub(super) async fn open_usable(
    env: &Env,
    folder: &str,
    names: &Names,
    superblock: &Superblock,
) -> Result<(Vec<Arc<LogFile>>, Vec<FileFlaw>), StartError> {
    let (mut logs, mut flaws) = (Vec::new(), Vec::new());
    let newest = names.in_use.last().copied().unwrap_or(0);
    let first = if superblock.head == 0 { names.in_use.first().copied() } else { None };
    let first = first.unwrap_or(superblock.head).max(1);
    for number in first..=newest.max(superblock.head) {
        match open_file(env, folder, number, superblock.storage).await {
            Ok(log) => logs.push(Arc::new(log)),
            Err(error @ StartError::Version { .. }) => return Err(error),
            Err(error) => {
                let mended = mended(env, number, superblock.storage).await;
                logs.extend(mended.map(Arc::new));
                flaws.push(FileFlaw { number, what: error.to_string() });
            }
        }
    }
    for number in newest + 1..=superblock.prepared {
        if !names.prepared.contains(&number) && number > superblock.head {
            let what = format!("{folder}/{} is missing", in_use_name(number));
            flaws.push(FileFlaw { number, what });
        }
    }
    Ok((logs, flaws))
}

/// A file whose header cannot be used, if its batches tell what the header said.
async fn mended(env: &Env, number: u64, storage: StorageUuid) -> Option<LogFile> {
    let file = env.disk.open(&in_use_name(number), Open::Existing).await.ok()?;
    let size = file.size().await.ok()? / BLOCK as u64 * BLOCK as u64;
    let incarnation = incarnation(&*file, size, number, storage).await?;
    probe!("engine: file read without its header");
    Some(LogFile { header: FileHeader { storage, incarnation, number, size }, file })
}

async fn incarnation(file: &dyn File, size: u64, number: u64, storage: StorageUuid) -> Option<u64> {
    let mut offset = FIRST_BATCH;
    while offset < size {
        // Bytes that cannot be read are stepped over.
        let bytes = file.read_at(offset, LOOK).await.unwrap_or_default();
        for (at, block) in (offset..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
            let Some(incarnation) = Header::incarnation(block) else { continue };
            let place = Place { storage, incarnation, file: number, offset: at };
            let long = Header::needs(block).filter(|needed| *needed > block.len());
            let whole = match long {
                Some(needed) => file.read_at(at, needed).await.unwrap_or_default(),
                None => bytes::Bytes::copy_from_slice(block),
            };
            if Header::decode(&whole, &place).is_ok() {
                return Some(incarnation);
            }
        }
        offset += if bytes.is_empty() { BLOCK } else { bytes.len().next_multiple_of(BLOCK) } as u64;
    }
    None
}
