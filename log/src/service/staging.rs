//! A replica's machine and the storage that it stages to.
//!
//! The machine counts frames in the order in which it staged them; the storage numbers the frames of all containers.
//! The tickets kept here join the two.

use crate::frame::{EntryFrame, Frame};
use crate::ledger::ReadError;
use crate::replica::{Effect, Input, Replica};
use crate::storage::{Storage, StorageProgress, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{Address, ContainerId, EntryId, LedgerId};
use thalweg_types::time::Instant;

/// See the module's header.
pub(crate) struct Staging {
    replica: Replica,
    /// Of the frames that the replica has staged and not yet heard of, with the bytes of their content.
    tickets: VecDeque<(Ticket, usize)>,
    effects: Vec<Effect>,
    /// Why the storage takes no more frames.
    failed: Option<Arc<str>>,
}

impl Staging {
    /// The replica of `container` as the storage's recovery found it. From here on nobody else stages frames of
    /// that container.
    pub(crate) fn new(container: ContainerId, storage: &dyn Storage) -> Self {
        let failed = storage.progress().borrow().stopped.clone();
        let mut replica = Replica::new(container, &storage.recovered());
        if !storage.in_limbo() {
            replica.step(Instant::default(), Input::LimboOver, &mut Vec::new());
        }
        Self { replica, tickets: VecDeque::new(), effects: Vec::new(), failed }
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Why the storage has failed, if it has.
    pub(crate) fn failed(&self) -> Option<&Arc<str>> {
        self.failed.as_ref()
    }

    /// Notes that the storage has failed; true if that was not known.
    pub(crate) fn fail(&mut self, reason: &Arc<str>) -> bool {
        let news = self.failed.is_none();
        self.failed.get_or_insert_with(|| reason.clone());
        news
    }

    /// Steps the replica and stages what it wants staged; every other effect goes to `perform`. Returns the bytes of
    /// content that were staged.
    pub(crate) fn step(
        &mut self,
        storage: &dyn Storage,
        now: Instant,
        input: Input,
        mut perform: impl FnMut(Effect),
    ) -> usize {
        let mut staged = 0;
        self.replica.step(now, input, &mut self.effects);
        if cfg!(debug_assertions) {
            self.replica.check();
        }
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Stage(frame) => {
                    let bytes = content_len(&frame);
                    match storage.stage(frame) {
                        Ok(ticket) => {
                            staged += bytes;
                            self.tickets.push_back((ticket, bytes));
                        }
                        Err(stopped) => {
                            self.failed.get_or_insert(stopped.reason);
                        }
                    }
                }
                other => perform(other),
            }
        }
        staged
    }

    /// How many more of the oldest staged frames are durable now: step [`Input::Durable`] with it. And the bytes of
    /// their content.
    pub(crate) fn durable(&mut self, progress: &StorageProgress) -> (usize, usize) {
        let (mut frames, mut bytes) = (0, 0);
        while let Some((_, len)) = self.tickets.pop_front_if(|(ticket, _)| progress.covers(*ticket))
        {
            frames += 1;
            bytes += len;
        }
        (frames, bytes)
    }
}

fn content_len(frame: &Frame) -> usize {
    match frame {
        Frame::Entry(entry) | Frame::Repair { entry, .. } => entry.content_len(),
        _ => 0,
    }
}

/// One whole entry, read back and verified.
pub(crate) async fn load(
    storage: &dyn Storage,
    ledger: LedgerId,
    entry: EntryId,
) -> Result<EntryFrame, ReadError> {
    let address = Address::new(ledger.epoch, entry);
    let missing = || ReadError::Unknown { address, reason: Arc::from("the entry is not there") };
    let found = storage.headers(ledger, entry, 1).await?;
    let stored = found.into_iter().next().ok_or_else(missing)?;
    if stored.entry != entry {
        return Err(missing());
    }
    let payload = storage.payload(ledger, entry).await?;
    Ok(EntryFrame {
        ledger,
        base: EntryId(0),
        entry,
        lac: None,
        keep_from: Address::default(),
        headers: stored.headers,
        payload: vec![payload],
        exempt: false,
    })
}
