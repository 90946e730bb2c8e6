//! The load on one ledger: blocks of events, packed into entries as a container packs them.

use super::super::load::{Blocks, Meter};
use anyhow::bail;
use bytes::{BufMut as _, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thalweg_log::ledger::{Entry, Ledger, Progress, SnapshotPointers};
use thalweg_types::id::{Address, EntryId};
use thalweg_types::limits::ENTRY_BYTES_TARGET;
use tokio::sync::watch;

/// Entries in flight; blocks that come meanwhile share the next one.
const ENTRIES_MAX: usize = 8;
/// What a container says about one block in front of an entry, in bytes.
const OPERATION_BYTES: usize = 64;
/// So many committed bytes are kept before the ledger is trimmed: what a container keeps until it is flushed.
const KEPT_BYTES: usize = 128 * 1024 * 1024;
/// How often the open loop looks for events that are due.
const TICK: Duration = Duration::from_millis(1);
/// Events that the open loop puts into one block at most: what a client would gather.
const BLOCK_EVENTS_MAX: u32 = 100;

/// A block that waits, or is in flight: from when its time runs, and how many events.
type Sent = (Instant, u32);

/// One writer's load on a ledger.
pub(super) struct Drive {
    ledger: Arc<dyn Ledger>,
    progress: watch::Receiver<Progress>,
    meter: Meter,
    /// Blocks that are in no entry yet.
    pending: VecDeque<(bytes::Bytes, Sent)>,
    pending_events: u32,
    /// Entries in flight: number, blocks, bytes.
    flight: VecDeque<(EntryId, Vec<Sent>, usize)>,
    flight_events: u32,
    /// Committed since the last trim.
    kept_bytes: usize,
}

impl Drive {
    pub(super) fn new(ledger: Arc<dyn Ledger>, meter: Meter) -> Self {
        let progress = ledger.progress();
        Self {
            ledger,
            progress,
            meter,
            pending: VecDeque::new(),
            pending_events: 0,
            flight: VecDeque::new(),
            flight_events: 0,
            kept_bytes: 0,
        }
    }

    /// Keeps `window` events under way, in blocks of `block`, until `end`; then waits for the rest.
    pub(super) async fn full_speed(
        &mut self,
        blocks: &mut Blocks,
        (block, window): (u32, u32),
        end: Instant,
    ) -> anyhow::Result<()> {
        while Instant::now() < end {
            while self.pending_events + self.flight_events + block <= window {
                self.write(blocks, block, Instant::now());
                self.pack()?;
            }
            self.wait().await?;
            self.pack()?;
        }
        self.drain().await
    }

    /// Writes `rate` events a second for `length`, each stamped with the time when it is due.
    pub(super) async fn open_loop(
        &mut self,
        blocks: &mut Blocks,
        rate: f64,
        length: Duration,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sent = 0_u64;
        while started.elapsed() < length {
            tokio::select! {
                biased;
                waited = self.wait(), if !self.flight.is_empty() => waited?,
                _ = tick.tick() => {}
            }
            let due = (started.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                let events = (due - sent).min(u64::from(BLOCK_EVENTS_MAX)) as u32;
                let first = started + Duration::from_secs_f64((sent + 1) as f64 / rate);
                self.write(blocks, events, first);
                sent += u64::from(events);
            }
            self.pack()?;
        }
        self.drain().await
    }

    /// One block at a time, for `length`.
    pub(super) async fn one_in_flight(
        &mut self,
        blocks: &mut Blocks,
        length: Duration,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < length {
            self.write(blocks, 1, Instant::now());
            self.drain().await?;
        }
        Ok(())
    }

    fn write(&mut self, blocks: &mut Blocks, events: u32, due: Instant) {
        self.pending.push_back((blocks.next_block(events), (due, events)));
        self.pending_events += events;
    }

    /// Puts what waits into entries, as far as they may be in flight.
    fn pack(&mut self) -> anyhow::Result<()> {
        while self.flight.len() < ENTRIES_MAX && !self.pending.is_empty() {
            let (mut payload, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((block, stamp)) = self
                .pending
                .pop_front_if(|(block, _)| bytes == 0 || bytes + block.len() <= ENTRY_BYTES_TARGET)
            {
                bytes += block.len();
                payload.push(block);
                sent.push(stamp);
                self.pending_events -= stamp.1;
                self.flight_events += stamp.1;
            }
            let mut headers = BytesMut::with_capacity(sent.len() * OPERATION_BYTES);
            headers.put_bytes(b'o', sent.len() * OPERATION_BYTES);
            let entry = Entry { headers: headers.freeze(), payload, exempt: false };
            let number = self.ledger.append(entry)?;
            self.flight.push_back((number, sent, bytes));
        }
        Ok(())
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        loop {
            self.pack()?;
            if self.flight.is_empty() {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Waits until more is committed, and counts it. Dropping the future loses nothing.
    async fn wait(&mut self) -> anyhow::Result<()> {
        self.progress.changed().await?;
        let (committed, stopped) = {
            let now = self.progress.borrow_and_update();
            (now.committed, now.stopped.clone())
        };
        if let Some(reason) = stopped {
            bail!("the ledger has stopped: {reason}");
        }
        let Some(committed) = committed else { return Ok(()) };
        while let Some((_, sent, bytes)) = self.flight.pop_front_if(|f| f.0 <= committed) {
            let now = Instant::now();
            for (started, events) in sent {
                self.meter.acked(events, now.saturating_duration_since(started));
                self.flight_events -= events;
            }
            self.kept_bytes += bytes;
        }
        if self.kept_bytes >= KEPT_BYTES {
            self.kept_bytes = 0;
            let keep_from = Address::new(self.ledger.id().epoch, committed);
            self.ledger.set_keep_from(keep_from, SnapshotPointers::default()).await?;
        }
        Ok(())
    }
}
