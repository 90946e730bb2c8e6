//! A storage in memory whose durability the test controls.

use crate::engine::facts::Facts;
use crate::frame::{EntryFrame, Frame};
use crate::ledger::{ReadError, Stopped};
use crate::storage::{Recovered, Storage, StorageProgress, StoredEntry, Ticket};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use thalweg_actor::BoxFuture;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, StorageUuid};
use tokio::sync::watch;

struct State {
    frames: Vec<Frame>,
    durable: usize,
    entries: BTreeMap<(LedgerId, EntryId), EntryFrame>,
    damaged: BTreeSet<(LedgerId, EntryId)>,
    facts: Facts,
    limbo: bool,
    held: Option<Arc<str>>,
    stopped: Option<Arc<str>>,
}

/// A [`Storage`] in memory. In *auto* mode every frame is durable as soon as it is staged; in *manual* mode only
/// [`MemoryStorage::make_durable`] makes it so.
pub struct MemoryStorage {
    uuid: StorageUuid,
    mount_seq: u64,
    auto: bool,
    recovered: Arc<Recovered>,
    state: Mutex<State>,
    progress: watch::Sender<StorageProgress>,
}

impl MemoryStorage {
    /// An empty storage on which every frame is durable at once.
    pub fn auto() -> Arc<Self> {
        Arc::new(Self::with_frames(true, 1, Vec::new(), BTreeSet::new()))
    }

    /// An empty storage on which the test decides what is durable.
    pub fn manual() -> Arc<Self> {
        Arc::new(Self::with_frames(false, 1, Vec::new(), BTreeSet::new()))
    }

    fn with_frames(
        auto: bool,
        mount_seq: u64,
        frames: Vec<Frame>,
        damaged: BTreeSet<(LedgerId, EntryId)>,
    ) -> Self {
        let mut facts = Facts::default();
        let mut entries = BTreeMap::new();
        for frame in &frames {
            facts.apply(frame, 0);
            if let Frame::Entry(entry) | Frame::Repair { entry, .. } = frame {
                entries.insert((entry.ledger, entry.entry), entry.clone());
            }
        }
        let durable = frames.len();
        let recovered = Arc::new(facts.recovered(false));
        let (held, stopped) = (None, None);
        let state = State { frames, durable, entries, damaged, facts, limbo: false, held, stopped };
        let (progress, _) = watch::channel(StorageProgress {
            durable: Ticket(durable as u64),
            ..StorageProgress::default()
        });
        let uuid = StorageUuid(0x7e57);
        Self { uuid, mount_seq, auto, recovered, state: Mutex::new(state), progress }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the storage")
    }

    /// The last staged ticket.
    pub fn staged(&self) -> Ticket {
        Ticket(self.lock().frames.len() as u64)
    }

    /// Everything that was ever staged, in order; the frame of ticket `t` is at `t - 1`.
    pub fn frames(&self) -> Vec<Frame> {
        self.lock().frames.clone()
    }

    /// Makes every frame up to `upto` durable and says so.
    pub fn make_durable(&self, upto: Ticket) {
        let mut state = self.lock();
        let upto = usize::try_from(upto.0).unwrap_or(usize::MAX).min(state.frames.len());
        if state.stopped.is_some() || upto <= state.durable {
            return;
        }
        for at in state.durable..upto {
            let frame = state.frames[at].clone();
            state.facts.apply(&frame, 0);
        }
        state.durable = upto;
        self.announce(&state);
    }

    fn announce(&self, state: &State) {
        self.progress.send_replace(StorageProgress {
            durable: Ticket(state.durable as u64),
            held: state.held.clone(),
            stopped: state.stopped.clone(),
            ..StorageProgress::default()
        });
    }

    /// Says that frames are held for `reason`, or no more. What is durable stays the test's decision.
    pub fn hold(&self, reason: Option<&str>) {
        let mut state = self.lock();
        state.held = reason.map(Arc::from);
        self.announce(&state);
    }

    /// Ends the storage, as a failed sync does.
    pub fn fail(&self, reason: &str) {
        let mut state = self.lock();
        state.stopped = Some(Arc::from(reason));
        self.announce(&state);
    }

    /// Makes every later read of that entry UNKNOWN, also after [`MemoryStorage::restart`], until it is written again.
    pub fn damage(&self, ledger: LedgerId, entry: EntryId) {
        self.lock().damaged.insert((ledger, entry));
    }

    /// The storage as a start finds it that met damage which may have swallowed anything up to the given epochs:
    /// nothing is vouched for.
    pub fn restart_in_limbo(&self, upto: &BTreeMap<ContainerId, Epoch>) -> Arc<Self> {
        let (frames, damaged) = {
            let state = self.lock();
            (state.frames[..state.durable].to_vec(), state.damaged.clone())
        };
        let mut storage = Self::with_frames(self.auto, self.mount_seq + 1, frames, damaged);
        {
            let mut state = storage.lock();
            state.facts.doubt_all();
            state.limbo = true;
            for (container, epoch) in upto {
                let floor = Frame::Floor { container: *container, epoch: *epoch };
                state.facts.apply(&floor, 0);
            }
        }
        let mut recovered = storage.lock().facts.recovered(true);
        recovered.limbo_upto = Some(upto.clone());
        storage.recovered = Arc::new(recovered);
        Arc::new(storage)
    }

    /// The storage as a restart after a power loss finds it: what is durable, and nothing else.
    pub fn restart(&self) -> Arc<Self> {
        let durable = Ticket(self.lock().durable as u64);
        self.restart_with(durable)
    }

    /// The storage as it comes back from a copy: with all its content, but fewer mounts than it had.
    pub fn rolled_back(&self) -> Arc<Self> {
        let again = self.restart();
        let state = again.lock();
        let (frames, damaged) = (state.frames.clone(), state.damaged.clone());
        let mount_seq = self.mount_seq.saturating_sub(1);
        Arc::new(Self::with_frames(self.auto, mount_seq, frames, damaged))
    }

    /// The same, but that staged frames up to `upto` have survived as well.
    pub fn restart_with(&self, upto: Ticket) -> Arc<Self> {
        let state = self.lock();
        let upto = usize::try_from(upto.0).unwrap_or(usize::MAX).min(state.frames.len());
        let frames = state.frames[..upto.max(state.durable)].to_vec();
        Arc::new(Self::with_frames(self.auto, self.mount_seq + 1, frames, state.damaged.clone()))
    }
}

impl State {
    fn find(&self, ledger: LedgerId, entry: EntryId) -> Result<Option<&EntryFrame>, ReadError> {
        let address = Address::new(ledger.epoch, entry);
        if self.facts.first_kept(ledger).is_none_or(|first| entry < first) {
            return Err(ReadError::Trimmed { address });
        }
        if self.damaged.contains(&(ledger, entry)) {
            let reason = Arc::from("damaged by the test");
            return Err(ReadError::Unknown { address, reason });
        }
        let found = self.entries.get(&(ledger, entry));
        let last = LedgerId { container: ledger.container, epoch: ledger.epoch };
        let beyond = self.entries.range((last, entry)..=(last, EntryId(u64::MAX))).next().is_some();
        if found.is_none() && beyond {
            let reason = Arc::from("there is a hole in the ledger");
            return Err(ReadError::Unknown { address, reason });
        }
        Ok(found)
    }

    fn headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let mut found = Vec::new();
        let mut at = from;
        while found.len() < max {
            match self.find(ledger, at) {
                Ok(Some(entry)) => found.push(StoredEntry {
                    entry: at,
                    headers: entry.headers.clone(),
                    payload_len: entry.payload.iter().map(Bytes::len).sum(),
                }),
                Ok(None) => break,
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            }
            at = at.next();
        }
        Ok(found)
    }

    fn payload(&self, ledger: LedgerId, entry: EntryId) -> Result<Bytes, ReadError> {
        let address = Address::new(ledger.epoch, entry);
        let found = self.find(ledger, entry)?.ok_or_else(|| ReadError::Unknown {
            address,
            reason: Arc::from("the entry is not here"),
        })?;
        let mut payload = BytesMut::with_capacity(found.content_len());
        found.payload.iter().for_each(|chunk| payload.extend_from_slice(chunk));
        Ok(payload.freeze())
    }
}

impl Storage for MemoryStorage {
    fn uuid(&self) -> StorageUuid {
        self.uuid
    }

    fn mount_seq(&self) -> u64 {
        self.mount_seq
    }

    fn recovered(&self) -> Arc<Recovered> {
        self.recovered.clone()
    }

    fn stage(&self, frame: Frame) -> Result<Ticket, Stopped> {
        let ticket = {
            let mut state = self.lock();
            if let Some(reason) = state.stopped.clone() {
                return Err(Stopped { reason });
            }
            if let Frame::Entry(entry) | Frame::Repair { entry, .. } = &frame {
                state.entries.insert((entry.ledger, entry.entry), entry.clone());
                state.damaged.remove(&(entry.ledger, entry.entry)); // It lies elsewhere now.
            }
            state.frames.push(frame);
            Ticket(state.frames.len() as u64)
        };
        if self.auto {
            self.make_durable(ticket);
        }
        Ok(ticket)
    }

    fn progress(&self) -> watch::Receiver<StorageProgress> {
        self.progress.subscribe()
    }

    fn headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        Box::pin(async move { self.lock().headers(ledger, from, max) })
    }

    fn payload(&self, ledger: LedgerId, entry: EntryId) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move { self.lock().payload(ledger, entry) })
    }

    fn held(&self) -> (Vec<(LedgerId, Range<u64>)>, u64) {
        let state = self.lock();
        let (mut held, mut bytes): (Vec<(LedgerId, Range<u64>)>, u64) = (Vec::new(), 0);
        for ((ledger, entry), frame) in &state.entries {
            if state.facts.first_kept(*ledger).is_none_or(|first| *entry < first) {
                continue;
            }
            bytes += frame.content_len() as u64;
            match held.last_mut().filter(|(of, run)| of == ledger && run.end == entry.0) {
                Some((_, run)) => run.end += 1,
                None => held.push((*ledger, entry.0..entry.0 + 1)),
            }
        }
        (held, bytes)
    }

    fn in_limbo(&self) -> bool {
        self.lock().limbo
    }

    fn end_limbo(&self) -> BoxFuture<'_, Result<bool, Stopped>> {
        let mut state = self.lock();
        let over = !state.facts.has_doubt();
        state.limbo &= !over;
        Box::pin(std::future::ready(Ok(over)))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.make_durable(self.staged()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::Incarnation;

    const LEDGER: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };

    fn entry(entry: u64) -> Frame {
        Frame::Entry(EntryFrame {
            ledger: LEDGER,
            base: EntryId(0),
            entry: EntryId(entry),
            lac: entry.checked_sub(1).map(EntryId),
            keep_from: Address::default(),
            headers: Bytes::from_static(b"h"),
            payload: vec![Bytes::from_static(b"pay"), Bytes::from_static(b"load")],
            exempt: false,
        })
    }

    fn open() -> Frame {
        Frame::State(crate::frame::LedgerState {
            ledger: LEDGER,
            incarnation: Some(Incarnation(7)),
            base: EntryId(0),
            tail: None,
            lac: None,
            keep_from: Address::default(),
            fenced_by: None,
            certain: true,
        })
    }

    #[test]
    fn a_power_loss_keeps_what_is_durable_and_nothing_else() {
        let storage = MemoryStorage::manual();
        for frame in [open(), entry(0), entry(1)] {
            storage.stage(frame).unwrap();
        }
        storage.make_durable(Ticket(2));
        assert_eq!(storage.progress().borrow().durable, Ticket(2));
        let again = storage.restart();
        let recovered = again.recovered();
        assert_eq!(recovered.ledgers[&LEDGER].tail, Some(EntryId(0)));
        assert!(recovered.ledgers[&LEDGER].certain);
        assert_eq!(again.lock().payload(LEDGER, EntryId(0)).unwrap(), "payload");
        assert!(again.lock().headers(LEDGER, EntryId(1), 9).unwrap().is_empty());
    }

    #[test]
    fn a_hole_and_a_trimmed_entry_are_not_empty() {
        let storage = MemoryStorage::auto();
        for frame in [open(), entry(0), entry(1), entry(2)] {
            storage.stage(frame).unwrap();
        }
        storage.damage(LEDGER, EntryId(1));
        let lock = |from| storage.lock().headers(LEDGER, EntryId(from), 9);
        assert_eq!(lock(0).unwrap().len(), 1);
        assert!(matches!(lock(1), Err(ReadError::Unknown { .. })));
        let keep_from = Address::new(Epoch(1), EntryId(2));
        storage.stage(Frame::Trim { container: ContainerId(1), keep_from }).unwrap();
        assert!(matches!(lock(1), Err(ReadError::Trimmed { .. })));
        assert_eq!(lock(2).unwrap().len(), 1);
    }
}
