//! The committed entries of a log, headers first, from whoever has them.
//!
//! A task reads ahead of whoever takes the entries, by a few batches and no more.

use super::Parts;
use super::reader::Reader;
use crate::ledger::{ReadError, Replay, ReplayedEntry, Stopped};
use crate::message::EntryHeaders;
use crate::register::ContainerLog;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_types::id::{Address, EntryId};
use tokio::sync::mpsc;

/// Batches that may wait to be taken.
const AHEAD_MAX: usize = 2;

/// Entries of one ledger, one behind the other.
struct Batch {
    first: Address,
    entries: Vec<EntryHeaders>,
}

/// `None` stands behind the last batch: a channel that ends without it has lost its reader.
type Batches = Result<Option<Batch>, ReadError>;

pub(super) struct ReplicatedReplay {
    batches: mpsc::Receiver<Batches>,
    at: Address,
    entries: std::vec::IntoIter<EntryHeaders>,
}

impl ReplicatedReplay {
    /// Replays what `log` listed when its last ledger was opened; `None` if that ledger is no longer ours.
    pub(super) fn start(
        parts: &Arc<Parts>,
        log: Option<Arc<ContainerLog>>,
        from: Option<Address>,
    ) -> Self {
        let (sender, batches) = mpsc::channel(AHEAD_MAX);
        let task = {
            let parts = parts.clone();
            async move {
                let outcome = read(parts, log, from, &sender).await;
                // Nobody listens any more if the replay was dropped.
                let _ = sender.send(outcome.map(|()| None)).await;
            }
        };
        drop(parts.spawn.spawn("replay", Box::pin(task)));
        Self { batches, at: Address::default(), entries: Vec::new().into_iter() }
    }

    async fn advance(&mut self) -> Result<Option<ReplayedEntry>, ReadError> {
        loop {
            if let Some(EntryHeaders { headers, payload_len }) = self.entries.next() {
                let address = self.at;
                self.at.entry = address.entry.next();
                return Ok(Some(ReplayedEntry { address, headers, payload_len }));
            }
            match self.batches.recv().await {
                Some(Ok(Some(batch))) => {
                    self.at = batch.first;
                    self.entries = batch.entries.into_iter();
                }
                Some(Ok(None)) => return Ok(None),
                Some(Err(error)) => return Err(error),
                None => {
                    let reason = Arc::from("the replay's reader has ended");
                    return Err(Stopped { reason }.into());
                }
            }
        }
    }
}

/// Reads all closed ledgers from `from` on.
async fn read(
    parts: Arc<Parts>,
    log: Option<Arc<ContainerLog>>,
    from: Option<Address>,
    batches: &mpsc::Sender<Batches>,
) -> Result<(), ReadError> {
    let Some(log) = log else {
        return Err(Stopped { reason: Arc::from("a newer epoch owns the container") }.into());
    };
    let mut at = from.unwrap_or(log.keep_from);
    if at < log.keep_from {
        return Err(ReadError::Trimmed { address: at });
    }
    let reader = Reader::new(parts, &log);
    let closed = log.ledgers.iter().filter_map(|ledger| Some((ledger, ledger.end()?)));
    let oldest = at.epoch;
    for (ledger, end) in closed.filter(|(ledger, _)| ledger.epoch >= oldest) {
        let start = if at.epoch == ledger.epoch { at.entry } else { EntryId(0) };
        at = Address::new(ledger.epoch, start.max(log.keep_from_in(ledger.epoch)));
        while at.entry < end {
            // No further than the ensemble that is asked holds.
            let later = ledger.fragments.iter().map(|fragment| fragment.first);
            let fragment_end = later.filter(|first| *first > at.entry).min().unwrap_or(end);
            let entries = reader.headers(&log, at, fragment_end.min(end)).await?;
            let first = at;
            at.entry = EntryId(at.entry.0 + entries.len() as u64);
            if batches.send(Ok(Some(Batch { first, entries }))).await.is_err() {
                return Ok(()); // The replay was dropped.
            }
        }
    }
    Ok(())
}

impl Replay for ReplicatedReplay {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<ReplayedEntry>, ReadError>> {
        Box::pin(self.advance())
    }
}
