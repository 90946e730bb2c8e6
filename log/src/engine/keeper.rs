//! The task that keeps files at hand: spares, the next file, and the space of files that are not needed any more.
//!
//! A file is freed from the front of the log only. What is live in it is moved to the end first; when that is durable
//! the superblock names the new front, and only then does the file lose its name.
//! Nothing moves while more than a quarter of the first file is live, unless half of all files is dead.

use super::core::{Class, Core, Move, RESERVES};
use super::files::{LogFile, Pace, Spare, in_use_name, retire};
use super::format::{BLOCK, FileHeader, Origin, Record, payload_is_sound};
use super::scan::{Found, Reader};
use crate::frame::Frame;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use thalweg_actor::probe;
use tokio::select;

/// See the module's header.
pub(super) struct Keeper {
    core: Arc<Core>,
    /// The file that cannot be freed: something live in it cannot be read.
    stuck: u64,
}

/// What to do about the supply of files.
enum Supply {
    /// Open the reserve: a spare becomes the next file.
    Reserve,
    /// Make a spare.
    Spare,
    /// Prepare a next file of this many bytes.
    Next(u64),
    /// The prepared file is too small.
    Enlarge(u64),
    Nothing,
}

impl Keeper {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, stuck: 0 }
    }

    /// Works until the engine stops.
    pub(super) async fn run(mut self) {
        loop {
            let outcome = match self.supply().await {
                Ok(retry) => self.reclaim().await.map(|()| retry),
                Err(error) => Err(error),
            };
            let retry = match outcome {
                Ok(retry) => retry,
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
            self.wait(retry).await;
        }
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
            let outcome = match self.missing() {
                Supply::Reserve => self.open_reserve().await,
                Supply::Spare => self.make_spare(self.core.config.reserve).await,
                Supply::Next(size) => self.make_next(size).await,
                Supply::Enlarge(size) => self.enlarge(size).await,
                Supply::Nothing => return Ok(None),
            };
            match outcome {
                Ok(()) => self.core.work.notify_one(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if self.is_full().await {
                        return Ok(Some(self.core.config.full_retry));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Notes that no file can be had. False if the reserve may be opened now.
    async fn is_full(&self) -> bool {
        let free = self.core.env.disk.space().await.map_or(0, |space| space.free);
        let mut state = self.core.lock();
        let folder = &self.core.folder;
        let reason = format!("the disk of {folder} is full ({free} bytes are free)");
        if state.pool.full.is_none() {
            tracing::warn!(reason, "appends are held");
        }
        state.pool.full = Some(Arc::from(reason));
        if state.pool.spares.is_empty() && state.moving.as_ref().is_some_and(|m| !m.released) {
            state.moving = None;
        }
        self.core.work.notify_one();
        let opens = state.pool.want.is_some_and(|(class, _)| class > Class::Normal);
        !(opens && state.pool.next.is_none() && !state.pool.spares.is_empty())
    }

    fn missing(&self) -> Supply {
        let mut state = self.core.lock();
        let active = state.logs.get(&state.active).map_or(0, |log| log.header.size);
        let half_full = state.half_full;
        let pool = &mut state.pool;
        if pool.full.is_some()
            && pool.next.is_none()
            && let Some((class, _)) = pool.want
            && (class == Class::Fact && !pool.spares.is_empty()
                || class == Class::Exempt && pool.spares.len() >= RESERVES)
        {
            return Supply::Reserve;
        }
        if pool.spares.len() < RESERVES {
            return Supply::Spare;
        }
        let wanted = pool.want.map_or(0, |(_, bytes)| bytes);
        match &mut pool.next {
            None if half_full || pool.want.is_some() => {
                let config = &self.core.config;
                let size = (active * 2).clamp(config.file_first, config.file_max);
                Supply::Next(size.max(wanted))
            }
            None => {
                pool.full = None;
                Supply::Nothing
            }
            Some((log, _)) if log.header.size < wanted => Supply::Enlarge(wanted),
            Some((_, class)) => {
                pool.full = None;
                *class = Class::Normal;
                Supply::Nothing
            }
        }
    }

    fn pace(&self) -> Pace {
        let urgent = self.core.urgent.load(Ordering::Relaxed);
        let pause = if urgent { Duration::ZERO } else { self.core.config.allocate_pause };
        Pace { step: self.core.config.allocate_step, pause }
    }

    async fn make_spare(&self, size: u64) -> io::Result<()> {
        let number = {
            let mut state = self.core.lock();
            state.pool.next_spare += 1;
            state.pool.next_spare
        };
        let env = &self.core.env;
        let spare = Spare::create(&*env.disk, &*env.clock, number, size, self.pace()).await?;
        self.core.lock().pool.spares.push(spare);
        Ok(())
    }

    async fn make_next(&self, size: u64) -> io::Result<()> {
        let extra = {
            let mut state = self.core.lock();
            let more = state.pool.spares.len() > RESERVES;
            if more { state.pool.spares.pop() } else { None }
        };
        let mut spare = if let Some(spare) = extra {
            spare
        } else {
            self.make_spare(size).await?;
            let spare = self.core.lock().pool.spares.pop();
            spare.expect("only the keeper takes spares")
        };
        let grown = spare.grow(&*self.core.env.clock, size, self.pace()).await;
        if let Err(error) = grown {
            self.core.lock().pool.spares.push(spare);
            return Err(error);
        }
        self.prepare(spare).await
    }

    async fn open_reserve(&self) -> io::Result<()> {
        probe!("engine: reserve opened");
        let (spare, wanted) = {
            let mut state = self.core.lock();
            let wanted = state.pool.want.map_or(0, |(_, bytes)| bytes);
            (state.pool.spares.pop(), wanted)
        };
        let Some(mut spare) = spare else { return Ok(()) };
        if spare.size < wanted {
            let grown = spare.grow(&*self.core.env.clock, wanted, self.pace()).await;
            if let Err(error) = grown {
                // Nothing can be done for this frame before there is space; others may still pass.
                let mut state = self.core.lock();
                state.pool.spares.push(spare);
                state.pool.want = None;
                return Err(error);
            }
        }
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

    /// Frees the first files of the log as far as that is worth while.
    async fn reclaim(&mut self) -> io::Result<()> {
        loop {
            if let Some(file) = self.released() {
                self.free(file).await?;
                continue;
            }
            let Some(log) = self.candidate() else { return Ok(()) };
            self.load(&log).await?;
            if self.released().is_none() {
                return Ok(());
            }
        }
    }

    fn released(&self) -> Option<u64> {
        let mut state = self.core.lock();
        let file = state.moving.as_ref().filter(|moving| moving.released)?.file;
        if state.index.live(file).entries > 0 {
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
        if number == state.active || number == self.stuck {
            return None;
        }
        let (mut size, mut live) = (0, 0);
        for (number, log) in state.logs.iter().filter(|(number, _)| **number != state.active) {
            size += log.header.size;
            live += state.index.live(*number).bytes;
        }
        let own = state.index.live(number).bytes;
        if own * 4 > log.header.size && live * 2 > size {
            return None;
        }
        state.moving =
            Some(Move { file: number, records: VecDeque::new(), loaded: false, released: false });
        Some(log)
    }

    /// Reads what is live in `log` and hands it to the writer.
    async fn load(&mut self, log: &Arc<LogFile>) -> io::Result<()> {
        let number = log.number();
        let batches = self.core.lock().index.batches(number);
        let mut reader = Reader::new(log);
        for (offset, slots) in batches {
            let found = reader.batch(offset).await?;
            let Found::Batch(front) = found else {
                self.give_up(number);
                return Ok(());
            };
            for slot_at in slots {
                let slot_index = slot_at as usize;
                let slot = front.header.slots[slot_index];
                let Ok((origin, mut record)) = front.header.record(slot_index, &front.bytes) else {
                    self.give_up(number);
                    return Ok(());
                };
                let payload = log.file.read_at(offset + slot.payload_at, slot.payload_len).await?;
                if !payload_is_sound(&slot, &payload) {
                    self.give_up(number);
                    return Ok(());
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
                    return Ok(());
                }
            }
        }
        if let Some(moving) =
            self.core.lock().moving.as_mut().filter(|moving| moving.file == number)
        {
            moving.loaded = true;
        }
        self.core.work.notify_one();
        Ok(())
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
    async fn hand_over(&self, number: u64, origin: Origin, record: Record) -> bool {
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
                if waiting <= self.core.config.batch_target
                    && let Some(record) = record.take()
                {
                    moving.records.push_back((origin, record));
                    self.core.work.notify_one();
                    return true;
                }
                if state.pool.want.is_some() && state.pool.next.is_none() {
                    // The writer waits for a file that only this task can bring: start again later.
                    state.moving = None;
                    self.core.chores.notify_one();
                    return false;
                }
            }
            self.core.chores.notified().await;
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
            (state.pool.next_spare, state.pool.spares.len() <= RESERVES)
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

/// Gives `spare` the place `number` of the log: header, name and superblock, in that order.
pub(super) async fn prepare(core: &Core, spare: Spare, number: u64) -> io::Result<LogFile> {
    let incarnation = (core.env.entropy.draw() >> 64) as u64;
    let header = FileHeader { storage: core.storage, incarnation, number, size: 0 };
    let log = spare.prepare(&*core.env.disk, header).await?;
    let mut superblock = core.superblock.lock().await;
    superblock.change(|content| content.prepared = number).await?;
    Ok(log)
}
