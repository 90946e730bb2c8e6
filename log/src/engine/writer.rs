//! The task that writes batches: group commit with one batch in flight.
//!
//! A batch is all that is queued, up to a target, when the device is free; while it is under way the next one grows.
//! There is no timer but one: an idle disk writes one empty batch, which proves the last one durable.

use super::core::{Class, Core, Placed, State, class, classes, ledger};
use super::files::{FIRST_BATCH, LogFile, activate};
use super::format::{BATCH_OVERHEAD, BLOCK, Chain, Encoded, Record, encode};
use super::index::Spot;
use super::scan::place;
use crate::frame::Frame;
use crate::storage::Ticket;
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use thalweg_actor::{planted, probe};
use tokio::select;

/// What the next batch is made of.
#[derive(Default)]
struct Batch {
    tickets: Vec<Ticket>,
    records: Arc<Vec<Placed>>,
    /// The file that nothing depends on any more when this batch is durable.
    releases: Option<u64>,
}

enum Turn {
    Write(Batch),
    Activate(Arc<LogFile>, Class),
    Wait,
    Close,
}

/// See the module's header.
pub(super) struct Writer {
    core: Arc<Core>,
    log: Arc<LogFile>,
    /// What may use the file in use.
    class: Class,
    /// The file in use is the one of the start, and whether the disk is full is not known yet.
    is_first: bool,
    offset: u64,
    seq: u64,
    prev_crc: u32,
    /// Length of the last batch's frames; 0 after an empty one.
    last_len: usize,
}

impl Writer {
    /// A writer that goes on behind the batch `seq`, which ends at `offset` of `log`.
    pub(super) fn new(
        core: Arc<Core>,
        (log, class): (Arc<LogFile>, Class),
        offset: u64,
        seq: u64,
        crc: u32,
    ) -> Self {
        let is_first = true;
        Self { core, log, class, is_first, offset, seq, prev_crc: crc, last_len: 1 }
    }

    /// Writes until the engine is closed or the disk fails.
    pub(super) async fn run(mut self) {
        loop {
            if self.core.lock().stopped.is_some() {
                return;
            }
            self.gather().await;
            match self.turn() {
                Turn::Write(batch) => {
                    if let Err(error) = self.write(batch).await {
                        let name = super::files::in_use_name(self.log.number());
                        let at = format!("{}/{name} at offset {}", self.core.folder, self.offset);
                        return self.core.stop(format!("writing {at} failed: {error}"));
                    }
                }
                Turn::Activate(log, class) => {
                    // Because: a file left empty in the middle of the log looks like one that has lost its batches.
                    if self.offset == FIRST_BATCH {
                        probe!("engine: file left without a frame");
                        self.mark().await;
                        if self.core.lock().stopped.is_some() {
                            return;
                        }
                    }
                    if let Err(error) = self.turn_to(log, class).await {
                        let folder = &self.core.folder;
                        return self.core.stop(format!("renaming in {folder} failed: {error}"));
                    }
                }
                Turn::Wait => self.wait().await,
                Turn::Close => return self.close().await,
            }
        }
    }

    /// Lets tasks that are about to stage do so, if the batch would be much smaller than the one before.
    async fn gather(&self) {
        let queued = self.core.lock().queued_bytes;
        if queued > 0 && queued < self.last_len / 2 {
            YieldOnce(false).await;
        }
    }

    async fn wait(&mut self) {
        if self.last_len == 0 {
            return self.core.work.notified().await;
        }
        let clock = &self.core.env.clock;
        let idle = clock.sleep_until(clock.now().after(self.core.config.idle));
        let is_idle = select! {
            biased;
            () = self.core.work.notified() => false,
            () = idle => true,
        };
        if is_idle && self.has_room_for_mark() {
            self.mark().await;
        }
    }

    fn has_room_for_mark(&self) -> bool {
        self.log.header.size - self.offset >= BLOCK as u64
    }

    /// Writes an empty batch: its header proves that the one before is durable.
    async fn mark(&mut self) {
        if let Err(error) = self.write(Batch::default()).await {
            self.core.stop(format!("writing in {} failed: {error}", self.core.folder));
        }
    }

    fn turn(&mut self) -> Turn {
        let core = self.core.clone();
        let mut state = core.lock();
        if state.pool.is_complete() {
            self.class = Class::Normal;
            self.is_first = false;
        }
        if state.pool.full.is_none() {
            if state.hold(None) {
                core.announce(&state);
            }
        } else if std::mem::take(&mut self.is_first) {
            // The file of a start may be a part of the reserve.
            self.class = self.class.max(state.pool.class());
        }
        if self.class != Class::Normal {
            self.hold(&mut state);
        }
        let turn = self.choose(&mut state);
        if let Turn::Write(batch) = &turn {
            state.flight = batch.records.clone();
        }
        turn
    }

    /// Tells everybody that a full disk holds back what may not use the reserve.
    fn hold(&self, state: &mut State) {
        let reason = state.pool.full.clone();
        if reason.is_some() && state.hold(reason) {
            probe!("engine: frames held on a full disk");
            self.core.announce(state);
        }
    }

    /// Room for frames in the file in use: one block stays for a mark.
    fn room(&self) -> u64 {
        (self.log.header.size - self.offset).saturating_sub(BATCH_OVERHEAD + BLOCK as u64)
    }

    fn choose(&self, state: &mut State) -> Turn {
        let (mut batch, mut placed) = (Batch::default(), Vec::new());
        let mut room = self.room();
        let unmoved = self.choose_moves(state, &mut batch, &mut placed, &mut room);
        let target = self.core.config.batch_target as u64;
        let target = target.saturating_sub(self.room() - room).max(1);
        let missing = if self.class == Class::Normal {
            choose_all(state, &mut batch, &mut placed, room, target)
        } else {
            self.choose_privileged(state, &mut batch, &mut placed, room)
        };
        if !placed.is_empty() {
            batch.records = Arc::new(placed);
            return Turn::Write(batch);
        }
        let missing = match (unmoved, missing) {
            (Some((one, need)), Some((other, bytes))) => Some((one.max(other), need.max(bytes))),
            (unmoved, missing) => unmoved.or(missing),
        };
        let Some((wanted, bytes)) = missing else {
            state.pool.want = None;
            self.core.urgent.store(false, Ordering::Relaxed);
            return if state.closing { Turn::Close } else { Turn::Wait };
        };
        self.next_file(state, wanted, bytes)
    }

    /// The next file, if there is one that `wanted` may use; asks for it otherwise.
    fn next_file(&self, state: &mut State, wanted: Class, bytes: u64) -> Turn {
        let need = bytes + BATCH_OVERHEAD + FIRST_BATCH + BLOCK as u64;
        let want = Some((wanted, need));
        if state.pool.serves((wanted, need))
            && let Some((log, class)) = state.pool.next.take()
        {
            state.pool.want = None;
            self.core.urgent.store(false, Ordering::Relaxed);
            return Turn::Activate(log, class);
        }
        if state.pool.full.is_some() {
            if state.queue.iter().any(|(_, record)| class(record) == Class::Normal) {
                self.hold(state);
            }
            if state.closing {
                return Turn::Close;
            }
        }
        // Only news is worth a notice: the keeper tells this task of its failures, and would never rest otherwise.
        if state.pool.want != want {
            state.pool.want = want;
            self.core.urgent.store(true, Ordering::Relaxed);
            self.core.chores.notify_one();
        }
        Turn::Wait
    }

    /// Puts what moves in front. Says which file is missing if it does not fit.
    fn choose_moves(
        &self,
        state: &mut State,
        batch: &mut Batch,
        placed: &mut Vec<Placed>,
        room: &mut u64,
    ) -> Option<(Class, u64)> {
        let State { moving, facts, .. } = state;
        let moving = moving.as_mut().filter(|moving| !moving.released)?;
        let target = self.core.config.move_target() as u64;
        let mut taken = 0;
        while let Some((origin, record)) = moving.records.pop_front() {
            let len = record.len_bound() as u64;
            if len > *room || (taken > 0 && taken + len > target) {
                moving.records.push_front((origin, record));
                return (taken == 0).then_some((Class::Fact, len));
            }
            *room -= len;
            taken += len;
            placed.push((Some(origin), record));
        }
        if taken > 0 {
            self.core.chores.notify_one();
        }
        if moving.loaded {
            let again: Vec<Record> =
                facts.anchored(moving.file).into_iter().map(Record::Frame).collect();
            let len: u64 = again.iter().map(|record| record.len_bound() as u64).sum();
            if len > *room {
                return (taken == 0).then_some((Class::Fact, len));
            }
            *room -= len;
            placed.extend(again.into_iter().map(|record| (None, record)));
            batch.releases = Some(moving.file);
            moving.released = placed.is_empty();
            if placed.is_empty() {
                self.core.chores.notify_one();
            }
        }
        None
    }

    /// What may use the file in use, which is part of the reserve.
    fn choose_privileged(
        &self,
        state: &mut State,
        batch: &mut Batch,
        placed: &mut Vec<Placed>,
        mut room: u64,
    ) -> Option<(Class, u64)> {
        let mut missing: Option<(Class, u64)> = None;
        let mut blocked = BTreeSet::new();
        let mut kept = std::collections::VecDeque::new();
        let classes = classes(&state.queue);
        for ((ticket, record), class) in std::mem::take(&mut state.queue).into_iter().zip(classes) {
            let len = record.len_bound() as u64;
            let waits = ledger(&record).is_some_and(|ledger| blocked.contains(&ledger));
            if class >= self.class && !waits && len <= room {
                probe!("engine: reserve used");
                room -= len;
                state.queued_bytes -= record.len_bound();
                batch.tickets.push(ticket);
                placed.push((None, record));
                continue;
            }
            if !waits {
                blocked.extend(ledger(&record));
                if missing.is_none_or(|(wanted, _)| class > wanted) {
                    missing = Some((class, len));
                }
            }
            kept.push_back((ticket, record));
        }
        state.queue = kept;
        missing
    }

    async fn turn_to(&mut self, log: Arc<LogFile>, class: Class) -> io::Result<()> {
        activate(&*self.core.env.disk, log.number()).await?;
        let mut state = self.core.lock();
        state.logs.insert(log.number(), log.clone());
        state.active = log.number();
        state.half_full = false;
        drop(state);
        self.core.chores.notify_one();
        (self.log, self.class, self.offset) = (log, class, FIRST_BATCH);
        Ok(())
    }

    async fn write(&mut self, batch: Batch) -> io::Result<()> {
        let place = place(&self.log, self.offset);
        let (seq, durable_upto) = (self.seq + 1, self.seq);
        let chain = Chain { nonce: self.core.nonce, seq, prev_crc: self.prev_crc, durable_upto };
        let lens: Vec<u64> =
            batch.records.iter().map(|(_, record)| record.len_bound() as u64).collect();
        let encoded = if planted!("PB-D10") {
            encode(&place, &chain, &reused_buffers(&batch.records))
        } else {
            encode(&place, &chain, &batch.records)
        };
        let Encoded { chunks, len, crc } = encoded;
        if planted!("PB-L1") {
            self.settle(&batch, &lens);
        }
        match self.log.file.write_and_sync(self.offset, chunks).await {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && planted!("PB-D8") => {}
            Err(_) if planted!("PB-D4") => {}
            outcome => outcome?,
        }
        if !planted!("PB-L1") {
            self.settle(&batch, &lens);
        }
        self.last_len = usize::try_from(lens.iter().sum::<u64>()).unwrap_or(usize::MAX);
        (self.seq, self.prev_crc) = (seq, crc);
        self.offset += len;
        self.after_batch();
        Ok(())
    }

    /// Announces the batch that has just become durable.
    fn settle(&self, batch: &Batch, lens: &[u64]) {
        if batch.records.is_empty() {
            return;
        }
        let mut state = self.core.lock();
        let spot = Spot { file: self.log.number(), offset: self.offset, slot: 0 };
        state.settle(spot, &batch.tickets, lens);
        if cfg!(debug_assertions) && cfg!(madsim) {
            state.check();
        }
        if let Some(moving) = &mut state.moving
            && batch.releases == Some(moving.file)
        {
            moving.released = true;
        }
        self.core.announce(&state);
        let trims = |(_, record): &Placed| matches!(record, Record::Frame(Frame::Trim { .. }));
        if batch.releases.is_some() || batch.records.iter().any(trims) {
            self.core.chores.notify_one();
        }
    }

    fn after_batch(&self) {
        if self.offset < self.log.header.size / 2 {
            return;
        }
        let mut state = self.core.lock();
        if !std::mem::replace(&mut state.half_full, true) {
            self.core.chores.notify_one();
        }
    }

    /// Marks the storage as cleanly stopped.
    async fn close(mut self) {
        if self.last_len > 0 && self.has_room_for_mark() {
            self.mark().await;
        }
        if self.core.lock().stopped.is_some() {
            return;
        }
        let clean = self.seq;
        let mut superblock = self.core.superblock.lock().await;
        let outcome = superblock.change(|content| content.clean = clean).await;
        drop(superblock);
        match outcome {
            Ok(()) => self.core.end("shut down".to_owned()),
            Err(error) => self.core.stop(format!("writing a superblock failed: {error}")),
        }
    }
}

/// Everything in order, as much as fits.
fn choose_all(
    state: &mut State,
    batch: &mut Batch,
    placed: &mut Vec<Placed>,
    mut room: u64,
    target: u64,
) -> Option<(Class, u64)> {
    let mut taken = 0;
    while let Some((ticket, record)) = state.queue.pop_front() {
        let (class, len) = (class(&record), record.len_bound());
        let bytes = len as u64;
        if bytes > room || (taken > 0 && taken + bytes > target) {
            state.queue.push_front((ticket, record));
            return Some(if state.pool.full.is_some() {
                privileged(state)
            } else {
                (class, bytes)
            });
        }
        room -= bytes;
        taken += bytes;
        state.queued_bytes -= len;
        batch.tickets.push(ticket);
        placed.push((None, record));
    }
    None
}

/// The most privileged frame that waits behind no other of its ledger: it decides which reserve may be opened.
fn privileged(state: &State) -> (Class, u64) {
    let mut blocked = BTreeSet::new();
    let mut wanted = (Class::Normal, 0);
    for ((_, record), class) in state.queue.iter().zip(classes(&state.queue)) {
        let waits = ledger(record).is_some_and(|ledger| blocked.contains(&ledger));
        if !waits && (class > wanted.0 || wanted.1 == 0) {
            wanted = (class, record.len_bound() as u64);
        }
        if class == Class::Normal {
            blocked.extend(ledger(record));
        }
    }
    wanted
}

/// What a buffer that is filled again before it was written would leave of a batch.
fn reused_buffers(records: &[Placed]) -> Vec<Placed> {
    let mut records = records.to_vec();
    let mut last = None;
    for (_, record) in records.iter_mut().rev() {
        if let Record::Frame(Frame::Entry(entry)) = record {
            let payload = last.get_or_insert_with(|| entry.payload.clone());
            entry.payload = payload.clone();
        }
    }
    records
}

/// Gives every other ready task one turn.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
