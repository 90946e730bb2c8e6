//! What the engine's tasks and callers share.
//!
//! Invariants
//! 1. Every staged ticket is either durable, in flight, or in the queue; the queue is in order of tickets.
//! 2. A ticket that is announced as durable lies in a batch whose sync has returned.
//! 3. While two spares cannot be kept, only frames that may use the reserve are written beyond the file in use.

use super::config::Config;
use super::facts::Facts;
use super::files::{LogFile, Spare};
use super::format::{Origin, Record};
use super::index::{Index, Spot};
use super::read::Fronts;
use super::superblock::Copies;
use crate::frame::Frame;
use crate::ledger::Stopped;
use crate::storage::{StorageProgress, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use thalweg_actor::env::Env;
use thalweg_actor::probe;
use thalweg_types::id::{LedgerId, StorageUuid};
use tokio::sync::{Notify, watch};

/// What a frame may use of a full disk, and what a file may take: a file takes its own class and those above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Whatever a client waits for; the files of normal times.
    Normal,
    /// Entries that relieve a full disk; the first reserve.
    Exempt,
    /// Facts and what moves; the last reserve.
    Fact,
}

/// What `record` may use.
pub(super) fn class(record: &Record) -> Class {
    match record {
        Record::Frame(Frame::Entry(entry)) if entry.exempt => Class::Exempt,
        Record::Frame(Frame::Entry(_)) => Class::Normal,
        _ => Class::Fact,
    }
}

/// The ledger whose frames must keep their order with `record`.
pub(super) fn ledger(record: &Record) -> Option<LedgerId> {
    match record {
        Record::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) => Some(entry.ledger),
        Record::Frame(Frame::Fence { ledger, .. } | Frame::Loss { ledger, .. }) => Some(*ledger),
        Record::Frame(Frame::State(state)) => Some(state.ledger),
        _ => None,
    }
}

/// A frame with its former place, if it has one.
pub(super) type Placed = (Option<Origin>, Record);

/// The files that are not in use.
#[derive(Default)]
pub(super) struct Pool {
    pub next: Option<(Arc<LogFile>, Class)>,
    pub spares: Vec<Spare>,
    /// How large each of the [`RESERVES`] spares should be, in bytes.
    pub reserve: u64,
    /// What the writer waits for: a file that takes this class and has room for so many bytes.
    pub want: Option<(Class, u64)>,
    /// Why no more files can be had.
    pub full: Option<Arc<str>>,
    /// The highest number of a file in use or prepared.
    pub newest: u64,
    /// The number of the next spare.
    pub next_spare: u64,
}

/// How many files are kept for a full disk.
pub(super) const RESERVES: usize = 2;

impl Pool {
    /// True while nothing has to be held back.
    pub(super) fn is_complete(&self) -> bool {
        self.full.is_none() && self.lacking().is_none()
    }

    /// The spares that count as reserves: a start on a full disk may have taken up to half of one.
    pub(super) fn reserves(&self) -> usize {
        self.spares.iter().filter(|spare| spare.size >= self.reserve / 2).count()
    }

    /// How many bytes the next spare lacks that should be made or grown; `None` if all are there.
    pub(super) fn lacking(&self) -> Option<u64> {
        let whole = self.spares.iter().filter(|spare| spare.size >= self.reserve).count();
        let part = self.spares.iter().map(|spare| spare.size).filter(|size| *size < self.reserve);
        (whole < RESERVES).then(|| self.reserve - part.max().unwrap_or(0))
    }

    /// What a file may take that leaves the present spares as they are.
    pub(super) fn class(&self) -> Class {
        match self.reserves() {
            0 => Class::Fact,
            1 => Class::Exempt,
            _ => Class::Normal,
        }
    }

    /// True if the next file takes frames of the class and length of `want`.
    pub(super) fn serves(&self, (wanted, bytes): (Class, u64)) -> bool {
        let next = self.next.as_ref();
        next.is_some_and(|(log, class)| *class <= wanted && log.header.size >= bytes)
    }

    /// True if a full disk lets the writer have a spare for what it waits for.
    pub(super) fn opens_reserve(&self) -> bool {
        let admits = match self.want {
            Some((Class::Fact, _)) => !self.spares.is_empty(),
            Some((Class::Exempt, _)) => self.reserves() >= RESERVES,
            Some((Class::Normal, _)) | None => false,
        };
        self.full.is_some() && self.next.is_none() && admits
    }

    /// Takes the best spare for a frame of the reserve that needs `bytes` bytes: the smallest that is large enough,
    /// or the largest of all.
    pub(super) fn take_reserve(&mut self, bytes: u64) -> Option<Spare> {
        let sizes = self.spares.iter().map(|spare| spare.size).enumerate();
        let (at, _) = sizes.min_by_key(|(_, size)| (*size < bytes, size.abs_diff(bytes)))?;
        Some(self.spares.swap_remove(at))
    }

    /// Takes the largest spare that is no part of the reserve.
    pub(super) fn take_extra(&mut self) -> Option<Spare> {
        let whole = self.spares.iter().filter(|spare| spare.size >= self.reserve).count();
        let extra = |size: u64| whole > RESERVES || size < self.reserve && whole == RESERVES;
        let sizes = self.spares.iter().map(|spare| spare.size).enumerate();
        let (at, _) = sizes.filter(|(_, size)| extra(*size)).max_by_key(|(_, size)| *size)?;
        Some(self.spares.swap_remove(at))
    }

    /// Takes the smallest spare of at least `bytes` bytes that is too small to count as a reserve.
    pub(super) fn take_scrap(&mut self, bytes: u64) -> Option<Spare> {
        let sizes = self.spares.iter().map(|spare| spare.size).enumerate();
        let scraps = sizes.filter(|(_, size)| (bytes..self.reserve / 2).contains(size));
        let (at, _) = scraps.min_by_key(|(_, size)| *size)?;
        Some(self.spares.swap_remove(at))
    }

    /// Takes the largest of the spares that should be made whole.
    pub(super) fn take_part(&mut self) -> Option<Spare> {
        let sizes = self.spares.iter().map(|spare| spare.size).enumerate();
        let parts = sizes.filter(|(_, size)| *size < self.reserve);
        let (at, _) = parts.max_by_key(|(_, size)| *size)?;
        Some(self.spares.swap_remove(at))
    }
}

/// A file whose live content is being moved to the end of the log.
pub(super) struct Move {
    pub file: u64,
    pub records: VecDeque<(Origin, Record)>,
    /// Everything that is live has been put into `records`.
    pub loaded: bool,
    /// Nothing of the file is needed any more, durably.
    pub released: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub staged: u64,
    pub queue: VecDeque<(Ticket, Record)>,
    pub queued_bytes: usize,
    pub flight: Arc<Vec<Placed>>,
    /// Every frame up to this one lies in a batch whose sync has returned.
    pub durable: Ticket,
    pub passed: BTreeSet<Ticket>,
    pub index: Index,
    pub facts: Facts,
    pub logs: BTreeMap<u64, Arc<LogFile>>,
    pub active: u64,
    pub half_full: bool,
    pub pool: Pool,
    pub moving: Option<Move>,
    /// Files that the start found damaged: they stay while any ledger may have lost something by it.
    pub damaged: BTreeSet<u64>,
    pub held: Option<Arc<str>>,
    pub stopped: Option<Arc<str>>,
    pub closing: bool,
}

pub(super) struct Core {
    pub env: Env,
    pub config: Config,
    pub folder: String,
    pub storage: StorageUuid,
    pub mount_seq: u64,
    pub nonce: u64,
    pub superblock: tokio::sync::Mutex<Copies>,
    pub state: Mutex<State>,
    /// Wakes the writer.
    pub work: Notify,
    /// Wakes the keeper.
    pub chores: Notify,
    /// Somebody waits for a file.
    pub urgent: AtomicBool,
    pub progress: watch::Sender<StorageProgress>,
    pub ended: watch::Sender<bool>,
    pub fronts: Mutex<Fronts>,
    /// The storage cannot vouch for ledgers that it does not know.
    pub limbo: AtomicBool,
}

impl Core {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the engine's state panics")
    }

    /// Ends the engine because of a failure: nothing beyond what is announced may be relied on.
    pub(super) fn stop(&self, reason: String) {
        if self.lock().stopped.is_none() {
            tracing::error!(folder = self.folder, reason, "the disk log has stopped");
        }
        self.end(reason);
    }

    /// Ends the engine.
    pub(super) fn end(&self, reason: String) {
        let mut state = self.lock();
        state.stopped.get_or_insert_with(|| Arc::from(reason));
        self.announce(&state);
        drop(state);
        self.work.notify_one();
        self.chores.notify_one();
        self.ended.send_replace(true);
    }

    /// Tells everybody how far the storage has come.
    pub(super) fn announce(&self, state: &State) {
        let durable = state.durable;
        let passed =
            if state.passed.is_empty() { Arc::default() } else { Arc::new(state.passed.clone()) };
        let (held, stopped) = (state.held.clone(), state.stopped.clone());
        self.progress.send_replace(StorageProgress { durable, passed, held, stopped });
    }

    /// See [`crate::storage::Storage::end_limbo`].
    pub(super) async fn end_limbo(&self) -> Result<bool, Stopped> {
        let mut superblock = self.superblock.lock().await;
        {
            let state = self.lock();
            if let Some(reason) = state.stopped.clone() {
                return Err(Stopped { reason });
            }
            if state.facts.has_doubt() {
                return Ok(false);
            }
        }
        if superblock.content().in_limbo() {
            let change = superblock.change(|content| content.limbo_over = content.limbo_from);
            if let Err(error) = change.await {
                let reason = format!("writing a superblock failed: {error}");
                self.stop(reason.clone());
                return Err(Stopped { reason: Arc::from(reason) });
            }
            probe!("engine: limbo over");
        }
        self.limbo.store(false, Ordering::Release);
        drop(superblock);
        self.chores.notify_one();
        Ok(true)
    }

    pub(super) fn stage(&self, frame: Frame) -> Result<Ticket, Stopped> {
        let mut state = self.lock();
        if let Some(reason) = state.stopped.clone() {
            return Err(Stopped { reason });
        }
        if state.closing {
            return Err(Stopped { reason: Arc::from("the storage is shutting down") });
        }
        state.staged += 1;
        let ticket = Ticket(state.staged);
        let record = Record::Frame(frame);
        state.queued_bytes += record.len_bound();
        state.queue.push_back((ticket, record));
        // On a full disk the writer may be waiting although there is a queue, and this frame may pass it.
        let wakes = state.queue.len() == 1 || state.pool.full.is_some();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        Ok(ticket)
    }
}

/// What each queued frame may use. An entry that cannot be passed by an exempt one of its ledger goes with it.
pub(super) fn classes(queue: &VecDeque<(Ticket, Record)>) -> Vec<Class> {
    let mut drawn = BTreeSet::new();
    let mut found = Vec::with_capacity(queue.len());
    for (_, record) in queue.iter().rev() {
        let class = match class(record) {
            Class::Normal if ledger(record).is_some_and(|ledger| drawn.contains(&ledger)) => {
                Class::Exempt
            }
            class => class,
        };
        if class == Class::Exempt {
            drawn.extend(ledger(record));
        }
        found.push(class);
    }
    found.reverse();
    found
}

impl State {
    /// Holds back what may not use the reserve, or says that nothing is held any more. True if that is news.
    pub(super) fn hold(&mut self, held: Option<Arc<str>>) -> bool {
        let news = self.held.is_some() != held.is_some();
        if news {
            self.held = held;
        }
        news
    }

    /// Takes in a durable batch of file `file`.
    pub(super) fn settle(&mut self, spot: Spot, tickets: &[Ticket], lens: &[u64]) {
        let batch = std::mem::take(&mut self.flight);
        for (at, (origin, record)) in batch.iter().enumerate() {
            let Record::Frame(frame) = record else { continue };
            if origin.is_none() {
                self.facts.apply(frame, spot.file);
            }
            match frame {
                Frame::Entry(entry) | Frame::Repair { entry, .. } => {
                    let first = self.facts.first_kept(entry.ledger);
                    if first.is_some_and(|first| entry.entry >= first) {
                        let number = u32::try_from(at).expect("bounded by the batch");
                        let here = Spot { slot: number, ..spot };
                        self.index.insert(entry.ledger, entry.entry, here, lens[at]);
                    }
                }
                Frame::Trim { container, keep_from } => self.index.trim(*container, *keep_from),
                _ => {}
            }
        }
        if let (Some(first), Some(last)) = (tickets.first(), tickets.last())
            && first.0 == self.durable.0 + 1
            && last.0 == self.durable.0 + tickets.len() as u64
        {
            self.durable = *last;
        } else {
            self.passed.extend(tickets);
        }
        while let Some(next) = self.passed.first().copied()
            && next.0 == self.durable.0 + 1
        {
            self.durable = next;
            self.passed.pop_first();
        }
    }

    /// Asserts the invariants of everything in it.
    pub(super) fn check(&self) {
        let mut last = Ticket(0);
        for (ticket, _) in &self.queue {
            assert!(*ticket > last && ticket.0 <= self.staged, "the queue is in order");
            last = *ticket;
        }
        assert!(self.passed.iter().all(|ticket| *ticket > self.durable));
        self.index.check();
        self.facts.check();
    }
}
