//! What a disk holds: a durable image and, above it, what only the page cache knows.
//!
//! Invariants:
//! 1. Without damage, bytes whose sync was reported are in the durable image.
//! 2. A power loss leaves the durable image and, of each unsynced write, all, some sectors, or nothing.
//! 3. The end of a process leaves the page cache as it is; a write under way may have landed in part.
//!
//! Not here: time, latency and errors; they belong to the seam above.

use super::pages::Pages;
use crate::world::rng::Rng;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// What a device writes in one piece.
pub(crate) const SECTOR: usize = 512;
/// What a file system hands out at least.
const BLOCK: u64 = 4096;
/// Bytes synced as late as this before a stop are never damaged: with one copy, nobody can tell the last batch that
/// has rotted from a torn one. In nanoseconds.
const SPARED_NS: u64 = 50_000_000;
/// So many of the last synced writes are never damaged either.
const SPARED_WRITES: usize = 4;
/// Synced writes that are remembered.
const RECENT_MAX: usize = 512;
/// So many of the last synced writes are late ones.
const LATE_WRITES: usize = 64;
/// Bytes at the beginning of a write without which the rest cannot be made out.
const HEAD: u64 = 64;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Bytes },
    Grow { len: u64 },
    SetLen { len: u64 },
}

#[derive(Clone, Debug)]
struct Op {
    id: u64,
    /// When the call returns.
    due: u64,
    change: Change,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Pages,
    cached: Pages,
    /// Called, not returned.
    under_way: Vec<Op>,
    /// Returned, not synced.
    unsynced: Vec<Op>,
    /// Bytes of the file system that it has taken.
    charged: u64,
    handles: u32,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: u64 },
    Unlink { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
}

/// How a synced write goes wrong without anybody being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silent {
    /// It lands at another place of the same file, sector-aligned.
    Misdirected,
    /// One of its sectors never lands.
    StaleSector,
}

/// Bytes that are no longer what was written there.
#[derive(Clone, Debug)]
struct Damage {
    at: u64,
    inode: u64,
    offset: u64,
    good: Vec<u8>,
    bad: Vec<u8>,
}

/// What a power loss or a kill did to writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    /// Kept whole.
    pub(crate) kept: u64,
    /// Kept in part.
    pub(crate) torn: u64,
    /// Gone.
    pub(crate) dropped: u64,
}

/// The whole disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    next: u64,
    damage: Vec<Damage>,
    /// When, which file, where: the newest synced writes.
    recent: VecDeque<(u64, u64, u64, u64)>,
}

fn apply(pages: &mut Pages, change: &Change) {
    match change {
        Change::Write { offset, bytes } => pages.write(*offset, bytes),
        Change::Grow { len } => pages.grow(*len),
        Change::SetLen { len } => pages.set_len(*len),
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Unlink { name, inode } => {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        }
        NameChange::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

/// Writes some sectors of `bytes`: a leading part, or each by the toss of a coin.
fn apply_torn(pages: &mut Pages, offset: u64, bytes: &[u8], rng: &mut Rng) {
    let first = SECTOR - usize::try_from(offset % SECTOR as u64).expect("small");
    let sectors = 1 + bytes.len().saturating_sub(first).div_ceil(SECTOR);
    let leading = rng.percent(50).then(|| rng.index(sectors + 1));
    let mut at = 0;
    for sector in 0..sectors {
        let end = bytes.len().min(first + sector * SECTOR);
        let keep = leading.map_or_else(|| rng.percent(50), |count| sector < count);
        if keep && at < end {
            pages.write(offset + at as u64, &bytes[at..end]);
        }
        at = end;
    }
}

impl Inode {
    fn settle(&mut self, now: u64) {
        while let Some(first) = self.under_way.iter().position(|op| op.due <= now) {
            let op = self.under_way.remove(first);
            apply(&mut self.cached, &op.change);
            self.unsynced.push(op);
        }
    }

    /// What a sync that covers changes up to `mark` makes clean.
    fn take_unsynced(&mut self, mark: u64) -> Vec<Op> {
        let all = std::mem::take(&mut self.unsynced);
        let (done, rest) = all.into_iter().partition(|op| op.id <= mark);
        self.unsynced = rest;
        done
    }

    /// The process has ended: what it had called lands in full, in part or not at all.
    fn process_ended(&mut self, now: u64, rng: &mut Rng, losses: &mut Losses) {
        self.settle(now);
        for mut op in std::mem::take(&mut self.under_way) {
            if rng.percent(40) {
                losses.dropped += 1;
                continue;
            }
            if let Change::Write { bytes, .. } = &mut op.change
                && rng.percent(50)
            {
                *bytes = bytes.slice(..rng.index(bytes.len() + 1));
                losses.torn += 1;
            } else {
                losses.kept += 1;
            }
            apply(&mut self.cached, &op.change);
            self.unsynced.push(op);
        }
        self.handles = 0;
    }

    fn power_lost(&mut self, now: u64, rng: &mut Rng, losses: &mut Losses) {
        self.settle(now);
        let mut ops = std::mem::take(&mut self.unsynced);
        ops.append(&mut self.under_way);
        let only_writes = ops.iter().all(|op| !matches!(op.change, Change::SetLen { .. }));
        if only_writes && rng.percent(50) {
            rng.shuffle(&mut ops);
        }
        // Some power losses are kind, some take all.
        let (drop, tear) = rng.pick(&[(100, 0), (0, 0), (40, 50), (50, 10), (10, 90)]);
        for op in ops {
            match &op.change {
                _ if rng.percent(drop) => losses.dropped += 1,
                Change::Write { offset, bytes } if rng.percent(tear) => {
                    apply_torn(&mut self.durable, *offset, bytes, rng);
                    losses.torn += 1;
                }
                change => {
                    apply(&mut self.durable, change);
                    losses.kept += 1;
                }
            }
        }
        self.cached = self.durable.clone();
        self.handles = 0;
    }
}

impl Image {
    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an inode with a handle stays")
    }

    /// Lets every call that has returned by `now` take effect.
    fn settle(&mut self, now: u64) {
        self.inodes.values_mut().for_each(|inode| inode.settle(now));
    }

    /// The inode that `name` names.
    pub(crate) fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Creates `name`.
    pub(crate) fn create(&mut self, name: &str) -> u64 {
        let inode = self.next_id();
        self.inodes.insert(inode, Inode::default());
        self.change_name(NameChange::Link { name: name.to_owned(), inode });
        inode
    }

    /// Counts a handle on `inode`.
    pub(crate) fn hold(&mut self, inode: u64) {
        self.inode(inode).handles += 1;
    }

    /// Takes a handle of `inode` back.
    pub(crate) fn release(&mut self, inode: u64) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.handles = file.handles.saturating_sub(1);
            self.collect();
        }
    }

    /// Gives `from` the name `to`. False if there is no `from`.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(inode) = self.find(from) else { return false };
        self.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        true
    }

    /// Removes `name`. False if there is none.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(inode) = self.find(name) else { return false };
        self.change_name(NameChange::Unlink { name: name.to_owned(), inode });
        true
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.unsynced_names.push(change);
    }

    /// How many changes of names the next `names_synced` may cover.
    pub(crate) fn unsynced_names(&self) -> usize {
        self.unsynced_names.len()
    }

    /// The first `count` changes of names are durable.
    pub(crate) fn names_synced(&mut self, count: usize) {
        let count = count.min(self.unsynced_names.len());
        for change in self.unsynced_names.drain(..count) {
            apply_name(&mut self.durable_names, &change);
        }
        self.collect();
    }

    /// Frees inodes that nothing can reach any more.
    fn collect(&mut self) {
        let (names, durable) = (&self.names, &self.durable_names);
        let unsynced = !self.unsynced_names.is_empty();
        self.inodes.retain(|id, inode| {
            let is_in = |map: &BTreeMap<String, u64>| map.values().any(|other| other == id);
            inode.handles > 0 || unsynced || is_in(names) || is_in(durable)
        });
    }

    /// Bytes taken, files and names together.
    pub(crate) fn used(&self) -> u64 {
        let names = self.names.len() as u64 * BLOCK;
        names + self.inodes.values().map(|inode| inode.charged).sum::<u64>()
    }

    /// How much more space a file needs so that it may be written up to `end`.
    pub(crate) fn needs(&self, inode: u64, end: u64) -> u64 {
        let charged = self.inodes.get(&inode).map_or(0, |inode| inode.charged);
        end.next_multiple_of(BLOCK).saturating_sub(charged)
    }

    /// The length of a file.
    pub(crate) fn len(&mut self, inode: u64, now: u64) -> u64 {
        self.inode(inode).settle(now);
        self.inode(inode).cached.len()
    }

    /// The bytes of a file as its readers see them.
    pub(crate) fn read(&mut self, inode: u64, now: u64, offset: u64, len: usize) -> Vec<u8> {
        self.inode(inode).settle(now);
        self.inode(inode).cached.read(offset, len)
    }

    fn start(&mut self, inode: u64, due: u64, end: u64, change: Change) {
        let id = self.next_id();
        let file = self.inode(inode);
        file.charged = file.charged.max(end.next_multiple_of(BLOCK));
        file.under_way.push(Op { id, due, change });
    }

    /// A write that returns at `due`.
    pub(crate) fn start_write(&mut self, inode: u64, due: u64, offset: u64, bytes: Bytes) {
        let end = offset + bytes.len() as u64;
        self.start(inode, due, end, Change::Write { offset, bytes });
    }

    /// An `allocate` that returns at `due`.
    pub(crate) fn start_grow(&mut self, inode: u64, due: u64, len: u64) {
        self.start(inode, due, len, Change::Grow { len });
    }

    /// A `set_len` that returns at `due`.
    pub(crate) fn start_set_len(&mut self, inode: u64, due: u64, len: u64) {
        let file = self.inode(inode);
        file.charged = file.charged.min(len.next_multiple_of(BLOCK));
        self.start(inode, due, 0, Change::SetLen { len });
    }

    /// The last change that a sync called at `now` covers.
    pub(crate) fn sync_mark(&mut self, inode: u64, now: u64) -> u64 {
        let file = self.inode(inode);
        file.settle(now);
        file.unsynced.iter().map(|op| op.id).max().unwrap_or(0)
    }

    /// A sync has succeeded: changes up to `mark` are durable. `silent` is what the device did not tell. True if it
    /// found something to do wrong.
    pub(crate) fn synced(
        &mut self,
        inode: u64,
        mark: u64,
        now: u64,
        silent: Option<(Silent, &mut Rng)>,
    ) -> bool {
        let file = self.inode(inode);
        let done = file.take_unsynced(mark);
        for op in &done {
            if let Change::Write { offset, bytes } = &op.change {
                self.recent.push_back((now, inode, *offset, bytes.len() as u64));
            }
        }
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        let file = self.inode(inode);
        let victim = silent.and_then(|(silent, rng)| {
            let writes: Vec<usize> = (0..done.len())
                .filter(|at| matches!(done[*at].change, Change::Write { .. }))
                .collect();
            (!writes.is_empty()).then(|| (writes[rng.index(writes.len())], silent, rng))
        });
        let Some((at, silent, rng)) = victim else {
            for op in &done {
                apply(&mut file.durable, &op.change);
            }
            return false;
        };
        for op in &done[..at] {
            apply(&mut file.durable, &op.change);
        }
        self.go_wrong(inode, now, &done[at].change, silent, rng);
        let file = self.inode(inode);
        for op in &done[at + 1..] {
            apply(&mut file.durable, &op.change);
        }
        true
    }

    /// Applies a write wrongly and remembers what should be there.
    fn go_wrong(&mut self, inode: u64, now: u64, change: &Change, silent: Silent, rng: &mut Rng) {
        let Change::Write { offset, bytes } = change else { return };
        let file = self.inode(inode);
        let before = file.durable.clone();
        file.durable.write(*offset, bytes);
        let after = file.durable.clone();
        let sector = SECTOR as u64;
        match silent {
            Silent::StaleSector => {
                let sectors = (bytes.len() as u64).div_ceil(sector);
                let at = (offset / sector + rng.below(sectors)) * sector;
                self.overwrite((now, inode, at), &after, before.read(at, SECTOR));
            }
            Silent::Misdirected => {
                self.overwrite((now, inode, *offset), &after, before.read(*offset, bytes.len()));
                let places = (after.len().saturating_sub(bytes.len() as u64) / BLOCK).max(1);
                let wrong = rng.below(places) * BLOCK;
                self.overwrite((now, inode, wrong), &after, bytes.to_vec());
            }
        }
    }

    /// Puts `bad` where `good` has other bytes, and remembers them.
    fn overwrite(&mut self, place: (u64, u64, u64), good: &Pages, mut bad: Vec<u8>) {
        let (at, inode, offset) = place;
        let good = good.read(offset, bad.len());
        bad.resize(good.len(), 0);
        self.inode(inode).durable.write(offset, &bad);
        self.damage.push(Damage { at, inode, offset, good, bad });
    }

    /// A sync has failed: the cache calls its pages clean, the device has some of them.
    pub(crate) fn sync_failed(&mut self, inode: u64, mark: u64, rng: &mut Rng) {
        let file = self.inode(inode);
        for op in file.take_unsynced(mark) {
            if rng.percent(50) {
                apply(&mut file.durable, &op.change);
            }
        }
    }

    /// The process that used the disk has ended.
    pub(crate) fn process_ended(&mut self, now: u64, rng: &mut Rng) -> Losses {
        let mut losses = Losses::default();
        self.mend_since(now.saturating_sub(SPARED_NS));
        self.inodes.values_mut().for_each(|inode| inode.process_ended(now, rng, &mut losses));
        self.collect();
        losses
    }

    /// The power is gone: only what is durable remains, and of the rest whatever happened to land.
    pub(crate) fn power_lost(&mut self, now: u64, rng: &mut Rng) -> Losses {
        let mut losses = Losses::default();
        self.settle(now);
        self.mend_since(now.saturating_sub(SPARED_NS));
        self.inodes.values_mut().for_each(|inode| inode.power_lost(now, rng, &mut losses));
        let changes = std::mem::take(&mut self.unsynced_names);
        let prefix = rng.percent(70).then(|| rng.index(changes.len() + 1));
        for (at, change) in changes.iter().enumerate() {
            let keep = prefix.map_or_else(|| rng.percent(50), |count| at < count);
            if keep {
                apply_name(&mut self.durable_names, change);
            } else {
                losses.dropped += 1;
            }
        }
        self.names = self.durable_names.clone();
        self.collect();
        losses
    }

    /// True if a write to that byte was synced so late that damage to it may look like a torn write.
    fn is_spared(&self, inode: u64, offset: u64) -> bool {
        let newest = self.recent.back().map_or(0, |(at, ..)| *at);
        self.recent.iter().rev().enumerate().any(|(age, (at, file, start, len))| {
            let late = age < SPARED_WRITES || at + SPARED_NS >= newest;
            late && *file == inode && (*start..start + len).contains(&offset)
        })
    }

    /// Copies some written blocks of a file whose name passes `wanted` over others of the same file, as writes that
    /// went to wrong places. Returns how many blocks.
    pub(crate) fn misplace(
        &mut self,
        count: usize,
        rng: &mut Rng,
        wanted: impl Fn(&str) -> bool,
    ) -> usize {
        let names = self.names.iter().filter(|(name, _)| wanted(name));
        let files: Vec<u64> = names.map(|(_, inode)| *inode).collect();
        let mut done = 0;
        for _ in 0..count * 64 {
            if done == count || files.is_empty() {
                break;
            }
            let file = self.inode(files[rng.index(files.len())]);
            let blocks = file.durable.len() / BLOCK;
            let (from, to) = (rng.below(blocks) * BLOCK, rng.below(blocks) * BLOCK);
            let len = usize::try_from(BLOCK).expect("small");
            let (bytes, old) = (file.durable.read(from, len), file.durable.read(to, len));
            let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
            // The first block is the file's header.
            if from == 0 || to == 0 || from == to || is_blank(&bytes) || is_blank(&old) {
                continue;
            }
            file.durable.write(to, &bytes);
            file.cached.write(to, &bytes);
            done += 1;
        }
        done
    }

    /// Flips a bit in up to `count` bytes that are not zero, in files whose name passes `wanted`. Returns how many.
    pub(crate) fn rot(
        &mut self,
        count: usize,
        now: u64,
        rng: &mut Rng,
        wanted: impl Fn(&str) -> bool,
    ) -> usize {
        let names = self.names.iter().filter(|(name, _)| wanted(name));
        let files: Vec<u64> = names.map(|(_, inode)| *inode).collect();
        let mut done = 0;
        for _ in 0..count * 64 {
            if done == count || files.is_empty() {
                break;
            }
            let inode = files[rng.index(files.len())];
            let offset = rng.below(self.inode(inode).durable.len());
            done += usize::from(self.flip(inode, offset, now, rng));
        }
        done
    }

    /// Flips a bit in up to `count` bytes of what was synced lately, in whatever file. Returns how many.
    pub(crate) fn rot_recent(&mut self, count: usize, now: u64, rng: &mut Rng) -> usize {
        let mut done = 0;
        for _ in 0..count * 16 {
            if done == count || self.recent.is_empty() {
                break;
            }
            let late = rng.index(self.recent.len().min(LATE_WRITES));
            let (_, inode, start, len) = self.recent[self.recent.len() - 1 - late];
            if self.inodes.contains_key(&inode) {
                done += usize::from(self.flip(inode, start + rng.below(len), now, rng));
            }
        }
        done
    }

    /// Flips a bit in each write that was synced within `range`, if another was synced since: that one shows that they
    /// were whole. Returns in how many.
    pub(crate) fn rot_synced(
        &mut self,
        range: Range<u64>,
        heads: bool,
        now: u64,
        rng: &mut Rng,
    ) -> usize {
        let newest = self.recent.back().map_or(0, |(at, ..)| *at);
        let within = |(at, ..): &&(u64, u64, u64, u64)| range.contains(at) && *at < newest;
        let writes: Vec<_> = self.recent.iter().filter(within).copied().collect();
        let mut done = 0;
        for (_, inode, start, len) in writes {
            let some = if heads { len.min(HEAD) } else { len };
            if self.inodes.contains_key(&inode) {
                let mut flip = || {
                    let at = start + rng.below(some);
                    self.flip_any(inode, at, now, rng)
                };
                done += usize::from((0..8).any(|_| flip()));
            }
        }
        done
    }

    /// Flips a bit of a byte, unless it is zero or damage to it may look like a torn write.
    fn flip(&mut self, inode: u64, offset: u64, now: u64, rng: &mut Rng) -> bool {
        !self.is_spared(inode, offset) && self.flip_any(inode, offset, now, rng)
    }

    /// Flips a bit of a byte, unless it is zero.
    fn flip_any(&mut self, inode: u64, offset: u64, now: u64, rng: &mut Rng) -> bool {
        let good = self.inode(inode).durable.read(offset, 1);
        if good.first().is_none_or(|byte| *byte == 0) {
            return false;
        }
        let bad = vec![good[0] ^ (1 << rng.below(8))];
        let file = self.inode(inode);
        file.durable.write(offset, &bad);
        if file.cached.read(offset, 1) == good {
            file.cached.write(offset, &bad);
        }
        self.damage.push(Damage { at: now, inode, offset, good, bad });
        true
    }

    fn mend_since(&mut self, since: u64) -> usize {
        let mut mended = 0;
        let (kept, young) =
            std::mem::take(&mut self.damage).into_iter().partition(|d| d.at < since);
        self.damage = kept;
        let young: Vec<Damage> = young;
        for damage in young.into_iter().rev() {
            let Some(file) = self.inodes.get_mut(&damage.inode) else { continue };
            if file.durable.read(damage.offset, damage.bad.len()) == damage.bad {
                file.durable.write(damage.offset, &damage.good);
                mended += 1;
            }
            if file.cached.read(damage.offset, damage.bad.len()) == damage.bad {
                file.cached.write(damage.offset, &damage.good);
            }
        }
        mended
    }
}
