//! The committed entries of a log, headers first.

use crate::ledger::{ReadError, Replay, ReplayedEntry, Stopped};
use crate::register::ContainerLog;
use crate::storage::{Storage, StoredEntry};
use std::collections::VecDeque;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_types::id::{Address, EntryId, Epoch, LedgerId};

/// Entries asked for at once.
const BATCH_ENTRIES_MAX: usize = 1024;

pub(super) struct LocalReplay {
    storage: Arc<dyn Storage>,
    log: Option<Arc<ContainerLog>>,
    /// Closed ledgers that are still to be read, each with its end.
    ledgers: VecDeque<(Epoch, EntryId)>,
    /// The next entry.
    at: Address,
    /// Asked for below `keep_from`.
    trimmed: bool,
    batch: VecDeque<StoredEntry>,
}

impl LocalReplay {
    /// Replays what `log` listed when its last ledger was opened; `None` if that ledger is no longer ours.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        log: Option<Arc<ContainerLog>>,
        from: Option<Address>,
    ) -> Self {
        let keep_from = log.as_ref().map_or(Address::default(), |log| log.keep_from);
        let at = from.unwrap_or(keep_from);
        let listed = log.iter().flat_map(|log| &log.ledgers);
        let closed = listed.filter_map(|ledger| Some((ledger.epoch, ledger.end()?)));
        let ledgers = closed.filter(|(epoch, _)| *epoch >= at.epoch).collect();
        let trimmed = at < keep_from;
        Self { storage, log, ledgers, at, trimmed, batch: VecDeque::new() }
    }

    async fn advance(&mut self) -> Result<Option<ReplayedEntry>, ReadError> {
        let Some(log) = &self.log else {
            return Err(Stopped { reason: Arc::from("a newer epoch owns the container") }.into());
        };
        if self.trimmed {
            return Err(ReadError::Trimmed { address: self.at });
        }
        let container = log.container;
        loop {
            let Some((epoch, end)) = self.ledgers.front().copied() else { return Ok(None) };
            if self.at.epoch < epoch {
                self.at = Address::new(epoch, EntryId(0));
            }
            if self.at.entry >= end {
                self.ledgers.pop_front();
                self.batch.clear();
                self.at = Address::new(Epoch(epoch.0 + 1), EntryId(0));
                continue;
            }
            if let Some(stored) = self.batch.pop_front() {
                let address = self.at;
                if stored.entry != address.entry {
                    return Err(missing(address, end));
                }
                self.at.entry = address.entry.next();
                let StoredEntry { headers, payload_len, .. } = stored;
                return Ok(Some(ReplayedEntry { address, headers, payload_len }));
            }
            let ledger = LedgerId { container, epoch };
            let left = usize::try_from(end.0 - self.at.entry.0).unwrap_or(usize::MAX);
            let max = left.min(BATCH_ENTRIES_MAX);
            self.batch = self.storage.headers(ledger, self.at.entry, max).await?.into();
            if self.batch.is_empty() {
                return Err(missing(self.at, end));
            }
        }
    }
}

fn missing(address: Address, end: EntryId) -> ReadError {
    let reason = format!("the log goes up to entry {end} of that ledger, but the storage lacks it");
    ReadError::Unknown { address, reason: reason.into() }
}

impl Replay for LocalReplay {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<ReplayedEntry>, ReadError>> {
        Box::pin(self.advance())
    }
}
