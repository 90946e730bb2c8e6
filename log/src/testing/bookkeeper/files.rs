//! What files may do to a log: B14, B15, B16, and the parts of B3 and B5 that need a disk.

use super::cluster::{Cluster, content};
use super::play::{E0, Outcome, ensure};
use super::site::Site;
use crate::frame::EntryFrame;
use crate::message::{Reply, Request};
use crate::storage::Storage as _;
use crate::testing::MemoryDisk;
use thalweg_types::id::{EntryId, Epoch, Incarnation, LedgerId, NodeId};

const NODE: NodeId = NodeId(1);
const FIRST_EPOCH: Epoch = Epoch(1);

fn ledger() -> LedgerId {
    Cluster::ledger(1)
}

fn open() -> Request {
    let (base, incarnation) = (E0, Incarnation(1));
    Request::Open { ledger: ledger(), base, incarnation, committed_end: E0 }
}

fn append(entry: u64) -> Request {
    Request::Append(content(ledger(), EntryId(entry)))
}

fn mount(disk: &MemoryDisk, seed: u64) -> Result<Site, String> {
    Site::mount(NODE, disk, seed, FIRST_EPOCH).map_err(|error| error.to_string())
}

/// A storage with `entries` entries of one ledger, each in a batch of its own.
fn written(disk: &MemoryDisk, entries: u64) -> Result<Site, String> {
    let mut site = mount(disk, 1)?;
    site.ask(open());
    for entry in 0..entries {
        let acked = site.ask(append(entry));
        let end = EntryId(entry + 1);
        ensure(acked == [Reply::Ack { ledger: ledger(), base: E0, end }], "the script: no ack")?;
    }
    site.idle();
    Ok(site)
}

/// B3, on files. *Given* a fence, *when* the file that held it has been freed and the storage starts again after a
/// power loss, *then* the old owner is still refused.
pub(super) fn b03_fence_outlives_its_file() -> Outcome {
    let disk = MemoryDisk::new();
    let mut site = written(&disk, 1)?;
    site.ask(Request::Fence { ledger: ledger(), by: Epoch(2) });
    site.churn();
    drop(site);
    let mut site = mount(&disk.power_loss(3), 2)?;
    for late in [open(), append(1)] {
        let replies = site.ask(late);
        let refused = matches!(replies[..], [Reply::Fenced { .. }]);
        ensure(refused, &format!("L6: a fence went with its file: {replies:?}"))?;
    }
    Ok(())
}

/// B5, on files. *When* a disk is blank, *then* what starts there is another storage; *when* only its superblock is
/// gone, *then* nothing starts.
pub(super) fn b05_a_blank_disk_is_another_storage() -> Outcome {
    let disk = MemoryDisk::new();
    let id = written(&disk, 1)?.id();
    let blank = mount(&MemoryDisk::new(), 2)?;
    ensure(blank.id() != id, "L18: a blank disk has the id of another")?;
    ensure(blank.replica().facts(FIRST_EPOCH).is_none(), "L18: a blank disk knows a ledger")?;
    let disk = disk.process_end();
    for copy in 0..4 {
        disk.delete(&format!("superblock.{copy}"));
    }
    ensure(mount(&disk, 3).is_err(), "L18: it has started without knowing who it is")
}

/// B14. *Given* a file with one live entry of a ledger that nobody writes to any more, *when* all else in it is trimmed
/// and the file is freed, *then* the entry is still there.
pub(super) fn b14() -> Outcome {
    let disk = MemoryDisk::new();
    let mut site = written(&disk, 1)?;
    let before = disk.names();
    site.churn();
    ensure(disk.names() != before, "the script: no file was freed")?;
    let read = Request::Read { ledger: ledger(), entry: E0 };
    let replies = site.ask(read.clone());
    ensure(
        matches!(replies[..], [Reply::Have(EntryFrame { .. })]),
        &format!("L17: a live entry went with its file: {replies:?}"),
    )?;
    drop(site);
    let mut site = mount(&disk.power_loss(3), 2)?;
    let replies = site.ask(read);
    let have = matches!(replies[..], [Reply::Have(EntryFrame { .. })]);
    ensure(have, &format!("L17: a live entry went with its file: {replies:?}"))
}

/// B15. *When* any of the first bytes of a batch in the middle is damaged (its length among them), *then* the storage
/// vouches for no tail in front of the others; *when* the last write was cut short by a power loss, *then* it ends in
/// front of it, and vouches for that.
pub(super) fn b15() -> Outcome {
    let disk = MemoryDisk::new();
    drop(written(&disk, 3)?);
    for byte in 0..48 {
        let damaged = disk.process_end();
        super::cluster::Damage::BatchHeader(byte).inflict(&damaged, ledger(), EntryId(1))?;
        let Ok(site) = mount(&damaged, 2) else { continue };
        let Some(run) = site.replica().facts(FIRST_EPOCH) else { continue };
        let honest = !run.certain || run.end == EntryId(3);
        ensure(honest, &format!("L11: byte {byte}: certain of {run:?}"))?;
        ensure(!site.engine().recovered().damages.is_empty(), "B15: nobody says so")?;
    }
    for seed in 0..20 {
        let disk = MemoryDisk::new();
        let mut site = written(&disk, 2)?;
        // Staged, and cut off before anybody was told.
        site.take(append(2));
        site.poll();
        drop(site);
        let site = mount(&disk.power_loss(seed), 2)?;
        let run = site.replica().facts(FIRST_EPOCH).ok_or("it was opened")?;
        let sound = run.certain && (2..=3).contains(&run.end.0);
        ensure(sound, &format!("B15: seed {seed}: {run:?} after a torn write"))?;
    }
    Ok(())
}

/// B16. *Given* copies of the superblock of which one has missed the last changes, *when* all others are damaged,
/// *then* the storage does not start from it; *when* two that agree are whole, *then* it starts as what it was.
///
/// There is no checkpoint here: of all files only the superblock is written over, so it is what a crash or a damage in
/// the middle could turn back.
pub(super) fn b16() -> Outcome {
    let disk = MemoryDisk::new();
    drop(written(&disk, 1)?);
    let stale = disk.bytes("superblock.3");
    drop(mount(&disk, 2)?);
    let spoil = |copies: std::ops::Range<u32>| {
        let damaged = disk.process_end();
        for copy in copies {
            let name = format!("superblock.{copy}");
            let mut bytes = damaged.bytes(&name);
            bytes[40] ^= 0x40;
            damaged.set_bytes(&name, bytes);
        }
        damaged
    };
    let turned = spoil(0..3);
    turned.set_bytes("superblock.3", stale);
    if let Ok(site) = mount(&turned, 3) {
        let count = site.engine().mount_seq();
        return Err(format!("L18: mounted from a single old copy, as mount {count}"));
    }
    let site = mount(&spoil(0..2), 3)?;
    ensure(site.engine().mount_seq() == 3, "B16: the count of mounts went back")?;
    let run = site.replica().facts(FIRST_EPOCH).ok_or("it was opened")?;
    ensure(run.certain && run.end == EntryId(1), &format!("B16: {run:?}"))
}
