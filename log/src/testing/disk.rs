//! A disk in memory that loses what was not synced.

use bytes::{Bytes, BytesMut};
use rand_core::{RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use thalweg_actor::BoxFuture;
use thalweg_actor::disk::{Disk, File, Open, Space};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Content {
    /// Shared with copies of the disk until either is written to.
    durable: Arc<Vec<u8>>,
    current: Arc<Vec<u8>>,
    /// Writes since the last sync: where, and what; a bare length change has no bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        let current = Arc::make_mut(&mut self.current);
        if current.len() < end {
            current.resize(end, 0);
        }
        current[at..end].copy_from_slice(bytes);
        self.pending.push((at, bytes.to_vec()));
    }

    /// Only what was written since the last sync is written now: what a failed one has dropped stays lost.
    fn sync(&mut self) {
        for (at, bytes) in std::mem::take(&mut self.pending) {
            let end = at + bytes.len();
            let durable = Arc::make_mut(&mut self.durable);
            if durable.len() < end {
                durable.resize(end, 0);
            }
            durable[at..end].copy_from_slice(&bytes);
        }
    }

    fn set_len(&mut self, len: usize) {
        let grown = len.saturating_sub(self.current.len());
        if grown > 0 {
            return self.write(len - grown, &vec![0; grown]);
        }
        Arc::make_mut(&mut self.current).truncate(len);
        Arc::make_mut(&mut self.durable).truncate(len);
        self.pending.retain(|(at, _)| *at < len);
        for (at, bytes) in &mut self.pending {
            bytes.truncate(len - *at);
        }
    }

    /// What a power loss leaves: each unsynced write whole, torn or absent.
    fn lose(&mut self, coin: &mut Pcg64Mcg) {
        for (at, bytes) in std::mem::take(&mut self.pending) {
            let fate = coin.next_u32() % 3;
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if fate == 0 || (fate == 1 && coin.next_u32().is_multiple_of(2)) {
                    continue;
                }
                let begin = at + number * SECTOR;
                let end = begin + sector.len();
                let durable = Arc::make_mut(&mut self.durable);
                if durable.len() < end {
                    durable.resize(end, 0);
                }
                durable[begin..end].copy_from_slice(sector);
            }
        }
        self.current.clone_from(&self.durable);
    }
}

#[derive(Clone, Default)]
struct World {
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// The folder after each unsynced change of it.
    pending_names: Vec<BTreeMap<String, u64>>,
    next: u64,
    steps: u64,
    halt_at: Option<u64>,
    fail_sync_at: Option<u64>,
    hang_rename_to: Option<String>,
    syncs: u64,
    capacity: Option<u64>,
}

impl World {
    fn used(&self) -> u64 {
        self.names.values().map(|id| self.contents[id].current.len() as u64).sum()
    }

    fn renamed(&mut self) {
        self.pending_names.push(self.names.clone());
    }
}

/// See the module's header. Clones share the disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics while it holds the disk")
    }

    /// How many steps (writes, syncs, renamings…) it has taken.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Lets step number `step` and all later ones hang for ever: the process stops there.
    pub fn halt_at(&self, step: u64) {
        self.lock().halt_at = Some(step);
    }

    /// Lets the sync number `sync` from here on fail; what it should have made durable is as good as lost.
    pub fn fail_sync_at(&self, sync: u64) {
        let mut world = self.lock();
        world.fail_sync_at = Some(world.syncs + sync);
    }

    /// Lets the renaming of a file to `name` hang for ever, and nothing else.
    pub fn hang_rename_to(&self, name: &str) {
        self.lock().hang_rename_to = Some(name.to_owned());
    }

    /// Bounds the sum of all files' lengths, or does not.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// The disk as a power loss leaves it; `seed` decides the fate of what was not synced.
    #[must_use]
    pub fn power_loss(&self, seed: u64) -> Self {
        let mut world = self.lock().clone();
        let mut coin = Pcg64Mcg::seed_from_u64(seed);
        let survived = coin.next_u32() as usize % (world.pending_names.len() + 1);
        if survived > 0 {
            world.durable_names = world.pending_names[survived - 1].clone();
        }
        world.pending_names.clear();
        world.names = world.durable_names.clone();
        world.contents.values_mut().for_each(|content| content.lose(&mut coin));
        (world.steps, world.halt_at, world.fail_sync_at) = (0, None, None);
        world.hang_rename_to = None;
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// The disk as the end of the process leaves it: everything that was written is there.
    #[must_use]
    pub fn process_end(&self) -> Self {
        let mut world = self.lock().clone();
        (world.steps, world.halt_at, world.fail_sync_at) = (0, None, None);
        world.hang_rename_to = None;
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// The bytes of `name`.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let world = self.lock();
        world.contents[&world.names[name]].current.to_vec()
    }

    /// Replaces the bytes of `name`, durably, making it if need be.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.lock();
        world.next += 1;
        let fresh = world.next;
        let id = *world.names.entry(name.to_owned()).or_insert(fresh);
        world.durable_names.insert(name.to_owned(), id);
        let bytes = Arc::new(bytes);
        let content = Content { durable: bytes.clone(), current: bytes, pending: Vec::new() };
        world.contents.insert(id, content);
    }

    /// Removes `name`, durably.
    pub fn delete(&self, name: &str) {
        let mut world = self.lock();
        world.names.remove(name);
        world.durable_names.remove(name);
    }

    /// Counts a step; hangs from the one that was named on.
    async fn step(&self) {
        let halted = {
            let mut world = self.lock();
            world.steps += 1;
            world.halt_at.is_some_and(|at| world.steps >= at)
        };
        if halted {
            std::future::pending::<()>().await;
        }
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Disk for MemoryDisk {
    fn open<'a>(&'a self, name: &'a str, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        Box::pin(async move {
            let mut world = self.lock();
            let id = match (world.names.get(name).copied(), how) {
                (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
                (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
                (Some(id), _) => id,
                (None, _) => {
                    world.next += 1;
                    let id = world.next;
                    world.contents.insert(id, Content::default());
                    world.names.insert(name.to_owned(), id);
                    world.renamed();
                    id
                }
            };
            let file: Arc<dyn File> = Arc::new(MemoryFile { disk: self.clone(), id });
            Ok(file)
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.step().await;
            let hangs = self.lock().hang_rename_to.as_deref() == Some(to);
            if hangs {
                std::future::pending::<()>().await;
            }
            let mut world = self.lock();
            let id = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            world.names.insert(to.to_owned(), id);
            world.renamed();
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.step().await;
            let mut world = self.lock();
            world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            world.renamed();
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(async move { Ok(self.names()) })
    }

    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.step().await;
            let mut world = self.lock();
            world.durable_names = world.names.clone();
            world.pending_names.clear();
            Ok(())
        })
    }

    fn space(&self) -> BoxFuture<'_, io::Result<Space>> {
        Box::pin(async move {
            let world = self.lock();
            let total = world.capacity.unwrap_or(u64::MAX);
            Ok(Space { total, free: total.saturating_sub(world.used()) })
        })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    id: u64,
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> T {
        let mut world = self.disk.lock();
        act(world.contents.get_mut(&self.id).expect("contents outlive names"))
    }

    /// Makes sure that the file may grow to `len` bytes.
    fn may_grow(&self, len: usize) -> io::Result<()> {
        let world = self.disk.lock();
        let grows = len.saturating_sub(world.contents[&self.id].current.len()) as u64;
        match world.capacity {
            Some(capacity) if grows > 0 && world.used() + grows > capacity => Err(full()),
            _ => Ok(()),
        }
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("a test's files are small")
}

impl File for MemoryFile {
    fn size(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move { Ok(self.with(|content| content.current.len() as u64)) })
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            Ok(self.with(|content| {
                let begin = at(offset).min(content.current.len());
                let end = (begin + len).min(content.current.len());
                Bytes::copy_from_slice(&content.current[begin..end])
            }))
        })
    }

    fn write_at(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut all = BytesMut::new();
            for chunk in &chunks {
                all.extend_from_slice(chunk);
            }
            self.may_grow(at(offset) + all.len())?;
            self.with(|content| content.write(at(offset), &all));
            self.disk.step().await;
            Ok(())
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.disk.step().await;
            let fails = {
                let mut world = self.disk.lock();
                world.syncs += 1;
                world.fail_sync_at.is_some_and(|at| world.syncs >= at)
            };
            if fails {
                self.with(|content| content.pending.clear());
                return Err(io::Error::other("injected"));
            }
            self.with(Content::sync);
            Ok(())
        })
    }

    fn write_and_sync(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.write_at(offset, chunks).await?;
            self.sync().await
        })
    }

    fn allocate(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.may_grow(at(len))?;
            self.with(|content| {
                let begin = content.current.len();
                if begin < at(len) {
                    content.write(begin, &vec![0; at(len) - begin]);
                }
            });
            self.disk.step().await;
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.may_grow(at(len))?;
            self.with(|content| content.set_len(at(len)));
            self.disk.step().await;
            Ok(())
        })
    }
}
