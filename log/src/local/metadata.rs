//! The controller's log of a node with one voter: its commands lie on the storage of this process.
//!
//! There is one replica and no quorum, so what is durable here is committed. Each mount writes a ledger of its own
//! epoch behind those of the mounts before; a command that was durable but never acknowledged is kept, as any outcome
//! of it is allowed.
//!
//! Invariants
//! 1. Indexes have no gap: neither in a ledger nor from one to the next.
//! 2. `keep_from` never exceeds the newest whole snapshot, nor the first command that is not in it.
//! 3. A command is announced only when it and everything before it is durable.
//!
//! Deliberately not here: elections and other voters; what a command means.

use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::ledger::{OpenError, ReadError, Stopped};
use crate::metadata::{METADATA_CONTAINER, MetadataLog, RecoveredCommands};
use crate::storage::{Recovered, Storage, Ticket};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::BoxFuture;
use thalweg_types::codec;
use thalweg_types::id::{Address, EntryId, Epoch, Incarnation, LedgerId};
use thalweg_types::limits::RECORD_BYTES_MAX;

/// Entries asked for at once in a recovery.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of a snapshot in one entry.
const SNAPSHOT_PART_BYTES: usize = 4 * 1024 * 1024;
/// What a header may take in memory: a command, and little around it.
const HEADER_BYTES_MAX: usize = RECORD_BYTES_MAX + 1024;

/// What an entry holds. The persisted form.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Header {
    /// One command.
    Command { index: u64, command: Vec<u8> },
    /// One of `parts` pieces of a snapshot; the bytes are the entry's payload.
    SnapshotPart { upto: u64, part: u32, parts: u32 },
}

/// The controller's log on one storage.
pub struct LocalMetadataLog {
    storage: Arc<dyn Storage>,
    ledger: LedgerId,
    state: Mutex<State>,
}

struct State {
    recovered: RecoveredCommands,
    next_index: u64,
    next_entry: EntryId,
    keep_from: Address,
    /// Where each command behind the newest snapshot is.
    places: VecDeque<(u64, Address)>,
}

impl LocalMetadataLog {
    /// Reads what the storage holds and opens a ledger of a new epoch behind it. Nothing is known to be durable in the
    /// new ledger before the first command is. An error changes nothing: the log may hold what cannot be read.
    pub async fn open(
        storage: Arc<dyn Storage>,
        incarnation: Incarnation,
    ) -> Result<Arc<Self>, OpenError> {
        let found = storage.recovered();
        check_whole(&found)?;
        let keep_from = found.keep_from.get(&METADATA_CONTAINER).copied().unwrap_or_default();
        let mut history = History { keep_from, ..History::default() };
        for state in of_metadata(&found) {
            read_ledger(storage.as_ref(), state, keep_from, &mut history).await?;
        }
        let last = of_metadata(&found).map(|state| state.ledger.epoch).max();
        let floor = found.floors.get(&METADATA_CONTAINER).copied().unwrap_or_default();
        let epoch = Epoch(last.unwrap_or_default().max(floor).max(keep_from.epoch).0 + 1);
        let ledger = LedgerId { container: METADATA_CONTAINER, epoch };
        stage_open(storage.as_ref(), ledger, incarnation, keep_from).map_err(unavailable)?;
        let state = Mutex::new(history.finish()?);
        Ok(Arc::new(Self { storage, ledger, state }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages an entry behind all earlier ones. Commands use the reserve of a full disk: the trims that relieve it are
    /// among them, and nothing overtakes within a ledger.
    fn stage(
        &self,
        state: &mut State,
        header: &Header,
        payload: Vec<Bytes>,
    ) -> Result<(Address, Ticket), Stopped> {
        let entry = state.next_entry;
        let frame = EntryFrame {
            ledger: self.ledger,
            base: EntryId(0),
            entry,
            lac: None,
            keep_from: state.keep_from,
            headers: codec::encode(header).into(),
            payload,
            exempt: true,
        };
        let ticket = self.storage.stage(Frame::Entry(frame))?;
        state.next_entry = entry.next();
        Ok((Address::new(self.ledger.epoch, entry), ticket))
    }

    async fn durable(&self, ticket: Ticket) -> Result<(), Stopped> {
        let mut progress = self.storage.progress();
        let decided =
            |now: &crate::storage::StorageProgress| now.covers(ticket) || now.stopped.is_some();
        match progress.wait_for(decided).await {
            Ok(now) if now.covers(ticket) => Ok(()),
            Ok(now) => Err(stopped(now.stopped.as_deref().unwrap_or("the storage has ended"))),
            Err(_) => Err(stopped("the storage has ended")),
        }
    }

    fn stage_command(&self, command: &[u8]) -> Result<(u64, Ticket), Stopped> {
        let mut state = self.lock();
        let index = state.next_index;
        let header = Header::Command { index, command: command.to_vec() };
        let (address, ticket) = self.stage(&mut state, &header, Vec::new())?;
        state.next_index = index + 1;
        state.places.push_back((index, address));
        Ok((index, ticket))
    }

    /// Stages all parts of a snapshot: the address of the first, the ticket of the last.
    fn stage_snapshot(&self, upto: u64, snapshot: &Bytes) -> Result<(Address, Ticket), Stopped> {
        let mut state = self.lock();
        let parts = snapshot.len().div_ceil(SNAPSHOT_PART_BYTES).max(1);
        let total = u32::try_from(parts).expect("a snapshot of 16 PiB does not fit in memory");
        let mut first = None;
        let mut last = Ticket::default();
        for part in 0..total {
            let from = part as usize * SNAPSHOT_PART_BYTES;
            let to = snapshot.len().min(from + SNAPSHOT_PART_BYTES);
            let header = Header::SnapshotPart { upto, part, parts: total };
            let staged = self.stage(&mut state, &header, vec![snapshot.slice(from..to)])?;
            first.get_or_insert(staged.0);
            last = staged.1;
        }
        Ok((first.expect("at least one part"), last))
    }

    /// Lets go of what the snapshot at `at` covers.
    fn trim(&self, upto: u64, at: Address) -> Result<(), Stopped> {
        let mut state = self.lock();
        while state.places.front().is_some_and(|(index, _)| *index <= upto) {
            state.places.pop_front();
        }
        let first = state.places.front().map_or(at, |(_, place)| at.min(*place));
        state.keep_from = state.keep_from.max(first);
        let keep_from = state.keep_from;
        self.storage.stage(Frame::Trim { container: METADATA_CONTAINER, keep_from })?;
        Ok(())
    }
}

impl MetadataLog for LocalMetadataLog {
    fn recovered(&self) -> RecoveredCommands {
        std::mem::take(&mut self.lock().recovered)
    }

    fn append(&self, command: Bytes) -> BoxFuture<'_, Result<u64, Stopped>> {
        // Staged in the caller's turn, so that the order of the calls is the order in the log.
        let staged = self.stage_command(&command);
        Box::pin(async move {
            let (index, ticket) = staged?;
            self.durable(ticket).await?;
            Ok(index)
        })
    }

    fn snapshot(&self, upto: u64, state: Bytes) -> BoxFuture<'_, Result<(), Stopped>> {
        let staged = self.stage_snapshot(upto, &state);
        Box::pin(async move {
            let (at, last) = staged?;
            self.durable(last).await?;
            self.trim(upto, at)
        })
    }
}

fn stopped(reason: &str) -> Stopped {
    Stopped { reason: reason.into() }
}

fn unavailable(stopped: Stopped) -> OpenError {
    OpenError::Unavailable { container: METADATA_CONTAINER, reason: stopped.reason }
}

fn damaged(reason: impl Into<Arc<str>>) -> OpenError {
    OpenError::Damaged { container: METADATA_CONTAINER, reason: reason.into() }
}

/// The ledgers of this log, oldest first.
fn of_metadata(found: &Recovered) -> impl Iterator<Item = &LedgerState> {
    let first = LedgerId { container: METADATA_CONTAINER, epoch: Epoch(0) };
    let last = LedgerId { container: METADATA_CONTAINER, epoch: Epoch(u64::MAX) };
    found.ledgers.range(first..=last).map(|(_, state)| state)
}

/// Refuses a storage on which some of this log may be missing: a register that is behind would hand out epochs twice.
fn check_whole(found: &Recovered) -> Result<(), OpenError> {
    let doubtful = of_metadata(found).find(|state| !state.certain);
    if !found.limbo && doubtful.is_none() {
        return Ok(());
    }
    let what = doubtful.map_or_else(
        || "the storage cannot say whether commands of the controller are missing".to_owned(),
        |state| format!("the storage cannot vouch for ledger {}", state.ledger),
    );
    Err(damaged(format!("{what} ({})", found.damages.join("; "))))
}

fn stage_open(
    storage: &dyn Storage,
    ledger: LedgerId,
    incarnation: Incarnation,
    keep_from: Address,
) -> Result<Ticket, Stopped> {
    storage.stage(Frame::State(LedgerState {
        ledger,
        incarnation: Some(incarnation),
        base: EntryId(0),
        tail: None,
        lac: None,
        keep_from,
        fenced_by: None,
        certain: true,
    }))
}

/// The log as far as it has been read.
#[derive(Default)]
struct History {
    keep_from: Address,
    snapshot: Option<(u64, Bytes)>,
    /// The snapshot that is being read, and its number of parts.
    pieces: Option<(u64, u32, u32, BytesMut)>,
    commands: BTreeMap<u64, (Bytes, Address)>,
}

impl History {
    fn take(&mut self, at: Address, header: Header, payload: Bytes) -> Result<(), OpenError> {
        match header {
            Header::Command { index, command } => {
                if let Some((last, _)) = self.commands.last_key_value()
                    && index != last + 1
                {
                    return Err(damaged(format!("entry {at} holds command {index} after {last}")));
                }
                self.commands.insert(index, (command.into(), at));
            }
            Header::SnapshotPart { upto, part: 0, parts } => {
                self.pieces = Some((upto, 1, parts, BytesMut::from(payload)));
            }
            Header::SnapshotPart { upto, part, parts } => match &mut self.pieces {
                Some((of, next, total, bytes)) if (*of, *next, *total) == (upto, part, parts) => {
                    bytes.extend_from_slice(&payload);
                    *next += 1;
                }
                // The rest of one that was trimmed away in its middle: a newer one is behind.
                _ => self.pieces = None,
            },
        }
        if let Some((upto, parts, total, _)) = &self.pieces
            && parts == total
        {
            let upto = *upto;
            let bytes = self.pieces.take().map(|(.., bytes)| bytes.freeze()).unwrap_or_default();
            self.snapshot = Some((upto, bytes));
        }
        Ok(())
    }

    /// What is left of it once the snapshot stands for the commands it covers.
    fn finish(self) -> Result<State, OpenError> {
        let covered = self.snapshot.as_ref().map_or(0, |(upto, _)| *upto);
        let behind: Vec<_> = self.commands.into_iter().filter(|(i, _)| *i > covered).collect();
        let first = behind.first().map_or(covered + 1, |(index, _)| *index);
        if first != covered + 1 {
            return Err(damaged(format!("commands {} to {} are missing", covered + 1, first - 1)));
        }
        let next_index = behind.last().map_or(covered, |(index, _)| *index) + 1;
        let places = behind.iter().map(|(index, (_, at))| (*index, *at)).collect();
        let commands = behind.into_iter().map(|(index, (bytes, _))| (index, bytes)).collect();
        let recovered = RecoveredCommands { snapshot: self.snapshot, commands };
        let (keep_from, next_entry) = (self.keep_from, EntryId(0));
        Ok(State { recovered, next_index, next_entry, keep_from, places })
    }
}

/// Reads what one mount has written, from `keep_from` on.
async fn read_ledger(
    storage: &dyn Storage,
    state: &LedgerState,
    keep_from: Address,
    history: &mut History,
) -> Result<(), OpenError> {
    let (ledger, Some(tail)) = (state.ledger, state.tail) else { return Ok(()) };
    let unreadable = |error: ReadError| damaged(error.to_string());
    let mut next = if ledger.epoch == keep_from.epoch { keep_from.entry } else { EntryId(0) };
    while next <= tail {
        let found = storage.headers(ledger, next, BATCH_ENTRIES_MAX).await.map_err(unreadable)?;
        if found.first().is_none_or(|first| first.entry != next) {
            return Err(damaged(format!("entry {next} of ledger {ledger} is missing")));
        }
        for stored in found {
            let at = Address::new(ledger.epoch, next);
            if stored.entry != next {
                return Err(damaged(format!("entry {at} is missing")));
            }
            let header = codec::decode(&stored.headers, HEADER_BYTES_MAX)
                .map_err(|error| damaged(format!("entry {at}: {error}")))?;
            let payload = match &header {
                Header::SnapshotPart { .. } => {
                    storage.payload(ledger, next).await.map_err(unreadable)?
                }
                Header::Command { .. } => Bytes::new(),
            };
            history.take(at, header, payload)?;
            next = next.next();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
