//! The simulated disk: the seam over an [`Image`] that outlives the process, with latency and faults.

mod image;
mod pages;

use super::executor;
use super::rng::{Rng, Salt};
use super::trace::trace;
use bytes::{Bytes, BytesMut};
use image::{Image, Losses, Silent};
use std::future;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::disk::{Disk, File, Open, Space};

/// What may go wrong, per operation in parts per million, and how often at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskFaults {
    /// A read fails.
    pub(crate) read_eio_ppm: u32,
    /// A write fails; any part of it may have landed.
    pub(crate) write_eio_ppm: u32,
    /// A sync fails.
    pub(crate) sync_eio_ppm: u32,
    /// A synced write lands elsewhere, unnoticed.
    pub(crate) misdirected_ppm: u32,
    /// A synced write misses a sector, unnoticed.
    pub(crate) stale_ppm: u32,
    /// An operation takes 10 to 500 ms longer.
    pub(crate) slow_ppm: u32,
    /// Errors and silent damage together.
    pub(crate) budget: u32,
}

/// What has happened to a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskCounts {
    /// Syncs that succeeded.
    pub(crate) syncs: u64,
    /// Bytes handed to writes.
    pub(crate) written: u64,
    /// Failed reads.
    pub(crate) read_errors: u64,
    /// Failed writes.
    pub(crate) write_errors: u64,
    /// Failed syncs.
    pub(crate) sync_errors: u64,
    /// Writes refused for want of space.
    pub(crate) full: u64,
    /// Misdirected writes and stale sectors.
    pub(crate) silent: u64,
    /// Flipped bits.
    pub(crate) rotten: u64,
    /// Slow operations.
    pub(crate) slow: u64,
    /// Power losses.
    pub(crate) power_losses: u64,
    /// Unsynced changes that a stop tore.
    pub(crate) torn: u64,
    /// Unsynced changes that a stop dropped.
    pub(crate) dropped: u64,
}

/// Operations that a trap counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Whatever changes something, or makes changes durable.
    Any,
    /// Those on names alone.
    Names,
    /// The renaming that makes a file one of the log.
    Use,
    /// The first write behind a file's header, once it is under way.
    First,
}

/// Names of the log's files begin like this.
const IN_USE: &str = "seg-";
/// Where the first write behind a file's header goes.
const FIRST: u64 = 4096;

/// The operation at which a process is to die.
#[derive(Clone, Copy, Debug)]
struct Trap {
    operation: Operation,
    /// Such operations before it.
    left: u64,
    /// Other operations go on meanwhile.
    alone: bool,
    has_sprung: bool,
}

struct State {
    image: Image,
    trap: Option<Trap>,
    capacity: u64,
    faults: DiskFaults,
    counts: DiskCounts,
    rng: Rng,
    /// The process that may use the disk; handles of earlier ones are dead.
    mount: u64,
}

/// A disk as the harness holds it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SimDisk {
    host: Arc<str>,
    state: Arc<Mutex<State>>,
}

/// See [`SimDisk::backup`].
pub(crate) struct Backup(Image);

enum Fault {
    Io(&'static str),
    Full,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(what) => Self::other(what),
            Fault::Full => Self::new(ErrorKind::StorageFull, "no space left on device"),
        }
    }
}

impl State {
    fn has_budget(&mut self, per_million: u32) -> bool {
        let hit = self.faults.budget > 0 && self.rng.per_million(per_million);
        self.faults.budget -= u32::from(hit);
        hit
    }

    fn latency(&mut self, low_us: u64, high_us: u64) -> Duration {
        let usual = self.rng.micros(low_us, high_us);
        if !self.rng.per_million(self.faults.slow_ppm) {
            return usual;
        }
        self.counts.slow += 1;
        usual + self.rng.millis(10, 500)
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.image.used())
    }
}

impl SimDisk {
    /// An empty disk of `capacity` bytes.
    pub(crate) fn new(host: &str, capacity: u64, salt: Salt) -> Self {
        let state = State {
            image: Image::default(),
            trap: None,
            capacity,
            faults: DiskFaults::default(),
            counts: DiskCounts::default(),
            rng: salt.of("disk").rng(),
            mount: 0,
        };
        Self { host: host.into(), state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seam for a new process. Handles of earlier ones fail from now on.
    pub(crate) fn mount(&self) -> Arc<dyn Disk> {
        let mut state = self.lock();
        state.mount += 1;
        Arc::new(Mounted { disk: self.clone(), mount: state.mount })
    }

    /// What may go wrong from now on.
    pub(crate) fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    /// Resizes the disk.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.lock().capacity = capacity;
    }

    /// Stops the disk, for good, before the operation that follows `left` others of its kind, or if `alone` that
    /// operation only. Whoever uses it waits until its process ends; that, or the loss of power, takes the trap away.
    pub(crate) fn trap(&self, operation: Operation, left: u64, alone: bool) {
        let mut state = self.lock();
        let sprung = state.trap.filter(|trap| trap.has_sprung);
        state.trap = sprung.or(Some(Trap { operation, left, alone, has_sprung: false }));
    }

    /// Takes a trap away that has not sprung.
    pub(crate) fn untrap(&self) {
        let mut state = self.lock();
        state.trap = state.trap.filter(|trap| trap.has_sprung);
    }

    /// True once the trap has sprung.
    pub(crate) fn has_sprung(&self) -> bool {
        self.lock().trap.is_some_and(|trap| trap.has_sprung)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.lock().image.used()
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> DiskCounts {
        self.lock().counts
    }

    /// The process has ended, the machine goes on.
    pub(crate) fn process_ended(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.mount += 1;
        state.trap = None;
        let losses = state.image.process_ended(executor::now(), &mut state.rng);
        Self::count(&self.host, &mut state.counts, "process ended", losses);
    }

    /// The machine has lost power.
    pub(crate) fn power_lost(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.mount += 1;
        state.trap = None;
        let losses = state.image.power_lost(executor::now(), &mut state.rng);
        state.counts.power_losses += 1;
        Self::count(&self.host, &mut state.counts, "power lost", losses);
    }

    fn count(host: &str, counts: &mut DiskCounts, what: &str, losses: Losses) {
        counts.torn += losses.torn;
        counts.dropped += losses.dropped;
        let Losses { kept, torn, dropped } = losses;
        trace!("{host} disk: {what}: kept {kept} torn {torn} dropped {dropped}");
    }

    /// A copy of everything on the disk, as a backup of a stopped host.
    pub(crate) fn backup(&self) -> Backup {
        Backup(self.lock().image.clone())
    }

    /// Puts the folder back as it was when the backup was made.
    pub(crate) fn restore(&self, backup: Backup) {
        let mut state = self.lock();
        state.mount += 1;
        state.image = backup.0;
        trace!("{} disk: restored", self.host);
    }

    /// Puts an empty disk in the place of this one.
    pub(crate) fn wipe(&self) {
        let mut state = self.lock();
        state.mount += 1;
        state.image = Image::default();
        trace!("{} disk: blank", self.host);
    }

    /// Copies up to `count` blocks of the files that `wanted` accepts to wrong places. Returns how many.
    pub(crate) fn misplace(&self, count: usize, wanted: impl Fn(&str) -> bool) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let done = state.image.misplace(count, &mut state.rng, wanted);
        state.counts.silent += done as u64;
        trace!("{} disk: {done} blocks go to wrong places", self.host);
        done
    }

    /// Flips bits in up to `count` bytes of the files that `wanted` accepts. Returns how many.
    pub(crate) fn rot(&self, count: usize, wanted: impl Fn(&str) -> bool) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let done = state.image.rot(count, executor::now(), &mut state.rng, wanted);
        state.counts.rotten += done as u64;
        trace!("{} disk: {done} bytes rot", self.host);
        done
    }

    /// Flips bits in up to `count` bytes of what was synced lately. Returns how many.
    pub(crate) fn rot_recent(&self, count: usize) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let done = state.image.rot_recent(count, executor::now(), &mut state.rng);
        state.counts.rotten += done as u64;
        trace!("{} disk: {done} bytes of late writes rot", self.host);
        done
    }

    /// Flips a bit in each write that was synced within `range`, at its beginning or, without `heads`, anywhere.
    /// Returns in how many.
    pub(crate) fn rot_synced(&self, range: Range<u64>, heads: bool) -> usize {
        let mut state = self.lock();
        let state = &mut *state;
        let done = state.image.rot_synced(range, heads, executor::now(), &mut state.rng);
        state.counts.rotten += done as u64;
        trace!("{} disk: {done} writes rot", self.host);
        done
    }
}

struct Mounted {
    disk: SimDisk,
    mount: u64,
}

impl Mounted {
    /// The state, if this process still owns the disk.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.mount == self.mount { Ok(state) } else { Err(io::Error::other("unmounted")) }
    }

    /// Goes on unless this is where the process is to die.
    async fn step(&self, operation: Operation) -> io::Result<()> {
        let dies = {
            let mut state = self.state()?;
            let trap = state.trap.as_mut();
            trap.is_some_and(|trap| {
                if trap.has_sprung {
                    return !trap.alone;
                }
                let all = trap.operation == Operation::Any && operation != Operation::First;
                let counts = all || trap.operation == operation;
                trap.has_sprung = counts && trap.left == 0;
                trap.left = trap.left.saturating_sub(u64::from(counts));
                trap.has_sprung
            })
        };
        if dies { future::pending().await } else { Ok(()) }
    }

    async fn names_change(&self) -> io::Result<()> {
        self.step(Operation::Names).await?;
        let latency = self.state()?.latency(5, 50);
        executor::sleep(latency).await;
        Ok(())
    }
}

impl Disk for Mounted {
    fn open<'a>(&'a self, name: &'a str, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        Box::pin(async move {
            self.names_change().await?;
            let mut state = self.state()?;
            let inode = match (state.image.find(name), how) {
                (Some(_), Open::New) => return Err(ErrorKind::AlreadyExists.into()),
                (None, Open::Existing) => return Err(ErrorKind::NotFound.into()),
                (Some(inode), _) => inode,
                (None, _) if state.free() < 4096 => {
                    state.counts.full += 1;
                    return Err(Fault::Full.into());
                }
                (None, _) => state.image.create(name),
            };
            state.image.hold(inode);
            trace!("{} disk: open {name} {how:?} as {inode}", self.disk.host);
            let disk = Self { disk: self.disk.clone(), mount: self.mount };
            let file: Arc<dyn File> = Arc::new(SimFile { disk, inode });
            Ok(file)
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            if to.starts_with(IN_USE) {
                self.step(Operation::Use).await?;
            }
            self.names_change().await?;
            trace!("{} disk: rename {from} {to}", self.disk.host);
            let done = self.state()?.image.rename(from, to);
            if done { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.names_change().await?;
            trace!("{} disk: remove {name}", self.disk.host);
            let done = self.state()?.image.remove(name);
            if done { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(async move {
            let latency = self.state()?.latency(5, 50);
            executor::sleep(latency).await;
            Ok(self.state()?.image.names())
        })
    }

    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.step(Operation::Names).await?;
            let (count, latency) = {
                let mut state = self.state()?;
                (state.image.unsynced_names(), state.latency(50, 500))
            };
            executor::sleep(latency).await;
            self.state()?.image.names_synced(count);
            trace!("{} disk: sync_dir", self.disk.host);
            Ok(())
        })
    }

    fn space(&self) -> BoxFuture<'_, io::Result<Space>> {
        Box::pin(async move {
            let state = self.state()?;
            Ok(Space { total: state.capacity, free: state.free() })
        })
    }

    fn describe(&self) -> String {
        format!("the simulated disk of {}", self.disk.host)
    }
}

struct SimFile {
    disk: Mounted,
    inode: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.state() {
            state.image.release(self.inode);
        }
    }
}

fn join(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() == 1 {
        return chunks.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in &chunks {
        all.extend_from_slice(chunk);
    }
    all.freeze()
}

impl SimFile {
    fn host(&self) -> &str {
        &self.disk.disk.host
    }

    /// Starts a write: from here on it happens, whether or not anybody waits for it.
    fn start_write(&self, offset: u64, bytes: Bytes) -> io::Result<(Duration, Option<Fault>)> {
        let mut state = self.disk.state()?;
        let inode = self.inode;
        let end = offset + bytes.len() as u64;
        state.counts.written += bytes.len() as u64;
        let latency = state.latency(10, 60 + bytes.len() as u64 / 2_048);
        let due = executor::now() + u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let error_ppm = state.faults.write_eio_ppm;
        if state.image.needs(inode, end) > state.free() {
            state.counts.full += 1;
            return Ok((latency, Some(Fault::Full)));
        }
        if state.has_budget(error_ppm) {
            state.counts.write_errors += 1;
            let part = state.rng.index(bytes.len() + 1);
            state.image.start_write(inode, due, offset, bytes.slice(..part));
            trace!("{} disk: write of {inode} at {offset} fails", self.host());
            return Ok((latency, Some(Fault::Io("write failed"))));
        }
        trace!("{} disk: write {inode} at {offset} of {}", self.host(), bytes.len());
        state.image.start_write(inode, due, offset, bytes);
        Ok((latency, None))
    }

    async fn write(&self, offset: u64, chunks: Vec<Bytes>) -> io::Result<()> {
        self.disk.step(Operation::Any).await?;
        let (latency, fault) = self.start_write(offset, join(chunks))?;
        if offset == FIRST {
            self.disk.step(Operation::First).await?;
        }
        executor::sleep(latency).await;
        drop(self.disk.state()?);
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    async fn sync_now(&self) -> io::Result<()> {
        self.disk.step(Operation::Any).await?;
        let (mark, latency) = {
            let mut state = self.disk.state()?;
            (state.image.sync_mark(self.inode, executor::now()), state.latency(80, 700))
        };
        executor::sleep(latency).await;
        let mut state = self.disk.state()?;
        let state = &mut *state;
        let faults = state.faults;
        if state.has_budget(faults.sync_eio_ppm) {
            state.counts.sync_errors += 1;
            state.image.sync_failed(self.inode, mark, &mut state.rng);
            trace!("{} disk: sync of {} fails", self.host(), self.inode);
            return Err(Fault::Io("sync failed").into());
        }
        let silent = if state.has_budget(faults.misdirected_ppm) {
            Some(Silent::Misdirected)
        } else if state.has_budget(faults.stale_ppm) {
            Some(Silent::StaleSector)
        } else {
            None
        };
        let named = silent.map(|silent| (silent, &mut state.rng));
        let wrong = state.image.synced(self.inode, mark, executor::now(), named);
        state.counts.silent += u64::from(wrong);
        state.counts.syncs += 1;
        match silent {
            Some(silent) if wrong => {
                trace!("{} disk: sync {}, {silent:?}", self.host(), self.inode);
            }
            _ => trace!("{} disk: sync {}", self.host(), self.inode),
        }
        Ok(())
    }

    async fn change_len(&self, len: u64, cut: bool) -> io::Result<()> {
        self.disk.step(Operation::Any).await?;
        let latency = {
            let mut state = self.disk.state()?;
            let size = state.image.len(self.inode, executor::now());
            let latency = state.latency(10, 100);
            let due = executor::now() + u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            if !cut && state.image.needs(self.inode, len) > state.free() {
                state.counts.full += 1;
                return Err(Fault::Full.into());
            }
            trace!("{} disk: length of {} from {size} to {len}", self.host(), self.inode);
            if cut {
                state.image.start_set_len(self.inode, due, len);
            } else if len > size {
                state.image.start_grow(self.inode, due, len);
            }
            latency
        };
        executor::sleep(latency).await;
        drop(self.disk.state()?);
        Ok(())
    }
}

impl File for SimFile {
    fn size(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move { Ok(self.disk.state()?.image.len(self.inode, executor::now())) })
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            let latency = self.disk.state()?.latency(10, 60 + len as u64 / 4_096);
            executor::sleep(latency).await;
            let mut state = self.disk.state()?;
            let error_ppm = state.faults.read_eio_ppm;
            if state.has_budget(error_ppm) {
                state.counts.read_errors += 1;
                trace!("{} disk: read of {} at {offset} fails", self.host(), self.inode);
                return Err(Fault::Io("read failed").into());
            }
            Ok(state.image.read(self.inode, executor::now(), offset, len).into())
        })
    }

    fn write_at(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.write(offset, chunks))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.sync_now())
    }

    fn write_and_sync(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.write(offset, chunks).await?;
            self.sync_now().await
        })
    }

    fn allocate(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change_len(len, false))
    }

    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change_len(len, true))
    }
}
