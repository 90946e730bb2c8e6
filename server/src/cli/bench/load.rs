//! The load: blocks of events through the native client, and what their acknowledgements tell.

use super::raw::{histogram, nanos};
use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use hdrhistogram::Histogram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thalweg_client::Client;
use thalweg_client::event::EVENT_HEADER_BYTES;
use thalweg_client::writer::{EventWriter, Receipt, WriteError};
use thalweg_types::hash;
use thalweg_types::name::ScopedStream;
use thalweg_wire::controller::StreamName;
use tokio::sync::mpsc;

/// What was acknowledged since the meter was last read.
pub(super) struct Count {
    pub(super) events: u64,
    pub(super) times: Histogram<u64>,
}

/// Counts acknowledgements.
#[derive(Clone)]
pub(super) struct Meter {
    count: Arc<Mutex<Count>>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { count: Arc::new(Mutex::new(Count { events: 0, times: histogram() })) }
    }

    pub(super) fn acked(&self, events: u32, took: Duration) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.events += u64::from(events);
        count.times.saturating_record_n(nanos(took), u64::from(events));
    }

    /// Reads and clears.
    pub(super) fn take(&self) -> Count {
        let fresh = Count { events: 0, times: histogram() };
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut count, fresh)
    }
}

/// Events of one size in blocks; each event begins with its number.
pub(super) struct Blocks {
    template: BytesMut,
    event_bytes: usize,
    next: u64,
}

impl Blocks {
    /// Events of `event_bytes`, at most `events_max` in a block.
    pub(super) fn new(event_bytes: usize, events_max: u32) -> Self {
        let mut template = BytesMut::new();
        for _ in 0..events_max {
            template.put_i32(0);
            template.put_i32(i32::try_from(event_bytes).expect("a bench event is small"));
            template.put_bytes(b'x', event_bytes);
        }
        Self { template, event_bytes, next: 0 }
    }

    /// The next `events` events.
    pub(super) fn next_block(&mut self, events: u32) -> Bytes {
        let event_bytes = EVENT_HEADER_BYTES + self.event_bytes;
        let bytes = event_bytes * events as usize;
        let mut block = BytesMut::from(&self.template[..bytes]);
        for event in block.chunks_exact_mut(event_bytes) {
            let content = &mut event[EVENT_HEADER_BYTES..];
            let digits = content.len().min(8);
            content[..digits].copy_from_slice(&self.next.to_be_bytes()[8 - digits..]);
            self.next += 1;
        }
        block.freeze()
    }
}

/// A routing key for each of the stream's segments.
pub(super) async fn keys(client: &Client, stream: &ScopedStream) -> anyhow::Result<Vec<String>> {
    let name = StreamName::new(stream.scope.as_ref(), stream.stream.as_ref());
    let segments = client.controller().current_segments(name).await?;
    let key = |low: f64, high: f64| {
        let fits = |key: &String| (low..high).contains(&hash::route(key));
        (0..1_000_000_u32).map(|n| n.to_string()).find(fits)
    };
    segments.iter().map(|s| key(s.low, s.high).context("no key for a segment")).collect()
}

/// A block that was written: from when its time runs, how many events, what will come back.
type Sent = (Instant, u32, Receipt);

/// Writes to one segment, and a task that waits for its acknowledgements in their order.
pub(super) struct Lane {
    key: String,
    sent: mpsc::UnboundedSender<Sent>,
    acks: tokio::task::JoinHandle<Result<(), WriteError>>,
}

impl Lane {
    pub(super) fn new(key: String, meter: Meter) -> Self {
        let (sent, mut receipts) = mpsc::unbounded_channel::<Sent>();
        let acks = tokio::spawn(async move {
            while let Some((started, events, receipt)) = receipts.recv().await {
                receipt.await?;
                meter.acked(events, started.elapsed());
            }
            Ok(())
        });
        Self { key, sent, acks }
    }

    /// Writes a block when the window has room. Its time runs from `due`, or from when there is room.
    pub(super) async fn write(
        &self,
        writer: &EventWriter,
        block: Bytes,
        events: u32,
        due: Option<Instant>,
    ) -> anyhow::Result<()> {
        let receipt = writer.write_block(&self.key, block, events).await?;
        let started = due.unwrap_or_else(Instant::now);
        if self.sent.send((started, events, receipt)).is_err() {
            bail!("a write failed");
        }
        Ok(())
    }

    /// Waits until everything is acknowledged; the first failure is told.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        drop(self.sent);
        Ok(self.acks.await??)
    }
}

/// Writes as fast as the window allows until `end`, to all lanes in turn.
pub(super) async fn full_speed(
    writer: EventWriter,
    mut blocks: Blocks,
    events: u32,
    lanes: Vec<Lane>,
    end: Instant,
) -> anyhow::Result<()> {
    let mut written = Ok(());
    'load: while Instant::now() < end {
        for lane in &lanes {
            written = lane.write(&writer, blocks.next_block(events), events, None).await;
            if written.is_err() {
                break 'load;
            }
        }
    }
    for lane in lanes {
        lane.finish().await?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_client::event::EventBuffer;

    #[test]
    fn blocks_hold_numbered_events_of_the_size() {
        let mut blocks = Blocks::new(100, 3);
        let mut buffer = EventBuffer::default();
        buffer.push(blocks.next_block(3));
        buffer.push(blocks.next_block(2));
        for number in 0..5_u64 {
            let event = buffer.next_event().unwrap().unwrap();
            assert_eq!((event.len(), &event[..8]), (100, &number.to_be_bytes()[..]));
        }
        assert!(buffer.is_empty());
    }
}
