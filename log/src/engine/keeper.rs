//! The task that keeps files at hand: spares, the next file, and the space of files that are not needed any more.
//!
//! A file is freed from the front of the log only. What is live in it is moved to the end first; when that is durable
//! the superblock names the new front, and only then does the file lose its name.
//! Nothing moves while more than a sixteenth of the first file is live. Where room is scarce (on the disk, or by the
//! dead bytes that the configuration allows) that is a quarter, or any part if half of all files is dead.

use super::config::Config;
use super::core::{Class, Core, Move, RESERVES, State};
use super::files::{LogFile, Pace, Spare, in_use_name, retire};
use super::format::{BLOCK, FileHeader, Origin, Record, payload_is_sound};
use super::scan::{Found, Reader};
use crate::frame::Frame;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::{planted, probe};
use tokio::select;

/// See the module's header.
pub(super) struct Keeper {
    core: Arc<Core>,
    /// The file that cannot be freed: something live in it cannot be read.
    stuck: u64,
    /// A notice came in the middle of other work: everything must be looked at once more before the next wait.
    noticed: bool,
    /// The disk has room for dead bytes.
    roomy: bool,
}

/// What to do about the supply of files.
enum Supply {
    /// Open the reserve: a spare becomes the next file.
    Reserve,
    /// Make a spare, or make one whole.
    Spare,
    /// Prepare a next file of `ideal` bytes; on a disk that has no room for it, of `least`, or of the size of a spare
    /// that has `wanted`.
    Next {
        ideal: u64,
        least: u64,
        wanted: u64,
    },
    /// The prepared file is too small.
    Enlarge(u64),
    Nothing,
}

impl Keeper {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, stuck: 0, noticed: false, roomy: false }
    }

    /// Works until the engine stops.
    pub(super) async fn run(mut self) {
        loop {
            self.roomy = self.disk_is_roomy().await;
            let outcome = match self.supply().await {
                Ok(retry) => self.reclaim().await.map(|finished| (retry, finished)),
                Err(error) => Err(error),
            };
            let (retry, finished) = match outcome {
                Ok(done) => done,
                Err(error) => {
                    let folder = &self.core.folder;
                    return self
                        .core
                        .stop(format!("keeping the files of {folder} failed: {error}"));
                }
            };
            if self.core.lock().stopped.is_some() {
                return;
            }
            if !std::mem::take(&mut self.noticed) && (finished || retry.is_some()) {
                self.wait(retry).await;
            }
        }
    }

    /// True if the disk has several times more room than may be dead.
    async fn disk_is_roomy(&self) -> bool {
        let dead_max = self.core.config.dead_max;
        if dead_max == 0 {
            return false;
        }
        let space = self.core.env.disk.space().await;
        space.is_ok_and(|space| space.free / 4 > dead_max)
    }

    async fn wait(&self, retry: Option<Duration>) {
        let Some(retry) = retry else { return self.core.chores.notified().await };
        let clock = &self.core.env.clock;
        let at = clock.sleep_until(clock.now().after(retry));
        select! {
            biased;
            () = self.core.chores.notified() => {}
            () = at => {}
        }
    }

    /// Brings the files up to what is wanted; says when to try again on a full disk.
    async fn supply(&mut self) -> io::Result<Option<Duration>> {
        loop {
            if self.core.lock().stopped.is_some() {
                return Ok(None);
            }
            let supply = self.missing();
            let in_vain = matches!(supply, Supply::Reserve);
            let outcome = match supply {
                Supply::Reserve => self.open_reserve().await,
                Supply::Spare => self.make_spare().await,
                Supply::Next { ideal, least, wanted } => self.make_next(ideal, least, wanted).await,
                Supply::Enlarge(size) => self.enlarge(size).await,
                Supply::Nothing => return Ok(None),
            };
            match outcome {
                Ok(()) => self.core.work.notify_one(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.note_full().await;
                    if in_vain || !self.core.lock().pool.opens_reserve() {
                        return Ok(Some(self.core.config.full_retry));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Notes that no file can be had.
    async fn note_full(&self) {
        let free = self.core.env.disk.space().await.map_or(0, |space| space.free);
        let mut state = self.core.lock();
        if state.moving.as_ref().is_some_and(|moving| !moving.released)
            && !self.may_move(&state, state.moving.as_ref().map_or(0, |moving| moving.file))
        {
            state.moving = None;
            self.core.work.notify_one();
        }
        if state.pool.full.is_none() {
            let folder = &self.core.folder;
            let reason = format!("the disk of {folder} is full ({free} bytes are free)");
            tracing::warn!(reason, "appends are held");
            state.pool.full = Some(Arc::from(reason));
            self.core.work.notify_one();
        }
    }

    /// True if what is live in `file` may be moved: on a full disk it must leave the most of the reserve to others.
    fn may_move(&self, state: &State, file: u64) -> bool {
        state.pool.full.is_none() || state.index.live(file).bytes <= self.core.config.reserve / 2
    }

    fn missing(&self) -> Supply {
        let mut state = self.core.lock();
        let active = state.logs.get(&state.active).map_or(0, |log| log.header.size);
        let half_full = state.half_full;
        let pool = &mut state.pool;
        if pool.opens_reserve() {
            return Supply::Reserve;
        }
        if pool.lacking().is_some() {
            return Supply::Spare;
        }
        let wanted = pool.want.map_or(0, |(_, bytes)| bytes);
        match &mut pool.next {
            // Only a file that was made proves that a disk is not full any more.
            None if half_full || pool.want.is_some() || pool.full.is_some() => {
                let config = &self.core.config;
                let ideal = (active * 2).clamp(config.file_first, config.file_max).max(wanted);
                return Supply::Next { ideal, least: config.file_first.max(wanted), wanted };
            }
            None => {}
            Some((log, _)) if log.header.size < wanted => return Supply::Enlarge(wanted),
            Some((_, class)) => *class = Class::Normal,
        }
        if pool.full.take().is_some() {
            tracing::info!(folder = self.core.folder, "there is space again");
        }
        self.core.work.notify_one();
        Supply::Nothing
    }

    fn pace(&self) -> Pace<'_> {
        let Config { allocate_step: step, allocate_pause: pause, .. } = self.core.config;
        Pace { step, pause, urgent: &self.core.urgent }
    }

    /// Fails if the file system has less than `bytes` left: a file that cannot be written full is not begun.
    async fn has_room(&self, bytes: u64) -> io::Result<()> {
        let has_room = self.core.env.disk.space().await?.free >= bytes;
        if has_room || planted!("PB-D8") { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    async fn create(&self, size: u64) -> io::Result<Spare> {
        self.has_room(size).await?;
        new_spare(&self.core, size, self.pace()).await
    }

    /// Grows `spare`; on failure it goes back to the others as far as it has come.
    async fn grow(&self, mut spare: Spare, size: u64) -> io::Result<Spare> {
        let grown = match self.has_room(size.saturating_sub(spare.size)).await {
            Ok(()) => spare.grow(&*self.core.env.clock, size, self.pace()).await,
            Err(error) => Err(error),
        };
        match grown {
            Ok(()) => Ok(spare),
            Err(error) => {
                self.core.lock().pool.spares.push(spare);
                Err(error)
            }
        }
    }

    async fn make_spare(&self) -> io::Result<()> {
        let (size, part) = {
            let mut state = self.core.lock();
            (state.pool.reserve, state.pool.take_part())
        };
        let lacks = size - part.as_ref().map_or(0, |part| part.size);
        while self.has_room(lacks).await.is_err() {
            // What is too small to be of use alone makes room for this one.
            let Some(scrap) = self.core.lock().pool.take_scrap(0) else { break };
            scrap.remove(&*self.core.env.disk).await?;
        }
        let spare = match part {
            Some(part) => self.grow(part, size).await?,
            None => self.create(size).await?,
        };
        self.core.lock().pool.spares.push(spare);
        Ok(())
    }

    async fn make_next(&self, ideal: u64, least: u64, wanted: u64) -> io::Result<()> {
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        let extra = self.core.lock().pool.take_extra();
        let spare = match extra {
            Some(extra) => match self.grow(extra, ideal).await {
                Err(error) if is_full(&error) => {
                    let mut state = self.core.lock();
                    let extra = state.pool.take_extra().expect("only the keeper takes spares");
                    if extra.size < wanted {
                        state.pool.spares.push(extra);
                        return Err(error);
                    }
                    extra
                }
                grown => grown?,
            },
            None => match self.create(ideal).await {
                Err(error) if is_full(&error) && least < ideal => self.create(least).await?,
                made => made?,
            },
        };
        self.prepare(spare).await
    }

    async fn open_reserve(&self) -> io::Result<()> {
        probe!("engine: reserve opened");
        let (spare, wanted) = {
            let mut state = self.core.lock();
            let wanted = state.pool.want.map_or(0, |(_, bytes)| bytes);
            (state.pool.take_reserve(wanted), wanted)
        };
        let Some(spare) = spare else { return Ok(()) };
        let spare = self.grow(spare, wanted).await?;
        self.prepare(spare).await
    }

    /// Gives `spare` the next place of the log, durable in the superblock as well.
    async fn prepare(&self, spare: Spare) -> io::Result<()> {
        let (number, class) = {
            let mut state = self.core.lock();
            state.pool.newest += 1;
            (state.pool.newest, state.pool.class())
        };
        let log = prepare(&self.core, spare, number).await?;
        self.core.lock().pool.next = Some((Arc::new(log), class));
        Ok(())
    }

    async fn enlarge(&self, size: u64) -> io::Result<()> {
        let Some((log, class)) = self.core.lock().pool.next.take() else { return Ok(()) };
        let size = size.next_multiple_of(BLOCK as u64);
        let header = FileHeader { size, ..log.header };
        let grown = log.file.allocate(size).await;
        let outcome = match grown {
            Ok(()) => log.file.write_and_sync(0, vec![header.encode()]).await,
            Err(error) => Err(error),
        };
        let header = if outcome.is_ok() { header } else { log.header };
        let log = Arc::new(LogFile { header, file: log.file.clone() });
        self.core.lock().pool.next = Some((log, class));
        outcome
    }

    /// Frees the first files of the log as far as that is worth while. False if it should go on once there is a file.
    async fn reclaim(&mut self) -> io::Result<bool> {
        loop {
            if let Some(file) = self.released() {
                self.free(file).await?;
                continue;
            }
            let Some(log) = self.candidate() else { return Ok(true) };
            if !self.load(&log).await? {
                return Ok(false);
            }
            if self.released().is_none() {
                return Ok(true);
            }
        }
    }

    fn released(&self) -> Option<u64> {
        let mut state = self.core.lock();
        let file = state.moving.as_ref().filter(|moving| moving.released)?.file;
        if state.index.live(file).entries > 0 && !planted!("PB-D9") {
            // Something in it could not be moved: it stays where it is.
            state.moving = None;
            return None;
        }
        Some(file)
    }

    /// The first file, if it should go.
    fn candidate(&mut self) -> Option<Arc<LogFile>> {
        let mut state = self.core.lock();
        if state.stopped.is_some() {
            return None;
        }
        if let Some(moving) = &state.moving {
            return state.logs.get(&moving.file).cloned().filter(|_| !moving.loaded);
        }
        let (number, log) = state.logs.first_key_value()?;
        let (number, log) = (*number, log.clone());
        let is_evidence = state.damaged.contains(&number) && state.facts.has_doubt();
        if number == state.active || number == self.stuck || is_evidence {
            return None;
        }
        let (mut size, mut live) = (0, 0);
        for (number, log) in state.logs.iter().filter(|(number, _)| **number != state.active) {
            size += log.header.size;
            live += state.index.live(*number).bytes;
        }
        let own = state.index.live(number).bytes;
        let scarce = !self.roomy || size.saturating_sub(live) > self.core.config.dead_max;
        let little = own * 4 <= log.header.size || live * 2 <= size;
        let worth_it = if scarce { little } else { own * 16 <= log.header.size };
        if !worth_it || !self.may_move(&state, number) {
            return None;
        }
        state.moving =
            Some(Move { file: number, records: VecDeque::new(), loaded: false, released: false });
        Some(log)
    }

    /// Reads what is live in `log` and hands it to the writer. False when the move was called off for want of a file.
    async fn load(&mut self, log: &Arc<LogFile>) -> io::Result<bool> {
        let number = log.number();
        let mut batches = self.core.lock().index.batches(number);
        if planted!("PB-D9") {
            batches.clear();
        }
        let mut reader = Reader::new(log);
        for (offset, slots) in batches {
            let found = reader.batch(offset).await?;
            let Found::Batch(front) = found else {
                self.give_up(number);
                return Ok(true);
            };
            for slot_at in slots {
                let slot_index = slot_at as usize;
                let slot = front.header.slots[slot_index];
                let Ok((origin, mut record)) = front.header.record(slot_index, &front.bytes) else {
                    self.give_up(number);
                    return Ok(true);
                };
                let payload = log.file.read_at(offset + slot.payload_at, slot.payload_len).await?;
                if !payload_is_sound(&slot, &payload) {
                    self.give_up(number);
                    return Ok(true);
                }
                if let Record::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) =
                    &mut record
                {
                    entry.payload = vec![payload];
                }
                let seq = front.header.chain.seq;
                let origin = origin.unwrap_or(Origin { seq, index: slot_at });
                probe!("engine: entry moved");
                if !self.hand_over(number, origin, record).await {
                    return Ok(false);
                }
            }
        }
        if let Some(moving) =
            self.core.lock().moving.as_mut().filter(|moving| moving.file == number)
        {
            moving.loaded = true;
        }
        self.core.work.notify_one();
        Ok(true)
    }

    /// Leaves a file with damaged content alone.
    fn give_up(&mut self, number: u64) {
        probe!("engine: damaged file kept");
        let file = in_use_name(number);
        tracing::error!(folder = self.core.folder, file, "damaged entries: the file is kept");
        self.stuck = number;
        self.core.lock().moving = None;
    }

    /// Gives the writer one record, and waits while it has plenty. False when the move was called off.
    async fn hand_over(&mut self, number: u64, origin: Origin, record: Record) -> bool {
        let mut record = Some(record);
        loop {
            {
                let mut state = self.core.lock();
                if state.stopped.is_some() {
                    return false;
                }
                let Some(moving) = state.moving.as_mut().filter(|m| m.file == number) else {
                    return false;
                };
                let waiting: usize = moving.records.iter().map(|(_, r)| r.len_bound()).sum();
                if waiting <= self.core.config.move_target()
                    && let Some(record) = record.take()
                {
                    moving.records.push_back((origin, record));
                    self.core.work.notify_one();
                    return true;
                }
                if state.pool.want.is_some_and(|want| !state.pool.serves(want)) {
                    // The writer waits for a file that only this task can bring: start again later.
                    state.moving = None;
                    self.core.work.notify_one();
                    return false;
                }
            }
            self.core.chores.notified().await;
            self.noticed = true;
        }
    }

    /// Takes `number`, which nothing needs, out of the log.
    async fn free(&self, number: u64) -> io::Result<()> {
        let mut superblock = self.core.superblock.lock().await;
        superblock.change(|content| content.head = number + 1).await?;
        drop(superblock);
        let (spare, keep) = {
            let mut state = self.core.lock();
            state.logs.remove(&number);
            state.index.forget(number);
            state.moving = None;
            state.pool.next_spare += 1;
            let few = state.pool.spares.len() <= RESERVES || state.pool.lacking().is_some();
            (state.pool.next_spare, few)
        };
        let disk = &*self.core.env.disk;
        let spare = retire(disk, &in_use_name(number), spare).await?;
        if keep {
            probe!("engine: file recycled");
            self.core.lock().pool.spares.push(spare);
        } else {
            spare.remove(disk).await?;
        }
        self.core.chores.notify_one();
        Ok(())
    }
}

/// Makes a spare of `size` bytes, durable.
pub(super) async fn new_spare(core: &Core, size: u64, pace: Pace<'_>) -> io::Result<Spare> {
    let number = {
        let mut state = core.lock();
        state.pool.next_spare += 1;
        state.pool.next_spare
    };
    Spare::create(&*core.env.disk, &*core.env.clock, number, size, pace).await
}

/// Gives `spare` the place `number` of the log: header, name and superblock, in that order.
pub(super) async fn prepare(core: &Core, spare: Spare, number: u64) -> io::Result<LogFile> {
    let incarnation = (core.env.entropy.draw() >> 64) as u64;
    let header = FileHeader { storage: core.storage, incarnation, number, size: 0 };
    let log = spare.prepare(&*core.env.disk, header).await?;
    let mut superblock = core.superblock.lock().await;
    superblock.change(|content| content.prepared = number).await?;
    Ok(log)
}
