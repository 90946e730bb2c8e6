//! One replica of three is damaged, byte by byte: no acked byte may be lost or wrong, and the replica must be whole
//! again afterwards.
//!
//! All of it is the product's own: engines on disks in memory, replica services, links within one process, the takeover
//! and the replay. A container writes two ledgers; the last entries reach two replicas only, so that what the damaged
//! one says matters. Then everything is killed, the first replica's files are damaged, all start again, and a new owner
//! takes the container over: with all three, and with only one of the others.
//!
//! *Lost* and *wrong* must stay 0. With all three up the log must be available; with two it may be unavailable, but
//! never shorter. A replica that does not start, or not as the one that it was, counts as lost and is replaced by a
//! blank disk.
//!
//! Deliberately not here: which damages are tried by whom (the example, the unit tests).

mod world;

use super::MemoryDisk;
use crate::frame::EntryFrame;
use crate::ledger::{Logs as _, OpenError, Opened, ReadError};
use crate::message::{Reply, Request};
use bytes::Bytes;
use std::sync::Arc;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, ReplicaId};
use world::{Asker, Controller, Held, Unavailable, World};

const CONTAINER: ContainerId = ContainerId(1);
const SECTOR: usize = 512;
/// Replicas, by place.
const REPLICAS: usize = 3;
/// The one that is damaged.
const DAMAGED: usize = 0;
/// The one that lacks the last entries.
const BEHIND: usize = 2;
/// Entries that share a batch, and their payload in bytes: a batch fills one block.
const TOGETHER: u64 = 3;
const PAYLOAD: usize = 1200;
/// Of bytes that mean nothing, one in so many is flipped.
const SPARSE: usize = 128;
/// Bytes of a batch.
const BATCH: usize = 4096;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// These bits of the byte there are turned round.
    Flip(u8),
    /// It ends there.
    Truncate,
    /// The sector there is all zeros.
    Zero,
    /// The sector there is what it was before it was last written.
    Stale,
    /// There is no such file.
    Gone,
}

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// To which file of the replica.
    pub file: String,
    /// Where in it, in bytes.
    pub at: usize,
    /// What.
    pub kind: Kind,
}

/// What many runs have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Takeovers.
    pub runs: u64,
    /// Starts of the damaged replica that were refused, or set what they found aside.
    pub refused: u64,
    /// Starts that noticed damage.
    pub noticed: u64,
    /// Takeovers with one of the others down that were not possible.
    pub unavailable: u64,
    /// Acked entries that were missing.
    pub lost: u64,
    /// Entries that were not what was written.
    pub wrong: u64,
    /// Replicas that were whole again, by copies in place.
    pub repaired: u64,
    /// Replicas that were replaced.
    pub replaced: u64,
}

impl Tally {
    /// Adds what others have come to.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.refused += other.refused;
        self.noticed += other.noticed;
        self.unavailable += other.unavailable;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.repaired += other.repaired;
        self.replaced += other.replaced;
    }
}

/// What there is when everything has been killed.
pub struct Store {
    disks: Vec<MemoryDisk>,
    ids: Vec<ReplicaId>,
    held: Held,
    acked: Vec<Address>,
    /// The damaged replica's disk as it was after each batch, the newest last.
    history: Vec<MemoryDisk>,
}

/// What an entry consists of.
fn content(ledger: LedgerId, entry: EntryId) -> (Bytes, Bytes) {
    let mark = format!("<{ledger}:{entry}>").into_bytes();
    let payload: Vec<u8> = mark.iter().copied().cycle().take(PAYLOAD).collect();
    (Bytes::from(mark), Bytes::from(payload))
}

fn ledger(epoch: Epoch) -> LedgerId {
    LedgerId { container: CONTAINER, epoch }
}

fn is_content(frame: &EntryFrame) -> bool {
    let (headers, payload) = content(frame.ledger, frame.entry);
    frame.headers == headers && frame.payload.concat() == payload
}

impl Store {
    /// Writes about `bytes` bytes of log to the first replica, in two mounts and two ledgers. In the end the storages
    /// are stopped if `clean`, and else killed after an idle moment.
    pub fn write(bytes: usize, clean: bool) -> Self {
        let register = Arc::new(Controller::default());
        let mut disks: Vec<MemoryDisk> = (0..REPLICAS).map(|_| MemoryDisk::new()).collect();
        let batches = (bytes / BATCH).max(4);
        let (mut acked, mut history, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for mount in 0..2 {
            let world = World::start(&disks, &register, mount, &ids);
            ids = world.ids().to_vec();
            let opened = world.open(1 + mount).expect("nothing is wrong yet");
            history.push(disks[DAMAGED].process_end());
            for batch in 0..batches / 2 {
                if mount == 1 && batch == batches / 2 - 1 {
                    world.cut(BEHIND);
                }
                acked.extend(world.append(&opened, TOGETHER));
                history.push(disks[DAMAGED].process_end());
            }
            world.idle();
            if clean {
                world.stop();
            }
            history.push(disks[DAMAGED].process_end());
            drop((opened, world));
            disks = disks.iter().map(MemoryDisk::process_end).collect();
        }
        Self { disks, ids, held: register.held(), acked, history }
    }

    /// How many entries were acked.
    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    /// The damaged replica's files, and their lengths in bytes.
    pub fn files(&self) -> Vec<(String, usize)> {
        let disk = &self.disks[DAMAGED];
        disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name).len())).collect()
    }

    /// Every single-byte flip (all bits, and one) in what has ever been written of the log and its superblocks, and in
    /// the block behind; every truncation of them; every zeroed and every stale sector of all files, as far as that
    /// changes anything; every file that is gone. Of what is all zeros, and of files that are kept for later, a few
    /// bytes are flipped as well.
    pub fn damages(&self) -> Vec<Damage> {
        let mut damages = Vec::new();
        for (file, len) in self.files() {
            let bytes = self.disks[DAMAGED].bytes(&file);
            let damage = |at, kind| Damage { file: file.clone(), at, kind };
            let is_log = file.starts_with("seg-") || file.starts_with("superblock");
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let dense = if is_log { used + BATCH } else { 0 };
            for at in (0..len).filter(|at| *at < dense || at % SPARSE == 0) {
                damages.push(damage(at, Kind::Flip(0xff)));
                damages.push(damage(at, Kind::Flip(1 << (at % 8))));
            }
            for at in (0..len).filter(|_| is_log) {
                damages.push(damage(at, Kind::Truncate));
            }
            damages.push(damage(0, Kind::Gone));
            for at in (0..len).step_by(SECTOR) {
                let sector = &bytes[at..len.min(at + SECTOR)];
                if sector.iter().any(|byte| *byte != 0) {
                    damages.push(damage(at, Kind::Zero));
                }
                if self.before(&file, at, sector).is_some() {
                    damages.push(damage(at, Kind::Stale));
                }
            }
        }
        damages
    }

    /// What the sector was before it became what it is.
    fn before(&self, file: &str, at: usize, now: &[u8]) -> Option<Vec<u8>> {
        self.history.iter().rev().find_map(|disk| {
            if !disk.names().iter().any(|name| name == file) {
                return None;
            }
            let bytes = disk.bytes(file);
            let sector = bytes.get(at..at + now.len())?;
            (sector != now).then(|| sector.to_vec())
        })
    }

    fn damaged(&self, damage: &Damage) -> MemoryDisk {
        let disk = self.disks[DAMAGED].process_end();
        let mut bytes = disk.bytes(&damage.file);
        let (at, end) = (damage.at, bytes.len().min(damage.at + SECTOR));
        match damage.kind {
            Kind::Flip(bits) => bytes[at] ^= bits,
            Kind::Truncate => bytes.truncate(at),
            Kind::Zero => bytes[at..end].fill(0),
            Kind::Gone => {
                disk.delete(&damage.file);
                return disk;
            }
            Kind::Stale => {
                let before = self.before(&damage.file, at, &bytes[at..end]);
                bytes[at..end].copy_from_slice(&before.expect("it was listed"));
            }
        }
        disk.set_bytes(&damage.file, bytes);
        disk
    }

    /// Damages the first replica and lets a new owner take over, with all three and with only one of the others; then
    /// repairs what all three have. An error says what must not be.
    pub fn judge(&self, damage: &Damage, tally: &mut Tally) -> Result<(), String> {
        for down in [None, Some(1), Some(BEHIND)] {
            let mut disks: Vec<MemoryDisk> =
                self.disks.iter().map(MemoryDisk::process_end).collect();
            disks[DAMAGED] = self.damaged(damage);
            let register = Arc::new(Controller::new(self.held.clone()));
            let world = World::start(&disks, &register, 2, &self.ids);
            if let Some(down) = down {
                world.cut(down);
            }
            if down.is_none() {
                let refused = !world.runs(DAMAGED) || world.ids() != self.ids;
                tally.refused += u64::from(refused);
                tally.noticed += u64::from(world.notices(DAMAGED));
            }
            tally.runs += 1;
            let who = match down {
                None => "all up".to_owned(),
                Some(down) => format!("replica {} down", down + 1),
            };
            let fail = |what: String| format!("{damage:?}, {who}: {what}");
            match self.take_over(&world, tally) {
                Ok(_opened) => {
                    if down.is_none() {
                        self.repair(world, &disks, tally).map_err(fail)?;
                    }
                }
                Err(Broken::Rule(what)) => return Err(fail(what)),
                Err(Broken::Unavailable(what)) if down.is_none() => {
                    return Err(fail(format!("unavailable: {what}")));
                }
                Err(Broken::Unavailable(_)) => tally.unavailable += 1,
            }
        }
        Ok(())
    }

    /// A new owner, who replays the log.
    fn take_over(&self, world: &World, tally: &mut Tally) -> Result<Opened, Broken> {
        let opened = world.open(3)?;
        let mut replay = world.logs().replay(&opened, None);
        let (mut found, mut wrong) = (Vec::new(), 0);
        world.run(async {
            while let Some(entry) = replay.next().await? {
                let address = entry.address;
                let payload = opened.ledger.read(address).await?;
                let (headers, whole) = content(ledger(address.epoch), address.entry);
                wrong += u64::from(entry.headers != headers || payload != whole);
                found.push(address);
            }
            Ok::<(), ReadError>(())
        })?;
        let missing = self.acked.iter().filter(|address| !found.contains(address)).count() as u64;
        tally.wrong += wrong;
        tally.lost += missing;
        if wrong + missing > 0 {
            return Err(Broken::Rule(format!("{missing} entries lost, {wrong} wrong")));
        }
        if found != self.acked {
            return Err(Broken::Rule(format!("replayed {found:?}")));
        }
        Ok(opened)
    }

    /// Copies what the damaged replica lacks to it, or everything to a blank disk in its place, and looks whether it
    /// has all of it, now and after another start.
    fn repair(
        &self,
        mut world: World,
        disks: &[MemoryDisk],
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut disk = disks[DAMAGED].clone();
        if !world.runs(DAMAGED) {
            disk = MemoryDisk::new();
            world.replace(DAMAGED, &disk);
        }
        // One that is not what it claims to be has been set aside by its own start.
        let replaced = world.ids()[DAMAGED] != self.ids[DAMAGED];
        let target = Asker::attach(&world, world.ids()[DAMAGED]);
        let is_whole = || world.doubts(DAMAGED).is_empty() && self.missing(&target) == 0;
        let needed = replaced || !is_whole();
        if needed {
            world.repair(is_whole);
        }
        tally.replaced += u64::from(replaced);
        tally.repaired += u64::from(needed && !replaced);
        let (missing, doubts) = (self.missing(&target), world.doubts(DAMAGED));
        if missing > 0 || !doubts.is_empty() {
            return Err(format!("repaired, and lacks {missing} entries; in doubt: {doubts:?}"));
        }
        world.idle();
        if replaced {
            self.is_reseated(&world)?;
        }
        let (register, ids) = (world.controller(), world.ids().to_vec());
        drop(target);
        drop(world);
        let again = World::start(&[disk.process_end()], &register, 3, &ids[..1]);
        if !again.runs(DAMAGED) || again.ids() != &ids[..1] {
            return Err("it does not start again after the repair".to_owned());
        }
        let later = self.missing(&Asker::attach(&again, again.ids()[DAMAGED]));
        let doubts = again.doubts(DAMAGED);
        if later > 0 || !doubts.is_empty() {
            return Err(format!("repaired, then started: lacks {later}, in doubt: {doubts:?}"));
        }
        Ok(())
    }

    /// How many entries a replica does not give, or gives wrong.
    fn missing(&self, asker: &Asker<'_>) -> usize {
        let whole = |address: &&Address| {
            let (ledger, entry) = (ledger(address.epoch), address.entry);
            let reply = asker.ask(Request::Read { ledger, entry });
            matches!(reply, Some(Reply::Have(frame)) if is_content(&frame))
        };
        self.acked.iter().filter(|address| !whole(address)).count()
    }

    /// The register names the replacement, and its predecessor nowhere.
    fn is_reseated(&self, world: &World) -> Result<(), String> {
        let old = self.ids[DAMAGED];
        let held = world.controller().held();
        let log = held.log().ok_or("there is no register")?;
        let fragments = log.ledgers.iter().flat_map(|ledger| &ledger.fragments);
        let named = fragments.filter(|fragment| fragment.ensemble.contains(&old)).count();
        if named == 0 { Ok(()) } else { Err(format!("{old} is still named {named} times")) }
    }
}

/// Why there is no log to read.
enum Broken {
    /// It may be there another time.
    Unavailable(String),
    /// What must not be.
    Rule(String),
}

impl From<Unavailable> for Broken {
    fn from(Unavailable(why): Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<OpenError> for Broken {
    fn from(error: OpenError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Trimmed { .. } => Self::Rule(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
